"""A model's curve over seeds, as a line of a figure."""

from __future__ import annotations

from typing import Any

from distillscope.report.figures.figure import Series
from distillscope.results.curves import mean_curve
from distillscope.results.models import Model
from distillscope.results.run import Run


def curve_over_seeds(run: Run, model: Model, key: str, **more: Any) -> Series | None:
    """Mean and 95 % t interval at each x; None when no seed has the curve."""
    found = mean_curve(run, model, key)
    if found is None:
        return None
    return Series.of(model, found.x, found.y, low=found.low, high=found.high, n=found.n, **more)
