"""The audit's page: its head, and its sections in the order in which a reader asks.

What was lost, does it matter, why, what to change, and is it to be believed? A section is a function here, registered in
`AUDIT`; its template is the one of its name in report/templates/audit, unless it names one that sections share.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from distillscope.measure.results import Audit, Stage, Value
from distillscope.report.context.figure import ShownFigure, duration
from distillscope.report.context.images import thumbnail
from distillscope.report.figures.audit_items import STUDENT_MODEL, TEACHER_MODEL
from distillscope.report.page import AUDIT
from distillscope.report.sentences.audit import (
    ACCURACIES,
    RECALLS,
    accuracy_head,
    advice,
    bands,
    does_it_matter,
    losses,
    recall_key,
)
from distillscope.report.sentences.audit_measures import between, gallery_size, read_as, told
from distillscope.report.sentences.stages import stage_findings, stage_rows, stage_titles, unshown, worst_measure, worst_text
from distillscope.report.sentences.study import Merit, MeritRow
from distillscope.report.terminals import ShownLine, ShownValue, full_lines, shown_line
from distillscope.results.models import Model
from distillscope.results.summary import Statistic

Shown = Callable[..., list[ShownFigure]]
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
    recall = recall_key(found) or next((k for k in RECALLS if k in found.measured), "")
    wanted: list[tuple[str, str, tuple[str, str], float | None]] = [
        ("Effective rank", "directions that are filled evenly", ("teacher.effective_rank", "student.effective_rank"), None),
        ("R² of the teacher", "the teacher's variance, predicted linearly from the student", ("", "alignment.teacher_r2"),
         1.0)]
    if head:
        wanted.append(("Accuracy", f"{ACCURACIES[head]}; n = {found.measured[f'{head}.student.accuracy'].n:,}",
                       (f"{head}.teacher.accuracy", f"{head}.student.accuracy"), 1.0))
    wanted += [(title, note, ("", key), 1.0) for title, note, key in (
        ("Recall at 1", f"own item first in the teacher's index of {gallery:,}{RECALLS.get(recall, '')}", recall),
        ("Shared neighbours", "of the first 10, each side in an index of its own", "retrieval.neighbour_overlap_10"),
        ("CKA, debiased", "similarity up to a rotation", "similarity.linear_cka_debiased"),
        ("Contrastive retention", "nats kept, of what the teacher keeps of itself", "contrastive.retained_share"))]
    cards = []
    for title, note, keys, full in wanted:
        rows = [_row(model, found.measured[key], key) for model, key in zip((TEACHER_MODEL, STUDENT_MODEL), keys, strict=True)
                if key in found.measured]
        if rows:
            cards.append(Merit(title, note, rows, full or max(row.statistic.mean for row in rows)))
    return cards[:MOST]


def _row(model: Model, value: Value, name: str) -> MeritRow:
    low, high = (math.nan if v is None else v for v in (value.low, value.high))
    statistic = Statistic(value.value, math.nan, math.nan, low, high, 1, (value.value,), value.n, value.unit)
    return MeritRow(model, statistic, told(value, name), between(value, name))


@dataclass(frozen=True)
class StageTile:
    """An image that a step changed much, as a data: address; whether it was right before the step and is wrong after it."""

    picture: str
    text: str
    measure: str
    flipped: bool


@dataclass(frozen=True)
class StageImages:
    """The images that a step changed most."""

    name: str
    head: str
    tiles: list[StageTile]


@AUDIT.register("stages", "Step by step", order=5)
def stages(found: Audit, pictures: dict[str, Any], drawn: Shown) -> dict[str, Any] | None:
    """Every stage in a column, what each step changed, and the images that it changed most."""
    if not found.stages:
        return None
    return {"figures": drawn("stages"), "titles": stage_titles(found), "rows": stage_rows(found),
            "findings": stage_findings(found),
            "steps": [images for stage in found.stages if (images := _stage_images(stage, pictures))]}


def _stage_images(stage: Stage, pictures: dict[str, Any]) -> StageImages | None:
    if not stage.worst:
        return None
    if nothing := unshown(stage):
        return StageImages(stage.name, nothing, [])
    tiles = [StageTile(thumbnail(pictures[item.id]), worst_text(item), worst_measure(item),
                       bool(item.before and not item.after)) for item in stage.worst if item.id in pictures]
    by = "lowest cosine" if stage.worst[0].cosine is not None else "last rank in the teacher's index"
    return StageImages(stage.name, f"the images that the step changed most, by {by}; “wrong” was right before it.", tiles)


@AUDIT.register("lost", "What was lost", order=10, template="findings")
def lost(found: Audit) -> dict[str, Any]:
    """A sentence for each way to lose, and what the verdict's words stand for."""
    return {"sentences": [loss.sentence for loss in losses(found)], "nothing": "", "note": bands()}


@AUDIT.register("matter", "Does it matter?", order=20, template="findings")
def matter(found: Audit) -> dict[str, Any]:
    """What it costs a classifier and a search index."""
    nothing = "Nothing that was measured can tell: there are no labels and no search index."
    return {"sentences": does_it_matter(found), "nothing": nothing, "note": ""}


@AUDIT.register("advice", "What to change", order=80, template="findings")
def what_to_change(found: Audit) -> dict[str, Any]:
    """What to try, and what speaks for it."""
    return {"sentences": advice(found), "nothing": "", "note": ""}


@AUDIT.register("labels", "Labels", order=30, template="figures")
def labels(found: Audit, drawn: Shown) -> dict[str, Any]:
    """Accuracies of both sides, with few labels too, and the classes that lost most."""
    few = any(key.startswith("few.") for key in found.measured)
    return {"rows": [drawn("accuracy", *(["few"] if few else [])), *([drawn("subsets")] if found.subsets else [])]}


@AUDIT.register("directions", "Directions", order=40, template="figures")
def directions(drawn: Shown) -> dict[str, Any]:
    """How many directions each side fills."""
    return {"rows": [drawn("spectrum"), drawn("rank_by_n")]}


@AUDIT.register("alignment", "What of the teacher is in it", order=50, template="figures")
def alignment(drawn: Shown) -> dict[str, Any]:
    """Whose directions they are, and which of the teacher's can be predicted."""
    return {"rows": [drawn("alignment", "component_r2")]}


@AUDIT.register("search", "Search and similarity", order=60, template="figures")
def search(found: Audit, drawn: Shown) -> dict[str, Any]:
    """Recall in a search index, similarities up to a rotation, either side in the other's index, and shorter embeddings."""
    groups = {key.partition(".")[0] for key in found.measured}
    return {"rows": [drawn("retrieval", "similarity"), *(drawn(key) for key in ("swap", "codes") if key in groups)]}


@AUDIT.register("ood", "Items from elsewhere", order=65, template="figures")
def elsewhere(found: Audit, drawn: Shown) -> dict[str, Any] | None:
    """How well each side's distances find what is not of the known items; nothing where no such items were given."""
    return {"rows": [drawn("ood")]} if "ood.student.auroc" in found.measured else None


@AUDIT.register("items", "Distinguishing items", order=70, template="figures")
def items(drawn: Shown) -> dict[str, Any]:
    """How many nats the embeddings hold of which item is which."""
    return {"rows": [drawn("contrastive")]}


UNKNOWN: tuple[Any, ...] = (None, "", 0, {}, [])
"""Values of a provenance that say nothing."""


@dataclass(frozen=True)
class Row:
    """A line of the table; ``key`` is in the pieces between which it may be broken."""

    line: ShownLine
    key: list[str]

    @property
    def sides(self) -> list[tuple[str, ShownValue | None]]:
        """The teacher's value, and the student's or the pair's."""
        return [("teacher", self.line.teacher), ("pair" if self.line.of_pair else "student", self.line.student)]


@AUDIT.register("table", "All measures", order=90)
def table(found: Audit) -> dict[str, Any]:
    """Every measure with both sides, what is retained, n, unit, what the value means, and the definition."""
    lines = [shown_line(line, found) for line in full_lines(found)]
    return {"rows": [Row(line, pieces(shared_key(line.keys))) for line in lines]}


def shared_key(keys: tuple[str, ...]) -> str:
    """Both sides' keys in one, as a shell would expand it.

    >>> shared_key(("teacher.dims_90", "student.dims_90")), shared_key(("probe.c",))
    ('{teacher,student}.dims_90', 'probe.c')
    """
    if len(keys) == 1:
        return keys[0]
    return ".".join("{teacher,student}" if a != b else a for a, b in zip(*(k.split(".") for k in keys), strict=True))


def pieces(key: str) -> list[str]:
    """A key in the pieces between which it may be broken: behind dots and underscores.

    >>> pieces("student.dims_90")
    ['student.', 'dims_', '90']
    """
    return re.findall(r"[^._]*[._]|[^._]+$", key)


@AUDIT.register("left-out", "What was left out, and why", order=100)
def left_out(found: Audit) -> dict[str, Any]:
    """Reason by reason, the keys that were not measured."""
    return {"reasons": found.reasons}


@AUDIT.register("provenance", "Provenance", order=110, template="provenance")
def provenance(provenance: dict[str, Any], teacher: str, student: str, command: str) -> dict[str, Any]:
    """Where the numbers come from, and the command that makes them again."""
    facts: dict[str, Any] = {"teacher": teacher, "student": student}
    for key, value in provenance.items():
        if key == "seconds":
            facts["duration"] = duration(value) if value else ""
        elif key != "command" and value not in UNKNOWN:
            facts[key.replace("_", " ")] = _plain(value)
    return {"sides": [{"label": "", "facts": facts, "made_by": ""}], "command": command}


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items())
    return ", ".join(map(_plain, value)) if isinstance(value, (list, tuple)) else str(value)
