"""The measures of an audit as its page and the terminal show them: which, in which order, and each as text."""

from __future__ import annotations

import re
from dataclasses import dataclass

from distillscope.measure.results import Audit, Line, Value
from distillscope.report.sentences.audit_measures import meaning
from distillscope.report.sentences.audit_values import between, title_of, told
from distillscope.report.sentences.numbers import percent

GROUPS = {"spectrum": "Directions", "alignment": "Alignment with the teacher", "contrastive": "Telling items apart",
          "retrieval": "Search", "similarity": "Similarity", "probe": "Labels: linear probe", "knn": "Labels: neighbours",
          "zero_shot": "Labels: class names", "paper": "As in the paper"}
PREFERRED = ["effective_rank", "alignment.teacher_r2", "probe.accuracy", "retrieval.recall_at_1",
             "retrieval.neighbour_overlap_10", "alignment.mean_cosine", "knn.accuracy", "zero_shot.accuracy",
             "contrastive.retained_share", "similarity.linear_cka_debiased", "dims_90",
             "retrieval.mapped_recall_at_1", "similarity.mutual_knn_10", "alignment.student_variance_top20",
             "effective_rank_corrected", "uniformity", "mean_energy", "participation_ratio", "twonn_dimension",
             "paper.probe.accuracy", "similarity.procrustes", "paper.infonce"]
"""The most useful first; as many of them are shown as fit into a screen."""
MOST = 13
FEW_ITEMS = "effective_rank_corrected"


@dataclass(frozen=True)
class ShownValue:
    """One side's value as text, its interval below it, and all digits of it."""

    text: str
    interval: str
    exact: float


@dataclass(frozen=True)
class ShownLine:
    """One measure of an audit as text; ``retained`` is '' where a share of the teacher's means nothing."""

    name: str
    group: str
    title: str
    keys: tuple[str, ...]
    teacher: ShownValue | None
    student: ShownValue | None
    of_pair: bool
    retained: str
    retained_exact: float | None
    interval: str
    n: int
    unit: str
    meaning: str
    definition: str


def group_of(name: str) -> str:
    """The group of a line's name; what has no dot is of one side's spectrum.

    >>> group_of("effective_rank"), group_of("paper.probe.accuracy")
    ('spectrum', 'paper')
    """
    head, dot, _ = name.partition(".")
    return head if dot else "spectrum"


def full_lines(found: Audit) -> list[Line]:
    """All lines, group by group in the order of `GROUPS`, the more useful ones of a group first."""
    order, groups = {name: i for i, name in enumerate(PREFERRED)}, list(GROUPS)

    def place(line: Line) -> tuple[int, int, list[int | str]]:
        counted: list[int | str] = [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", line.name)]
        return groups.index(group_of(line.name)), order.get(line.name, len(order)), counted  # recall at 5 stands before at 10

    return sorted(found.lines(), key=place)


def chosen_lines(found: Audit) -> list[Line]:
    """The dozen or so most useful lines."""
    lines = full_lines(found)
    useful = [name for name in PREFERRED if name in {line.name for line in lines}]
    if any(found.values[key].value for key in ("teacher.undersampled", "student.undersampled") if key in found.values):
        useful.sort(key=lambda name: name != FEW_ITEMS)  # with few items it is the rank to look at
    kept = useful[:MOST]
    return [line for line in lines if line.name in kept] if kept else lines


def shown_line(line: Line, found: Audit) -> ShownLine:
    """A line with what it means for this pair."""
    def side(value: Value | None) -> ShownValue | None:
        return None if value is None else ShownValue(told(value, line.name), between(value, line.name), float(value.value))

    known, retained = line.known, line.retained
    return ShownLine(
        line.name, GROUPS[group_of(line.name)], title_of(line.name), line.keys, side(line.teacher), side(line.student),
        line.teacher is None and "student" not in line.keys[0], "" if retained is None else percent(retained), retained,
        between(known, line.name), known.n, known.unit, meaning(line, found), known.definition)
