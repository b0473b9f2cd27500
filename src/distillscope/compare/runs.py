"""`compare_runs`: several runs or audits, each with the first, with differences and intervals. Nothing is run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distillscope.compare.agree import matches, settings_that_differ
from distillscope.compare.differences import Difference, Pair, Quantity, compare_pair, corrected
from distillscope.compare.read import AuditSide, StudySide, read_sides
from distillscope.errors import UserError
from distillscope.measure.results import Value
from distillscope.results.keys import OLD_FIT, OLD_FIT_SAYS, facts_of
from distillscope.visible import joined

FROM_INTERVALS, NO_INTERVALS = "over items, from both intervals (MOVER)", "no intervals in both audits"
Z = 1.959963984540054
"""The 97.5 % point of the normal distribution."""
COUNTED = ("effective_rank", "recall")
"""Measures that depend on the number of items."""
AUDITED = {"effective_rank": "student.effective_rank", "r2": "alignment.teacher_r2", "accuracy": "probe.student.accuracy",
           "accuracy_paper": "paper.probe.student.accuracy", "knn": "knn.student.accuracy",
           "recall": "retrieval.mapped_recall_at_1", "overlap": "retrieval.neighbour_overlap_10",
           "cka": "similarity.linear_cka_debiased"}


@dataclass(frozen=True)
class Comparison:
    """What `compare_runs` found. ``differs`` is (setting, {run: value}); ``warnings`` are sentences."""

    sides: list[StudySide] | list[AuditSide] = field(repr=False)
    pairs: list[Pair]
    warnings: list[str]
    differs: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    @property
    def labels(self) -> list[str]:
        return [side.label for side in self.sides]

    @property
    def kind(self) -> str:
        return "study" if isinstance(self.sides[0], StudySide) else "audit"

    @property
    def differences(self) -> list[Difference]:
        return [d for pair in self.pairs for d in pair.differences]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as docs/compare.md has them."""
        return {
            "kind": self.kind, "runs": [{"label": s.label, "path": str(path_of(s))} for s in self.sides],
            "baseline": self.labels[0],
            "warnings": self.warnings, "settings": [{"setting": key, "values": values} for key, values in self.differs],
            "differences": [d.to_dict() for d in self.differences],
            "only_in": [{"first": p.first, "second": p.second, "only_first": p.only_first, "only_second": p.only_second}
                        for p in self.pairs]}


def path_of(side: StudySide | AuditSide) -> Path:
    """The run directory, or the file of the audit."""
    return side.run.path if isinstance(side, StudySide) else side.path


def compare_runs(paths: Sequence[Path | str]) -> Comparison:
    """Compare two run directories or more (or two audits or more), each with the first.

    Models are matched by data set, teacher, arm and student; differences are B - A, paired by seed where both runs have the
    seed, by Welch's t where they share none, over items too where both kept predictions of the same items; p are Holm's over
    all of them. What the runs do not share is said, and differences that it forbids are left out with the reason. Errors: a
    `UserError` for fewer than two runs, something that is no run, one run twice, or runs that share nothing.

    >>> compare_runs(["runs/short"])
    Traceback (most recent call last):
    distillscope.errors.UserError: compare: expected two runs or more, got 1. Name them all: distillscope compare DIR_A DIR_B.
    """
    sides = read_sides([Path(p) for p in paths])
    if isinstance(sides[0], AuditSide):
        pairs, warnings = compare_audits(sides)
        return Comparison(sides, pairs, warnings)
    pairs = []
    for other in sides[1:]:
        found, only_first, only_second = matches(sides[0], other)
        differences, between = compare_pair(sides[0], other, found)
        if not any(d.known for d in differences):
            raise UserError(f"compare {other.label}", f"a measure in common with {sides[0].label}",
                            _shares(found, only_first, only_second),
                            "Compare runs that have a data set, an arm and a student in common.")
        pairs.append(Pair(sides[0].label, other.label, differences, between, only_first, only_second))
    pairs = corrected(pairs)
    differs = settings_that_differ({s.label: s.config for s in sides})
    return Comparison(sides, pairs, study_warnings(sides, pairs), differs)


def _shares(found: Sequence, only_first: list[str], only_second: list[str]) -> str:
    if found:
        return "models in common, but no measure of theirs that may be compared"
    return f"{joined(only_first[:3]) or 'no finished trial'} here and {joined(only_second[:3]) or 'no finished trial'} there"


def only_seeds_differ(one: StudySide, other: StudySide) -> bool:
    """Whether two runs are the same study but for its seeds."""
    differs = settings_that_differ({s.label: s.config for s in (one, other)})
    same = all(key.rpartition(".")[2] == "seeds" for key, _ in differs)
    return same and len({tuple(sorted(s.config["seeds"])) for s in (one, other)}) > 1


def study_warnings(sides: Sequence[StudySide], pairs: Sequence[Pair]) -> list[str]:
    """What a reader must know before any number, in sentences; what holds for every model is said once."""
    said, by_label = [], {s.label: s for s in sides}
    for pair in pairs:
        if only_seeds_differ(by_label[pair.first], by_label[pair.second]):
            said.append(f"{pair.second} and {pair.first} have the same settings, and only their seeds differ: a difference "
                        "between them is luck of the seeds, also where one remains after Holm's correction, as one comparison "
                        "in twenty does by chance.")
        models: dict[str, list[str]] = {}
        for name, doubts in pair.mismatches.items():
            for m in doubts:
                text = f"{pair.second} and {pair.first} differ in {m.what} ({m.second}; {m.first}): {m.follows}"
                models.setdefault(text, []).append(name)
        for text, names in models.items():
            everywhere = len(names) == len(pair.mismatches)
            said.append(f"{text}{'' if everywhere else f' (for {joined(names)})'}.")
        for label, names in ((pair.first, pair.only_first), (pair.second, pair.only_second)):
            if names:
                said.append(f"Only {label} has {joined(names)}.")
        measured = [d for d in pair.differences if d.known]
        if measured and all(d.value == 0 for d in measured):
            said.append(f"Every number that {pair.second} and {pair.first} share is equal: they hold the same trials.")
    for side in sides:
        total = len(side.run.missing) + len(side.run.trials)
        if side.run.missing:
            said.append(f"{side.label} is a partial run: {len(side.run.trials)} of {total} trials are complete.")
        said += [f"{side.label}: {problem}" for problem in side.run.problems]
        said += [f"{side.label}: {OLD_FIT_SAYS}"] if side.run.mapped_fit == OLD_FIT else []
    return said


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
