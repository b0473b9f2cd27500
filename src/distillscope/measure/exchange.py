"""What retrieval is made from where either side is the query and either the index, and which items are hubs of an index.

All is on the first 4,096 items in content order (`Settings.max_items`), whose neighbours similarity has anyway.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from distillscope.measure.comparison import Comparison
from distillscope.measure.neighbours import first_kept
from distillscope.measure.pool import SPARE, of_whole
from distillscope.measure.results import NotMeasured
from distillscope.measure.search import Directions, nearest_rows

FIRST = 10
DISCOUNT = 1 / np.log2(np.arange(2, FIRST + 2))
"""Of the results of a query, the first one first (Jarvelin & Kekalainen 2002)."""


def ndcg(relevant: np.ndarray, possible: np.ndarray) -> np.ndarray:
    """nDCG (m,) of results that are ``relevant`` (m, k) or not, the first one first, where ``possible`` (m,) of all items are.

    >>> ndcg(np.array([[True, False], [False, True]]), np.array([1, 5])).round(3).tolist()
    [1.0, 0.387]
    """
    discount = DISCOUNT[: relevant.shape[1]]
    most = np.cumsum(discount)[np.minimum(possible, len(discount)) - 1]
    return relevant @ discount / most


def occurrences(neighbours: np.ndarray, count: int) -> np.ndarray:
    """In how many of the rows of ``neighbours`` (m, k) each of ``count`` items stands.

    >>> occurrences(np.array([[1], [0], [1]]), 3).tolist()
    [1, 2, 0]
    """
    return np.bincount(neighbours.ravel(), minlength=count)


class Exchange(Comparison):
    """Row-aligned teacher and student, each of which is queried by the other."""

    @property
    def labels(self) -> np.ndarray:
        """The label (n,) of each row."""
        raise NotMeasured("it needs labels, and none were given")

    @of_whole
    def _codes(self) -> np.ndarray:
        """The class of each sampled item."""
        return np.unique(self.labels[self.teacher.sample], return_inverse=True)[1]

    @cached_property
    def _kept_sample(self) -> np.ndarray:
        return np.isin(self.teacher.group_of[self._whole.teacher.sample], self.kept)

    @of_whole
    def _mapped_sample(self) -> Directions:
        return self.mapped(self.teacher.sample)

    @of_whole
    def _tables(self) -> dict[str, np.ndarray]:
        return {}

    def _table(self, how: str) -> np.ndarray:
        """Positions (m, k) of the nearest of each sampled item among the others, more than asked for, in the whole sample."""
        whole = self._whole
        if isinstance(whole, Exchange) and whole is not self:
            return whole._table(how)
        size = len(self.teacher.sample)
        if how in ("teacher", "student"):
            return (self.teacher if how == "teacher" else self.student).neighbour_table(size, size)
        if how not in self._tables:
            if how.startswith("mapped_"):
                teacher, student = self.teacher.directions(size), self._mapped_sample
            else:
                self.need_one_dim()
                teacher, student = self.teacher.directions(size), self.student.directions(size)
            gallery, queries = (teacher, student) if how.endswith("in_teacher") else (student, teacher)
            self._tables[how] = nearest_rows(gallery, queries, {size: size}, FIRST + SPARE, exclude_self=True)[size]
        return self._tables[how]

    @cached_property
    def _first_results(self) -> dict[str, np.ndarray]:
        return {}

    def results(self, how: str) -> np.ndarray:
        """Positions (m, 10) of the first results of each kept item in the whole sample, its own item left out.

        ``how``: teacher, student (each in its own index), student_in_teacher, teacher_in_student, and these two with mapped_
        before them, where the student's embedding is mapped by the ridge map of folds that it is not in.
        """
        if how not in self._first_results:
            table, kept = self._table(how), self._kept_sample
            if kept.sum() <= FIRST + 1:
                raise NotMeasured(f"it needs more than {FIRST + 1} items, or every item is a result")
            self._first_results[how] = np.take_along_axis(table, first_kept(table, kept, FIRST), axis=1)[kept]
        return self._first_results[how]

    def like_teachers(self, how: str) -> np.ndarray:
        """Which of the results (m, 10) are among the teacher's first 10 in its own index."""
        return (self.results(how)[:, :, None] == self.results("teacher")[:, None, :]).any(axis=2)

    def teacher_ndcg(self, how: str) -> np.ndarray:
        """nDCG (m,) of each query, where the teacher's first 10 are what is relevant."""
        found = self.like_teachers(how)
        return ndcg(found, np.full(len(found), FIRST))

    @cached_property
    def _others(self) -> np.ndarray:
        """How many other kept items (m,) are of each kept item's class."""
        codes = self._codes[self._kept_sample]
        return np.bincount(codes)[codes] - 1

    def _of_class(self, how: str) -> np.ndarray:
        """Which of the results (q, 10) are of the query's class, for the queries whose class has another item."""
        own = self._codes[self._kept_sample]
        if not self._others.any():
            raise NotMeasured("no class has two items")
        return (self._codes[self.results(how)] == own[:, None])[self._others > 0]

    def label_first(self, how: str) -> np.ndarray:
        """Whether each query's first result (q,) is of its class."""
        return self._of_class(how)[:, 0]

    def label_ndcg(self, how: str) -> np.ndarray:
        """nDCG (q,) of each query, where items of its class are what is relevant."""
        return ndcg(self._of_class(how), self._others[self._others > 0])

    @property
    def query_count(self) -> int:
        return int(self._kept_sample.sum())

    @property
    def label_query_count(self) -> int:
        return int((self._others > 0).sum())

    @cached_property
    def teacher_occurrences(self) -> np.ndarray:
        """In how many first results (m,) each kept item stands, in the teacher's own index."""
        return self._occurrences("teacher")

    @cached_property
    def student_occurrences(self) -> np.ndarray:
        """In how many first results (m,) each kept item stands, in the student's own index."""
        return self._occurrences("student")

    @property
    def teacher_unfound(self) -> np.ndarray:
        """Whether each kept item (m,) stands in no first results."""
        return self.teacher_occurrences == 0

    @property
    def student_unfound(self) -> np.ndarray:
        """The same in the student's own index."""
        return self.student_occurrences == 0

    def _occurrences(self, how: str) -> np.ndarray:
        kept = self._kept_sample
        return occurrences(self.results(how), len(kept))[kept]
