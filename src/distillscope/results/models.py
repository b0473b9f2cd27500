"""The models of a run, in the order, with the name and the colour that they keep everywhere; and their curves over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from distillscope.results.rows import TEACHER
from distillscope.results.run import Finished, Run
from distillscope.results.statistics import half_width

# Okabe & Ito's palette, which colour-blind readers can distinguish; black is the teacher's. The second of each pair is the same
# hue, lightened until it has a contrast of at least 4.5 on the page's dark ground.
STUDENT_COLOURS = [("#0072B2", "#4FA8E0"), ("#D55E00", "#F58A3C"), ("#009E73", "#2FC79B"),
                   ("#CC79A7", "#E39BC4"), ("#56B4E9", "#9AD3F5"), ("#E69F00", "#F3BD4E")]
TEACHER_COLOUR = ("#1A1A1A", "#F4F4F4")
TEACHER_RAW_COLOUR = ("#767676", "#A9A9A9")
NULL_COLOUR = ("#8C8C8C", "#8C8C8C")
# Tol's muted palette and a grey, for classes; the second of each pair is lightened for the dark ground. More classes than these
# begin again with another marker.
CLASS_COLOURS = [("#CC6677", "#E58795"), ("#332288", "#9285EA"), ("#B9A13C", "#DDCC77"), ("#117733", "#4FBF77"),
                 ("#56B4D9", "#88CCEE"), ("#882255", "#CF6699"), ("#44AA99", "#5CC4B2"), ("#85851F", "#BCBC4E"),
                 ("#AA4499", "#CF7CC1"), ("#6E6E6E", "#B0B0B0")]
MOST_ARMS = 3  # that figures can show and sentences can name together
MARKERS = ["circle", "square", "diamond", "triangle-up", "triangle-down", "x"]
DASHES = ["solid", "dash", "dot", "dashdot"]


@dataclass(frozen=True)
class Model:
    """One line of a figure, one row of a table: a teacher's target, or a student under an arm."""

    dataset: str
    teacher: str
    target: str
    arm: str
    student: str
    label: str
    highlight: str  # models with one highlight key light up together
    colour: tuple[str, str]  # on light, on dark
    marker: str = "circle"
    dash: str = "solid"
    objective: str = field(default="", compare=False)
    arms: tuple[str, ...] = ()  # that it belongs to; none: to all of them

    @property
    def is_teacher(self) -> bool:
        return self.student == TEACHER


@dataclass(frozen=True)
class Setting:
    """One data set under one teacher: a panel in every figure."""

    dataset: str
    teacher: str
    teachers: tuple[Model, ...]  # one per target; the one that students are measured against comes first
    students: tuple[Model, ...]
    most_arms: int = MOST_ARMS

    @property
    def title(self) -> str:
        return f"{self.dataset}, teacher {self.teacher}"

    @property
    def models(self) -> tuple[Model, ...]:
        return (*self.teachers, *self.students)

    @property
    def main(self) -> tuple[Model, ...]:
        """The teacher and the students of the first arm: what the study is about."""
        return (*self.teachers[:1], *(m for m in self.students if m.arm == self.students[0].arm))

    @property
    def named(self) -> tuple[Model, ...]:
        """The models that a sentence names: all, where the arms are few."""
        return self.models if len({m.arm for m in self.students}) <= self.most_arms else self.main

    @property
    def reference(self) -> Model | None:
        """The teacher as the students see it (its reduced target where there is one)."""
        return self.teachers[0] if self.teachers else None


def look(index: int) -> tuple[tuple[str, str], str]:
    """Colour and marker of the student (or run) at a place: those whose colours are the same have other markers.

    >>> len({look(i) for i in range(36)}), look(0)[0] == look(6)[0], look(0)[1], look(6)[1]
    (36, True, 'circle', 'square')
    """
    return STUDENT_COLOURS[index % len(STUDENT_COLOURS)], MARKERS[(index + index // len(STUDENT_COLOURS)) % len(MARKERS)]


def _order(known: list[str], found: list[str]) -> list[str]:
    return [k for k in known if k in found] + sorted(f for f in found if f not in known)


def _mode(values: pd.Series) -> str:
    return str(values.value_counts().index[0]) if len(values) else ""


def _ordered_results(results: pd.DataFrame) -> list[tuple[str, str]]:
    return list(dict.fromkeys(zip(results["dataset"], results["teacher"], strict=True)))


def settings_of(run: Run) -> list[Setting]:
    """Every (data set, teacher) of the run with its models, in the study's own order."""
    results = run.all_results
    known_students = [s.label for s in run.study.students]
    known_arms = [a.name for a in run.study.arms]
    every = results[results["student"] != TEACHER]
    students, found_arms = (every[name].unique().tolist() for name in ("student", "arm"))
    students = _order(known_students, students)
    # an arm of which nothing has finished keeps its place: the second does not take the first one's name and look
    arms = known_arms + _order([], [a for a in found_arms if a not in known_arms])
    arms = arms if set(found_arms) & set(known_arms) else _order([], found_arms)
    settings = []
    for dataset, teacher in _ordered_results(results):
        here = results[(results["dataset"] == dataset) & (results["teacher"] == teacher)]
        own = here[here["student"] != TEACHER]
        present = [a for a in arms if a in set(own["arm"])]
        models: list[Model] = []
        used: dict[str, list[str]] = {}
        for arm in present:
            for student in students:
                rows = own[(own["arm"] == arm) & (own["student"] == student)]
                if rows.empty:
                    continue
                target, index = _mode(rows["target"]), students.index(student)
                used.setdefault(target, []).append(arm)
                # The first arm is the study itself; only what departs from it needs a name.
                label = student if arm == arms[0] or not arm else f"{student} ({arm})"
                models.append(Model(dataset, teacher, target, arm, student, label, student,
                                    *look(index),
                                    _dash(arms.index(arm)), _mode(rows["objective"]), (arm,)))
        settings.append(Setting(dataset, teacher, _teachers(here, used), tuple(models)))
    return settings


def _dash(position: int) -> str:
    """Only the first arm's lines are solid, however many arms there are."""
    return DASHES[0] if position == 0 else DASHES[1 + (position - 1) % (len(DASHES) - 1)]


def _teachers(here: pd.DataFrame, used: dict[str, list[str]]) -> tuple[Model, ...]:
    """``used`` holds the arms of each target. The first target and the raw embedding belong to every arm."""
    rows = here[here["student"] == TEACHER]
    found = rows["target"].unique().tolist()
    order = _order(list(used), found)
    teachers = []
    for position, target in enumerate(order):
        raw = target in ("none", "")
        if len(order) == 1:
            label = "teacher"
        else:
            label = "teacher (raw)" if raw else f"teacher ({target})"
        first = rows[rows["target"] == target].iloc[0]
        teachers.append(Model(first["dataset"], first["teacher"], target, first["arm"], TEACHER, label, TEACHER,
                              TEACHER_COLOUR if position == 0 else TEACHER_RAW_COLOUR, "star",
                              "solid" if position == 0 else "dashdot",
                              arms=() if position == 0 or raw else tuple(dict.fromkeys(used.get(target, ())))))
    return tuple(teachers)


@dataclass(frozen=True)
class MeanCurve:
    """``y`` over ``x``, a mean over ``n`` trials, with its band where it has one."""

    x: list[float]
    y: list[float]
    low: list[float] | None
    high: list[float] | None
    n: int


def trials_of_model(run: Run, model: Model) -> list[Finished]:
    """The trials (one per seed) of a student, or the references of a teacher's target."""
    if model.is_teacher:
        return [t for t in run.references
                if (t.dataset, t.teacher, t.target) == (model.dataset, model.teacher, model.target)]
    return [t for t in run.trials
            if (t.dataset, t.teacher, t.arm, t.student) == (model.dataset, model.teacher, model.arm, model.student)]


def _finite(values: Iterable[float | None]) -> np.ndarray:
    return np.asarray([math.nan if v is None else v for v in values], dtype=np.float64)


def mean_curve(run: Run, model: Model, key: str) -> MeanCurve | None:
    """Mean and 95 % t interval at each x over the seeds that have the curve; None when no seed has it.

    Seeds may differ in length (a shorter spectrum): only the x that all of them share are kept, so that every point
    averages the same seeds. One trial's own band (a null's, a permutation's) is shown where there is one trial.
    """
    found = [t.curves[key] for t in trials_of_model(run, model) if key in t.curves]
    if not found:
        return None
    shared = set(found[0]["x"]).intersection(*(c["x"] for c in found[1:]))
    x = [v for v in found[0]["x"] if v in shared]
    if not x:
        return None
    table = []
    for curve in found:
        y = dict(zip(curve["x"], _finite(curve["y"]), strict=True))
        table.append([y[v] for v in x])
    values = np.asarray(table)
    mean, low, high = values.mean(axis=0), None, None
    if len(found) > 1:
        half = half_width(values.std(axis=0, ddof=1), len(found))
        low, high = (mean - half).tolist(), (mean + half).tolist()
    elif found[0].get("low") and found[0].get("high"):
        low, high = _finite(found[0]["low"]).tolist(), _finite(found[0]["high"]).tolist()
    return MeanCurve(x, mean.tolist(), low, high, len(found))


def shared_curve(run: Run, models: tuple[Model, ...], key: str) -> dict[str, Any] | None:
    """The curve of the first trial that has it: for what does not depend on the seed, such as a null."""
    return next((t.curves[key] for m in models for t in trials_of_model(run, m) if key in t.curves), None)
