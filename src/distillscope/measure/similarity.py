"""Measures of how alike the two representations are, up to rotation or more, each with what chance alone would give.

None compares coordinates, so the dimensions may differ. Each has a permutation null: the same number with the student's
items shuffled. The biased CKA of independent data is d / (d + n), not 0, which is what the null and the debiased one are for.
"""

from __future__ import annotations

import numpy as np

from distillscope.measure.results import NotMeasured
from distillscope.registry import measures


def _ratio(top: float, bottom: float) -> float:
    if not bottom > 0:
        raise NotMeasured("all embeddings of a side are equal, so there is nothing to compare")
    return float(top / bottom)


@measures.register("similarity.linear_cka", unit="share", group="similarity", interval="jackknife", title="CKA",
                   better="higher")
def linear_cka(cross_scatter: np.ndarray, teacher_scatter: np.ndarray, student_scatter: np.ndarray) -> float:
    """Linear CKA: |S^T T|^2 / (|S^T S| |T^T T|) of the centred embeddings (Kornblith et al. 2019), biased upwards.

    Between 0 and 1. Independent data reads about d / (d + n).

    >>> x = np.diag([2.0, 1.0])
    >>> round(linear_cka(x, x, x), 12)
    1.0
    """
    return _ratio(np.square(cross_scatter).sum(), np.linalg.norm(teacher_scatter) * np.linalg.norm(student_scatter))


def unbiased_hsic(cross_energy: float, first: np.ndarray, second: np.ndarray) -> float:
    """Song et al. (2012)'s unbiased HSIC of two linear kernels, from centred embeddings X (n, d) and Y (n, d').

    ``cross_energy`` is |X^T Y|^2 and ``first``, ``second`` (n,) are the squared norms of the centred rows. With zero
    diagonals K and L, centring makes K 1 = -first, so each of its terms (equation 5) is a sum over these.
    """
    n, paired = len(first), float(first @ second)
    if n < 4:
        raise NotMeasured("the unbiased estimate needs four items")
    all_pairs = first.sum() * second.sum() / ((n - 1) * (n - 2))
    return float((cross_energy - paired + all_pairs - 2 * paired / (n - 2)) / (n * (n - 3)))


@measures.register("similarity.linear_cka_debiased", unit="share", group="similarity", interval="jackknife",
                   title="CKA, debiased", better="higher")
def linear_cka_debiased(cross_scatter: np.ndarray, teacher_scatter: np.ndarray, student_scatter: np.ndarray,
                        teacher_centred_energy: np.ndarray, student_centred_energy: np.ndarray) -> float:
    """Debiased linear CKA: the same ratio of unbiased HSICs (Murphy et al. 2024, arXiv:2405.01012); about 0 by chance.

    At most about 1, and a little below 0 for unrelated data.
    """
    teacher, student = teacher_centred_energy, student_centred_energy
    within_teacher = unbiased_hsic(np.square(teacher_scatter).sum(), teacher, teacher)
    within_student = unbiased_hsic(np.square(student_scatter).sum(), student, student)
    if not (within_teacher > 0 and within_student > 0):
        raise NotMeasured("the unbiased HSIC of a side with itself is not positive: too few items for its dimension")
    across = unbiased_hsic(np.square(cross_scatter).sum(), student, teacher)
    return float(across / np.sqrt(within_teacher * within_student))


@measures.register("similarity.procrustes", unit="share", group="similarity", interval="jackknife")
def procrustes(cross_scatter: np.ndarray, teacher_scatter: np.ndarray, student_scatter: np.ndarray) -> float:
    """Procrustes similarity: the nuclear norm of S^T T over |S| |T|, centred: the correlation after the best rotation.

    Between 0 and 1; 1 minus its square is SciPy's disparity (Schoenemann 1966). Biased upwards for small n.
    """
    nuclear = np.linalg.svd(cross_scatter, compute_uv=False).sum()
    return _ratio(nuclear, np.sqrt(np.trace(teacher_scatter) * np.trace(student_scatter)))


@measures.register("similarity.rsa_spearman", unit="correlation", group="similarity", interval="jackknife", n="rsa_count",
                   title="RSA", better="higher")
def rsa_spearman(teacher_rsa_ranks: np.ndarray, student_rsa_ranks: np.ndarray) -> float:
    """RSA: Spearman correlation of the two sides' Euclidean distances over all pairs of at most 1,024 items.

    Kriegeskorte et al. (2008) with Euclidean distances. Between -1 and 1.
    """
    first, second = (ranks - ranks.mean() for ranks in (teacher_rsa_ranks, student_rsa_ranks))
    return _ratio(first @ second, np.linalg.norm(first) * np.linalg.norm(second))


class Sorted:
    """``values`` (n,) sorted once, for the ranks of any part of them.

    >>> in_order = Sorted(np.array([0.3, 0.1, 0.3, 0.2]))
    >>> in_order.ranks().tolist(), in_order.ranks(np.array([True, False, True, True])).tolist()
    ([3.5, 1.0, 3.5, 2.0], [2.5, 2.5, 1.0])
    """

    def __init__(self, values: np.ndarray) -> None:
        self._order = np.argsort(values)
        ordered = values[self._order]
        self._level = np.cumsum(np.append(False, ordered[1:] != ordered[:-1]))  # equal values share one

    def ranks(self, kept: np.ndarray | None = None) -> np.ndarray:
        """Ranks (k,) from 1 of the values that are ``kept`` (n,) among themselves, in their own order; ties have their mean."""
        order, level = self._order, self._level
        if kept is not None:
            inside = kept[order]
            order, level = order[inside], level[inside]
        counts = np.bincount(level)
        found = np.empty(len(self._order))
        found[order] = (np.cumsum(counts) - (counts - 1) / 2)[level]
        return found if kept is None else found[kept]


def kept_pairs(kept: np.ndarray) -> np.ndarray:
    """Whether both items of each pair i < j are ``kept`` (n,), in the order of `scipy.spatial.distance.pdist`.

    >>> kept_pairs(np.array([True, True, False])).tolist()
    [True, False, False]
    """
    return np.concatenate([kept[i + 1 :] & kept[i] for i in range(len(kept))])


@measures.register("similarity.mutual_knn_10", unit="share", group="similarity", interval="jackknife", n="sample_count",
                   title="shared neighbours", percent=True, better="higher")
def mutual_knn_10(teacher_neighbours: np.ndarray, student_neighbours: np.ndarray) -> float:
    """Share of an item's 10 nearest neighbours by cosine that both sides have in common, among at most 4,096 items.

    Huh et al. (2024, arXiv:2405.07987). Between 0 and 1; chance is 10 / (n - 1).
    """
    return float(np.mean(overlap(teacher_neighbours, student_neighbours)))


def overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Share (n,) of the entries of each row of ``first`` (n, k) that the same row of ``second`` (n, k) has too.

    >>> overlap(np.array([[1, 2]]), np.array([[2, 3]])).tolist()
    [0.5]
    """
    return (first[:, :, None] == second[:, None, :]).any(axis=2).mean(axis=1)


@measures.register("similarity.linear_cka_null", unit="share", group="similarity", interval="draws", n="null_count")
def linear_cka_null(linear_cka_draws: np.ndarray) -> float:
    """Linear CKA with the student's items shuffled, on at most 4,096 items: mean, and the range of 95 % of shuffles."""
    return float(np.mean(linear_cka_draws))


@measures.register("similarity.linear_cka_debiased_null", unit="share", group="similarity", interval="draws", n="null_count")
def linear_cka_debiased_null(linear_cka_debiased_draws: np.ndarray) -> float:
    """Debiased linear CKA with the student's items shuffled, on at most 4,096 items: mean, and 95 % of shuffles."""
    return float(np.mean(linear_cka_debiased_draws))


@measures.register("similarity.procrustes_null", unit="share", group="similarity", interval="draws", n="null_count")
def procrustes_null(procrustes_draws: np.ndarray) -> float:
    """Procrustes similarity with the student's items shuffled, on at most 4,096 items: mean, and 95 % of shuffles."""
    return float(np.mean(procrustes_draws))


@measures.register("similarity.rsa_spearman_null", unit="correlation", group="similarity", interval="draws", n="rsa_count")
def rsa_spearman_null(rsa_spearman_draws: np.ndarray) -> float:
    """RSA with the student's items shuffled: mean, and the range of 95 % of shuffles."""
    return float(np.mean(rsa_spearman_draws))


@measures.register("similarity.mutual_knn_10_null", unit="share", group="similarity", interval="draws", n="sample_count")
def mutual_knn_10_null(mutual_knn_draws: np.ndarray) -> float:
    """Mutual 10-nearest-neighbour share with the student's items shuffled: mean, and the range of 95 % of shuffles."""
    return float(np.mean(mutual_knn_draws))
