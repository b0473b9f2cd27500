"""`compare_runs`: several runs or audits, each with the first, with differences and intervals. Nothing is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distillscope.compare.agree import matches, settings_that_differ
from distillscope.compare.audits import compare_audits
from distillscope.compare.differences import Difference, Pair, compare_pair, corrected
from distillscope.compare.read import AuditSide, StudySide, read_sides
from distillscope.errors import UserError
from distillscope.results.keys import OLD_FIT, OLD_FIT_SAYS
from distillscope.visible import joined


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
    seed, by Welch's t where they share fewer than two, over items too where both kept predictions of the same items for the
    very seeds of the difference; p are Holm's over all of them. What the runs do not share is said, and differences that it
    forbids are left out with the reason. Errors: a `UserError` for fewer than two runs, something that is no run, one run
    twice, or runs that share nothing.

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
