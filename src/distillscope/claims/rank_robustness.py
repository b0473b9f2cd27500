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
KEPT = "kept_accuracy"


@claims.register("rank-robustness", sentence="The teacher is robust because of its many dimensions.", seeds=10)
def rank_robustness(results: Results) -> Finding:
    """The teacher is robust because of its many dimensions.

    An intervention: the teacher's embeddings are projected on their top k principal components and the noise probe is repeated
    (stress top_k with `own_train`). The teacher has no seeds: the replicates are ten disjoint stratified tenths of the test
    images, each with noise, components and a probe of its own, these fitted to a tenth of train. Kept is the share of images
    that stay right under noise at the deciding sigma (`noise.decides`; else 0.1, or the middle one measured), of those that
    every k and the whole teacher classify rightly without noise, so that all are asked about the same images.

    Through what is kept a straight line is fitted over log k in each tenth, from the smallest k to the largest; 0.9 of its
    value at the largest less its value at the rank of the smallest plain student (16 where there is none) is tested against 0
    (paired t over the tenths). Supported where cutting the dimensions is shown to cost more than a tenth of what is kept;
    refuted where it is shown to cost less. Undecided where that rank lies outside the k: nothing was measured beyond them, and
    at the largest nothing is cut. Other sigmas, the slope, what is kept at each k, whitened directions and the students' own
    retention are secondary.
    """
    head, ks, sigmas = controls(results)
    sigma = results.deciding_sigma()
    level = next((s for s in sigmas if float(s) == sigma), sigmas[(len(sigmas) - 1) // 2])
    wanted, whose = own_rank(results)
    if not ks[0] <= wanted < ks[-1]:
        raise Undecided(f"the teacher was cut to {ks[0]} to {ks[-1]} directions, and {whose} is {wanted:.1f}")
    before, after = (results.teacher_values(f"{head}.accuracy", Condition.top_k(WHOLE, at)) for at in (None, level))
    results.harmed(f"sigma {level}", (before, after))
    kept = table(results, head, ks, level)
    if len(kept) < results.needed:
        raise Undecided(f"what is kept at sigma {level}: {len(kept)} tenths, and this claim needs {results.needed}")
    full, cut = line(kept, max(ks)), line(kept, wanted)
    words = (f"at sigma {level} the teacher's top {max(ks)} components keep {full.mean():.3f} of what every cut gets right "
             f"without noise, its top {wanted:.0f} keep {cut.mean():.3f}")
    statement = above(f"cutting the dimensions costs more than a tenth of what is kept: {words}",
                      f"cutting the dimensions costs less than a tenth of what is kept: {words}",
                      Endpoint(f"0.9 x kept with {max(ks)} components - with {wanted:.0f}, on a line over log k, sigma {level}",
                               "share"), paired((1 - SHARE) * full - cut))
    return Finding(statement, ("figure top_k", f"{head}.{KEPT}, top_k=K/{level}, teacher",),
                   {"students": None, "noise": results.noise_text("top_k"), "k": f"{wanted:.1f} ({whose})"},
                   "tenths of the test images", tuple(beside(results, head, ks, sigmas, level, wanted)),
                   ("The replicates are images, noise and fits, not training runs: there is one teacher.",))


def controls(results: Results) -> tuple[str, list[int], list[str]]:
    """Of the projection control: how its rows begin, its k and its sigmas as written."""
    f = results.frame
    cut = (f["student"] == TEACHER) & f["measure"].str.fullmatch(r"top_k\..*teacher\.accuracy")
    if not cut.any():
        raise Undecided("the teacher was not projected on its top components (stresses: [top_k])")
    rows = f[(f["student"] == TEACHER) & f["measure"].str.fullmatch(rf"top_k\..*teacher\.{KEPT}")]
    own = any(s.name == "top_k" and s.settings.get("own_train") for s in results.study.stresses)
    if rows.empty or not own:
        raise Undecided("directions and probes were fitted to one train set for all tenths, whose own spread is then unknown "
                        "(stresses: [{name: top_k, own_train: true}])")
    known = [Condition.parse(c) for c in rows["condition"].unique()]
    ks = sorted({int(c.what) for c in known if c.what.isdecimal()})
    sigmas = sorted({str(c.level) for c in known if c.strength is not None}, key=float)
    if len(ks) < 2 or not sigmas:
        raise Undecided("the projection control holds fewer than two k, or no noise")
    return min(rows["measure"]).removesuffix(f".{KEPT}"), ks, sigmas  # top_k.paper before top_k.tuned


def table(results: Results, head: str, ks: list[int], sigma: str) -> pd.DataFrame:
    """What is kept, by tenth (rows) and k (columns), of the tenths that have all."""
    return pd.concat({k: results.teacher_values(f"{head}.{KEPT}", Condition.top_k(k, sigma)) for k in ks}, axis=1).dropna()


def line(kept: pd.DataFrame, k: float) -> np.ndarray:
    """Per tenth, the least-squares line over log k at one k.

    >>> line(pd.DataFrame([[0.5, 0.6, 0.7], [0.5, 0.5, 0.5]], columns=[4, 16, 64]), 8).round(2).tolist()
    [0.55, 0.5]
    """
    x = np.log(np.asarray(kept.columns, float))
    slope = (kept.to_numpy(float) @ (x - x.mean())) / np.square(x - x.mean()).sum()
    return kept.to_numpy(float).mean(axis=1) + slope * (np.log(k) - x.mean())


def own_rank(results: Results) -> tuple[float, str]:
    """The rank of the smallest plain student, to which the teacher is cut; 16, the paper's, where no student was run."""
    try:
        arm = results.baseline()
        student = results.smallest(arm)
        ranks = results.values(arm, student, RANK)
        return float(ranks.mean()), f"the rank of {student}"
    except Undecided:
        return 16.0, "the paper's rank"


def beside(results: Results, head: str, ks: list[int], sigmas: list[str], level: str, wanted: float) -> list[Secondary]:
    """The endpoint at the other sigmas, the slope, what is kept at every k; the students' own against the teacher's."""
    found = []
    for sigma in sorted(sigmas, key=lambda s: (s != level, float(s))):
        kept = table(results, head, ks, sigma)
        if len(kept) > 1:
            full, cut = line(kept, max(ks)), line(kept, wanted)
            if sigma != level:
                name = f"{1 - SHARE:g} x kept with {max(ks)} components - with {wanted:.0f}, sigma {sigma}"
                found.append(secondary(name, paired((1 - SHARE) * full - cut), "share"))
            each = (full - cut) / np.log2(max(ks) / wanted)
            found.append(secondary(f"kept per doubling of k, sigma {sigma}", paired(each), "share"))
    for name in (*map(str, ks), WHOLE, WHITE):
        kept_here = results.teacher_values(f"{head}.{KEPT}", Condition.top_k(name, level))
        which = {WHOLE: "all components", WHITE: "all components, whitened"}.get(name, f"the top {name} components")
        if len(kept_here) > 1:
            found.append(secondary(f"kept with {which}, sigma {level}", paired(kept_here), "share", tested=False))
    try:
        arm, condition = results.baseline(), Condition.of("noise", level=level)
        for label in results.sizes(arm, least=1):
            kept_by = (results.accuracy(arm, label, condition) / results.accuracy(arm, label)).dropna()
            teacher = results.teacher_accuracy(condition).mean() / results.teacher_accuracy().mean()
            if len(kept_by) > 1 and np.isfinite(teacher):
                against = paired(kept_by - float(teacher))
                found.append(secondary(f"share of clean accuracy kept at {condition}, {label} - teacher", against, "share"))
    except Undecided:
        pass
    return found
