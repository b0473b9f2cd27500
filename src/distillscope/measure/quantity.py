"""What a measure and a curve give back, and the one way to say that a measure does not apply."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import numpy as np

from distillscope.facts import Group

GROUPS: tuple[str, ...] = get_args(Group)


class Points(NamedTuple):
    """What a curve function returns: ``y`` over ``x``, where known with a band."""

    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None


class NotMeasured(Exception):
    """Raised by the pool where a measure does not apply; the audit leaves the measure out and prints the reason."""


def definition(function: Callable[..., Any]) -> str:
    """First line of the docstring."""
    return (inspect.getdoc(function) or "").split("\n")[0]
