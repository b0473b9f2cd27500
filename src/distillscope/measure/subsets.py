"""Class by class and subgroup by subgroup: what the student keeps, with intervals that hold for all of them at once.

A mean hides the class that a student lost. The worst of many reads worse than it is by chance alone, so every interval here is
wider: at level 0.95^(1/k) for k subsets, which together cover 95 % (Sidak 1967; subsets share no item, so are independent).
The lowest of the lower ends and of the upper ends then bound the worst one, whichever it truly is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from distillscope.measure.intervals import ratio_ends, wilson_ends
from distillscope.measure.results import NotMeasured, Subset, Value
from distillscope.registry import measures

LEVEL = 0.95
SAYS = {"accuracy": "Accuracy of the {} on these items.", "retention": "The student's accuracy over the teacher's, here.",
        "negative_flips": "Share of these items that are right on the teacher and wrong on the student."}


def subsets(kind: Literal["class", "subgroup"], classifier: str, of: np.ndarray, teacher_correct: np.ndarray,
            student_correct: np.ndarray, items: np.ndarray | None = None) -> list[Subset]:
    """For each value of ``of`` (n,), in order, what both sides classify rightly (n,) of its items; masked ones are in none.

    ``items`` (n,) says which rows are of one item, where some are. A subset of which the teacher classifies nothing rightly has
    no retention.

    >>> right = np.array([True, True, True, False])
    >>> both = subsets("class", "knn", np.array([0, 0, 1, 1]), np.full(4, True), right)
    >>> [(s.name, s.n, s.values["retention"].value, s.values["negative_flips"].value) for s in both]
    [('0', 2, 1.0, 0.0), ('1', 2, 0.5, 0.5)]
    """
    known = ~np.ma.getmaskarray(of)
    names, place = np.unique(np.ma.getdata(of)[known], return_inverse=True)
    first, second = teacher_correct[known], student_correct[known]

    def counted(right: np.ndarray) -> np.ndarray:
        return np.bincount(place, right, len(names))

    size = counted(np.ones(len(place)))
    scale = np.ones(len(names)) if items is None else _independent(place, items[known]) / size
    level = LEVEL ** (1 / max(1, len(names)))
    both, lost, won = counted(first & second), counted(first & ~second), counted(~first & second)
    ends = {"teacher.accuracy": wilson_ends((both + lost) / size, size * scale, level),
            "student.accuracy": wilson_ends((both + won) / size, size * scale, level),
            "negative_flips": wilson_ends(lost / size, size * scale, level),
            "retention": ratio_ends(both * scale, lost * scale, won * scale, level)}
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = {"teacher.accuracy": (both + lost) / size, "student.accuracy": (both + won) / size,
                  "negative_flips": lost / size, "retention": (both + won) / (both + lost)}

    def value(key: str, i: int) -> Value:
        side, _, what = key.rpartition(".")
        low, high = (float(end[i]) for end in ends[key])
        return Value(float(shares[key][i]), low, high, int(size[i]), SAYS[what].format(side), "share")

    return [Subset(kind, classifier, str(name), int(size[i]),
                   {key: value(key, i) for key in ends if np.isfinite(shares[key][i])}) for i, name in enumerate(names)]


def _independent(place: np.ndarray, items: np.ndarray) -> np.ndarray:
    """How many independent items (k,) those of each subset amount to, where they repeat (Kish 1965)."""
    pairs, sizes = np.unique(np.stack([place, items]), axis=1, return_counts=True)
    return np.bincount(pairs[0], sizes) ** 2 / np.bincount(pairs[0], np.square(sizes))


def ends(found: Sequence[Subset], what: str) -> np.ndarray:
    """Value, low and high (k, 3) of each subset that has ``what``."""
    rows = [(v.value, v.low, v.high) for s in found if (v := s.values.get(what))]
    if not rows:
        raise NotMeasured("the teacher classified nothing correctly")
    return np.array(rows, np.float64)


@measures.register("probe.worst_class_retention", unit="share", group="probe", interval="together", n="probe_count",
                   title="worst class, retention", percent=True, better="higher")
def probe_worst_class(probe_class_retention: np.ndarray) -> float:
    """The smallest share of the teacher's probe accuracy that the student keeps in any class."""
    return float(probe_class_retention[:, 0].min())


@measures.register("probe.worst_class_flips", unit="share", group="probe", interval="together", n="probe_count",
                   title="worst class, flips", percent=True, better="lower")
def probe_worst_class_flips(probe_class_flips: np.ndarray) -> float:
    """The largest share of a class's items that the teacher's probe gets right and the student's gets wrong."""
    return float(probe_class_flips[:, 0].max())


@measures.register("knn.worst_class_retention", unit="share", group="knn", interval="together", n="knn_count",
                   title="worst class, retention", percent=True, better="higher")
def knn_worst_class(knn_class_retention: np.ndarray) -> float:
    """The smallest share of the teacher's accuracy by 10 neighbours that the student keeps in any class."""
    return float(knn_class_retention[:, 0].min())


@measures.register("knn.worst_class_flips", unit="share", group="knn", interval="together", n="knn_count",
                   title="worst class, flips", percent=True, better="lower")
def knn_worst_class_flips(knn_class_flips: np.ndarray) -> float:
    """The largest share of a class's items that 10 neighbours classify right on the teacher and wrong on the student."""
    return float(knn_class_flips[:, 0].max())


@measures.register("probe.worst_subgroup_retention", unit="share", group="probe", interval="together", n="probe_count",
                   title="worst subgroup, retention", percent=True, better="higher")
def probe_worst_subgroup(probe_subgroup_retention: np.ndarray) -> float:
    """The smallest share of the teacher's probe accuracy that the student keeps in any subgroup that was given."""
    return float(probe_subgroup_retention[:, 0].min())


@measures.register("probe.worst_subgroup_flips", unit="share", group="probe", interval="together", n="probe_count",
                   title="worst subgroup, flips", percent=True, better="lower")
def probe_worst_subgroup_flips(probe_subgroup_flips: np.ndarray) -> float:
    """The largest share of a subgroup's items that the teacher's probe gets right and the student's gets wrong."""
    return float(probe_subgroup_flips[:, 0].max())


@measures.register("knn.worst_subgroup_retention", unit="share", group="knn", interval="together", n="knn_count",
                   title="worst subgroup, retention", percent=True, better="higher")
def knn_worst_subgroup(knn_subgroup_retention: np.ndarray) -> float:
    """The smallest share of the teacher's accuracy by 10 neighbours that the student keeps in any subgroup that was given."""
    return float(knn_subgroup_retention[:, 0].min())


@measures.register("knn.worst_subgroup_flips", unit="share", group="knn", interval="together", n="knn_count",
                   title="worst subgroup, flips", percent=True, better="lower")
def knn_worst_subgroup_flips(knn_subgroup_flips: np.ndarray) -> float:
    """The largest share of a subgroup's items that 10 neighbours classify right on the teacher and wrong on the student."""
    return float(knn_subgroup_flips[:, 0].max())
