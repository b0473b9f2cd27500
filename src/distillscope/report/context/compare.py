"""The page of a comparison: its head, and its sections: what differs, how it looks, and what was set otherwise.

A section is a function here, registered in `COMPARISON`; its template is the one of its name in report/templates/compare,
unless it names one that sections share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from distillscope.compare.differences import Difference, Pair
from distillscope.compare.read import AuditSide, StudySide
from distillscope.compare.runs import Comparison, path_of
from distillscope.report.context.figure import PageCell, PageRow, PageTable, ShownFigure, duration, heads
from distillscope.report.context.study import notes_of, page_table
from distillscope.report.page import COMPARISON
from distillscope.report.sentences import compare as sentences
from distillscope.report.sentences.audit_measures import between, shown, title_of
from distillscope.report.sentences.compare import difference_text, interval_text, title_text
from distillscope.report.sentences.numbers import MISSING
from distillscope.report.tables import Table
from distillscope.visible import joined


@dataclass(frozen=True)
class DifferenceRow:
    """One model's difference; ``remains``: after Holm's correction."""

    name: str
    highlight: str
    value: str
    interval: str
    remains: bool


@dataclass(frozen=True)
class DifferenceCard:
    """One quantity, whose difference ``note`` says what it is of."""

    title: str
    note: str
    rows: list[DifferenceRow]


@dataclass(frozen=True)
class Cards:
    """The cards of a pair of runs (named by ``title`` where there are several), or of all audits."""

    title: str
    cards: list[DifferenceCard]


def merits(found: Comparison) -> list[Cards]:
    """A row of cards for each pair of studies, one for all audits."""
    whole = Pair(found.labels[0], joined(found.labels[1:]), found.differences)
    pairs = found.pairs if found.kind == "study" else [whole]
    several = len(found.pairs) > 1
    return [Cards(f"{pair.second} against {pair.first}" if several else "", _cards(pair.differences)) for pair in pairs]


def _cards(differences: Sequence[Difference]) -> list[DifferenceCard]:
    known = [d for d in differences if d.known]
    several, by_title = len({d.second for d in known}) > 1, dict[str, list[Difference]]()
    for d in known:
        by_title.setdefault(title_text(d), []).append(d)
    return [DifferenceCard(title, _of(same[0], several), [_row(d) for d in same]) for title, same in by_title.items()
            if any(d.quantity.tested for d in same)]


def _of(d: Difference, several: bool) -> str:
    """What is taken from what, and in which unit."""
    return f"{'minus' if several else f'{d.second} −'} {d.first}{f', {d.quantity.unit}' if d.quantity.unit else ''}"


def _row(d: Difference) -> DifferenceRow:
    return DifferenceRow(d.name or d.second, highlight_of(d), difference_text(d), interval_text(d), d.shown)


def highlight_of(d: Difference) -> str:
    """The model that a row fades with."""
    return d.match.first.student if d.match else d.second


Shown = Callable[..., list[ShownFigure]]
COLUMNS = ("figure", "A", "B", "B − A", "95 % interval", "over items", "n", "p (Holm)")


@dataclass(frozen=True)
class PairTable:
    """The differences of two runs, and why some were left out."""

    first: str
    second: str
    table: PageTable
    left_out: list[str]


@COMPARISON.register("lost", "What differs", order=10)
def lost(found: Comparison, present: Shown) -> dict[str, Any]:
    """Every difference: how to read it, drawn, and in a table for each pair of runs."""
    return {"reading": sentences.READING if found.kind == "study" else sentences.OVER_ITEMS, "figures": present("differences"),
            "pairs": [pair_table(p, named=len(found.pairs) > 1) for p in found.pairs]}


def pair_table(pair: Pair, named: bool) -> PairTable:
    """One row a difference; a table of several on a page is ``named``."""
    known = [d for d in pair.differences if d.known]
    models, items = any(d.match for d in pair.differences), any(d.items for d in pair.differences)
    columns = [c for c in COLUMNS if items or c != "over items"]
    head = heads("model", columns) if models else heads("", columns)[1:]
    rows, previous = [], None
    for d in known:
        group = d.match and (d.match.first.dataset, d.match.first.teacher, d.name)
        kind = " ".join(["shown"] * d.shown + ["first"] * (previous not in (None, group)))
        previous = group
        cells = [PageCell(text) for text in _cells(d, items)]
        rows.append(PageRow(d.name if models else None, cells, kind=kind, highlight=highlight_of(d)))
    label = f"Differences of {pair.second} from {pair.first}" if named else "Differences"
    return PairTable(pair.first, pair.second, PageTable(label, head, rows), sentences.left_out_lines(pair.differences))


def _cells(d: Difference, items: bool) -> list[str]:
    over_items = [sentences.items_text(d)] if items else []
    return [sentences.title_text(d), sentences.value_text(d, d.a), sentences.value_text(d, d.b), sentences.difference_text(d),
            sentences.interval_text(d), *over_items, sentences.n_text(d), sentences.p_text(d.p_holm)]


@COMPARISON.register("matter", "Does it matter?", order=20, template="figures")
def matter(found: Comparison, present: Shown) -> dict[str, Any] | None:
    """Accuracy under noise."""
    return {"rows": [present("noise")]} if found.kind == "study" else None


@COMPARISON.register("geometry", "Geometry", order=30, template="figures")
def geometry(present: Shown) -> dict[str, Any]:
    """How many directions the students fill, and whose."""
    return {"rows": [present("cumulative_variance"), present("effective_rank", "cosine_rank"), present("alignment"),
                     present("component_r2")]}


@COMPARISON.register("information", "Information", order=40, template="figures")
def information(found: Comparison, present: Shown) -> dict[str, Any] | None:
    """How well one image can be distinguished from the others."""
    return {"rows": [present("information")]} if found.kind == "study" else None


@COMPARISON.register("training", "Training", order=50, template="figures")
def training(found: Comparison, present: Shown) -> dict[str, Any] | None:
    """The course of training."""
    return {"rows": [present("training")]} if found.kind == "study" else None


@COMPARISON.register("settings", "What was set otherwise", order=60, template="table")
def settings(found: Comparison) -> dict[str, Any] | None:
    """Every setting in which the configurations differ, a column a run."""
    if found.kind != "study":
        return None
    rows = [PageRow(key, [PageCell(values[label] or MISSING, kind="setting") for label in found.labels])
            for key, values in found.differs]
    table = PageTable("Settings that differ", heads("setting", found.labels), rows) if rows else None
    return {"table": table, "notes": [], "nothing": "The configurations are the same, seeds apart."}


@COMPARISON.register("table", "All numbers", order=70, template="table")
def table(found: Comparison, table: Table | None) -> dict[str, Any]:
    """The main table of the studies, or every measure of the audits."""
    if table is not None:
        return {"table": page_table(table), "notes": notes_of(table), "nothing": ""}
    return {"table": audits_table([s for s in found.sides if isinstance(s, AuditSide)]), "notes": [], "nothing": ""}


def audits_table(sides: Sequence[AuditSide]) -> PageTable:
    """Every measure that one of the audits has: the first one's teacher, then each student."""
    lines = [{line.name: line for line in s.audit.lines()} for s in sides]
    rows = []
    for name in dict.fromkeys(name for known in lines for name in known):
        teacher = lines[0][name].teacher if name in lines[0] else None
        values = [teacher, *(known[name].student if name in known else None for known in lines)]
        cells = [PageCell(shown(v.value, v.unit, name) if v else MISSING, (between(v, name),)) for v in values]
        rows.append(PageRow(title_of(name), cells, hint=name))
    return PageTable("All measures", heads("measure", ["teacher", *(s.label for s in sides)]), rows)


@COMPARISON.register("provenance", "Provenance", order=80, template="provenance")
def provenance(found: Comparison, command: str) -> dict[str, Any]:
    """Where each run is and how it was made, and the command of this page."""
    return {"sides": [{"label": side.label, "facts": _facts(side), "made_by": _made_by(side)} for side in found.sides],
            "command": command}


def _facts(side: StudySide | AuditSide) -> dict[str, Any]:
    facts: dict[str, Any] = {"path": path_of(side)}
    if isinstance(side, AuditSide):
        return facts | {"measures": len(side.audit.measured)}
    known = side.run.provenance
    return facts | {
        "distillscope": known.get("distillscope"), "commit": known.get("commit"), "hardware": known.get("hardware"),
        "started": known.get("started"), "duration": duration(known.get("seconds")), "trials": len(side.run.trials),
        "seeds": ", ".join(map(str, side.run.study.seeds))}


def _made_by(side: StudySide | AuditSide) -> str | None:
    return side.run.provenance.get("command") if isinstance(side, StudySide) else None
