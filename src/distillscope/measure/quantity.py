"""What a measure and a curve give back, how one says that it does not apply, and how many decimals are shown."""

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


MOST = 6
SAME = 1e-9
"""What differs by less is equal but for rounding in the computation."""


def decimals(value: float, low: float | None = None, high: float | None = None, *, least: int, full: float | None = None,
             most: int = MOST) -> int:
    """Decimals, ``least`` to ``most``, with which a value and its interval read as what they are.

    A value that is not ``full`` (1, or 100 in per cent) does not read as full, and two different ends of an interval do not
    read as one. Where ``most`` are too few for that, ``least`` is enough.

    >>> decimals(0.99988, 0.99987, 0.99989, least=3, full=1), decimals(1 - 1e-16, 1.0, 1.0, least=3, full=1)
    (5, 3)
    >>> decimals(99.97, least=1, full=100), decimals(31.04, 30.6, 31.4, least=1)
    (2, 1)
    """
    known = [v for v in (value, low, high) if v is not None]
    one = low is None or high is None or high - low < SAME
    for digits in range(least, most + 1):
        if all(_reads(v, digits, full) for v in known) and (one or len({round(v, digits) for v in known[1:]}) > 1):
            return digits
    return least


def _reads(value: float, digits: int, full: float | None) -> bool:
    """Whether the value does not read as full where it is not."""
    return full is None or abs(abs(value) - full) < SAME * full or round(abs(value), digits) != full
