"""What was lost: the gap, what the other arms changed, and the images themselves."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from distillscope.report.context.figure import ShownFigure
from distillscope.report.context.study.head import title_among
from distillscope.report.context.study.images import lost_images, sheets
from distillscope.report.context.tables import PageCell, PageRow, PageTable, below, heads
from distillscope.report.figures.keepsakes import ABSENT, Kept
from distillscope.report.registered import STUDY
from distillscope.report.sentences import study as sentences
from distillscope.report.sentences.numbers import interval_text, number
from distillscope.results.models import Setting
from distillscope.results.run import Run
from distillscope.results.summary import Statistic, Summary

MOST_OPEN = 4
"""Rows that do not get in the way of what follows."""


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
