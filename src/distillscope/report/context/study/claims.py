"""The claims of a run on its page: one entry each, with its effect beside its bound and what stands behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distillscope.claims.verdict import Decision, Verdict, interval, number, p_text
from distillscope.report.claims import SECONDARY, Claims, counts, named
from distillscope.report.context.tables import PageCell, PageRow, PageTable, heads
from distillscope.report.registered import STUDY
from distillscope.visible import joined

OF_ALL = ("teacher", "data", "input", "noise", "train images")
"""What the scope of every claim of a setting has in common."""
ACROSS, EDGE = 280, 40
"""Width of the drawing of an effect, and how near to its ends a label is moved inwards, in its own units."""


@dataclass(frozen=True)
class Effect:
    """An effect with its interval beside its bound, as places on a drawing; ``anchor`` keeps the label inside it."""

    label: str
    bound: float
    low: float
    high: float
    effect: float
    bound_text: str
    anchor: str


@dataclass(frozen=True)
class Evidence:
    """What a verdict rests on; ``figure`` is the key of the figure of the page that it is, or empty."""

    text: str
    figure: str = ""


@dataclass(frozen=True)
class ShownClaim:
    """A claim that was tested."""

    id: str
    claim: str
    verdict: str
    said: str
    effect: Effect
    test: str
    facts: dict[str, str]
    evidence: list[Evidence]
    tables: list[PageTable]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ShownDecision:
    """All claims under one data set and teacher."""

    title: str
    counts: str
    scope: str
    tested: list[ShownClaim]
    untested: list[Verdict]


@STUDY.register("claims", "Claims", order=90)
def decided(claims: Claims) -> dict[str, Any]:
    """One entry for each claim; nothing but a sentence where no trial has finished."""
    several = len(claims.decisions) > 1
    return {"decisions": [_decision(d, f"{d.dataset}, teacher {d.teacher}: " if several else "") for d in claims.decisions],
            "sources": joined(named(claims.sources)) if len(claims.sources) > 1 else "", "missing": joined(claims.missing)}


def _decision(decision: Decision, title: str) -> ShownDecision:
    verdicts = decision.verdicts
    return ShownDecision(title, counts(decision), scope_text(verdicts[0].scope, OF_ALL),
                         [shown_claim(v) for v in verdicts if v.p is not None],
                         [v for v in verdicts if v.p is None])


def shown_claim(v: Verdict) -> ShownClaim:
    """One claim of the page that was tested."""
    assert v.p is not None and v.p_holm is not None
    facts = {"test": f"{v.test}, n = {v.n} {v.replicates}", "p": f"{p_text(v.p)}; after Holm {p_text(v.p_holm)}",
             "sign flips": p_text(v.p_sign_flip) if v.p_sign_flip is not None else "", "power": v.power,
             "scope": scope_text(v.scope)}
    test = f"{effect_and_bound(v)}; {v.test}, {p_text(v.p_holm)} after Holm, n = {v.n} {v.replicates}"
    return ShownClaim(v.id, v.claim, v.verdict, v.conclusion, effect_of(v), test, facts, [evidence_of(e) for e in v.evidence],
                  [t for t in (_parts(v), _secondary(v)) if t.rows], v.notes)


def scope_text(scope: Mapping[str, Any], keys: tuple[str, ...] | None = None) -> str:
    """
    >>> scope_text({"teacher": "t", "k": None, "data": "d"}), scope_text({"teacher": "t", "data": "d"}, ("data",))
    ('teacher t, data d', 'data d')
    """
    return ", ".join(f"{k} {x}" for k, x in scope.items() if x not in (None, "") and (keys is None or k in keys))


def evidence_of(text: str) -> Evidence:
    """'figure KEY' is that figure of the page.

    >>> evidence_of("figure noise").figure, evidence_of("student.effective_rank, clean").figure
    ('noise', '')
    """
    kind, _, key = text.partition(" ")
    return Evidence(text, key if kind == "figure" else "")


def effect_and_bound(v: Verdict) -> str:
    """'accuracy of S - M: 11.1 [-4.2, 26.3] points, bound 0'."""
    return f"{v.endpoint}: {interval(v)}, bound {number(v.bound)}"


def effect_of(v: Verdict) -> Effect:
    """Where the drawing has the effect, its interval and its bound."""
    low, high, bound, effect = (float(x) if x is not None else float("nan") for x in (v.low, v.high, v.bound, v.effect))
    ends = [low, high, bound]
    room = 0.08 * ((max(ends) - min(ends)) or 1.0)
    left, right = min(ends) - room, max(ends) + room

    def place(value: float) -> float:
        return ACROSS * (value - left) / (right - left)

    at = round(place(bound), 1)
    anchor = "start" if at < EDGE else "end" if at > ACROSS - EDGE else "middle"
    return Effect(effect_and_bound(v), place(bound), place(low), place(high), place(effect), number(v.bound), anchor)


def _parts(v: Verdict) -> PageTable:
    rows = [PageRow(p["endpoint"], [PageCell(c) for c in (
        f"{number(p['effect'])} {p['unit']}", number(p["bound"]), p_text(p["p_true"]), p_text(p["p_false"]), str(p["n"]))])
        for p in v.parts]
    return PageTable("Parts of the claim", heads("part", ["effect", "bound", "shown to hold", "shown not to hold", "n"]), rows)


def _secondary(v: Verdict) -> PageTable:
    rows = [PageRow(s.endpoint, [PageCell(c) for c in (interval(s), p_text(s.p) if s.p is not None else "", str(s.n))])
            for s in v.secondary]
    return PageTable(SECONDARY, heads("endpoint", ["effect [95 %]", "p", "n"]), rows)
