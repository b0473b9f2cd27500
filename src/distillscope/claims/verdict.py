"""What a claim function gives back, how it becomes a verdict, and every claim decided, with Holm over the endpoints tested.

A claim is a function of `Results`, registered under its id with what it claims and the seeds that a verdict needs::

    @claims.register("collapse", sentence="Students of every size collapse to one rank.", seeds=5)
    def collapse(results: Results) -> Finding: ...

It returns a `Finding`, or raises `Undecided` with the reason; `decided` makes a `Verdict` of it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from distillscope.claims.results import Results, Undecided, results_of
from distillscope.claims.same_setting import Read
from distillscope.claims.statements import Outcome, Statement
from distillscope.files.writing import finite
from distillscope.measure.intervals import holm
from distillscope.registry import claims
from distillscope.results.statistics import (
    ALPHA,
    MOST_FLIPS,
    POWER,
    Contrast,
    seeds_for,
    sign_flip_p,
    smallest_effect,
)

LEAST = 5
"""Seeds from which a paired t gives a p."""
FLIPS_FROM = 6
"""Seeds from which an exact sign-flip test can fall below 0.05."""
ORDER = ("collapse", "objective", "expansion", "capacity-limit", "rank-robustness", "inverse-scaling", "bottleneck",
         "low-pass", "information", "truncated-pca")
"""The ten claims of the two papers, in their order; claims that users add follow."""


@dataclass(frozen=True)
class Secondary:
    """An effect with its 95 % t interval. Its p (from five seeds on) is not adjusted, and decides nothing."""

    endpoint: str
    effect: float
    low: float | None
    high: float | None
    unit: str
    n: int
    p: float | None = None


def secondary(endpoint: str, contrast: Contrast, unit: str, scale: float = 1.0, *, tested: bool = True) -> Secondary:
    """A secondary endpoint from a contrast; ``scale`` turns it into ``unit`` (100 for points of accuracy).

    ``tested=False`` for a quantity whose distance from 0 is no question.
    """
    low, high = contrast.interval()
    p = contrast.p() if tested and contrast.n >= LEAST and contrast.error > 0 else None
    return Secondary(endpoint, scale * contrast.mean, scale * low, scale * high, unit, contrast.n, p)


@dataclass(frozen=True)
class Finding:
    """The claim as a statement with its primary endpoint, and what stands beside it.

    ``evidence`` names figures of the page and rows of results.csv; ``scope`` adds to the study's own (the student, the
    noise); ``replicates`` says what the statement's n counts.
    """

    statement: Statement
    evidence: tuple[str, ...]
    scope: Mapping[str, Any] = field(default_factory=dict)
    replicates: str = "seeds"
    secondary: tuple[Secondary, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """One claim, decided or not, under one teacher on one data set.

    ``p`` is the smaller of the p values for and against the claim, ``p_holm`` the same over all claims that were tested;
    the verdict rests on ``p_holm``. ``times`` is the factor within ``p`` for the claim's own parts and arms. ``effect`` with
    its 95 % t interval (not adjusted) is compared with ``bound``.
    """

    id: str
    claim: str
    verdict: Outcome
    reason: str
    sentence: str
    scope: dict[str, Any]
    seeds_needed: int
    endpoint: str = ""
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    bound: float | None = None
    std: float | None = None
    unit: str = ""
    test: str = ""
    n: int = 0
    replicates: str = "seeds"
    p_supported: float | None = None
    p_refuted: float | None = None
    p: float | None = None
    p_holm: float | None = None
    p_sign_flip: float | None = None
    times: int = 1
    power: str = ""
    evidence: tuple[str, ...] = ()
    parts: tuple[dict[str, Any], ...] = ()
    secondary: tuple[Secondary, ...] = ()
    notes: tuple[str, ...] = ()
    says: tuple[str, str] = ("", "")

    @property
    def conclusion(self) -> str:
        """`sentence` without its numbers and its scope."""
        said = self.reason if self.verdict == "undecided" else self.says[self.verdict == "refuted"]
        return f"{self.verdict.capitalize()}: {said}."

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; infinities and NaN become null."""
        return finite({k: v for k, v in asdict(self).items() if k != "says"})


def tested(name: str, sentence: str, seeds: int, found: Finding, results: Results) -> Verdict:
    """The verdict's numbers; what they decide is `settled`."""
    s, c, scale = found.statement, found.statement.contrast, found.statement.endpoint.scale
    low, high = c.interval()
    flip = sign_flip_p(c.values, s.bound) if FLIPS_FROM <= len(c.values) <= MOST_FLIPS else None
    parts = tuple({"endpoint": p.endpoint.name, "effect": p.endpoint.scale * p.contrast.mean,
                   "bound": p.endpoint.scale * p.bound, "unit": p.endpoint.unit, "p_true": p.yes, "p_false": p.no,
                   "n": p.contrast.n, "test": p.test}
                  for p in (s.leaves() if s.parts else ()))
    return Verdict(
        name, sentence, "undecided", "", "", {**results.scope(), **found.scope}, seeds, s.endpoint.name, scale * c.mean,
        scale * low, scale * high, scale * s.bound, scale * c.std, s.endpoint.unit, s.test, c.n, found.replicates, s.yes, s.no,
        s.p, s.p, flip, s.times, "", found.evidence, parts, found.secondary, found.notes,
        (s.said("supported"), s.said("refuted")))


class _Tested(NamedTuple):
    """What a verdict holds once its statement was tested."""

    effect: float
    bound: float
    std: float
    p: float
    p_supported: float
    p_refuted: float


def _tested(v: Verdict) -> _Tested:
    known = [x for x in (v.effect, v.bound, v.std, v.p, v.p_supported, v.p_refuted) if x is not None]
    if len(known) < len(_Tested._fields):
        raise ValueError(f"claim {v.id} was not tested")
    return _Tested(*known)


def settled(verdict: Verdict, tested: int, p_holm: float | None = None) -> Verdict:
    """The verdict at its adjusted p, its power and its sentence; ``tested`` is the number of claims in the family."""
    v, t = verdict, _tested(verdict)
    p_holm = t.p if p_holm is None else p_holm
    shown = p_holm < ALPHA
    outcome: Outcome = "undecided" if not shown else "supported" if t.p_supported <= t.p_refuted else "refuted"
    family = f"{tested}" + (f" / {v.times} parts" if v.times > 1 else "")
    alpha, away = ALPHA / tested / v.times, abs(t.effect - t.bound)
    reach = number(smallest_effect(t.std, v.n, alpha=alpha))
    power = (f"{v.n} {v.replicates} of this spread show an effect that lies {reach} {v.unit} from its bound with "
             f"{100 * POWER:.0f} % power (alpha {ALPHA:g} / {family}, Holm's first step)")
    where = ", ".join(f"{k} {x}" for k, x in v.scope.items() if x not in (None, ""))
    numbers = (f"{v.endpoint}: {interval(v)}, bound {number(v.bound)}; {v.test}, {p_text(p_holm)} after Holm over {tested}, "
               f"n = {v.n} {v.replicates}")
    if shown:
        reason, said = "", f"{v.says[outcome == 'refuted']} ({numbers})"
    else:
        reason = f"{_undecided(v, t, family)}; {_more(v, seeds_for(away, t.std, alpha=alpha) if away else None)}"
        said = f"{reason} ({numbers})"
    return replace(v, verdict=outcome, reason=reason, sentence=f"{outcome.capitalize()}: {said}. Scope: {where}.",
                   p_holm=p_holm, power=power)


def _undecided(v: Verdict, t: _Tested, family: str) -> str:
    """That the effect was not separated from its bound, or only without the adjustment."""
    if v.low is None or v.high is None or v.low <= t.bound <= v.high:
        return f"{v.n} {v.replicates} do not separate the effect from its bound"
    return (f"the 95 % interval, which is not adjusted, excludes its bound, but p = {t.p / v.times:.3g} is not below alpha "
            f"{ALPHA:g} / {family} at {v.n} {v.replicates}")


def _more(v: Verdict, wanted: int | None) -> str:
    """How many replicates would tell."""
    if not wanted:
        return "no feasible number would"
    many = f"about {wanted}" if v.replicates == "seeds" else f"{wanted / v.n:.1f} times as many images"
    return f"{many} would, if the true effect is what was measured"


def adjusted(verdicts: list[Verdict]) -> list[Verdict]:
    """Holm over the primary endpoints that were tested, and the verdicts that follow."""
    ps = holm({v.id: v.p for v in verdicts if v.p is not None})
    return [settled(v, len(ps), ps[v.id]) if v.id in ps else v for v in verdicts]


def number(value: float | None, digits: int = 3) -> str:
    """Three significant digits, or a dash.

    >>> number(12.345), number(0.01234), number(1234.5), number(None)
    ('12.3', '0.0123', '1234', '-')
    """
    if value is None or not math.isfinite(value):
        return "-"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:.{min(decimals, 6)}f}"


def p_number(p: float) -> str:
    """
    >>> p_number(0.0004), p_number(0.1083)
    ('< 0.001', '0.108')
    """
    return "< 0.001" if p < 0.001 else f"{p:.3g}"


def p_text(p: float) -> str:
    """
    >>> p_text(0.0004), p_text(0.1083), p_text(1.0)
    ('p < 0.001', 'p = 0.108', 'p = 1')
    """
    return f"p {p_number(p)}" if p < 0.001 else f"p = {p_number(p)}"


def interval(verdict: Verdict | Secondary) -> str:
    """'11.1 [-4.2, 26.3] points'."""
    band = f" [{number(verdict.low)}, {number(verdict.high)}]" if verdict.low is not None else ""
    return f"{number(verdict.effect)}{band} {verdict.unit}".strip()


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


class Together(NamedTuple):
    """A claim under several teachers on one data set: what holds under each of them, and what under each."""

    dataset: str
    id: str
    outcome: str
    under: dict[str, Outcome]


DEPENDS = "depends on the teacher"


def together(decisions: Sequence[Decision]) -> list[Together]:
    """Each claim over the teachers of a data set: supported or refuted where it is so under every one; [] for one teacher.

    Where it is supported under one and refuted under another it depends on the teacher; else it is undecided.
    """
    found = []
    for dataset in dict.fromkeys(d.dataset for d in decisions):
        of_data = [d for d in decisions if d.dataset == dataset]
        for name in (v.id for v in of_data[0].verdicts) if len(of_data) > 1 else ():
            under: dict[str, Outcome] = {d.teacher: d[name].verdict for d in of_data}
            said = set(under.values())
            outcome = said.pop() if len(said) == 1 else DEPENDS if {"supported", "refuted"} <= said else "undecided"
            found.append(Together(dataset, name, outcome, under))
    return found


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
            raise Undecided(f"all {contrast.n} {found.replicates} gave the same number, which says nothing about their spread")
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
