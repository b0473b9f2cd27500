"""Whether the probabilities of the tuned probe can be believed, on each side: calibration error, log loss, risk over coverage.

An accuracy does not tell whether a threshold on the confidence still works once the encoder is swapped; these do.
"""

from __future__ import annotations

import numpy as np

from distillscope.measure.accuracy import attach, made
from distillscope.measure.labelled import LabelledPair
from distillscope.measure.probe import FOLDS
from distillscope.measure.results import NotMeasured
from distillscope.registry import measures

BINS = 15
BLOCK = 2**21  # probabilities at a time


def certainty(pool: LabelledPair, side: str) -> np.ndarray:
    """For each item that the side's tuned probes classify (n, 3): the largest probability, whether it is right, the log loss.

    The log loss of an item whose class no probe was fitted to is infinite. With a group left out the probes stay.
    """
    whole = pool._whole
    if isinstance(whole, LabelledPair) and whole is not pool:
        kept = np.isin(whole.teacher.group_of[whole.probe_index], pool.kept)
        found: np.ndarray = getattr(whole, f"{side}_certainty")[kept]
        return found
    probes, index, rows = getattr(pool, f"{side}_probes"), pool.probe_index, getattr(pool, side).rows
    fold_of = np.arange(len(index)) % FOLDS if pool.train is None else np.zeros(len(index), np.intp)
    found = np.empty((len(index), 3))
    for fold, probe in enumerate(probes):
        inside, size = np.flatnonzero(fold_of == fold), max(1, BLOCK // len(probe.classes))
        for part in (inside[i : i + size] for i in range(0, len(inside), size)):
            found[part] = probe.certainty(rows.take(index[part]), pool.labels[index[part]])
    return found


def confidence(pool: LabelledPair, side: str) -> np.ndarray:
    """The same, whose jackknife there is on a training set alone.

    Cross-validated probes of other items would be others, of another C even, and that moves calibration more than the items do:
    an interval that left it out covered 70 % (n 400, d 16).
    """
    whole = pool._whole
    if whole is not pool and isinstance(whole, LabelledPair) and whole.train is None:
        raise NotMeasured("probes of other items would be others")
    found: np.ndarray = getattr(pool, f"{side}_certainty")
    return found


def calibration_error(certainty: np.ndarray) -> float:
    """Mean distance of confidence and accuracy over 15 bins of the confidence of even width (Guo et al. 2017).

    ``certainty`` (n, 3) as above. Each bin weighs as its items do.

    >>> calibration_error(np.array([[0.9, 1, 0], [0.9, 0, 0]]))
    0.4
    """
    number = np.minimum((certainty[:, 0] * BINS).astype(int), BINS - 1)
    return float(np.abs(np.bincount(number, certainty[:, 0] - certainty[:, 1])).sum() / len(certainty))


def log_loss(certainty: np.ndarray) -> float:
    """Mean of minus the log of the probability of the true class.

    >>> round(log_loss(np.array([[0.5, 1, np.log(2)]])), 3)
    0.693
    """
    if not np.isfinite(certainty[:, 2]).all():
        raise NotMeasured("an item is of a class that no probe was fitted to, which has no probability")
    return float(np.mean(certainty[:, 2]))


def risk_over_coverage(certainty: np.ndarray) -> float:
    """Share of wrong ones among the most confident k items, mean over k from 1 to n (Geifman & El-Yaniv 2017).

    Items of one confidence are in random order: the mean over their orders.

    >>> risk_over_coverage(np.array([[0.9, 1, 0], [0.8, 0, 0]])), risk_over_coverage(np.array([[0.9, 1, 0], [0.9, 0, 0]]))
    (0.25, 0.5)
    """
    number, sizes = np.unique(-certainty[:, 0], return_inverse=True, return_counts=True)[1:]
    wrong = np.repeat(np.bincount(number, 1 - certainty[:, 1]) / sizes, sizes)
    return float(np.mean(np.cumsum(wrong) / np.arange(1, len(wrong) + 1)))


WHAT = (("ece", calibration_error, "share", "calibration error",
         "Expected calibration error of the {}'s tuned probe: distance of confidence from accuracy, mean over 15 bins."),
        ("log_loss", log_loss, "nats", "log loss",
         "Mean of minus the log of the probability that the {}'s tuned probe gives the item's class."),
        ("aurc", risk_over_coverage, "share", "risk over coverage",
         "Share of wrong among the items that the {}'s tuned probe is most confident of, mean over how many these are."))
for _side in ("teacher", "student"):
    attach(LabelledPair, f"{_side}_certainty", lambda pool, side=_side: certainty(pool, side))
    attach(LabelledPair, f"{_side}_confidence", lambda pool, side=_side: confidence(pool, side))
    for _what, _function, _unit, _title, _says in WHAT:
        _needs = f"{_side}_certainty" if _what == "aurc" else f"{_side}_confidence"
        _key = f"probe.{_side}.{_what}"
        measures.register(_key, unit=_unit, group="probe", interval="jackknife", n="probe_count", title=_title, better="lower",
                          percent=_unit == "share")(made(_key, _function, [_needs], _says.format(_side)))
