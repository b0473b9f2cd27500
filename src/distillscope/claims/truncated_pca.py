"""truncated-pca: is the student a truncated PCA of its teacher, or does any regression look like that?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from distillscope.claims.results import Results, Undecided
from distillscope.claims.statements import Endpoint, Statement, above, all_of
from distillscope.claims.verdict import Finding, secondary
from distillscope.registry import claims
from distillscope.results.statistics import ALPHA, paired

TOP, MARGIN, NULL = 20, 0.05, 0.02
PAPERS = 0.9
"""Read off the spectrum of the papers' teacher: another teacher's own variance lies elsewhere."""
KEY = "alignment.student_variance_top20"


@claims.register("truncated-pca", seeds=5,
                 sentence="Students are an implicit truncated PCA: over 90 % of their variance lies in the teacher's top 20 "
                          "components.")
def truncated_pca(results: Results) -> Finding:
    """Students are an implicit truncated PCA: over 90 % of their variance lies in the teacher's top 20 components.

    For every size under the plain arm, two parts (t over seeds), since a share depends on the teacher's own spectrum:

    1. the share of the student's variance on the teacher's first 20 components is more than 0.05 above the share that the
       teacher's own variance has there;
    2. it is more than 0.05 above that of a ridge regression with the same R^2 (`ridge_null`), which no one would call a
       truncated PCA: what it shares with any regression says nothing about students.

    Supported where all are shown; refuted where for one size the first is shown to be false, or the excess over the ridge null
    to be below 0.02 (Bonferroni over parts and sizes). An excess between 0.02 and 0.05 decides nothing: more than a
    regression, by little. The share itself against the papers' 0.9, and R^2, are secondary.
    """
    arm = results.baseline()
    title = results.target_title(arm)
    spectrum = results.reference_curve(title, "teacher.spectrum")
    if spectrum is None:
        raise Undecided(f"the spectrum of the target {title} was not measured")
    if len(spectrum) <= TOP:
        raise Undecided(f"the target has {len(spectrum)} dimensions, and the claim is about its first {TOP}")
    sizes, parts, beside = results.sizes(arm, least=1), [], []
    beyond: list[tuple[str, np.ndarray]] = []
    if all(results.values(arm, s, KEY).empty for s in sizes):
        raise Undecided("student and target have different dimensions, so the student has no place on its components")
    own = float(np.square(spectrum)[:TOP].sum() / np.square(spectrum).sum())
    for label in sizes:
        share, r2 = results.together(f"variance of {label} on the teacher's components", results.values(arm, label, KEY),
                                     results.values(arm, label, "alignment.teacher_r2"))
        null = np.array([ridge_null(np.square(spectrum), x) for x in r2])
        parts += [more_than_teacher(label, share, own), beyond_ridge(label, share, null)]
        beyond.append((f"{label} by {100 * (share - null).mean():.1f}", share - null))
        beside += [secondary(f"variance of {label} on the top {TOP} - {PAPERS}, the papers' bound", paired(share - PAPERS),
                             "share"),
                   secondary(f"R^2 of the teacher by {label}", paired(r2), "share", tested=False)]
    text = (f"more of the variance of {', '.join(sizes)} lies in the teacher's top {TOP} components than of the teacher's own, "
            "and more than a ridge regression of equal R^2 puts there")
    statement = all_of(parts, text=text)
    small = [words for words, excess in beyond
             if paired(excess).p_above(NULL) < ALPHA and paired(excess).p_below(MARGIN) < ALPHA]
    if small and statement.no >= ALPHA:
        raise Undecided(f"it is more than a regression, by less than {100 * MARGIN:g} points: {', '.join(small)}")
    return Finding(statement, ("figure alignment", f"{KEY} and alignment.teacher_r2, clean, arm {arm.name}"),
                   {"students": ", ".join(sizes), "objective": arm.objective}, secondary=tuple(beside))


def more_than_teacher(label: str, share: np.ndarray, own: float) -> Statement:
    """The share is above the teacher's own."""
    words = (f"{label} has {100 * share.mean():.1f} % of its variance in the teacher's top {TOP} components, the teacher "
             f"itself {100 * own:.1f} %")
    return above(words, f"no more than the teacher, within {100 * MARGIN:g} points: {words}",
                 Endpoint(f"variance of {label} on the teacher's top {TOP} - the teacher's own", "share"),
                 paired(share - own, "t"), MARGIN)


def beyond_ridge(label: str, share: np.ndarray, null: np.ndarray) -> Statement:
    """The share is above that of a ridge regression of equal R^2 by more than 0.05; false only where by less than 0.02."""
    words = (f"{label} puts {100 * share.mean():.1f} % of its variance on the top {TOP}, a ridge regression with the same R^2 "
             f"{100 * null.mean():.1f} %")
    ends = Endpoint(f"variance of {label} on the top {TOP} - ridge null", "share"), paired(share - null)
    shown = above(words, f"a ridge regression does as much, within {100 * NULL:g} points, or more: {words}", *ends, MARGIN)
    return replace(shown, no=above("", "", *ends, NULL).no)


def ridge_null(energy: np.ndarray, r2: float, top: int = TOP) -> float:
    """Share of the variance of a ridge prediction on its target's first ``top`` components, at a given total R^2.

    The regression sees the target through isotropic noise. With target variances ``energy`` (d,), descending, ridge then
    predicts component i with R^2 of energy_i / (energy_i + a), and the prediction's variance there is energy_i times that;
    ``a`` is the one noise for which the total R^2 is ``r2`` (0 < r2 < 1). At r2 near 1 the share is the target's own; near
    0 it is that of energy squared. Calibrated: noise left in a prediction would lower the share.

    >>> energy = 1 / np.arange(1, 101)
    >>> round(ridge_null(energy, 0.999), 2), round(float(energy[:20].sum() / energy.sum()), 2)
    (0.69, 0.69)
    >>> round(ridge_null(energy, 0.3), 2)
    0.95
    """
    from scipy.optimize import brentq

    energy = np.sort(np.asarray(energy, np.float64).clip(min=0))[::-1]
    total = energy.sum()
    if not 0 < r2 < 1 or not total > 0:
        raise Undecided(f"R^2 is {r2:.3g}, and a ridge regression has one between 0 and 1")

    def kept(log_noise: float) -> np.ndarray:
        return energy**2 / (energy + np.exp(log_noise))

    low, high = np.log(energy[energy > 0].min()) - 40, np.log(energy[0]) + 40
    noise = brentq(lambda x: kept(x).sum() / total - r2, low, high, xtol=1e-12)
    return float(kept(noise)[:top].sum() / kept(noise).sum())
