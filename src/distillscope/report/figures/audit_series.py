"""Curves and values of an audit -> the series that its figures draw."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from distillscope.measure.results import Audit, Curve, Value
from distillscope.report.figures.figure import Series
from distillscope.results.models import NULL_COLOUR, STUDENT_COLOURS, TEACHER_COLOUR, Model, Setting
from distillscope.results.rows import TEACHER

MOST_POINTS = 400
"""Points of a curve that are drawn; audit.json keeps them all."""
ITEMS = {"n_of": "item"}

TEACHER_MODEL = Model("", "", "", "", TEACHER, "teacher", TEACHER, TEACHER_COLOUR, "star")
STUDENT_MODEL = Model("", "", "", "", "student", "student", "student", STUDENT_COLOURS[0], "circle")
SIDES = (TEACHER_MODEL, STUDENT_MODEL)
SETTING = Setting("", "", (TEACHER_MODEL,), (STUDENT_MODEL,))
"""What the page's legend shows."""


def grey_model(label: str) -> Model:
    """What is drawn for comparison only: shuffled items, chance."""
    return replace(STUDENT_MODEL, label=label, highlight="null", colour=NULL_COLOUR, marker="x")


def thinned(x: np.ndarray, y: np.ndarray, most: int = MOST_POINTS) -> tuple[list[float], list[float]]:
    """At most ``most`` of the points, evenly spaced on a logarithmic axis, the first and the last among them.

    >>> x, y = thinned(np.arange(1, 10_001), np.arange(1, 10_001) ** 2)
    >>> len(x) <= 400, x[0], x[-1], y[-1]
    (True, 1.0, 10000.0, 100000000.0)
    """
    if len(x) > most:
        kept = np.unique(np.round(np.geomspace(1, len(x), most)).astype(int)) - 1
        x, y = np.asarray(x)[kept], np.asarray(y)[kept]
    return [float(v) for v in x], [float(v) for v in y]


def line(found: Audit, model: Model, key: str, **more) -> Series | None:
    """A curve of the audit as the model's line; None where it was not measured."""
    curve: Curve | None = found.curves.get(key)
    if curve is None or not len(curve.x):
        return None
    x, y = thinned(curve.x, curve.y)
    return Series.of(model, x, y, n=found.num_items, **ITEMS, **more)


def null_line(x: Iterable[float], y: Iterable[float], label: str, **more) -> Series:
    """What is drawn for comparison only, dotted."""
    return Series(label, "null", NULL_COLOUR, list(map(float, x)), list(map(float, y)), dash="dot", **more)


def dots(model: Model, places: list[float], values: list[Value], names: list[str], shift: float = 0.0, **more) -> Series:
    """A point a value with its interval; the hover says the measure, its interval and n."""
    known = all(v.low is not None for v in values)
    hover = [f"{name.replace(chr(10), ' ')}, n = {v.n:,}" for name, v in zip(names, values, strict=True)]
    return Series.of(model, [p + shift for p in places], [v.value for v in values], kind="points", hover=hover,
                     low=[v.low for v in values] if known else None, high=[v.high for v in values] if known else None,
                     **{"marker": model.marker, **more})


def absent(found: Audit, keys: tuple[str, ...], otherwise: str) -> str:
    """Why a figure is not there: the audit's own reason, where it gave one."""
    reason = next((found.left_out[k] for k in keys if k in found.left_out), None)
    return f"Left out: {reason}." if reason else otherwise
