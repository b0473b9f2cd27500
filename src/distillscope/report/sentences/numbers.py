"""Numbers as a reader wants them, and what the dotted keys are called."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from distillscope.measure.results import decimals
from distillscope.results import keys
from distillscope.results.keys import ACCURACIES, NBSP, facts_of, teacher_key
from distillscope.visible import joined

if TYPE_CHECKING:
    from distillscope.results.summary import Statistic, Summary

INFONCE = [(loss, ceiling, facts_of(loss).hint) for loss, ceiling in keys.INFONCE]
UNIFORMITY = [(spread, facts_of(spread).hint) for spread in keys.UNIFORMITY]

MISSING = "–"
"""What stands where nothing was measured."""


def accuracy_of(summary: Summary) -> tuple[str, str] | None:
    """(dotted key, its name) of the accuracy that this run can show; None without labels."""
    measures = summary.measures()
    return next(((k, facts_of(k).hint) for k in ACCURACIES if k in measures or teacher_key(k) in measures), None)


def second_accuracy(summary: Summary) -> tuple[str, str] | None:
    """(dotted key, its name) of an accuracy that was measured of teacher and students beside the one that is shown: the tuned
    probe's, else that of neighbours. Only it says whether a loss is the student's, or that of a probe whose C does not fit it.
    """
    measures, first = summary.measures(), accuracy_of(summary)
    return next(((k, facts_of(k).hint) for k in ACCURACIES
                 if first and k != first[0] and {k, teacher_key(k)} <= measures), None)


def by(hint: str) -> str:
    """
    >>> by("linear probe (tuned)"), by("nearest neighbours")
    ('by a linear probe (tuned)', 'by nearest neighbours')
    """
    return f"by {'a ' if 'probe' in hint else ''}{hint}"


def first_known(keys: Iterable[tuple], summary: Summary) -> tuple | None:
    """The first of ``keys`` (tuples that begin with a dotted key) that the run holds."""
    measures = summary.measures()
    return next((k for k in keys if k[0] in measures), None)


def number(value: float | None, digits: int = 2) -> str:
    """
    >>> number(1405440.0, 0), number(-0.001, 2), number(float("nan"))
    ('1,405,440', '0.00', '–')
    """
    if value is None or not math.isfinite(value):
        return MISSING
    text = f"{value:,.{digits}f}"
    return text.replace("-", "") if not text.strip("-0.,") else text.replace("-", "−")


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction as per cent.

    >>> percent(0.7111) == f"71.1{NBSP}%"
    True
    """
    return MISSING if value is None or not math.isfinite(value) else f"{number(100 * value, digits)}{NBSP}%"


def count(value: float) -> str:
    """A large count, short.

    >>> [count(v).replace(NBSP, " ") for v in (811264, 2732032, 42)]
    ['811 k', '2.73 M', '42']
    """
    for size, unit, digits in ((1e9, "G", 2), (1e6, "M", 2), (1e3, "k", 0)):
        if abs(value) >= size:
            return f"{value / size:.{digits}f}{NBSP}{unit}"
    return number(value, 0)


def seeds_text(n: int) -> str:
    """
    >>> seeds_text(1), seeds_text(3)
    ('n = 1 seed, no interval', 'n = 3 seeds')
    """
    return "n = 1 seed, no interval" if n == 1 else f"n = {n} seeds"


def interval_text(s: Statistic, digits: int = 2, scale: float = 1.0) -> str:
    """'[14.10, 17.90]', or nothing where one seed gives none."""
    if not math.isfinite(s.low):
        return ""
    return bracket(scale * s.low, scale * s.high, digits)


def bracket(low: float, high: float, digits: int = 2) -> str:
    """An interval; an end that is not 0 does not read as 0, which would leave open on which side of 0 it lies.

    >>> bracket(0.1, 1.4, 1), bracket(-0.02, 1.4, 1), bracket(0.0, 1.4, 1), bracket(1e-9, 1.4, 1)
    ('[0.1, 1.4]', '[−0.02, 1.40]', '[0.0, 1.4]', '[0.0, 1.4]')
    """
    shown = decimals(low, low, high, least=digits)
    return f"[{number(low, shown)}, {number(high, shown)}]"


def quoted(names: Iterable[str]) -> str:
    """
    >>> quoted(["a", "b"])
    '“a” and “b”'
    """
    return joined(f"“{n}”" for n in names)


MOST_NAMES = 5
"""Names that a sentence lists."""


def several(names: Sequence[str]) -> str:
    """
    >>> several(["a", "b"]), several("abcdefg")
    ('“a” and “b”', '“a”, “b”, “c”, “d”, “e” and 2 more')
    """
    kept, more = names[:MOST_NAMES], len(names) - MOST_NAMES
    return joined([*(f"“{n}”" for n in kept), f"{more} more"]) if more > 0 else quoted(kept)


def alike(values: Sequence[float], value: float) -> list[int]:
    """The places of all values that equal one of them, up to rounding: the largest or the smallest may be several.

    >>> alike([0.3, 0.1 + 0.2, 0.4], 0.3)
    [0, 1]
    """
    return [i for i, v in enumerate(values) if math.isclose(v, value, rel_tol=1e-9, abs_tol=1e-12)]


def shortened(name: str, room: int = 14) -> str:
    """A name that fits under a bar.

    >>> shortened("efficientnet_lite0_half")
    'efficientnet_…'
    """
    return name if len(name) <= room else name[: room - 1] + "…"


def span(values: Iterable[float], digits: int = 1) -> str:
    """
    >>> span([15.9, 16.6]), span([2.0, 2.0])
    ('15.9 to 16.6', '2.0')
    """
    kept = sorted(v for v in values if math.isfinite(v))
    low, high = (number(kept[0], digits), number(kept[-1], digits)) if kept else (MISSING, MISSING)
    return low if low == high else f"{low} to {high}"
