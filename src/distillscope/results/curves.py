"""Curves of single trials -> one curve per model, with its interval over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from distillscope.results.models import Model
from distillscope.results.run import Finished, Run
from distillscope.results.statistics import half_width


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
