"""A comparison in words: headline, cells of its table."""

from __future__ import annotations

import math
from collections.abc import Sequence

from distillscope.compare.differences import NO_PREDICTIONS, PAIRED, WELCH, Difference
from distillscope.report.sentences.numbers import MISSING, bracket, count, number
from distillscope.results.keys import NBSP
from distillscope.results.rows import CLEAN, Condition
from distillscope.visible import joined

READING = ("B − A, each run with its own seeds: where both have two of them or more, the difference of each is taken first, "
           "and Student's t interval is over those differences; where they share fewer, or these may not be paired, the "
           "interval is Welch's, over the seeds of each run. One seed has none. “Over items” is a paired bootstrap over "
           "the test images of the very trained models that the difference is of: it holds for other images, not for other "
           "seeds. p is Holm's over every difference on this page. No significant difference does not prove equality.")
OVER_ITEMS = ("B − A of the values of both audits. The interval joins both audits' intervals (MOVER) as if their items were "
              "not the same, which is too wide where they are; none of it speaks of other seeds. p is Holm's over every "
              "difference on this page.")


def value_text(d: Difference, value: float) -> str:
    """One side's value, as its quantity is shown."""
    if d.quantity.key == "parameters":
        return count(value)
    unit = f"{NBSP}%" if d.quantity.unit == "points" else ""
    return number(d.quantity.scale * value, d.quantity.digits) + unit


def difference_text(d: Difference) -> str:
    """The difference with its sign."""
    if not d.known:
        return MISSING
    sign = "+" if d.value > 0 else ""
    return sign + (count(d.value) if d.quantity.key == "parameters" else number(d.quantity.scale * d.value, d.quantity.digits))


def interval_text(d: Difference) -> str:
    """'[0.10, 1.40]'; empty where there is none."""
    return _bracket(d, d.low, d.high) if math.isfinite(d.low) else ""


def items_text(d: Difference) -> str:
    """The interval over items; empty where there is none."""
    return _bracket(d, d.items.low, d.items.high) if d.items else ""


def _bracket(d: Difference, low: float, high: float) -> str:
    return bracket(d.quantity.scale * low, d.quantity.scale * high, d.quantity.digits)


def short_n(d: Difference) -> str:
    """n alone, with a star where seeds are not paired."""
    return f"{d.n:,}{'*' if d.how == WELCH else ''}" if d.n else ""


def n_text(d: Difference) -> str:
    """What n counts: '3 pairs', '3 seeds, unpaired', '1 seed', '500 items'."""
    if not d.n:
        return ""
    if d.how == PAIRED:
        return f"{d.n} pairs"
    if d.how == WELCH:
        return f"{d.n} seeds, unpaired"
    if d.match is None:
        return f"{d.n:,} items"
    return f"{d.n} seed{'' if d.n == 1 else 's'}"


def p_text(p: float) -> str:
    """
    >>> p_text(0.0312), p_text(1e-9), p_text(float("nan"))
    ('0.031', '<0.001', '')
    """
    return "" if not math.isfinite(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def title_text(d: Difference) -> str:
    """The quantity, and the noise that it is under."""
    return d.quantity.title if d.condition == CLEAN else f"{d.quantity.title}, σ {Condition.parse(d.condition).level}"


def left_out_lines(differences: Sequence[Difference]) -> list[str]:
    """What was left out and why, with the models that it concerns: differences, and intervals over items of predictions."""
    reasons: dict[str, list[str]] = {}
    for d in differences:
        if not d.known:
            reasons.setdefault(f"{title_text(d)}: {d.left_out}", []).append(d.name)
        elif d.items_left_out not in ("", NO_PREDICTIONS):
            reasons.setdefault(f"{title_text(d)}, over items: {d.items_left_out}", []).append(d.name)
    return [f"{what} ({', '.join(names)})" if any(names) else what for what, names in reasons.items()]


def headline(labels: Sequence[str], differences: Sequence[Difference]) -> str:
    """What the comparison shows, in a sentence or two that claim no more than Holm's correction leaves."""
    tested = [d for d in differences if math.isfinite(d.p_holm)]
    kept = sorted((d for d in tested if d.shown), key=lambda d: d.p_holm)
    others = joined(labels[1:])
    if not tested:
        return (f"{others} against {labels[0]}: too few seeds or items to test any difference; what is shown is "
                "that of single runs.")
    if not kept:
        return (f"{others} against {labels[0]}: no significant difference in any of {len(tested)} comparisons (Holm's "
                "correction), which does not prove equality.")
    named = []
    for d in kept[:3]:
        who = f"{d.name}, " if d.name else ""
        whose = f"{d.second}: " if len(labels) > 2 else ""
        unit = f" {d.quantity.unit}" if d.quantity.unit else ""
        named.append(f"{whose}{who}{title_text(d)} {difference_text(d)}{unit} {interval_text(d)}")
    counted = f"{len(kept)} of {len(tested)} comparisons differ{'s' * (len(kept) == 1)} significantly (Holm's correction)"
    return f"{others} against {labels[0]}: {counted}{', clearest first' * (len(kept) > 1)}: {'; '.join(named)}."
