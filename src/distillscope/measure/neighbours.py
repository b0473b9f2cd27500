"""Nearest neighbours by cosine: what they vote for, and whether the student's are the teacher's.

Retrieval asks whether the student can replace the teacher in a search index of the teacher's embeddings: student queries are
searched for among the teacher's embeddings of the same items (at most 50,000, and as many queries as keep the pairs below
10^8). Recall falls as the gallery grows, so compare only galleries of one size.
"""

from __future__ import annotations

import numpy as np

from distillscope.errors import UserError
from distillscope.measure.results import NotMeasured
from distillscope.measure.rows import unit
from distillscope.measure.search import Directions, nearest_rows
from distillscope.registry import measures


def nearest(gallery: np.ndarray, queries: np.ndarray, k: int, *, exclude_self: bool = False) -> np.ndarray:
    """Positions (m, k) in ``gallery`` (n, d) of the k most similar unit rows for each unit row of ``queries`` (m, d).

    Most similar first; equal similarities go by position. ``exclude_self``: queries are the gallery itself, and row i is
    no neighbour of row i.

    >>> nearest(np.eye(3), np.array([[0.8, 0.6, 0.0]]), 2).tolist()
    [[0, 1]]
    """
    available = len(gallery) - exclude_self
    if not 1 <= k <= available:
        raise UserError("neighbours k", f"a number from 1 to {available}", str(k), "Choose a smaller k or pass more items.")
    index = Directions.of(gallery)
    asked = index if exclude_self else Directions.of(queries)
    return nearest_rows(index, asked, {len(gallery): len(queries)}, k, exclude_self)[len(gallery)]


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
