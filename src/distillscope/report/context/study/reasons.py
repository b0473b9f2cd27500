"""Why? Directions, neighbourhoods, fine detail, information, training; then all numbers, and where they come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import yaml

from distillscope.report.context.figure import ShownFigure
from distillscope.report.context.study.images import Card, cards
from distillscope.report.context.tables import Head, PageCell, PageRow, PageTable, duration
from distillscope.report.figures.figure import Figure
from distillscope.report.figures.keepsakes import Kept
from distillscope.report.figures.noise import Sigma, noise_conditions
from distillscope.report.registered import STUDY
from distillscope.report.tables import Cell, Column, Table, interval_line
from distillscope.results.run import Run
from distillscope.results.summary import Summary

Shown = Callable[..., list[ShownFigure]]
WHY = "Why?"
STRESSES = ("bands", "corruptions", "fourier", "gradient", "top_k", "latency")
"""Figures of what a study measures only if it is asked to."""


@STUDY.register("geometry", "Directions", order=30, question=WHY, template="figures.html")
def geometry(drawn: Shown, measured: Shown) -> dict[str, Any]:
    """How many directions the embeddings fill, and whose."""
    return {"rows": [measured("cumulative_variance", "spectrum"), drawn("effective_rank", "cosine_rank"), drawn("alignment"),
                     measured("top_k")]}


@STUDY.register("map", "Neighbourhoods", order=40, question=WHY)
def neighbourhoods(measured: Shown, albums: list[Kept]) -> dict[str, Any] | None:
    """The same images in two dimensions, and a card for the one under the pointer."""
    shown = measured("map")
    found: list[Card] = cards(albums) if albums else []
    return {"map": shown[0], "cards": found} if shown else None


@STUDY.register("detail", "Fine detail", order=50, question=WHY, template="figures.html")
def detail(measured: Shown) -> dict[str, Any] | None:
    """Which frequencies a model listens to."""
    pair, fourier = measured("bands", "gradient"), measured("fourier")
    return {"rows": [pair, fourier]} if pair or fourier else None


@STUDY.register("information", "Information", order=60, question=WHY, template="figures.html")
def information(drawn: Shown) -> dict[str, Any]:
    """How well one image can be distinguished from the others."""
    return {"rows": [drawn("information")]}


@STUDY.register("training", "Training", order=70, question=WHY)
def training(drawn: Shown, figures: dict[str, Figure]) -> dict[str, Any]:
    """The course of training, and the stresses that this study did not run."""
    return {"shown": drawn("training"),
            "unmeasured": [figures[k] for k in STRESSES if k in figures and not figures[k].panels]}


@STUDY.register("table", "All numbers", order=100)
def numbers(table: Table) -> dict[str, Any]:
    """The main table, with intervals and seeds in every cell."""
    return {"table": page_table(table) if table.rows else None, "notes": notes_of(table)}


def notes_of(table: Table) -> list[str]:
    """What the table's numbers are means over; brackets are explained where there are any."""
    return [*table.notes, "Brackets: 95 % t interval over seeds."] if table.usual_seeds > 1 else table.notes


def page_table(table: Table) -> PageTable:
    """The main table for a page."""
    places = ["data", "teacher"] if table.settings > 1 else []
    head = [Head("model", "name"), *(Head(p, "place") for p in places), *(Head(c.title, hint=c.hint) for c in table.columns)]
    rows, previous = [], None
    for row in table.rows:
        m = row.model
        group = (m.dataset, m.teacher, m.arm, m.is_teacher)
        kinds = ["teacher"] * m.is_teacher + ["first"] * (previous not in (None, group))
        previous = group
        cells = [PageCell(v, kind="place") for v in ((m.dataset, m.teacher) if places else ())]
        cells += [_cell(c, k, table, m.is_teacher) for c, k in zip(row.cells, table.columns, strict=True)]
        rows.append(PageRow.of(m, cells, " ".join(kinds)))
    return PageTable("Main table", head, rows)


def _cell(cell: Cell, column: Column, table: Table, of_teacher: bool) -> PageCell:
    lines = () if of_teacher or column.constant else (interval_line(cell, column, table.usual_seeds),)
    return PageCell(table.measured(cell, column), lines, paper=table.published(cell, column) or None)


@STUDY.register("provenance", "Provenance", order=110)
def provenance(run: Run, summary: Summary) -> dict[str, Any]:
    """Where the numbers come from, and the command that makes them again."""
    known = run.provenance
    versions = known.get("versions")
    versions = versions if isinstance(versions, dict) else {}
    facts = {"distillscope": known.get("distillscope"), "commit": known.get("commit"), "device": known.get("device"),
             "threads": known.get("threads"), "hardware": known.get("hardware"), "started": known.get("started"),
             "duration": duration(known.get("seconds")), "seeds": ", ".join(map(str, run.study.seeds)),
             "versions": ", ".join(f"{k} {v}" for k, v in versions.items())}
    return {"known": bool(known), "facts": facts, "command": known.get("command"),
            "noise": [_noise_line(s) for s in noise_conditions(run, summary)],
            "config": yaml.safe_dump(run.written, sort_keys=False, allow_unicode=True)}


def _noise_line(sigma: Sigma) -> str:
    clipped = "" if sigma.clipped is None else "clipped" if sigma.clipped else "not clipped"
    how = ", ".join(p for p in (f"added to {sigma.where}" if sigma.where else "", clipped) if p)
    return f"{sigma.text}{'; ' + how if how else ''}"
