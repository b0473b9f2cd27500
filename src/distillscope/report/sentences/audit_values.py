"""How the values of an audit are written: title, decimals, unit, interval."""

from __future__ import annotations

from distillscope.measure.quantity import decimals
from distillscope.measure.results import Value
from distillscope.report.sentences.numbers import number, percent
from distillscope.results.keys import NBSP, facts_of

BOUNDED = ("share", "cosine", "R2", "correlation")
"""Units of which 1 is the most."""


def title_of(name: str) -> str:
    """
    >>> title_of("dims_90").replace(NBSP, " "), title_of("retrieval.recall_at_5")
    ('dims for 90 %', 'recall at 5')
    """
    return facts_of(name).title


def shown(value: float, unit: str, name: str = "", digits: int | None = None) -> str:
    """A value as a reader wants it: shares that count items or variance as per cent, the rest in its unit.

    ``digits`` are the decimals of those units that have a choice; without it as many as the value alone asks for.

    >>> shown(0.758, "share", "probe.accuracy").replace(NBSP, " "), shown(0.91234, "share", "similarity.procrustes")
    ('75.8 %', '0.912')
    >>> shown(31.04, "dims"), shown(3, "dims"), shown(1, "flag"), shown(0.2, "p"), shown(2e-9, "norm")
    ('31.0', '3', 'yes', '0.200', '2e-09')
    >>> shown(0.99988, "cosine"), shown(0.9997, "share", "retention").replace(NBSP, " ")
    ('0.9999', '99.97 %')
    """
    digits = _decimals(value, None, None, unit, name) if digits is None else digits
    if unit == "share" and facts_of(name).is_percent:
        return percent(value, digits)
    if unit == "dims":
        return number(value, 0 if float(value).is_integer() else digits)
    if unit == "flag":
        return "yes" if value else "no"
    if unit == "p":
        return p_text(value).removeprefix(f"p{NBSP}").removeprefix(f"={NBSP}")
    if unit == "norm":
        return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"
    if unit in ("C", "temperature"):
        return f"{value:g}"
    if unit == "degrees":
        return f"{number(value, digits)}°"
    return number(value, digits)


def _decimals(value: float, low: float | None, high: float | None, unit: str, name: str) -> int:
    if unit == "share" and facts_of(name).is_percent:
        low, high = (None if v is None else 100 * v for v in (low, high))
        return decimals(100 * value, low, high, least=1, full=100.0)
    if unit in ("dims", "degrees"):
        return decimals(value, low, high, least=1)
    least, full = 2 if unit in ("exponent", "log kernel") else 3, 1.0 if unit in BOUNDED else None
    return decimals(value, low, high, least=least, full=full)


def told(value: Value, name: str = "") -> str:
    """The value with the decimals that it and its interval ask for."""
    return shown(value.value, value.unit, name, _decimals(value.value, value.low, value.high, value.unit, name))


def between(value: Value | None, name: str = "") -> str:
    """'[30.6, 31.4]' in the units and decimals of `told`; empty where there is no interval."""
    if value is None or value.interval is None:
        return ""
    digits = _decimals(value.value, value.low, value.high, value.unit, name)
    low, high = (shown(v, value.unit, name, digits) for v in value.interval)
    return f"[{low.replace(f'{NBSP}%', '')}, {high.replace(f'{NBSP}%', '')}]"


def share(value: float, least: int = 0) -> str:
    """A share as per cent in a sentence: what is not all does not read as 100 %.

    >>> [share(v).replace(NBSP, " ") for v in (0.59, 0.9962, 0.99997, 1.0)]
    ['59 %', '99.6 %', '99.997 %', '100 %']
    """
    return percent(value, decimals(100 * value, least=least, full=100.0, most=3))


def p_text(p: float) -> str:
    """
    >>> p_text(0.0321).split(NBSP), p_text(1e-12).split(NBSP)
    (['p', '=', '0.032'], ['p', '<', '0.001'])
    """
    return f"p{NBSP}<{NBSP}0.001" if p < 0.001 else f"p{NBSP}={NBSP}{p:.3f}"


def reach(value: Value | None, name: str = "") -> str:
    """' [30.6, 31.4]' to stand behind a number; empty where there is no interval."""
    text = between(value, name)
    return f" {text}" if text else ""
