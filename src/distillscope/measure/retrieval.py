"""Can the student replace the teacher in a search index of the teacher's embeddings?

Student queries are searched for among the teacher's embeddings of the same items (at most 50,000, and as many queries as
keep the pairs below 10^8). Recall falls as the gallery grows, so compare only galleries of one size.
"""

from __future__ import annotations

import numpy as np

from distillscope.measure import tolerances
from distillscope.measure.neighbours import block_queries
from distillscope.registry import measures


def own_ranks(gallery: np.ndarray, queries: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Rank (m,), from 1, of each query's own item in the gallery by inner product of unit rows.

    ``gallery`` (n, d), ``queries`` (m, d), ``own`` (m,) positions of the right answers. Rows of the gallery in the very
    direction of the right one are the right one: no query can tell them apart, and finding either is a hit. Other ties count
    against the query, so that a query that is equally near to different items finds none.

    >>> own_ranks(np.eye(2), np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([0, 1])).tolist()
    [1, 2]
    >>> own_ranks(np.ones((2, 1)), np.ones((2, 1)), np.array([0, 1])).tolist()
    [1, 1]
    """
    return 1 + ahead_of_own(gallery, queries, own, np.zeros(len(gallery), np.intp), 1)[:, 0]


def ahead_of_own(gallery: np.ndarray, queries: np.ndarray, own: np.ndarray, groups: np.ndarray, num_groups: int) -> np.ndarray:
    """How many rows (m, g) of the gallery come before each query's own item, by the gallery's groups (n,)."""
    ahead = np.empty((len(queries), num_groups), np.int64)
    member = np.eye(num_groups, dtype=np.float32)[groups]
    size = block_queries(gallery)
    for start in range(0, len(queries), size):
        similarity, mine = queries[start : start + size] @ gallery.T, own[start : start + size]
        right = similarity[np.arange(len(similarity)), mine][:, None]
        before = similarity >= right - tolerances.TIE
        tied = before & (similarity <= right + tolerances.TIE)
        for row in np.flatnonzero(tied.sum(axis=1) > 1):
            rivals = np.flatnonzero(tied[row])
            before[row, rivals[gallery[rivals] @ gallery[mine[row]] >= 1 - tolerances.TIE]] = False
        before[np.arange(len(before)), mine] = False
        ahead[start : start + size] = before.astype(np.float32) @ member
    return ahead


@measures.register("retrieval.recall_at_1", unit="share", group="retrieval", interval="dependent", n="retrieval_count")
def recall_at_1(found_at_1: np.ndarray) -> float:
    """Share of student queries whose own item is first in the teacher's gallery by cosine (one dimension)."""
    return float(np.mean(found_at_1))


@measures.register("retrieval.recall_at_5", unit="share", group="retrieval", interval="dependent", n="retrieval_count")
def recall_at_5(found_at_5: np.ndarray) -> float:
    """Share of student queries whose own item is among the first 5 in the teacher's gallery (one dimension)."""
    return float(np.mean(found_at_5))


@measures.register("retrieval.recall_at_10", unit="share", group="retrieval", interval="dependent", n="retrieval_count")
def recall_at_10(found_at_10: np.ndarray) -> float:
    """Share of student queries whose own item is among the first 10 in the teacher's gallery (one dimension)."""
    return float(np.mean(found_at_10))


@measures.register("retrieval.mapped_recall_at_1", unit="share", group="retrieval", interval="dependent", n="retrieval_count")
def mapped_recall_at_1(mapped_found_at_1: np.ndarray) -> float:
    """recall_at_1 after the out-of-fold ridge map from student to teacher, for any dimensions."""
    return float(np.mean(mapped_found_at_1))


@measures.register("retrieval.mapped_recall_at_5", unit="share", group="retrieval", interval="dependent", n="retrieval_count")
def mapped_recall_at_5(mapped_found_at_5: np.ndarray) -> float:
    """recall_at_5 after the out-of-fold ridge map from student to teacher, for any dimensions."""
    return float(np.mean(mapped_found_at_5))


@measures.register("retrieval.mapped_recall_at_10", unit="share", group="retrieval", interval="dependent", n="retrieval_count")
def mapped_recall_at_10(mapped_found_at_10: np.ndarray) -> float:
    """recall_at_10 after the out-of-fold ridge map from student to teacher, for any dimensions."""
    return float(np.mean(mapped_found_at_10))


@measures.register("retrieval.neighbour_overlap_10", unit="share", group="retrieval", interval="jackknife", n="retrieval_count")
def neighbour_overlap_10(neighbour_overlaps: np.ndarray) -> float:
    """Share of an item's first 10 results in the student's own index that are in the teacher's first 10 too."""
    return float(np.mean(neighbour_overlaps))
