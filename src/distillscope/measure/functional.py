"""Single measures of plain arrays, computed by the code that audits run, to the same digits.

Arrays hold one embedding per row, in one order on both sides: floats of any precision, in memory or memory-mapped, or tensors.
At least 10 rows and 2 dimensions; NaN, infinity and all-zero rows are a `UserError` (a ValueError), and so is a measure that
does not apply. ``normalize="l2"`` scales rows to unit norm first. Functions of two sides do not care which is the teacher
unless their arguments are named so. `distillscope.audit` gives all of them at once, with intervals.

>>> from distillscope.measure import functional
>>> z = np.random.default_rng(0).normal(size=(500, 4))
>>> round(functional.effective_rank(z), 1), round(functional.linear_cka(z, 2 * z), 6)
(4.0, 1.0)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distillscope.errors import UserError
from distillscope.measure.accuracy import share_right
from distillscope.measure.given import (
    checked_labels,
    checked_text,
    expect_shared_classes,
    prepared_side,
    training_pair,
    two_sides,
)
from distillscope.measure.labelled import LabelledPair
from distillscope.measure.pair import resolve, resolve_name
from distillscope.measure.pool import Settings, Side
from distillscope.measure.results import NotMeasured
from distillscope.registry import measures


def effective_rank(z: Any, *, normalize: str | None = None) -> float:
    """How many directions ``z`` (n, d) uses: exp(-sum p ln p), p = s^2 / sum s^2 of the centred singular values s.

    Between 1 and min(n - 1, d); biased low where n is not much larger than d (`effective_rank_corrected`). Entropy after
    Roy & Vetterli (2007), with p of s^2 as arXiv:2603.06698 has it. Equal rows are a UserError.

    >>> round(effective_rank(np.random.default_rng(0).normal(size=(2000, 3)) * [1, 1, 0]), 2)
    2.0
    """
    return _of_side("effective_rank", z, normalize)


def effective_rank_corrected(z: Any, *, normalize: str | None = None) -> float:
    """`effective_rank` of ``z`` (n, d) with its small-sample bias removed, by comparison with two halves of the rows.

    >>> z = np.random.default_rng(0).normal(size=(100, 20))
    >>> effective_rank(z) < effective_rank_corrected(z)
    True
    """
    return _of_side("effective_rank_corrected", z, normalize)


def participation_ratio(z: Any, *, normalize: str | None = None) -> float:
    """(sum s^2)^2 / sum s^4 of the centred ``z`` (n, d): between 1 and d, never above the effective rank.

    >>> round(participation_ratio(np.random.default_rng(0).normal(size=(2000, 3)) * [1, 1, 0]), 2)
    2.0
    """
    return _of_side("participation_ratio", z, normalize)


def stable_rank(z: Any, *, normalize: str | None = None) -> float:
    """sum s^2 / s_1^2 of the centred ``z`` (n, d), between 1 and d (Rudelson & Vershynin 2007).

    >>> round(stable_rank(np.random.default_rng(0).normal(size=(20000, 3)) * [1, 1, 0]), 1)
    2.0
    """
    return _of_side("stable_rank", z, normalize)


def rankme(z: Any, *, normalize: str | None = None) -> float:
    """RankMe of ``z`` (n, d), not centred: exp(-sum p ln p), p = s / sum s + 1e-7 (Garrido et al. 2023, equation 1).

    >>> round(rankme(np.random.default_rng(0).normal(size=(2000, 3)) * [1, 1, 0]), 1)
    2.0
    """
    return _of_side("rankme", z, normalize)


def uniformity(z: Any) -> float:
    """log mean exp(-2 |z_i - z_j|^2) over pairs of unit rows of ``z`` (n, d) (Wang & Isola 2020), on at most 4,096 rows.

    0 where all rows are one direction, about -4 where they are spread evenly over a sphere of many dimensions.

    >>> round(uniformity(np.random.default_rng(0).normal(size=(2000, 64))), 1)
    -3.9
    """
    return _of_side("uniformity", z, None)


def twonn_dimension(z: Any, *, normalize: str | None = None) -> float:
    """Intrinsic dimension of ``z`` (n, d) by the distances to two neighbours (Facco et al. 2017), on at most 4,096 rows.

    Reads low above about 20. Fewer than 10 distinct rows are a UserError.

    >>> plane = np.random.default_rng(0).uniform(size=(2000, 2)) @ np.eye(2, 5)
    >>> 1.8 < twonn_dimension(plane) < 2.2
    True
    """
    return _of_side("twonn_dimension", z, normalize)


def linear_cka(x: Any, y: Any, *, debiased: bool = False, normalize: str | None = None) -> float:
    """Linear CKA of row-aligned ``x`` (n, d) and ``y`` (n, k): |Y^T X|^2 / (|X^T X| |Y^T Y|), centred (Kornblith et al. 2019).

    Between 0 and 1, and about d / (d + n) for independent data; ``debiased`` (Murphy et al. 2024, arXiv:2405.01012) is about
    0 there, and may be a little below.

    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.normal(size=(200, 50)), rng.normal(size=(200, 50))
    >>> round(linear_cka(x, y), 1), abs(linear_cka(x, y, debiased=True)) < 0.05
    (0.2, True)
    """
    return _of_pair("similarity.linear_cka_debiased" if debiased else "similarity.linear_cka", x, y, normalize)


def procrustes(x: Any, y: Any, *, normalize: str | None = None) -> float:
    """Correlation of row-aligned ``x`` (n, d) and ``y`` (n, k) after the best rotation and scale, both centred.

    The nuclear norm of Y^T X over |X| |Y|: between 0 and 1, and 1 minus its square is SciPy's disparity (Schoenemann 1966).

    >>> x = np.random.default_rng(0).normal(size=(200, 3))
    >>> round(procrustes(x, 3 * x[:, ::-1]), 6)
    1.0
    """
    return _of_pair("similarity.procrustes", x, y, normalize)


def rsa(x: Any, y: Any, *, normalize: str | None = None) -> float:
    """Spearman correlation of all pairwise distances in ``x`` (n, d) and in ``y`` (n, k), of at most 1,024 rows.

    Between -1 and 1 (Kriegeskorte et al. 2008, with Euclidean distances).

    >>> x = np.random.default_rng(0).normal(size=(200, 3))
    >>> round(rsa(x, 3 * x), 6)
    1.0
    """
    return _of_pair("similarity.rsa_spearman", x, y, normalize)


def mutual_knn(x: Any, y: Any, *, k: int = 10) -> float:
    """Share of a row's ``k`` nearest neighbours by cosine that ``x`` (n, d) and ``y`` (n, m) share, at most 4,096 rows.

    Between 0 and 1; chance is k / (n - 1) (Huh et al. 2024, arXiv:2405.07987). It needs more than k + 1 rows.

    >>> x = np.random.default_rng(0).normal(size=(200, 3))
    >>> mutual_knn(x, 3 * x, k=5)
    1.0
    """
    return _of_pair("similarity.mutual_knn_10", x, y, None, Settings(neighbours=k))


def neighbour_overlap(x: Any, y: Any, *, k: int = 10) -> float:
    """Share of the first ``k`` results of a search in ``x`` (n, d) that one in ``y`` (n, m) gives too, of at most 50,000 rows.

    Between 0 and 1, by cosine; the row itself is left out. `mutual_knn` is the same on at most 4,096 rows.

    >>> x = np.random.default_rng(0).normal(size=(200, 3))
    >>> neighbour_overlap(x, -x, k=5)
    1.0
    """
    return _of_pair("retrieval.neighbour_overlap_10", x, y, None, Settings(neighbours=k))


def recall_at_k(teacher: Any, student: Any, k: int = 1, *, mapped: bool = False) -> float:
    """Share of the rows of ``student`` (n, d) whose own row of ``teacher`` (n, d) is among the ``k`` nearest by cosine.

    Between 0 and 1; on at most 50,000 rows, and it falls as they grow in number. ``mapped`` sends the student's rows through a
    ridge map fitted to other rows first, which works for any two dimensions; without it, different ones are a UserError.

    >>> z = np.random.default_rng(0).normal(size=(100, 8))
    >>> recall_at_k(z, z), recall_at_k(z, np.roll(z, 1, axis=0))
    (1.0, 0.0)
    """
    if k < 1:
        raise UserError("recall_at_k k", "a whole number of at least 1", str(k), "1, 5 and 10 are usual.")
    ranks = _wanted("recall_at_k", _pair(teacher, student, None), "mapped_retrieval_ranks" if mapped else "retrieval_ranks")
    return share_right(ranks <= k)


def mean_cosine(teacher: Any, student: Any) -> float:
    """Mean cosine of the rows of ``student`` (n, d) with those of ``teacher`` (n, d), as given: between -1 and 1.

    >>> z = np.random.default_rng(0).normal(size=(100, 8))
    >>> round(mean_cosine(z, -z), 6)
    -1.0
    """
    return _of_pair("alignment.mean_cosine", teacher, student, None)


def teacher_r2(teacher: Any, student: Any, *, normalize: str | None = None) -> float:
    """Share of the variance of ``teacher`` (n, d) that a ridge regression on ``student`` (n, k) predicts, cross-validated.

    At most 1, and slightly below 0 where the student says nothing about the teacher.

    >>> z = np.random.default_rng(0).normal(size=(400, 4))
    >>> round(teacher_r2(z, z[:, :2]), 1)
    0.5
    """
    return _of_pair("alignment.teacher_r2", teacher, student, normalize)


def infonce(teacher: Any, student: Any, *, batch: int = 1024, temperature: float = 0.1) -> float:
    """Mean InfoNCE loss in nats of ``student`` (n, d) against ``teacher`` (n, d), over batches of ``batch`` rows, at most n.

    Between 0 and about log(batch) at chance (van den Oord et al. 2018). It is not an estimate of mutual information.

    >>> z = np.random.default_rng(0).normal(size=(256, 64))
    >>> 0 < infonce(z, z) < infonce(z, np.roll(z, 1, axis=0))
    True
    """
    settings = Settings(infonce_batch=batch, infonce_temperature=temperature)
    return _of_pair("contrastive.infonce", teacher, student, None, settings)


def probe_accuracy(z_train: Any, y_train: Any, z_test: Any, y_test: Any, *, paper: bool = False) -> float:
    """Accuracy of a linear probe fitted to ``z_train`` (n, d) with ``y_train`` (n,), on ``z_test`` (m, d) with ``y_test`` (m,).

    Between 0 and 1. Logistic regression on standardised columns, its C chosen on a fifth of train; ``paper=True`` is the
    paper's (unit rows, C 1; arXiv:2603.06698). Labels are whole numbers or text, of at least two classes.

    >>> y = np.arange(60) % 2
    >>> z = np.random.default_rng(0).normal(size=(60, 3)) + 8 * y[:, None]
    >>> probe_accuracy(z[:40], y[:40], z[40:], y[40:])
    1.0
    """
    return _of_labelled("paper.probe.teacher.accuracy" if paper else "probe.teacher.accuracy", z_train, y_train, z_test, y_test)


def knn_accuracy(z_train: Any, y_train: Any, z_test: Any, y_test: Any, *, k: int = 10) -> float:
    """Share of ``z_test`` (m, d) whose ``k`` nearest rows of ``z_train`` (n, d) by cosine vote for their label ``y_test`` (m,).

    Between 0 and 1; a tie goes to the nearest of the tied, and where there are fewer than k rows, all vote.

    >>> y = np.arange(60) % 2
    >>> z = np.random.default_rng(0).normal(size=(60, 3)) + 8 * np.where(y[:, None] == 1, 1, -1)
    >>> knn_accuracy(z[:40], y[:40], z[40:], y[40:], k=3)
    1.0
    """
    return _of_labelled("knn.teacher.accuracy", z_train, y_train, z_test, y_test, Settings(neighbours=k))


def zero_shot_accuracy(z: Any, y: Any, text: Any) -> float:
    """Share of ``z`` (n, d) whose nearest row of ``text`` (classes, d) by cosine is that of their label ``y`` (n,).

    Between 0 and 1. Labels are row numbers of ``text``, the embeddings of the class names.

    >>> y = np.arange(60) % 3
    >>> zero_shot_accuracy(np.eye(3)[y] + 0.01 * np.random.default_rng(0).normal(size=(60, 3)), y, np.eye(3))
    1.0
    """
    pool = _pair(z, z, None)
    labels = checked_labels(y, "y", pool.count)
    labelled = LabelledPair(pool.teacher, pool.student, labels, text=checked_text(text, labels))
    return _measured("zero_shot.teacher.accuracy", labelled)


def _of_side(key: str, z: Any, normalize: str | None) -> float:
    return _measured(key, prepared_side(z, "z", normalize, Settings()))


def _pair(x: Any, y: Any, normalize: str | None, settings: Settings | None = None) -> LabelledPair:
    """Both sides, each item once where one is compared with another."""
    return LabelledPair(*two_sides(x, y, normalize, settings or Settings(), ("the first array", "the second array")))


def _of_pair(key: str, x: Any, y: Any, normalize: str | None, settings: Settings | None = None) -> float:
    return _measured(key, _pair(x, y, normalize, settings))


def _of_labelled(key: str, z_train: Any, y_train: Any, z_test: Any, y_test: Any, settings: Settings | None = None) -> float:
    sides = two_sides(z_test, z_test, None, settings or Settings(), ("z_test", "z_test"))
    labels = checked_labels(y_test, "y_test", sides[0].rows.count)
    train, train_labels = training_pair(z_train, z_train, y_train, None, settings or Settings(), sides)
    if labels is not None and train_labels is not None:
        expect_shared_classes(labels, train_labels)
    return _measured(key, LabelledPair(*sides, labels, train, train_labels))


def _measured(key: str, pool: LabelledPair | Side) -> float:
    """The registered measure on the pool, on which an audit takes it."""
    over = pool.over(measures.facts(key).group) if isinstance(pool, LabelledPair) else pool
    try:
        return float(measures[key](*resolve(over, measures[key])))
    except NotMeasured as reason:
        raise _does_not_apply(key, reason) from None


def _wanted(name: str, pool: LabelledPair, needed: str) -> np.ndarray:
    try:
        found: np.ndarray = resolve_name(pool.over("retrieval"), needed)
        return found
    except NotMeasured as reason:
        raise _does_not_apply(name, reason) from None


def _does_not_apply(name: str, reason: NotMeasured) -> UserError:
    return UserError(name, "embeddings to which it applies", str(reason), "Give what it needs, or leave it out.")
