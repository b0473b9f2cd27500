"""Nearest neighbours by cosine or by distance, in blocks: never an n x n matrix at once.

Retrieval asks whether the student can replace the teacher in a search index of the teacher's embeddings: student queries are
searched for among the teacher's embeddings of the same items (at most 50,000, and as many queries as keep the pairs below
10^8). Recall falls as the gallery grows, so compare only galleries of one size.
"""

from __future__ import annotations

import numpy as np

from distillscope.errors import UserError
from distillscope.measure import tolerances
from distillscope.measure.results import NotMeasured
from distillscope.measure.rows import unit
from distillscope.registry import measures

BLOCK_PAIRS = 2**23  # similarities in one block: 64 MiB, and as much again for sorting them


def nearest(gallery: np.ndarray, queries: np.ndarray, k: int, *, exclude_self: bool = False) -> np.ndarray:
    """Positions (m, k) in ``gallery`` (n, d) of the k most similar unit rows for each unit row of ``queries`` (m, d).

    Most similar first; equal similarities go by position. ``exclude_self``: queries are the gallery itself, and row i is
    no neighbour of row i.

    >>> nearest(np.eye(3), np.array([[0.9, 0.1, 0.0]]), 2).tolist()
    [[0, 1]]
    """
    available = len(gallery) - exclude_self
    if not 1 <= k <= available:
        raise UserError("neighbours k", f"a number from 1 to {available}", str(k), "Choose a smaller k or pass more items.")
    found = np.empty((len(queries), k), np.intp)
    size = block_queries(gallery)
    for start in range(0, len(queries), size):
        similarity = queries[start : start + size] @ gallery.T
        if exclude_self:
            rows = np.arange(len(similarity))
            similarity[rows, start + rows] = -np.inf
        found[start : start + size] = top_positions(similarity, k)
    return found


def block_queries(gallery: np.ndarray) -> int:
    """How many queries to compare with the ``gallery`` at a time."""
    return max(1, min(1024, BLOCK_PAIRS // len(gallery)))


def top_positions(scores: np.ndarray, k: int) -> np.ndarray:
    """Positions (m, k) of the k largest of each row of ``scores`` (m, n), largest first, ties by position."""
    count = scores.shape[1]
    if k < count:
        chosen = np.sort(np.argpartition(scores, count - k, axis=1)[:, count - k :], axis=1)
        edge = np.take_along_axis(scores, chosen, axis=1).min(axis=1, keepdims=True)
        for row in np.flatnonzero((scores >= edge).sum(axis=1) > k):  # argpartition picks among equals as it likes
            chosen[row] = np.sort(np.argsort(-scores[row], kind="stable")[:k])
    else:
        chosen = np.broadcast_to(np.arange(k), scores.shape)
    order = np.argsort(-np.take_along_axis(scores, chosen, axis=1), axis=1, kind="stable")
    return np.take_along_axis(chosen, order, axis=1)


def nearest_by_distance(z: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions (n, k') and Euclidean distances (n, k') of the k' = min(k, n - 1) nearest other rows of ``z`` (n, d).

    Found through inner products, then measured again from the differences, since |a|^2 + |b|^2 - 2 ab loses the digits
    of small distances.
    """
    k = min(k, len(z) - 1)
    if k < 1:
        return np.empty((len(z), 0), np.intp), np.empty((len(z), 0))
    energy = np.square(z).sum(axis=1)
    positions, distances = np.empty((len(z), k), np.intp), np.empty((len(z), k))
    size = max(1, 2**22 // (k * z.shape[1]))
    for start in range(0, len(z), size):
        block = z[start : start + size]
        closeness = 2 * (block @ z.T) - energy
        rows = np.arange(len(block))
        closeness[rows, start + rows] = -np.inf
        found = top_positions(closeness, k)
        measured = np.linalg.norm(block[:, None, :] - z[found], axis=2)
        order = np.argsort(measured, axis=1, kind="stable")
        positions[start : start + size] = np.take_along_axis(found, order, axis=1)
        distances[start : start + size] = np.take_along_axis(measured, order, axis=1)
    return positions, distances


def first_kept(positions: np.ndarray, kept: np.ndarray, k: int) -> np.ndarray:
    """Columns (m, k) of the first k entries of each row of ``positions`` (m, j) that are ``kept`` (n,).

    Row i of ``positions`` is of row i of the gallery; the rows of those that are not kept may have fewer.
    """
    usable = kept[positions]
    if positions.shape[1] < k or (usable[kept[: len(positions)]].sum(axis=1) < k).any():
        raise NotMeasured(f"it needs {k} neighbours of every item, and there are too few items")
    return np.argsort(~usable, axis=1, kind="stable")[:, :k]


def knn_predictions(gallery: np.ndarray, gallery_labels: np.ndarray, queries: np.ndarray, k: int = 10,
                    exclude_self: bool = False) -> np.ndarray:
    """Label (m,) of each query by vote of its k nearest gallery rows by cosine; a tie goes to the nearest of the tied."""
    classes, codes = np.unique(gallery_labels, return_inverse=True)
    voters = codes[nearest(unit(np.asarray(gallery, np.float64)), unit(np.asarray(queries, np.float64)), k,
                           exclude_self=exclude_self)]
    return classes[voted(voters, len(classes))]


def voted(voters: np.ndarray, num_classes: int) -> np.ndarray:
    """The class (m,) that most of each row of ``voters`` (m, k), nearest first, are of; a tie goes to the nearest of the tied.

    >>> voted(np.array([[1, 0, 0, 1], [2, 1, 0, 0]]), 3).tolist()
    [1, 0]
    """
    votes = np.zeros((len(voters), num_classes))
    rows, k = np.arange(len(voters)), voters.shape[1]
    for place in range(k):
        # a first vote adds less than half a vote, and less for a farther neighbour: it only breaks ties
        first = votes[rows, voters[:, place]] == 0
        votes[rows, voters[:, place]] += 1 + first * 0.5 * (1 - place / k) / 2
    return np.argmax(votes, axis=1)


def knn_accuracy(gallery: np.ndarray, gallery_labels: np.ndarray, queries: np.ndarray, query_labels: np.ndarray,
                 k: int = 10, exclude_self: bool = False) -> float:
    """Share of ``queries`` (m, d) whose k nearest rows of ``gallery`` (n, d) by cosine vote for their label.

    Between 0 and 1. ``exclude_self=True`` with the gallery as queries is leave-one-out.

    >>> knn_accuracy(np.eye(2), [0, 1], np.array([[1.0, 0.2], [0.2, 1.0]]), [0, 1], k=1)
    1.0
    """
    predicted = knn_predictions(gallery, gallery_labels, queries, k, exclude_self)
    return float(np.mean(predicted == np.asarray(query_labels)))


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


@measures.register("retrieval.recall_at_1", unit="share", group="retrieval", interval="dependent", n="retrieval_count",
                   title="recall at 1", percent=True, better="higher")
def recall_at_1(found_at_1: np.ndarray) -> float:
    """Share of student queries whose own item is first in the teacher's gallery by cosine (one dimension)."""
    return float(np.mean(found_at_1))


@measures.register("retrieval.recall_at_5", unit="share", group="retrieval", interval="dependent", n="retrieval_count",
                   title="recall at 5", percent=True, better="higher")
def recall_at_5(found_at_5: np.ndarray) -> float:
    """Share of student queries whose own item is among the first 5 in the teacher's gallery (one dimension)."""
    return float(np.mean(found_at_5))


@measures.register("retrieval.recall_at_10", unit="share", group="retrieval", interval="dependent", n="retrieval_count",
                   title="recall at 10", percent=True, better="higher")
def recall_at_10(found_at_10: np.ndarray) -> float:
    """Share of student queries whose own item is among the first 10 in the teacher's gallery (one dimension)."""
    return float(np.mean(found_at_10))


@measures.register("retrieval.mapped_recall_at_1", unit="share", group="retrieval", interval="dependent", n="retrieval_count",
                   title="mapped recall at 1", percent=True, better="higher", short="recall at 1, mapped")
def mapped_recall_at_1(mapped_found_at_1: np.ndarray) -> float:
    """recall_at_1 after the out-of-fold ridge map from student to teacher, for any dimensions."""
    return float(np.mean(mapped_found_at_1))


@measures.register("retrieval.mapped_recall_at_5", unit="share", group="retrieval", interval="dependent", n="retrieval_count",
                   title="mapped recall at 5", percent=True, better="higher", short="recall at 5, mapped")
def mapped_recall_at_5(mapped_found_at_5: np.ndarray) -> float:
    """recall_at_5 after the out-of-fold ridge map from student to teacher, for any dimensions."""
    return float(np.mean(mapped_found_at_5))


@measures.register("retrieval.mapped_recall_at_10", unit="share", group="retrieval", interval="dependent", n="retrieval_count",
                   title="mapped recall at 10", percent=True, better="higher", short="recall at 10, mapped")
def mapped_recall_at_10(mapped_found_at_10: np.ndarray) -> float:
    """recall_at_10 after the out-of-fold ridge map from student to teacher, for any dimensions."""
    return float(np.mean(mapped_found_at_10))


@measures.register("retrieval.neighbour_overlap_10", unit="share", group="retrieval", interval="jackknife",
                   n="retrieval_count", title="index overlap", percent=True, better="higher")
def neighbour_overlap_10(neighbour_overlaps: np.ndarray) -> float:
    """Share of an item's first 10 results in the student's own index that are in the teacher's first 10 too."""
    return float(np.mean(neighbour_overlaps))
