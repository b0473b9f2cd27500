"""The head of the study's page, and its sections on why: directions, neighbourhoods, detail, training; all numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from distillscope.report.context.figure import Head, PageCell, PageRow, PageTable, ShownFigure, duration
from distillscope.report.context.study.images import Card, cards
from distillscope.report.figures.figure import Figure
from distillscope.report.figures.keepsakes import Kept
from distillscope.report.figures.noise import Sigma, noise_conditions
from distillscope.report.findings import Findings
from distillscope.report.registered import STUDY
from distillscope.report.sentences import study as sentences
from distillscope.report.tables import Cell, Column, Table, interval_line
from distillscope.results.keys import OLD_FIT, OLD_FIT_SAYS
from distillscope.results.models import Setting
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


@STUDY.register("training", "Training", order=70, question=WHY, template="figures.html")
def training(drawn: Shown, figures: dict[str, Figure]) -> dict[str, Any]:
    """The course of training, and the stresses that this study did not run."""
    return {"rows": [drawn("training")],
            "unmeasured": [figures[k] for k in STRESSES if k in figures and not figures[k].panels]}


@STUDY.register("table", "All numbers", order=100, template="table.html")
def numbers(table: Table) -> dict[str, Any]:
    """The main table, with intervals and seeds in every cell."""
    return {"table": page_table(table) if table.rows else None, "notes": notes_of(table), "results": True,
            "nothing": "No trial has finished yet."}


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


@STUDY.register("provenance", "Provenance", order=110, template="provenance.html")
def provenance(run: Run, summary: Summary) -> dict[str, Any]:
    """Where the numbers come from, and the command that makes them again."""
    known = run.provenance
    versions = known.get("versions")
    versions = versions if isinstance(versions, dict) else {}
    facts = {"distillscope": known.get("distillscope"), "commit": known.get("commit"), "device": known.get("device"),
             "threads": known.get("threads"), "hardware": known.get("hardware"), "started": known.get("started"),
             "duration": duration(known.get("seconds")), "seeds": ", ".join(map(str, run.study.seeds)),
             "versions": ", ".join(f"{k} {v}" for k, v in versions.items())}
    unknown = "" if known else "This run has no provenance.json, so its versions and its command are not known."
    return {"sides": [{"label": "", "facts": facts, "made_by": ""}], "command": known.get("command"), "unknown": unknown,
            "noise": [_noise_line(s) for s in noise_conditions(run, summary)],
            "config": yaml.safe_dump(run.written, sort_keys=False, allow_unicode=True)}


def _noise_line(sigma: Sigma) -> str:
    clipped = "" if sigma.clipped is None else "clipped" if sigma.clipped else "not clipped"
    how = ", ".join(p for p in (f"added to {sigma.where}" if sigma.where else "", clipped) if p)
    return f"{sigma.text}{'; ' + how if how else ''}"


MOST_LISTED = 50
"""Values that are not finite, by name."""
NOTHING_YET = "No trial of this study has finished yet."


@dataclass(frozen=True)
class Notices:
    """What is missing, what is broken, and what the trials warned of."""

    complete: int
    missing: list[str]
    unstarted: int
    num_not_finite: int
    not_finite: list[str]
    problems: list[str]
    old_fit: str
    warnings: list[str]


def notices_of(run: Run) -> Notices:
    """What to say before any number is read."""
    bad = run.all_results[~np.isfinite(run.all_results["value"])]
    return Notices(
        len(run.trials), run.missing, run.unstarted, len(bad),
        [f"{r.arm} {r.student} seed {r.seed}, {r.condition}: {r.measure}" for r in bad.itertuples()][:MOST_LISTED],
        run.problems,
        OLD_FIT_SAYS if run.mapped_fit == OLD_FIT else "", [f"{t.folder}: {w}" for t in run.trials for w in t.warnings])


@dataclass(frozen=True)
class SettingMerits:
    """The figures of merit under one data set and teacher, with its name where there are several."""

    title: str
    merits: list[sentences.Merit]


def title_among(settings: list[Setting], setting: Setting) -> str:
    """The name of a setting where there are several to tell apart, else nothing."""
    return setting.title if len(settings) > 1 else ""


def headline(settings: list[Setting], summary: Summary) -> str:
    """What was lost in the first setting, in one sentence."""
    return sentences.headline(settings[0], summary) if settings else NOTHING_YET


def merits_of(found: Findings) -> list[SettingMerits]:
    """The tiles of every setting."""
    return [SettingMerits(title_among(found.settings, s), sentences.merits(found.run, s, found.summary))
            for s in found.settings]
