"""Teacher, student, and files made of the student: what each keeps, and what each step lost, item by item.

A file takes the student's place while all that was fitted to the student stays: the probe, the matrix into the teacher's index,
the student's own index. So a difference comes from the file, and not from fitting again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from distillscope.errors import UserError
from distillscope.measure.intervals import (
    bootstrap_interval,
    holm,
    independent_count,
    loss_interval,
    mcnemar_p,
    wilson_interval,
)
from distillscope.measure.labelled import LabelledPair
from distillscope.measure.pair import Pair
from distillscope.measure.pool import Side
from distillscope.measure.probe import LinearProbe, Map
from distillscope.measure.results import NotMeasured, Stage, Value, WorstItem
from distillscope.measure.spectrum import effective_rank
from distillscope.measure.threads import over_blocks

MOST_WORST = 12
SHIFTED = 0.05
"""By how much more recall a fitted matrix must give before it is recall after the matrix that tells whether items are lost."""
ENOUGH = 0.95
"""R2 of the teacher from itself from which there are enough items to fit that matrix."""

DEFINITIONS: dict[str, tuple[str, str]] = {
    "accuracy": ("share", "Accuracy of the tuned linear probe; files are given the student's probe."),
    "recall_at_1": ("share", "Share of the items that a query finds first in the teacher's index."),
    "mapped_recall_at_1": ("share", "The same after a fitted matrix; files are given the student's."),
    "student_recall_at_1": ("share", "Share of the items that a query by the file finds first in the student's index."),
    "mean_cosine": ("cosine", "Mean cosine of an item's embedding with that of the stage before."),
    "worst_cosine": ("cosine", "The smallest of these cosines."),
    "teacher_cosine": ("cosine", "Mean cosine of an item's embedding with the teacher's."),
    "student_r2": ("R2", ("How much of what differs between the student's embeddings the file's hold, item by item and in the "
                          "same scale: 1 is all of it, a constant gives 0.")),
    "teacher_cosine_lost": ("cosine", "Mean cosine of the stage before with the teacher, less this one's."),
    "effective_rank": ("dims", "exp of the entropy of the centred embeddings' spectrum."),
    "negative_flips": ("share", "Share of the items that were right before the step and are wrong after it."),
    "positive_flips": ("share", "Share of the items that were wrong before the step and are right after it."),
}
"""Key of a stage's value -> unit and definition; `<decision>_lost` is the share right before a step less that after it."""
TESTED = ("accuracy", "recall_at_1", "mapped_recall_at_1")
"""Decisions that are right or wrong, whose losses are tested, the one that tells most first."""


class Replaced(LabelledPair):
    """The pair with its student's rows replaced by a file's; what was fitted to the student stays."""

    def __init__(self, before: LabelledPair, rows: Side) -> None:
        super().__init__(before.teacher, rows, before._labels, before.train, before._train_labels, before.text,
                         before._subgroups)
        self.before = before

    def _restricted(self, index: np.ndarray) -> LabelledPair:
        restricted = self.before._restricted(index)
        rows = Side(self.student.rows.chosen(index), self.settings, restricted.teacher.items, self.student.precision)
        return Replaced(restricted, rows)

    def _probes(self, side: str, kind: str) -> list[LinearProbe]:
        return self.before._outcome(side, kind)[0]

    @property
    def fold_maps(self) -> list[Map]:
        return self.before.fold_maps


def replaced(pool: LabelledPair, name: str, rows: Side) -> Replaced:
    """The pair as it is where the file called ``name`` embeds the items; another number of rows or dimensions is an error."""
    student = pool.student
    for what, wanted, got in (("rows", student.rows.count, rows.rows.count), ("dimensions", student.dim, rows.dim)):
        if wanted != got:
            raise UserError(f"artefact {name}", f"{wanted} {what} like the student", f"{got}",
                            "Pass embeddings of the same items, made by a file of this student.")
    return Replaced(pool, Side(rows.rows, pool.settings, pool.teacher.items, rows.precision))


def stages(pool: LabelledPair, artefacts: Mapping[str, Replaced], groups: Collection[str],
           intervals: bool = True) -> list[Stage]:
    """Teacher, student and each file; p of the losses are Holm-adjusted over all of them."""
    found = [_Made("teacher", "teacher", pool, groups, intervals), _Made("student", "student", pool, groups, intervals)]
    found += [_Made("artefact", name, part, groups, intervals) for name, part in artefacts.items()]
    recall = _telling_recall(pool)
    before = None
    for made in found:
        made.measure()
        if before is not None:
            made.compare(before, recall)
        before = found[min(found.index(made), 1)]
    adjusted = holm({(i, key): p for i, made in enumerate(found) for key, p in made.stage.p.items()})
    for i, made in enumerate(found):
        made.stage.p = {key: adjusted[i, key] for key in made.stage.p}
    return [made.stage for made in found]


def _telling_recall(pool: LabelledPair) -> str:
    """After a fitted matrix where that finds more and there are enough items to fit it, else as they are."""
    distinct = pool.over("retrieval")
    if distinct.teacher.dim != distinct.student.dim:
        return "mapped_recall_at_1"
    if distinct.teacher_own_r2 < ENOUGH:
        return "recall_at_1"
    gained = float(np.mean(distinct.mapped_found_at_1)) - float(np.mean(distinct.found_at_1))
    return "mapped_recall_at_1" if gained > SHIFTED else "recall_at_1"


def _share_kept(errors: np.ndarray, spreads: np.ndarray) -> float:
    """1 less the mean squared error over the mean squared distance from the mean."""
    return 1 - float(np.mean(errors) / np.mean(spreads))


class _Made:
    """A stage as it is made: its values, and for each item whether each decision is right."""

    def __init__(self, kind: Any, name: str, pool: LabelledPair, groups: Collection[str], intervals: bool) -> None:
        self.stage, self.pool, self.groups, self.intervals = Stage(kind, name), pool, groups, intervals
        self.right: dict[str, np.ndarray] = {}

    def measure(self) -> None:
        """What the stage keeps, without looking at another."""
        for key, group in zip(TESTED, ("probe", "retrieval", "retrieval"), strict=True):
            if group in self.groups:
                self._measured(key, lambda key=key, group=group: self._decided(key, self.pool.over(group)))  # type: ignore[misc]
        if "spectrum" in self.groups:
            self._measured("effective_rank", self._rank)

    def _measured(self, key: str, make: Callable[[], Value | None]) -> None:
        try:
            value = make()
        except NotMeasured as reason:
            self.stage.left_out[key] = str(reason)
        else:
            if value is not None:
                self.stage.values[key] = value

    def _value(self, key: str, value: float, interval: tuple[float | None, float | None], n: int) -> Value:
        lost = f"{key}: that of the stage before, less this one's." if key not in DEFINITIONS else ""
        unit, definition = ("share", lost) if lost else DEFINITIONS[key]
        low, high = interval if self.intervals else (None, None)
        return Value(value, low, high, n, definition, unit)

    def _decided(self, key: str, pool: LabelledPair) -> Value | None:
        """A decision for each item; the teacher finds its own items by definition, which is no value of it."""
        teacher = self.stage.kind == "teacher"
        if key == "accuracy":
            right = pool.teacher_probe_correct if teacher else pool.student_probe_correct
        elif teacher:
            self.right[key] = np.ones(pool.retrieval_count, bool)
            return None
        else:
            right = pool.found_at_1 if key == "recall_at_1" else pool.mapped_found_at_1
        self.right[key] = right
        return self._value(key, float(np.mean(right)), wilson_interval(right, count=self._count(key, pool)), len(right))

    def _count(self, key: str, pool: LabelledPair) -> float | None:
        """How many independent decisions there are, where items repeat."""
        return independent_count(pool.probe_items) if key == "accuracy" and pool.teacher.items.repeated else None

    def _rank(self) -> Value:
        side = self.pool.teacher if self.stage.kind == "teacher" else self.pool.student
        return self._value("effective_rank", effective_rank(side.eigenvalues), (None, None), side.count)

    def _over(self, decision: str) -> LabelledPair:
        """The items that a decision is made of."""
        return self.pool.over("probe" if decision == "accuracy" else "retrieval")

    def compare(self, before: _Made, recall: str) -> None:
        """What the step from ``before`` changed: losses with their p, flips, cosines, and the items that changed most."""
        known = [key for key in ("accuracy", recall, *TESTED) if key in self.right and key in before.right]
        known = list(dict.fromkeys(known))
        for key in known:
            first, second, pool = before.right[key], self.right[key], self._over(key)
            count = self._count(key, pool)
            lost = self._value(f"{key}_lost", float(np.mean(first)) - float(np.mean(second)),
                               loss_interval(first, second, count=count), len(first))
            self.stage.values[f"{key}_lost"] = lost
            self.stage.p[key] = mcnemar_p(first, second, pool.probe_items if count is not None else None)
        telling = next(iter(known), None)
        if telling:
            self._flips(before.right[telling], self.right[telling], telling)
        if "alignment" in self.groups:
            self._measured("mean_cosine", lambda: self._cosines(before))
            if self.stage.kind == "artefact":
                self._measured("student_r2", lambda: self._r2(before))
        if self.stage.kind == "artefact" and "retrieval" in self.groups:
            self._measured("student_recall_at_1", lambda: self._in_students_index(before))
        self._worst(before, telling)

    def _flips(self, before: np.ndarray, after: np.ndarray, decision: str) -> None:
        pool = self._over(decision)
        for key, flipped in (("negative_flips", before & ~after), ("positive_flips", ~before & after)):
            found = self._value(key, float(np.mean(flipped)), wilson_interval(flipped, count=self._count(decision, pool)),
                                len(flipped))
            how = "Right: " + ("by the probe." if decision == "accuracy" else "found first in the teacher's index.")
            self.stage.values[key] = Value(found.value, found.low, found.high, found.n, f"{found.definition} {how}", found.unit)

    def _cosines(self, before: _Made) -> Value:
        """Sets the other cosines too."""
        pool, items = self.pool, self.pool.row_items if self.pool.teacher.items.repeated else None
        own = self._step(before).paired_cosines
        seed = pool.settings.seed

        def mean(key: str, cosines: np.ndarray) -> Value:
            interval = bootstrap_interval(np.mean, [cosines], items=items, seed=seed) if self.intervals else (None, None)
            return self._value(key, float(np.mean(cosines)), interval, len(cosines))

        self.stage.values["mean_cosine"] = mean("mean_cosine", own)
        self.stage.values["worst_cosine"] = self._value("worst_cosine", float(np.min(own)), (None, None), len(own))
        if self.stage.kind == "artefact":
            self._measured("teacher_cosine", lambda: mean("teacher_cosine", pool.paired_cosines))
            self._measured("teacher_cosine_lost", lambda: mean("teacher_cosine_lost",
                                                               before.pool.paired_cosines - pool.paired_cosines))
        return self.stage.values["mean_cosine"]

    def _r2(self, before: _Made) -> Value:
        """Of a file's rows as they are: what stands in for the student's embeddings has their scale too."""
        student, own, mean = before.pool.student, self.pool.student, before.pool.student.mean
        errors, spreads = np.empty(own.rows.count), np.empty(own.rows.count)

        def measure(where: slice) -> None:
            exact = student.rows.take(where)
            off = np.ldexp(own.rows.take(where), student.exponent - own.exponent) - exact
            errors[where], spreads[where] = np.einsum("ij,ij->i", off, off), np.square(exact - mean).sum(1)

        over_blocks(measure, own.rows.parts())
        if not spreads.sum() > 0:
            raise NotMeasured("the student's embeddings do not differ")
        items = self.pool.row_items if self.pool.teacher.items.repeated else None
        interval = (bootstrap_interval(_share_kept, [errors, spreads], items=items, seed=self.pool.settings.seed)
                    if self.intervals else (None, None))
        return self._value("student_r2", _share_kept(errors, spreads), interval, len(errors))

    def _step(self, before: _Made) -> Pair:
        """Both ends of the step as a pair."""
        first = before.pool.teacher if before.stage.kind == "teacher" else before.pool.student
        return Pair(first, self.pool.student)

    def _in_students_index(self, before: _Made) -> Value:
        distinct, own = before.pool.over("retrieval"), self.pool.over("retrieval")
        right = LabelledPair(distinct.student, own.student).found_at_1
        return self._value("student_recall_at_1", float(np.mean(right)), wilson_interval(right), len(right))

    def _worst(self, before: _Made, telling: str | None) -> None:
        """By their cosine, the lowest first; where there is none, by the rank of the own item, the last first."""
        step, pool = self._step(before), self.pool
        cosines = step.paired_cosines if "mean_cosine" in self.stage.values else None
        if cosines is not None:
            order = np.argsort(cosines, kind="stable")
        elif "retrieval" in self.groups and pool.over("retrieval") is pool:
            ranks = np.zeros(pool.count)
            ranks[pool.gallery_index[: pool.num_queries]] = pool.mapped_retrieval_ranks
            order = np.argsort(-ranks, kind="stable")
        else:
            return
        for row in order[:MOST_WORST]:
            at = self._place(int(row), telling)
            right = (None, None) if at is None or telling is None else (bool(before.right[telling][at]),
                                                                        bool(self.right[telling][at]))
            self.stage.worst.append(WorstItem(int(row), None if cosines is None else float(cosines[row]),
                                              None if cosines is not None else int(ranks[row]), *right))

    def _place(self, row: int, telling: str | None) -> int | None:
        """Where the decisions of that row stand; None where it took no part."""
        if telling is None or (pool := self._over(telling)) is not self.pool:
            return None
        index = pool.probe_index if telling == "accuracy" else pool.gallery_index[: pool.num_queries]
        found = np.flatnonzero(index == row)
        return int(found[0]) if len(found) else None
