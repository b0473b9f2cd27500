"""rank-robustness: is the teacher robust because of its many dimensions?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from distillscope.claims.results import RANK, Results, Undecided
from distillscope.claims.statements import Endpoint, above
from distillscope.claims.verdict import Finding, Secondary, secondary
from distillscope.registry import claims
from distillscope.results.rows import TEACHER, WHITE, WHOLE, Condition
from distillscope.results.statistics import paired

SHARE = 0.1


@claims.register("rank-robustness", sentence="The teacher is robust because of its many dimensions.", seeds=10)
def rank_robustness(results: Results) -> Finding:
    """The teacher is robust because of its many dimensions.

    An intervention: the teacher's embeddings are projected on their top k principal components and the noise probe is
    repeated (stress top_k). Retention is (noisy - chance) / (clean - chance) accuracy with a probe fitted to the projected
    clean train embeddings, at sigma 0.1 (the middle one measured where there is no 0.1). Compared are the whole teacher and
    the k nearest, as a ratio, to the rank of the smallest plain student (16 where there is none). The teacher has no seeds: the
    replicates are ten disjoint stratified tenths of the test images, each with noise of its own.

    0.9 retention(whole) - retention(k) is tested against 0 (paired t over the tenths). Supported where cutting the
    dimensions is shown to cost more than a tenth of the retention; refuted where it is shown to cost less. The same for
    the other k and sigmas, and the retention of the students, are secondary.
    """
    conditions, head = controls(results)
    sigma = conditions["sigma"]
    wanted, whose = own_rank(results)
    k = min(conditions["ks"], key=lambda k: (abs(np.log(k / wanted)), k))
    before, after = (results.teacher_values(head, Condition.top_k(WHOLE, level)) for level in (None, sigma))
    results.harmed(f"sigma {sigma}", (before, after))
    whole, cut = (retention(results, head, name, sigma) for name in (WHOLE, str(k)))
    full, less = results.together(f"tenths of the test images under top_k={k}", whole, cut)
    words = (f"at sigma {sigma} the whole teacher keeps {full.mean():.3f} of its accuracy above chance, its top {k} "
             f"components keep {less.mean():.3f}")
    statement = above(f"cutting the dimensions costs more than a tenth of the retention: {words}",
                      f"cutting the dimensions to {k} costs less than a tenth of the retention: {words}",
                      Endpoint(f"0.9 x retention of the whole teacher - retention of its top {k}, sigma {sigma}", "share"),
                      paired((1 - SHARE) * full - less))
    return Finding(statement, ("figure top_k", f"{head}, top_k=K and top_k=K/{sigma}, teacher",),
                   {"students": None, "noise": results.noise_text("top_k"),
                    "k": f"{k} (nearest in ratio to {whose}, {wanted:.1f})"}, "tenths of the test images",
                   tuple(beside(results, head, conditions, k)),
                   ("The replicates are images and noise, not training runs: there is one teacher.",))


def controls(results: Results) -> tuple[dict, str]:
    """The k and the sigma of the projection control, and the accuracy it was measured with."""
    f = results.frame
    rows = f[(f["student"] == TEACHER) & f["measure"].str.fullmatch(r"top_k\..*teacher\.accuracy")]
    if rows.empty:
        raise Undecided("the teacher was not projected on its top components (stresses: [top_k])")
    heads = sorted(rows["measure"].unique())  # top_k.paper... before top_k.tuned...
    known = [Condition.parse(c) for c in rows["condition"].unique()]
    ks = sorted({int(c.what) for c in known if c.what.isdecimal()})
    sigmas = sorted({c.level for c in known if c.strength is not None}, key=float)
    if not ks or not sigmas:
        raise Undecided("the projection control holds no k or no noise")
    return {"ks": ks, "sigmas": sigmas, "sigma": "0.1" if "0.1" in sigmas else sigmas[(len(sigmas) - 1) // 2]}, heads[0]


def retention(results: Results, head: str, name: str, sigma: str) -> pd.Series:
    """By tenth, the share of the accuracy above chance that the projected teacher keeps under noise."""
    chance = results.teacher_values("top_k.chance", Condition.top_k(WHOLE))
    clean, noisy = (results.teacher_values(head, Condition.top_k(name, level)) for level in (None, sigma))
    level = float(chance.iloc[0]) if len(chance) else 0.0
    return ((noisy - level) / (clean - level)).replace([np.inf, -np.inf], np.nan).dropna()


def own_rank(results: Results) -> tuple[float, str]:
    """The rank of the smallest plain student, to which the teacher is cut; 16, the paper's, where no student was run."""
    try:
        arm = results.baseline()
        student = results.smallest(arm)
        ranks = results.values(arm, student, RANK)
        return float(ranks.mean()), f"the rank of {student}"
    except Undecided:
        return 16.0, "the paper's rank"


def beside(results: Results, head: str, conditions: dict, chosen: int) -> list[Secondary]:
    """The endpoint at the other k and sigmas, retention at every k; the students' own against the teacher's."""
    found = []
    for sigma in sorted(conditions["sigmas"], key=lambda s: (s != conditions["sigma"], float(s))):
        whole = retention(results, head, WHOLE, sigma)
        for k in (k for k in conditions["ks"] if (k, sigma) != (chosen, conditions["sigma"])):
            difference = ((1 - SHARE) * whole - retention(results, head, str(k), sigma)).dropna()
            if len(difference) > 1:
                name = f"{1 - SHARE:g} x retention of the whole teacher - of its top {k}, sigma {sigma}"
                found.append(secondary(name, paired(difference), "share"))
    for name in (*map(str, conditions["ks"]), WHOLE, WHITE):
        kept = retention(results, head, name, conditions["sigma"])
        which = {WHOLE: "all components", WHITE: "all components, whitened"}.get(name, f"the top {name} components")
        if len(kept) > 1:
            name = f"retention of {which} at sigma {conditions['sigma']}"
            found.append(secondary(name, paired(kept), "share", tested=False))
    try:
        arm, condition = results.baseline(), Condition.of("noise", level=conditions["sigma"])
        for label in results.sizes(arm, least=1):
            kept = (results.accuracy(arm, label, condition) / results.accuracy(arm, label)).dropna()
            teacher = results.teacher_accuracy(condition).mean() / results.teacher_accuracy().mean()
            if len(kept) > 1 and np.isfinite(teacher):
                against = paired(kept - float(teacher))
                found.append(secondary(f"share of clean accuracy kept at {condition}, {label} - teacher", against, "share"))
    except Undecided:
        pass
    return found
