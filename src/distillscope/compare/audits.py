"""Differences between audits: each with the first, from the intervals of both, where both numbers mean the same."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from distillscope.compare.differences import Difference, Pair, Quantity, corrected
from distillscope.compare.read import AuditSide
from distillscope.errors import UserError
from distillscope.measure.results import Value
from distillscope.results.keys import facts_of

FROM_INTERVALS, NO_INTERVALS = "over items, from both intervals (MOVER)", "no intervals in both audits"
Z = 1.959963984540054
"""The 97.5 % point of the normal distribution."""
COUNTED = ("effective_rank", "recall")
"""Measures that depend on the number of items."""
AUDITED = {"effective_rank": "student.effective_rank", "r2": "alignment.teacher_r2", "accuracy": "probe.student.accuracy",
           "accuracy_paper": "paper.probe.student.accuracy", "knn": "knn.student.accuracy",
           "recall": "retrieval.mapped_recall_at_1", "overlap": "retrieval.neighbour_overlap_10",
           "cka": "similarity.linear_cka_debiased"}


def quantities(measured: Iterable[str]) -> list[Quantity]:
    """The headline, and whatever else was measured and has a column of its own (`facts.Shown.column`)."""
    more = sorted(m for m in set(measured) - set(AUDITED.values()) if facts_of(m).column and not m.startswith("teacher."))
    found = {**AUDITED, **{m: m for m in more}}
    return [Quantity(key, _title(m), ((m, frozenset()),), facts_of(m).digits, facts_of(m).scale, facts_of(m).difference)
            for key, m in found.items()]


def _title(measure: str) -> str:
    """The title in a list: the full one for the rank, whose short one is an abbreviation; the short one for percentages."""
    facts = facts_of(measure)
    return facts.in_short if facts.percent else facts.title


def mover(a: Value, b: Value) -> tuple[float, float]:
    """Interval of b - a from the intervals of both, as if they were independent (MOVER; Donner & Zou 2012, eq. 3).

    Two students that were audited on the same items err together, so the interval is then too wide rather than too narrow.
    NaN where one of them has no interval.

    >>> one, two = Value(1.0, 0.7, 1.3, 100, "", ""), Value(2.0, 1.6, 2.4, 100, "", "")
    >>> [round(v, 3) for v in mover(one, two)]
    [0.5, 1.5]
    """
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return math.nan, math.nan
    d = b.value - a.value
    return d - math.hypot(b.value - b.low, a.high - a.value), d + math.hypot(b.high - b.value, a.value - a.low)


def compare_audits(sides: Sequence[AuditSide]) -> tuple[list[Pair], list[str]]:
    """Each audit with the first, p by Holm over all; and what to know before reading them."""
    first = sides[0]
    pairs: list[Pair] = []
    warnings: list[str] = []
    for other in sides[1:]:
        counts = [s.audit.num_items for s in (first, other)]
        unlike = _unlike_teachers(first, other)
        if counts[0] != counts[1]:
            warnings.append(f"{other.label} has {counts[1]:,} items and {first.label} {counts[0]:,}: "
                            "what depends on their number (ranks, recall) is left out.")
        if unlike:
            warnings.append(f"The teacher's own numbers differ ({unlike}): {other.label} and {first.label} are of other "
                            "teachers or items, so only compare what each student keeps of its own.")
        found = [d for quantity in quantities({*first.audit.measured, *other.audit.measured})
                 if (d := _difference(first, other, quantity, counts[0] == counts[1]))]
        if not any(d.known for d in found):
            raise UserError(f"compare {other.label}", f"a measure in common with {first.label}", "none",
                            "Audit both with the same --only.")
        if all(d.value == 0 for d in found if d.known):
            warnings.append(f"Every number that {other.label} and {first.label} share is equal: is one a copy?")
        pairs.append(Pair(first.label, other.label, found))
    return corrected(pairs), warnings


def _unlike_teachers(a: AuditSide, b: AuditSide) -> str:
    """The first of the teacher's own measures that differs, as text."""
    for key in ("teacher.effective_rank", "probe.teacher.accuracy", "knn.teacher.accuracy"):
        one, other = a.audit.measured.get(key), b.audit.measured.get(key)
        if one and other and not math.isclose(one.value, other.value, rel_tol=1e-6):
            return f"{key} {other.value:.4g} and {one.value:.4g}"
    return ""


def _difference(a: AuditSide, b: AuditSide, quantity: Quantity, same_count: bool) -> Difference | None:
    measure = quantity.measures[0][0]
    one, other = a.audit.measured.get(measure), b.audit.measured.get(measure)
    if one is None and other is None:
        return None
    made: dict[str, Any] = {"measure": measure}
    if one is None or other is None:
        made["left_out"] = "only one of the two measured it"
    elif not same_count and any(part in measure for part in COUNTED):
        made["left_out"] = "the numbers of items differ"
    else:
        low, high = mover(one, other)
        known = math.isfinite(low)
        made |= {"a": one.value, "b": other.value, "low": low, "high": high, "n": min(one.n, other.n),
                 "how": FROM_INTERVALS if known else NO_INTERVALS}
        if known:
            made["p"] = _p(other.value - one.value, low, high)
    return Difference(a.label, b.label, None, quantity, **made)


def _p(d: float, low: float, high: float) -> float:
    """Two-sided p that agrees with the interval: its reach towards zero is taken for 1.96 standard errors.

    >>> round(_p(1.0, 0.0, 2.0), 3), _p(0.0, -1.0, 1.0)
    (0.05, 1.0)
    """
    from scipy.special import ndtr

    reach = d - low if d > 0 else high - d
    if reach == 0:
        return 1.0 if d == 0 else 0.0
    return float(2 * ndtr(-Z * abs(d) / reach))
