"""What to change: one line at the head of the page, and the section with the choice by purpose and the study to run next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillscope.advice.axes import PURPOSES
from distillscope.advice.rank import Ranking, Recommendation, recommend
from distillscope.claims.results import Results
from distillscope.report.context.figure import shown_figures
from distillscope.report.context.tables import PageCell, PageRow, PageTable, below, heads
from distillscope.report.figures.figure import Figure
from distillscope.report.recommendation import Advice, ArmLine, arms_compared, starred
from distillscope.report.registered import STUDY
from distillscope.report.sentences.recommendation import (
    beaten,
    changes,
    intervals,
    marked,
    not_run,
    notes,
    score_text,
    teacher_row,
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
        said.append(named + "; ".join(f"{joined(who)}: {text}" if several else text for text, who in deeds.items()))
    return f"{'. '.join(said)}." if said else ""


def _deed(ranking: Ranking, one: Recommendation, results: Results) -> str:
    """What to do with one student; where nothing helps on the whole, what helps for one purpose."""
    if ranking.reason:
        return f"not known: {ranking.reason}"
    names = [f"“{n}”" for n in ranking.leaders]
    if ranking.plain not in ranking.leaders:
        text = won(ranking, one)
        alike = f"between {joined(names)} there is no significant difference; the first {text}"
        return f"train with {names[0]}, which {text}" if len(names) == 1 else alike
    helps = []
    for found in (recommend(results, p) for p in PURPOSES if p != one.purpose):
        own = next((r for r in found.rankings if r.student == ranking.student and not r.reason and r.plain not in r.leaders),
                   None)
        if own:
            helps.append(f"“{own.leaders[0]}” helps {TITLES[found.purpose]} "
                         f"({score_text(own.named(own.leaders[0]), found, own)})")
    none = "no arm is shown to help on the whole" if helps else "no arm is shown to help"
    kept = f"keep {names[0]}" if len(names) == 1 else none
    return kept + (f", but {joined(helps)}" if helps else "")


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
    """A row a purpose, a column a student: the arm to train with, and what it gains; and what the arms for `one` change."""
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
                      if r.plain not in r.leaders]
    return PageTable("The arm to train with, by purpose", heads("best for", students), rows, "narrow choices"), helped


def _choice(ranking: Ranking, found: Recommendation) -> PageCell:
    names = [f"“{n}”" for n in ranking.leaders]
    if ranking.leaders == (ranking.plain,):
        return PageCell(f"keep {names[0]}", [f"{beaten(ranking)} worse"], "")
    if ranking.plain in ranking.leaders:
        return PageCell("no arm is shown to help", kind="unsure")
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
