"""What a measure says of itself, and the one way to say that it does not apply."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

GROUPS = ("spectrum", "alignment", "contrastive", "paper", "similarity", "retrieval", "probe", "knn",
          "zero_shot")

Interval = Literal["items", "dependent", "batches", "jackknife", "draws"] | None


@dataclass(frozen=True)
class Quantity:
    """Unit, group, and how a measure's interval over items is made.

    ``items``: every parameter holds one score per item, and rows are resampled (bootstrap, paired).
    ``dependent``: the only parameter holds right or wrong per item, and items are one another's neighbours: Wilson's interval
    at the number of independent items that the jackknife's error amounts to.
    ``batches``: the only parameter holds one score a batch, and batches do not share items: a t interval over them.
    ``jackknife``: groups of items are left out, and the measure is computed again from what remains.
    ``draws``: the only parameter is an array of draws under a null; the value is their mean, the interval their spread.
    ``smooth`` is the measure before it was rounded to a whole number: its jackknife interval is rounded outwards.
    ``n`` names the pool's attribute that holds the number of items behind the value.
    """

    unit: str
    group: str
    interval: Interval = None
    n: str = "count"
    smooth: Callable[..., float] | None = None


class Points(NamedTuple):
    """What a curve function returns: ``y`` over ``x``, where known with a band."""

    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None


class NotMeasured(Exception):
    """Raised by the pool where a measure does not apply; the audit leaves the measure out and prints the reason."""


def quantity_of(measure: Callable[..., Any]) -> Quantity:
    """What a registered measure says of itself."""
    found: Quantity = vars(measure)["quantity"]
    return found


def gives(unit: str, *, group: str, interval: Interval = None, n: str = "count",
          smooth: Callable[..., float] | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Attach a ``Quantity`` to a measure; the function itself is returned unchanged."""
    if group not in GROUPS:
        raise ValueError(f"unknown group '{group}', known: {', '.join(GROUPS)}")

    def attach(function: Callable[..., Any]) -> Callable[..., Any]:
        function.quantity = Quantity(unit, group, interval, n, smooth)
        return function

    return attach


CURVES: dict[str, Callable[..., Points]] = {}


def curve(key: str, unit: str, *, group: str) -> Callable[[Callable[..., Points]], Callable[..., Points]]:
    """Register a function that returns ``Points``; a curve of one side has a key without ``teacher.``/``student.``."""

    def attach(function: Callable[..., Points]) -> Callable[..., Points]:
        CURVES[key] = gives(unit, group=group)(function)
        return function

    return attach


def definition(function: Callable[..., Any]) -> str:
    """First line of the docstring."""
    return (inspect.getdoc(function) or "").split("\n")[0]


def needs(function: Callable[..., Any]) -> list[str]:
    """Names that a measure asks of the pool: its positional parameters."""
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
