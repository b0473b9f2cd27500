"""Retrieval where either side asks and either answers; and hubs, items that stand in too many results or in none.

An index is seldom rebuilt at once: old embeddings stay in it while new queries come, or the other way round. All is
measured on at most 4,096 items, as shared neighbours are, and no query finds its own item.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from distillscope.measure.accuracy import made, share_right
from distillscope.measure.exchange import Exchange
from distillscope.measure.results import NotMeasured
from distillscope.registry import measures

INDEX = {
    "teacher": "the teacher's queries in the teacher's index",
    "student": "the student's queries in the student's index",
    "student_in_teacher": "the student's queries in the teacher's index (one dimension)",
    "teacher_in_student": "the teacher's queries in the student's index (one dimension)",
    "mapped_student_in_teacher": "the student's queries, mapped out of fold, in the teacher's index",
    "mapped_teacher_in_student": "the teacher's queries in the student's index, mapped out of fold",
}
"""Who asks in whose index, and how its keys name that."""
WHAT: dict[str, tuple[str, Callable[[Exchange, str], np.ndarray], Literal["jackknife", "dependent"], str, str]] = {
    "recall_10": ("recall at 10, of the teacher's", Exchange.like_teachers, "jackknife", "query_count",
                  "Share of the teacher's own first 10 results among the first 10 of {}."),
    "ndcg_10": ("nDCG at 10, of the teacher's", Exchange.teacher_ndcg, "jackknife", "query_count",
                "nDCG of the first 10 results of {}, where the teacher's own first 10 are relevant."),
    "label_recall_at_1": ("first result of the class", Exchange.label_first, "dependent", "label_query_count",
                          "Share of {} whose first result is of their class."),
    "label_ndcg_10": ("nDCG at 10, by class", Exchange.label_ndcg, "jackknife", "label_query_count",
                      "nDCG of the first 10 results of {}, where items of the query's class are relevant."),
}
"""What is measured: its title, the scores, their interval, what the pool calls their number, and what it is."""
GIVEN = {("teacher", "recall_10"), ("teacher", "ndcg_10"), ("student", "recall_10")}
"""1 by definition, and similarity.mutual_knn_10."""


def _register(how: str, what: str) -> None:
    """The mean of what the pool has as ``how_what``, as a measure."""
    title, scores, interval, count, says = WHAT[what]
    needs = f"{how}_{what}"
    setattr(Exchange, needs, property(lambda pool: scores(pool, how)))

    key = f"swap.{how}.{what}"
    measures.register(key, unit="share", group="swap", interval=interval, n=count, title=title, percent=True,
                      better="higher")(made(key, share_right, [needs], says.format(INDEX[how])))


for _how in INDEX:
    for _what in WHAT:
        if (_how, _what) not in GIVEN:
            _register(_how, _what)


def skewness(counts: np.ndarray) -> float:
    """Third standardised moment of ``counts`` (m,).

    >>> round(skewness(np.array([0, 0, 0, 4])), 3)
    1.155
    """
    centred = counts - counts.mean()
    spread = np.square(centred).mean()
    if not spread > 0:
        raise NotMeasured("every item is in equally many results, so their skewness is undefined")
    return float((centred**3).mean() / spread**1.5)


@measures.register("swap.teacher.hub_skewness", unit="skewness", group="swap", interval="jackknife", n="query_count",
                   title="hubness", digits=2, better="lower")
def teacher_hub_skewness(teacher_occurrences: np.ndarray) -> float:
    """Skewness of the number of first-10 lists that an item is in, in the teacher's own index."""
    return skewness(teacher_occurrences)


@measures.register("swap.student.hub_skewness", unit="skewness", group="swap", interval="jackknife", n="query_count",
                   title="hubness", digits=2, better="lower")
def student_hub_skewness(student_occurrences: np.ndarray) -> float:
    """Skewness of the number of first-10 lists that an item is in, in the student's own index."""
    return skewness(student_occurrences)


@measures.register("swap.teacher.antihubs", unit="share", group="swap", interval="dependent", n="query_count",
                   title="in no results", percent=True, better="lower")
def teacher_antihubs(teacher_unfound: np.ndarray) -> float:
    """Share of items that are in no other item's first 10 results, in the teacher's own index."""
    return float(np.mean(teacher_unfound))


@measures.register("swap.student.antihubs", unit="share", group="swap", interval="dependent", n="query_count",
                   title="in no results", percent=True, better="lower")
def student_antihubs(student_unfound: np.ndarray) -> float:
    """Share of items that are in no other item's first 10 results, in the student's own index."""
    return float(np.mean(student_unfound))
