"""Every registered claim on the results of a study: verdicts, with Holm over the primary endpoints that were tested."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

from distillscope.claims.results import Read, Results, Undecided, results_of
from distillscope.claims.verdict import Verdict, adjusted, settled, tested
from distillscope.registry import claims

ORDER = ("collapse", "objective", "expansion", "capacity-limit", "rank-robustness", "inverse-scaling", "bottleneck",
         "low-pass", "information", "truncated-pca")
"""The ten claims of the two papers, in their order; claims that users add follow."""


@dataclass(frozen=True)
class Decision:
    """All verdicts under one teacher on one data set."""

    dataset: str
    teacher: str
    verdicts: tuple[Verdict, ...]

    @property
    def tested(self) -> int:
        """How many primary endpoints Holm was applied over."""
        return sum(v.p is not None for v in self.verdicts)

    def __getitem__(self, name: str) -> Verdict:
        return next(v for v in self.verdicts if v.id == name)


def decide_results(results: Results) -> Decision:
    """Every claim on one setting's results."""
    names = [*ORDER, *(n for n in claims if n not in ORDER)]
    return Decision(results.dataset, results.teacher, tuple(adjusted([_asked(name, results) for name in names])))


def decided(name: str, results: Results) -> Verdict:
    """The verdict on one claim alone, not adjusted for others; undecided where the results cannot decide it."""
    said = claims.facts(name)
    try:
        found = claims.get(name)(replace(results, needed=said.seeds))
        contrast = found.statement.contrast
        if not contrast.error > 0:
            raise Undecided(f"all {contrast.n} {found.replicates} gave the same number, which says nothing of their spread")
    except Undecided as gap:
        return undecided(name, str(gap), results)
    return settled(tested(name, said.sentence, said.seeds, found, results), 1)


def undecided(name: str, reason: str, results: Results) -> Verdict:
    """No verdict, and why."""
    said = claims.facts(name)
    return Verdict(name, said.sentence, "undecided", reason, f"Undecided: {reason}.", results.scope(), said.seeds)


def _asked(name: str, results: Results) -> Verdict:
    """One claim's verdict. What fails in its function leaves this claim undecided: the others, and the page, are not lost."""
    try:
        return decided(name, results)
    except Exception as error:
        reason = f"its function failed on these results ({type(error).__name__}: {error}), which is an error of the program"
        warnings.warn(f"claim {name}: {reason}", RuntimeWarning, stacklevel=2)
        return undecided(name, reason, results)


def decide(runs: Sequence[Read]) -> list[Decision]:
    """Every claim on each data set and teacher of the runs, which must be studies of the same data and teacher."""
    return [decide_results(r) for r in results_of(runs)]
