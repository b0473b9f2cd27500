"""The claims of a run, each with its effect beside its bound; and what to change: which arm, and what to run next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillscope.advice.axes import PURPOSES
from distillscope.advice.rank import Ranking, Recommendation, recommend
from distillscope.claims.results import Results
from distillscope.claims.verdict import Decision, Verdict, interval, number, p_text
from distillscope.report.claims import SECONDARY, Claims, counts, named, together_tables
from distillscope.report.context.figure import PageCell, PageRow, PageTable, below, heads, shown_figures
from distillscope.report.figures.figure import Figure
from distillscope.report.page import STUDY
from distillscope.report.recommendation import Advice, ArmLine, arms_compared, starred
from distillscope.report.sentences.audit import capital
from distillscope.report.sentences.recommendation import (
    beaten,
    changes,
    intervals,
    marked,
    not_run,
    notes,
    quoted,
    score_text,
    teacher_row,
    undecided,
    won,
)
from distillscope.visible import joined

TITLES = {"balance": "all four", "accuracy": "clean accuracy", "robustness": "accuracy under noise", "retrieval": "retrieval",
          "geometry": "rank, mapped"}


def recommended(advice: Advice) -> str:
    """What to change, in one line below the verdict; empty where nothing was found."""
    said = []
    for one, results in zip(advice.found, advice.results, strict=True):
        deeds: dict[str, list[str]] = {}
        for ranking in [r for r in one.rankings if not r.reason] or one.rankings:
            deeds.setdefault(_deed(ranking, one, results), []).append(ranking.student)
        named = f"{one.dataset}, {one.teacher}: " if len(advice.found) > 1 else ""
        several = len(one.rankings) > 1
        said.append(named + "; ".join(f"{joined(who)}: {text}" if several else text if named else capital(text)
                                      for text, who in deeds.items()))
    return f"{'. '.join(said)}." if said else ""


def _deed(ranking: Ranking, one: Recommendation, results: Results) -> str:
    """What to do with one student; where nothing helps on the whole, what helps for one purpose."""
    if ranking.reason:
        return f"no advice, since {ranking.reason}"
    if ranking.disputes:
        return undecided(ranking)
    names = [f"“{n}”" for n in ranking.leaders]
    if ranking.improved:
        text = won(ranking, one)
        alike = f"no significant difference between {joined(names)}; the first {text}"
        return f"train with {names[0]}, which {text}" if len(names) == 1 else alike
    helps = []
    for found in (recommend(results, p) for p in PURPOSES if p != one.purpose):
        own = next((r for r in found.rankings if r.student == ranking.student and not r.reason and r.improved), None)
        if own:
            score = score_text(own.named(own.leaders[0]), found, own)
            helps.append(f"“{own.leaders[0]}” improves {TITLES[found.purpose]} ({score})" if len(own.leaders) == 1 else
                         f"{quoted(own.leaders)} improve {TITLES[found.purpose]} (no significant difference between them; the "
                         f"first {score})")
    kept = f"keep “{ranking.plain}”" if len(names) == 1 else f"no arm is significantly better than “{ranking.plain}”"
    return f"{kept} overall, but {joined(helps)}" if helps else kept


@dataclass(frozen=True)
class Choice:
    """Under one data set and teacher: who cannot be ranked, the arm to train with by purpose, and what that rests on."""

    title: str
    unranked: list[str]
    table: PageTable | None
    helped: list[str]
    notes: list[str]


@dataclass(frozen=True)
class Arms:
    """All arms of a student, with what the table's stars and intervals say."""

    student: str
    table: PageTable
    note: str


@STUDY.register("advice", "What to change", order=80)
def advised(advice: Advice, figures: dict[str, Figure], folder: Path) -> dict[str, Any] | None:
    """The choice by purpose, the figure, the comparison, what it rests on, and the study to run next."""
    if not advice.found:
        return None
    choices = [choice(one, results, len(advice.found) > 1) for one, results in zip(advice.found, advice.results, strict=True)]
    if advice.following is None:
        return {"choices": choices, "following": None}
    trade = [figures[k] for k in ("pareto",) if k in figures]
    following = {"chosen_on": advice.chosen_on, "figure": shown_figures(trade, folder, ()),
                 "arms": [arms_table(r, one) for one in advice.found for r in one.rankings if r.entries or r.apart],
                 "commands": advice.screen_commands("DIR"), "yaml": advice.yaml}
    return {"choices": choices, "following": following}


def choice(one: Recommendation, results: Results, several: bool) -> Choice:
    """What to train with under one data set and teacher."""
    reasons: dict[str, list[str]] = {}
    for ranking in one.rankings:
        if ranking.reason:
            reasons.setdefault(ranking.reason, []).append(ranking.student)
    skipped = [not_run(r).strip() for r in one.rankings if r.not_run]
    table, helped = _purposes(one, results)
    return Choice(f"{one.dataset}, teacher {one.teacher}" if several else "",
                  [f"{joined(who)} cannot be ranked: {why}." for why, who in reasons.items()], table, helped,
                  [*notes(one), *skipped])


def _purposes(one: Recommendation, results: Results) -> tuple[PageTable | None, list[str]]:
    """A row a purpose, a column per student: the arm to train with, and what it gains; and what the arms for `one` change."""
    students = [r.student for r in one.rankings if not r.reason]
    if not students:
        return None, []
    rows: list[PageRow] = []
    helped: list[str] = []
    for purpose in PURPOSES:
        found = recommend(results, purpose)
        rankings = {r.student: r for r in found.rankings if not r.reason}
        if rankings:
            cells = [_choice(rankings[s], found) if s in rankings else PageCell("–", kind="") for s in students]
            rows.append(PageRow(TITLES.get(purpose, purpose), cells))
        if purpose == one.purpose:
            helped = [f"{s}, “{r.leaders[0]}”: {changes(r.named(r.leaders[0]), found)}" for s, r in rankings.items()
                      if r.improved]
    return PageTable("The arm to train with, by purpose", heads("best for", students), rows, "narrow choices"), helped


def _choice(ranking: Ranking, found: Recommendation) -> PageCell:
    names = [f"“{n}”" for n in ranking.leaders]
    if ranking.leaders == (ranking.plain,):
        return PageCell(f"keep {names[0]}", [f"{beaten(ranking)} worse"], "")
    if ranking.disputes:
        return PageCell("undecided", ["the arms ran different seeds"], "unsure")
    if ranking.plain in ranking.leaders:
        return PageCell("no significant gain", kind="unsure")
    alike = f"no significant difference to {joined(names[1:])}" if len(names) > 1 else ""
    return PageCell(names[0], below(score_text(ranking.named(ranking.leaders[0]), found, ranking), alike), "", strong=True)


def arms_table(ranking: Ranking, found: Recommendation) -> Arms:
    """All arms of one student, with differences and costs."""
    compared = arms_compared(ranking, found)
    first, *others = compared.head
    table = PageTable(f"Arms of {ranking.student}", heads(first, others),
                      [PageRow(starred(line), _cells(line)) for line in compared.lines])
    return Arms(ranking.student, table,
                f"{teacher_row(found)} {marked(ranking)}Below each value its difference to the plain arm. {intervals(ranking)}")


def _cells(line: ArmLine) -> Sequence[PageCell]:
    return [PageCell(line.score, kind=""), *(PageCell(own, below(difference)) for own, difference in line.values),
            *(PageCell(c) for c in (*line.costs, str(line.num_seeds)))]


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
    """All claims under one data set and teacher; ``mark`` ends the ids of its claims, which a page has once."""

    title: str
    mark: str
    counts: str
    scope: str
    tested: list[ShownClaim]
    untested: list[Verdict]


@STUDY.register("claims", "Claims", order=90)
def decided(claims: Claims) -> dict[str, Any]:
    """One entry for each claim; nothing but a sentence where no trial has finished."""
    several = len(claims.decisions) > 1
    shown = [_decision(d, f"{d.dataset}, teacher {d.teacher}: " if several else "", f"-{i + 1}" if i else "")
             for i, d in enumerate(claims.decisions)]
    tables = [PageTable(f"Claims on {dataset}, all teachers together", heads(head[0], head[1:]),
                        [PageRow(row[0], [PageCell(c) for c in row[1:]]) for row in rows], "narrow")
              for dataset, head, rows in together_tables(claims)]
    return {"decisions": shown, "together": tables,
            "sources": joined(named(claims.sources)) if len(claims.sources) > 1 else "", "missing": joined(claims.missing)}


def _decision(decision: Decision, title: str, mark: str) -> ShownDecision:
    verdicts = decision.verdicts
    return ShownDecision(title, mark, counts(decision), scope_text(verdicts[0].scope, OF_ALL),
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
