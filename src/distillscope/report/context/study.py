"""The study's page: its head, and its sections in the order in which a reader asks.

What was lost, does it matter, why, what to change, and is it to be believed? A section is a function here, or in
verdicts.py (what to change, the claims), registered in `STUDY`; its template is the one of its name in report/templates/study,
unless it names one that sections share.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import yaml

from distillscope.report.context.figure import (
    Head,
    PageCell,
    PageRow,
    PageTable,
    ShownFigure,
    below,
    duration,
    heads,
    mean_cell,
)
from distillscope.report.context.images import Card, cards, lost_images, neighbours, sheets
from distillscope.report.figures.figure import Figure
from distillscope.report.figures.keepsakes import Kept, why_absent
from distillscope.report.figures.noise import Sigma, noise_conditions
from distillscope.report.page import STUDY
from distillscope.report.sentences import study as sentences
from distillscope.report.sentences.numbers import accuracy_of, interval_text, number
from distillscope.report.tables import Cell, Column, Table, interval_line
from distillscope.results.keys import OLD_FIT, OLD_FIT_SAYS
from distillscope.results.models import Setting
from distillscope.results.robustness import MEAN, against_teacher, of_suite
from distillscope.results.run import Run, of_test
from distillscope.results.summary import Statistic, Summary, suite_over_seeds

Shown = Callable[..., list[ShownFigure]]
WHY = "Why?"
STRESSES = ("bands", "corruptions", "fourier", "gradient", "top_k", "latency")
"""Figures of what a study measures only if it is asked to."""
MOST_LISTED = 50
"""Values that are not finite, by name."""
NOTHING_YET = "No trial of this study has finished yet."
MOST_ROWS = 6
"""Rows of a stress that do not get in the way."""
MOST_OPEN = 4
"""Arms that do not get in the way of what follows."""


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


def merits_of(run: Run, settings: list[Setting], summary: Summary) -> list[SettingMerits]:
    """The tiles of every setting."""
    return [SettingMerits(title_among(settings, s), sentences.merits(run, s, summary)) for s in settings]


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


@STUDY.register("lost", "What was lost", order=10)
def lost(run: Run, settings: list[Setting], summary: Summary, albums: list[Kept],
         measured: Shown) -> dict[str, Any]:
    """The page's head already says the first setting's headline."""
    parts = []
    for setting in settings:
        own = [sentences.headline(setting, summary)] if setting is not settings[0] else []
        parts.append({"title": title_among(settings, setting), "findings": own + sentences.what_was_lost(setting, summary),
                      "arms": arms_of(run, setting, summary)})
    return {"parts": parts, "by_class": measured("by_class"), "confusion": measured("confusion"), "sheets": sheets(albums),
            "images": lost_images(albums) if albums else None, "absent": why_absent(run) if run.trials and not albums else ""}


@dataclass(frozen=True)
class ArmsTable:
    """What the further arms changed against ``plain``; ``folded`` where the rows are many."""

    plain: str
    num_arms: int
    table: PageTable
    folded: bool


def arms_of(run: Run, setting: Setting, summary: Summary) -> ArmsTable | None:
    """Each further arm against the first, paired over seeds; None where there is one arm."""
    rows = sentences.other_arms(run, setting, summary)
    if not rows:
        return None
    plain, titles = rows[0][1].arm, list(dict.fromkeys(t for _, _, found in rows for t in found))
    lines = [PageRow.of(model, [*(_difference(found.get(t)) for t in titles), PageCell(_seeds(found))])
             for model, _, found in rows]
    table = PageTable("What the other arms changed", heads(f"instead of “{plain}”", [*titles, "seeds"]), lines, "narrow")
    return ArmsTable(plain, len({m.arm for m, _, _ in rows}), table, len(rows) > MOST_OPEN)


def _seeds(found: sentences.Changes) -> str:
    """How many seeds each difference is paired over: one number where it is the same for all."""
    return sentences.span((d.n_seeds for d, _, _ in found.values()), 0)


def _difference(found: tuple[Statistic, int, float] | None) -> PageCell:
    if found is None:
        return PageCell("", kind="")
    d, digits, scale = found
    unsure = not math.isfinite(d.low) or d.low <= 0 <= d.high
    return PageCell(f"{'+' if d.mean > 0 else ''}{number(scale * d.mean, digits)}",
                    below(interval_text(d, digits, scale) or "no interval"), "num unsure" if unsure else "num")


@STUDY.register("matter", "Does it matter?", order=20)
def matter(run: Run, settings: list[Setting], summary: Summary, albums: list[Kept], drawn: Shown,
           measured: Shown) -> dict[str, Any]:
    """Accuracy under noise and corruptions, the neighbours of the same queries, and time."""
    return {"parts": [{"title": title_among(settings, s), "findings": sentences.does_it_matter(run, s, summary)}
                      for s in settings],
            "noise": drawn("noise"), "corruptions": measured("corruptions"), "beside": beside_teacher(run, settings, summary),
            "neighbours": neighbours(albums) if albums else None, "latency": measured("latency")}


@dataclass(frozen=True)
class StressTable:
    """A table with its title; ``folded`` where the rows are many. Its template has the note that explains it."""

    title: str
    table: PageTable
    folded: bool
    num_corruptions: int = 0
    num_items: int = 0

    @classmethod
    def of(cls, title: str, head: list[str], rows: list[PageRow], **more: int) -> StressTable:
        return cls(title, PageTable(title, heads("model", head), rows, "narrow"), len(rows) > MOST_ROWS, **more)


@dataclass(frozen=True)
class Beside:
    """The tables of one setting, each None where the run did not make it."""

    title: str
    corruptions: StressTable | None
    noise_probe: StressTable | None


def beside_teacher(run: Run, settings: list[Setting], summary: Summary) -> list[Beside]:
    """The tables that the run has numbers for, setting by setting; nothing where it ran neither stress."""
    accuracy = accuracy_of(summary)
    if accuracy is None or not accuracy[0].endswith("probe.student.accuracy"):
        return []
    probe = accuracy[0].removesuffix(".student.accuracy")
    suite, kind, found = corruption_table(run, probe), "paper" if probe.startswith("paper") else "tuned", []
    for setting in settings:
        tables = corruptions_of(setting, suite), noise_probe_of(setting, summary, kind)
        if any(tables):
            found.append(Beside(title_among(settings, setting), *tables))
    return found


def corruption_table(run: Run, probe: str) -> pd.DataFrame:
    """`results.robustness.against_teacher` for one probe, on the split that the report shows, for the corruptions alone."""
    results = run.all_results
    if not of_suite(results).any():
        return pd.DataFrame()
    table = against_teacher(of_test(results))
    return table[(table["probe"] == probe) & (of_suite(table) | (table["condition"] == MEAN))]


def corruptions_of(setting: Setting, suite: pd.DataFrame) -> StressTable | None:
    """The mean over all corruptions and severities, beside the teacher's."""
    found = [] if suite.empty else [(m, s) for m in setting.students if (s := suite_over_seeds(m, suite))]
    if not found:
        return None
    rows = [PageRow.of(m, [mean_cell(s["accuracy"], 1, 100), mean_cell(s["error"]), mean_cell(s["relative_retention"]),
                           PageCell(str(s["accuracy"].n_seeds))]) for m, s in found]
    return StressTable.of(
        "Common corruptions beside the teacher",
        ["accuracy, %", "error relative to the teacher's", "retention relative to the teacher's", "seeds"], rows,
        num_corruptions=suite.loc[suite["condition"] != MEAN, "condition"].nunique(),
        num_items=next((s["accuracy"].n for _, s in found if s["accuracy"].n), 0) or 0)


def noise_probe_of(setting: Setting, summary: Summary, kind: str) -> StressTable | None:
    """Accuracy under noise with the clean probe, and with one that was fitted to noise: what noise moves, what it destroys."""
    levels = sorted((c for c in summary.conditions() if c.kind == "noise_probe" and c.strength), key=lambda c: c.strength or 0)
    rows = []
    for condition in levels:
        for model in setting.models:
            if found := summary.noise_probe(model, kind, condition):
                rows.append(PageRow.of(model, [PageCell(condition.level), *(mean_cell(s, 1, 100) for s in found.values()),
                                               PageCell(str(found["clean"].n_seeds))]))
    head = ["σ", "clean probe, no noise, %", "clean probe under noise, %", "recovered", "lost", "seeds"]
    return StressTable.of("What noise moves, and what it destroys", head, rows) if rows else None


@STUDY.register("geometry", "Directions", order=30, question=WHY, template="figures")
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


@STUDY.register("detail", "Fine detail", order=50, question=WHY, template="figures")
def detail(measured: Shown) -> dict[str, Any] | None:
    """Which frequencies a model listens to."""
    pair, fourier = measured("bands", "gradient"), measured("fourier")
    return {"rows": [pair, fourier]} if pair or fourier else None


@STUDY.register("information", "Information", order=60, question=WHY, template="figures")
def information(drawn: Shown) -> dict[str, Any]:
    """How well one image can be distinguished from the others."""
    return {"rows": [drawn("information")]}


@STUDY.register("training", "Training", order=70, question=WHY, template="figures")
def training(drawn: Shown, figures: dict[str, Figure]) -> dict[str, Any]:
    """The course of training, and the stresses that this study did not run."""
    return {"rows": [drawn("training")],
            "unmeasured": [figures[k] for k in STRESSES if k in figures and not figures[k].panels]}


@STUDY.register("table", "All numbers", order=100, template="table")
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


@STUDY.register("provenance", "Provenance", order=110, template="provenance")
def provenance(run: Run, summary: Summary) -> dict[str, Any]:
    """Where the numbers come from, and the command that makes them again."""
    known = run.provenance
    versions = known.get("versions")
    versions = versions if isinstance(versions, dict) else {}
    facts = {"distillscope": known.get("distillscope"), "commit": known.get("commit"), "device": known.get("device"),
             "precision": known.get("precision"), "images": _image_notes(known.get("images")),
             "threads": known.get("threads"), "hardware": known.get("hardware"), "started": known.get("started"),
             "duration": duration(known.get("seconds")), "seeds": ", ".join(map(str, run.study.seeds)),
             "versions": ", ".join(f"{k} {v}" for k, v in versions.items())}
    unknown = "" if known else "This run has no provenance.json, so its versions and its command are not known."
    return {"sides": [{"label": "", "facts": facts, "made_by": ""}], "command": known.get("command"), "unknown": unknown,
            "noise": [_noise_line(s) for s in noise_conditions(run, summary)],
            "config": yaml.safe_dump(run.written, sort_keys=False, allow_unicode=True)}


def _image_notes(known: Any) -> str:
    """What was assumed of the images and left out, as it was said when they were read."""
    by_set = known if isinstance(known, dict) else {}
    return "; ".join(f"{data}/{split}: {note}" for data, notes in by_set.items() if isinstance(notes, dict)
                     for split, note in notes.items())


def _noise_line(sigma: Sigma) -> str:
    clipped = "" if sigma.clipped is None else "clipped" if sigma.clipped else "not clipped"
    how = ", ".join(p for p in (f"added to {sigma.where}" if sigma.where else "", clipped) if p)
    return f"{sigma.text}{'; ' + how if how else ''}"
