"""Differences between audits: each with the first, from the intervals of both, where both numbers mean the same."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from distillscope.compare.agree import COUNT
from distillscope.compare.differences import Difference, Pair, Quantity, corrected
from distillscope.compare.read import AuditSide
from distillscope.errors import UserError
from distillscope.measure.results import Audit, Value
from distillscope.results.keys import facts_of, teacher_key
from distillscope.visible import joined

FROM_INTERVALS, NO_INTERVALS = "over items, from both intervals (MOVER)", "no intervals in both audits"
Z = 1.959963984540054
"""The 97.5 % point of the normal distribution."""
CLASSIFIED = "classified"
"""Tag of what probes and neighbours tell, which are fitted to training items, or else cross-validated on the audit's own."""
AUDITED: dict[str, tuple[str, set[str]]] = {
    "effective_rank": ("student.effective_rank", {COUNT}), "r2": ("alignment.teacher_r2", {COUNT}),
    "accuracy": ("probe.student.accuracy", {CLASSIFIED}), "accuracy_paper": ("paper.probe.student.accuracy", {CLASSIFIED}),
    "knn": ("knn.student.accuracy", {CLASSIFIED}), "recall": ("retrieval.mapped_recall_at_1", {COUNT}),
    "overlap": ("retrieval.neighbour_overlap_10", {COUNT}), "cka": ("similarity.linear_cka_debiased", set())}
"""Quantity -> the measure that it is, and what that depends on."""
RANK_OF_TEACHER = "teacher.effective_rank"
ACCURACIES_OF_TEACHER = tuple(teacher_key(measure) for measure, tags in AUDITED.values() if CLASSIFIED in tags)


def quantities(measured: Iterable[str]) -> list[Quantity]:
    """The headline, and whatever else was measured and has a column of its own (`facts.Shown.column`), which may depend on the
    number of items."""
    known = {measure for measure, _ in AUDITED.values()}
    more = sorted(m for m in set(measured) - known if facts_of(m).column and not m.startswith("teacher."))
    found = {**AUDITED, **{m: (m, {COUNT}) for m in more}}
    return [Quantity(key, _title(m), ((m, frozenset(tags)),), facts_of(m).digits, facts_of(m).scale, facts_of(m).difference)
            for key, (m, tags) in found.items()]


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
        barred, said = doubts(first, other)
        warnings += said
        found = [d for quantity in quantities({*first.audit.measured, *other.audit.measured})
                 if (d := _difference(first, other, quantity, barred))]
        if not any(d.known for d in found):
            reasons = joined(dict.fromkeys(d.left_out for d in found if d.left_out in barred.values()))
            raise UserError(f"compare {other.label}", f"a measure in common with {first.label}",
                            f"none that may be compared, since {reasons}" if reasons else "none",
                            "Audit equal numbers of items." if reasons else "Audit both with the same --only.")
        if all(d.value == 0 for d in found if d.known):
            warnings.append(f"Every number that {other.label} and {first.label} share is equal: is one a copy?")
        pairs.append(Pair(first.label, other.label, found))
    return corrected(pairs), warnings


def doubts(first: AuditSide, other: AuditSide) -> tuple[dict[str, str], list[str]]:
    """Tag -> why what has it is left out; and what a reader must know before any number, in sentences."""
    a, b = other.audit, first.audit
    alike, fits = a.num_items == b.num_items, (_fit(a), _fit(b))
    classified = [(a.measured[key].n, b.measured[key].n) for key, tags in AUDITED.values()
                  if CLASSIFIED in tags and key in a and key in b]
    unlike = next((pair for pair in classified if pair[0] != pair[1]), None)
    accuracy = _differs(a, b, ACCURACIES_OF_TEACHER)
    barred: dict[str, str] = {} if alike else {COUNT: "the numbers of items differ"}
    counted, said = "ranks, R², recall, index overlap", []
    if classified and None not in fits and fits[0] != fits[1]:
        barred[CLASSIFIED] = "the numbers of training items differ"
        said.append(f"{other.label} fits probes and neighbours to {_fitted(fits[0])}, {first.label} to {_fitted(fits[1])}: "
                    "their accuracies are left out.")
    elif classified and None in fits and (accuracy or not alike):
        barred[CLASSIFIED] = "it is not recorded what they are fitted to"
        said.append("Older audits do not say whether probes and neighbours were fitted to training items, or cross-validated: "
                    "their accuracies are left out. Make these audits again to compare them.")
    elif classified and fits == (0, 0) and not alike:
        barred[CLASSIFIED], counted = barred[COUNT], f"{counted}, cross-validated probes and neighbours"
    elif unlike and fits == (0, 0):
        barred[CLASSIFIED] = "the numbers of labelled items differ"
        said.append(f"{other.label} classifies {unlike[0]:,} labelled items and {first.label} {unlike[1]:,}: probes and "
                    "neighbours, which were cross-validated on them, are left out.")
    if not alike:
        said.insert(0, f"{other.label} has {a.num_items:,} items and {first.label} {b.num_items:,}: what depends on their "
                       f"number ({counted}) is left out, and whether both are of one teacher cannot be seen.")
    if classified and CLASSIFIED not in barred and _of_other(a, b, "train_images"):
        said.append(f"{other.label} fits probes and neighbours to other training images than {first.label}: what an accuracy "
                    "gains or loses need not be the student's.")
    if alike and _of_other(a, b, "images"):
        said.append(f"{other.label} and {first.label} were measured on other images, as their fingerprints say: only compare "
                    "what each student keeps of its own teacher.")
        return barred, said
    return barred, [*said, *_unlike_teachers(first, other, alike, "" if CLASSIFIED in barred else accuracy)]


def _of_other(a: Audit, b: Audit, images: str) -> bool:
    """Whether both audits say which images they embedded, and not the same."""
    marks = [found.inputs.get(images, {}).get("fingerprint") for found in (a, b)]
    return None not in marks and marks[0] != marks[1]


def _fit(found: Audit) -> int | None:
    """The training items that probes and neighbours were fitted to: 0 where cross-validated, None where it is not recorded."""
    count = found.labels.get("train_items")
    return None if count is None else int(count)


def _fitted(count: int | None) -> str:
    return f"{count:,} training items" if count else "its own items, by cross-validation"


def _unlike_teachers(first: AuditSide, other: AuditSide, alike: bool, accuracy: str) -> list[str]:
    """What follows where the teacher's own numbers differ: its rank where the numbers of items are ``alike``, or its
    ``accuracy``, as text, where that may be compared."""
    rank = _differs(other.audit, first.audit, (RANK_OF_TEACHER,)) if alike else ""
    if not (rank or accuracy):
        return []
    if rank or not alike:
        what = "of other teachers or items"
    elif RANK_OF_TEACHER in first.audit and RANK_OF_TEACHER in other.audit:
        what = "of other labels or training items, or by another version of this program"
    else:
        what = "of other teachers, items, labels or training items"
    return [f"The teacher's own numbers differ ({rank or accuracy}): {other.label} and {first.label} are {what}, "
            + "so only compare what each student keeps of its own."]


def _differs(a: Audit, b: Audit, keys: Iterable[str]) -> str:
    """The first of some measures whose values differ, as text."""
    return next((f"{key} {a[key]:.4g} and {b[key]:.4g}" for key in keys
                 if key in a and key in b and not math.isclose(a[key], b[key], rel_tol=1e-6)), "")


def _difference(a: AuditSide, b: AuditSide, quantity: Quantity, barred: Mapping[str, str]) -> Difference | None:
    measure, tags = quantity.measures[0]
    one, other = a.audit.measured.get(measure), b.audit.measured.get(measure)
    if one is None and other is None:
        return None
    made: dict[str, Any] = {"measure": measure}
    reasons = [reason for tag, reason in barred.items() if tag in tags]
    if one is None or other is None:
        made["left_out"] = "only one of the two measured it"
    elif reasons:
        made["left_out"] = reasons[0]
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
