"""The head of the audit's page: who against whom, and the figures of merit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from distillscope.measure.results import Audit, Value
from distillscope.report.figures.audit_series import STUDENT_MODEL, TEACHER_MODEL
from distillscope.report.sentences.audit import ACCURACIES, RECALLS, accuracy_head, recall_key
from distillscope.report.sentences.audit_measures import gallery_size, read_as
from distillscope.report.sentences.audit_values import between, told
from distillscope.report.sentences.study import Merit, MeritRow
from distillscope.results.models import Model
from distillscope.results.summary import Statistic

MOST = 5
"""Figures of merit that are shown."""


class _Named(Protocol):
    @property
    def found(self) -> Audit: ...
    @property
    def teacher(self) -> str: ...
    @property
    def student(self) -> str: ...


@dataclass(frozen=True)
class Study:
    """Who against whom, over how many items and dimensions (of each side whose spectrum is known), and how each was read."""

    teacher: str
    student: str
    num_items: int
    dims: list[int]
    read_as: list[str]


def study_of(audited: _Named) -> Study:
    """The line above the headline."""
    found = audited.found
    dims = [len(found.curves[key].x) for side in ("teacher", "student") if (key := f"{side}.spectrum") in found.curves]
    return Study(audited.teacher, audited.student, found.num_items, dims, read_as(found))


def merits(found: Audit) -> list[Merit]:
    """Four or five figures of merit, the teacher beside the student where both have one."""
    gallery, head = gallery_size(found), accuracy_head(found)
    recall = recall_key(found) or next((k for k in RECALLS if k in found.values), "")
    wanted: list[tuple[str, str, tuple[str, str], float | None]] = [
        ("Effective rank", "directions that are filled evenly", ("teacher.effective_rank", "student.effective_rank"), None),
        ("R² of the teacher", "the teacher's variance, predicted linearly from the student", ("", "alignment.teacher_r2"),
         1.0)]
    if head:
        wanted.append(("Accuracy", f"{ACCURACIES[head]}; n = {found.values[f'{head}.student.accuracy'].n:,}",
                       (f"{head}.teacher.accuracy", f"{head}.student.accuracy"), 1.0))
    wanted += [(title, note, ("", key), 1.0) for title, note, key in (
        ("Recall at 1", f"own item first in the teacher's index of {gallery:,}{RECALLS.get(recall, '')}", recall),
        ("Shared neighbours", "of the first 10, each side in an index of its own", "retrieval.neighbour_overlap_10"),
        ("CKA, debiased", "similarity up to a rotation", "similarity.linear_cka_debiased"),
        ("Contrastive retention", "nats kept, of what the teacher keeps of itself", "contrastive.retained_share"))]
    cards = []
    for title, note, keys, full in wanted:
        rows = [_row(model, found.values[key], key) for model, key in zip((TEACHER_MODEL, STUDENT_MODEL), keys, strict=True)
                if key in found.values]
        if rows:
            cards.append(Merit(title, note, rows, full or max(row.statistic.mean for row in rows)))
    return cards[:MOST]


def _row(model: Model, value: Value, name: str) -> MeritRow:
    low, high = (math.nan if v is None else v for v in (value.low, value.high))
    statistic = Statistic(value.value, math.nan, math.nan, low, high, 1, (value.value,), value.n, value.unit)
    return MeritRow(model, statistic, told(value, name), between(value, name))
