"""truncated-pca: is the student a truncated PCA of its teacher, or does any regression look like that?"""

from __future__ import annotations

import numpy as np

from distillscope.claims.results import Results, Undecided
from distillscope.claims.statements import Endpoint, Statement, above, all_of
from distillscope.claims.verdict import Finding, secondary
from distillscope.registry import claims
from distillscope.results.statistics import paired

TOP, SHARE, MARGIN = 20, 0.9, 0.05
KEY = "alignment.student_variance_top20"


@claims.register("truncated-pca", seeds=5,
                 sentence="Students are an implicit truncated PCA: over 90 % of their variance lies in the teacher's top 20 "
                          "components.")
def truncated_pca(results: Results) -> Finding:
    """Students are an implicit truncated PCA: over 90 % of their variance lies in the teacher's top 20 components.

    For every size under the plain arm, two parts (t over seeds):

    1. the share of the student's variance on the teacher's first 20 components is above 0.9;
    2. it is more than 0.05 above that of a ridge regression with the same R^2 (`ridge_null`), which no one would call a
       truncated PCA: what it shares with any regression says nothing of students.

    Supported where all are shown; refuted where one is shown to be false (Bonferroni over parts and sizes). The share that
    the teacher's own variance has there, and R^2, are secondary.
    """
    arm = results.baseline()
    title = results.target_title(arm)
    spectrum = results.reference_curve(title, "teacher.spectrum")
    if spectrum is None:
        raise Undecided(f"the spectrum of the target {title} was not measured")
    if len(spectrum) <= TOP:
        raise Undecided(f"the target has {len(spectrum)} dimensions, and the claim is about its first {TOP}")
    sizes, parts, beside = results.sizes(arm, least=1), [], []
    if all(results.values(arm, s, KEY).empty for s in sizes):
        raise Undecided("student and target have different dimensions, so the student has no place on its components")
    for label in sizes:
        share, r2 = results.together(f"variance of {label} on the teacher's components", results.values(arm, label, KEY),
                                     results.values(arm, label, "alignment.teacher_r2"))
        null = np.array([ridge_null(np.square(spectrum), x) for x in r2])
        parts += [more_than(label, share), beyond_ridge(label, share, null)]
        own = (np.square(spectrum)[:TOP] / np.square(spectrum).sum()).sum()
        beside += [secondary(f"variance of {label} on the top {TOP} - the teacher's own", paired(share - own), "share"),
                   secondary(f"R^2 of the teacher by {label}", paired(r2), "share", tested=False)]
    text = (f"over 90 % of the variance of {', '.join(sizes)} lies in the teacher's top {TOP} components, more than a ridge "
            "regression of equal R^2 puts there")
    return Finding(all_of(parts, text=text), ("figure alignment", f"{KEY} and alignment.teacher_r2, clean, arm {arm.name}"),
                   {"students": ", ".join(sizes), "objective": arm.objective}, secondary=tuple(beside))


def more_than(label: str, share: np.ndarray) -> Statement:
    """The share is above nine tenths."""
    words = f"{100 * share.mean():.1f} % of the variance of {label} lies in the teacher's top {TOP} components"
    return above(words, f"{words}, not 90 %", Endpoint(f"variance of {label} on the teacher's top {TOP}", "share"),
                 paired(share, "t"), SHARE)


def beyond_ridge(label: str, share: np.ndarray, null: np.ndarray) -> Statement:
    """The share is above that of a ridge regression of equal R^2."""
    words = (f"{label} puts {100 * share.mean():.1f} % of its variance on the top {TOP}, a ridge regression with the same R^2 "
             f"{100 * null.mean():.1f} %")
    return above(words, f"a ridge regression does as much, within {100 * MARGIN:g} points, or more: {words}",
                 Endpoint(f"variance of {label} on the top {TOP} - ridge null", "share"), paired(share - null), MARGIN)


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
