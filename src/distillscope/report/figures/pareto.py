"""The figure of the recommendation: clean accuracy against noisy accuracy and against mapped rank, the front marked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from distillscope.advice.axes import Axis
from distillscope.advice.rank import Entry, Ranking, Recommendation
from distillscope.report.figures.figure import Figure, Panel, Series
from distillscope.report.page import STUDY_FIGURES
from distillscope.report.recommendation import Advice
from distillscope.report.sentences.numbers import number, percent
from distillscope.results.models import MARKERS, NULL_COLOUR, TEACHER_COLOUR, Model, Setting, look
from distillscope.visible import joined

FRONT = "front"
Look = tuple[tuple[str, str], str]  # colour and marker


@STUDY_FIGURES.register("pareto", order=180)
def trade(advice: Advice, settings: Sequence[Setting]) -> Figure | None:
    """`pareto` of a run's advice; None where no two arms can be compared."""
    figure = pareto(advice.found, [m for s in settings for m in s.main])
    return figure if figure.panels else None


FAR = 3.0  # times the arms' own extent
MOST_WRITTEN = 8  # arms whose names have room beside their points


def pareto(found: Sequence[Recommendation], models: Sequence[Model] = ()) -> Figure:
    """Two panels a student: what an arm wins under noise, and in rank, against what it costs on clean images.

    All arms of a student have its colour, as in ``models``; its plain arm has its own marker, filled.
    """
    panels, findings = [], []
    looks = {m.student: (m.colour, m.marker) for m in models}
    for one in found:
        axes = {a.name: a for a in one.axes}
        named = f"{one.dataset}, {one.teacher}, " if len(found) > 1 else ""
        for place, ranking in enumerate(one.rankings):
            drawn_as = looks.get(ranking.student, look(place))
            for key, members in ranking.fronts.items():
                who = f"{named}{ranking.student}"
                panels.append(_panel(f"{who}: clean accuracy and {_short(key)}", ranking, axes["accuracy"], axes[key], members,
                                     drawn_as))
                names = joined(f"“{n}”" for n in members)
                findings.append(f"{who}, on the front of clean accuracy and {_short(key)}: {names}.")
    return Figure("pareto", "What each arm trades",
                  "Up is more accurate on clean images, right is more accurate under noise or more effective dimensions after "
                  "the map into the teacher's space. Bars are 95 % t intervals of the paired difference to the plain arm. The "
                  "dotted line joins the front: the arms whose means no other beats in both. A bar that reaches the plain "
                  "arm's value shows no difference.",
                  panels, "" if panels else "No two arms with accuracies can be compared.", findings)


def _short(axis: str) -> str:
    return "noise" if axis == "robustness" else "rank"


def _panel(title: str, ranking: Ranking, clean: Axis, other: Axis, members: Sequence[str], drawn_as: Look) -> Panel:
    scale = other.scale
    named = {ranking.plain, *members} if len(ranking.entries) > MOST_WRITTEN else {e.arm.name for e in ranking.entries}
    ends = [ranking.named(n).values for n in members]
    series = [Series(FRONT, "null", NULL_COLOUR, [scale * v[other.name] for v in ends], [v["accuracy"] for v in ends],
                     dash="dot")]
    order = sorted(ranking.entries, key=lambda e: e.arm.name != ranking.plain)  # the plain arm keeps the first colour
    series += [_point(entry, i, ranking, other, drawn_as, entry.arm.name in named) for i, entry in enumerate(order)]
    unit, note = ", %" if other.name == "robustness" else "", ""
    if clean.teacher is not None and other.teacher is not None:
        teacher = Series("teacher", "teacher", TEACHER_COLOUR, [scale * other.teacher], [clean.teacher], kind="points",
                         marker="star")
        if _near(teacher, series):
            series.append(teacher)
        else:
            reach = f"{number(teacher.x[0], 1)}{unit.lstrip(',')}, clean {percent(clean.teacher)}"
            note = f"The teacher is beyond the drawing: {reach}"
    return Panel(title, f"{other.title}{unit}", "clean accuracy", series, y_percent=True, note=note)


def _near(teacher: Series, arms: Sequence[Series]) -> bool:
    """Whether the arms remain distinguishable with the teacher in the drawing."""
    for axis in ("x", "y"):
        ends = [v for s in arms for part in (getattr(s, axis), getattr(s, f"{axis}_low" if axis == "x" else "low"),
                                             getattr(s, f"{axis}_high" if axis == "x" else "high")) for v in part or []]
        (own,) = getattr(teacher, axis)
        if max([*ends, own]) - min([*ends, own]) > FAR * (max(ends) - min(ends)):
            return False
    return True


def _point(entry: Entry, place: int, ranking: Ranking, other: Axis, drawn_as: Look, written: bool) -> Series:
    """An arm's mean, with the intervals of its differences to the plain arm (none for the plain arm itself)."""
    x, y, scale = entry.values[other.name], entry.values["accuracy"], other.scale
    colour, own = drawn_as
    plain, rest = entry.arm.name == ranking.plain, [m for m in MARKERS if m not in (own, "x")]
    ends: dict[str, Any] = {}
    if not plain:
        for name, value, key, size in (("", y, "accuracy", 1.0), ("x_", x, other.name, scale)):
            gain = entry.gains[key]
            low, high = gain.interval()
            if math.isfinite(low):
                ends |= {f"{name}low": [size * (value - gain.mean + low)], f"{name}high": [size * (value - gain.mean + high)]}
    return Series(entry.arm.name, ranking.student, colour, [scale * x], [y], kind="points", n=entry.n,
                  dash="solid" if plain else "dash", marker=own if plain else rest[(place - 1) % len(rest)],
                  written=entry.arm.name if written else "", **ends)
