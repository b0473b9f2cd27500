"""What was lost and does it matter? The gap, what the other arms changed, and what noise and corruptions cost each model."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from distillscope.report.context.figure import PageCell, PageRow, PageTable, ShownFigure, below, heads, mean_cell
from distillscope.report.context.study.images import lost_images, neighbours, sheets
from distillscope.report.context.study.reasons import title_among
from distillscope.report.figures.keepsakes import ABSENT, Kept
from distillscope.report.registered import STUDY
from distillscope.report.sentences import study as sentences
from distillscope.report.sentences.numbers import accuracy_of, interval_text, number
from distillscope.results.models import Model, Setting
from distillscope.results.robustness import MEAN, against_teacher
from distillscope.results.robustness import of_suite as rows_of_suite
from distillscope.results.rows import Condition
from distillscope.results.run import Run, of_test
from distillscope.results.summary import Statistic, Summary, statistic

MOST_ROWS = 6
"""Rows of a stress that do not get in the way."""
MOST_OPEN = 4
"""Arms that do not get in the way of what follows."""


@STUDY.register("lost", "What was lost", order=10)
def lost(run: Run, settings: list[Setting], summary: Summary, albums: list[Kept],
         measured: Callable[..., list[ShownFigure]]) -> dict[str, Any]:
    """The page's head already says the first setting's headline."""
    parts = []
    for setting in settings:
        own = [sentences.headline(setting, summary)] if setting is not settings[0] else []
        parts.append({"title": title_among(settings, setting), "findings": own + sentences.what_was_lost(setting, summary),
                      "arms": arms_of(run, setting, summary)})
    return {"parts": parts, "by_class": measured("by_class"), "confusion": measured("confusion"), "sheets": sheets(albums),
            "images": lost_images(albums) if albums else None, "absent": ABSENT if run.trials and not albums else ""}


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
    lines = [PageRow.of(model, [*(_difference(found.get(t)) for t in titles),
                                PageCell(str(max(d.n_seeds for d, _, _ in found.values())))]) for model, _, found in rows]
    table = PageTable("What the other arms changed", heads(f"instead of “{plain}”", [*titles, "seeds"]), lines, "narrow")
    return ArmsTable(plain, len({m.arm for m, _, _ in rows}), table, len(rows) > MOST_OPEN)


def _difference(found: tuple[Statistic, int, float] | None) -> PageCell:
    if found is None:
        return PageCell("", kind="")
    d, digits, scale = found
    unsure = not math.isfinite(d.low) or d.low <= 0 <= d.high
    return PageCell(f"{'+' if d.mean > 0 else ''}{number(scale * d.mean, digits)}",
                    below(interval_text(d, digits, scale) or "no interval"), "num unsure" if unsure else "num")


@STUDY.register("matter", "Does it matter?", order=20)
def matter(run: Run, settings: list[Setting], summary: Summary, albums: list[Kept], drawn: Callable[..., list[ShownFigure]],
           measured: Callable[..., list[ShownFigure]]) -> dict[str, Any]:
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
    """`measure.robustness.against_teacher` for one probe, on the split that the report shows, for the corruptions alone."""
    results = run.all_results
    if not rows_of_suite(results).any():
        return pd.DataFrame()
    table = against_teacher(of_test(results))
    return table[(table["probe"] == probe) & (rows_of_suite(table) | (table["condition"] == MEAN))]


def of_suite(model: Model, suite: pd.DataFrame) -> dict[str, Statistic]:
    """Over seeds: the mean accuracy, its share of the clean one relative to the teacher's share, and the relative error."""
    own = suite[(suite["dataset"] == model.dataset) & (suite["teacher"] == model.teacher) & (suite["target"] == model.target)
                & (suite["arm"] == model.arm) & (suite["student"] == model.student)]
    whole = own["condition"] == MEAN
    n = int(own["n"].max()) if len(own) else None
    each = own[~whole].groupby("seed")[["accuracy", "relative_retention"]].mean()
    if not len(own):
        return {}
    return {**{c: statistic(each[c], n) for c in each}, "error": statistic(own.loc[whole, "mean_corruption_error"], n)}


def corruptions_of(setting: Setting, suite: pd.DataFrame) -> StressTable | None:
    """The mean over all corruptions and severities, beside the teacher's."""
    found = [] if suite.empty else [(m, s) for m in setting.students if (s := of_suite(m, suite))]
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
    key = f"noise_probe.{kind}.student"
    levels = sorted((c for c in summary.conditions() if c.kind == "noise_probe" and c.strength), key=lambda c: c.strength or 0)
    rows = []
    for condition in levels:
        for model in setting.models:
            clean, under, fitted = (summary.per_seed(model, f"{key}.{what}", c) for what, c in (
                ("accuracy", Condition.of("noise_probe", level=0)), ("clean_fit_accuracy", condition), ("accuracy", condition)))
            shared = [s for s in fitted if s in clean and s in under]
            if shared:
                columns = [[d[s] for s in shared] for d in (clean, under)]
                columns += [[fitted[s] - under[s] for s in shared], [clean[s] - fitted[s] for s in shared]]
                rows.append(PageRow.of(model, [PageCell(condition.level),
                                               *(mean_cell(statistic(c), 1, 100) for c in columns),
                                               PageCell(str(len(shared)))]))
    head = ["σ", "clean probe, no noise, %", "clean probe under noise, %", "won back", "lost", "seeds"]
    return StressTable.of("What noise moves, and what it destroys", head, rows) if rows else None
