"""report.html: one file that opens offline, asks nothing of any network, and shows everything that a run found."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from distillscope.files.writing import write_text
from distillscope.report.context.figure import legend_of
from distillscope.report.context.study.images import picture_data
from distillscope.report.context.study.reasons import headline, merits_of, notices_of
from distillscope.report.context.study.verdicts import recommended
from distillscope.report.draw.with_plotly import to_plotly
from distillscope.report.findings import Findings
from distillscope.report.registered import STUDY
from distillscope.report.render import render_page
from distillscope.results.models import CLASS_COLOURS


def write_page(found: Findings) -> Path:
    """Write report.html into the run directory."""
    return write_text(found.folder / "report.html", study_page(found))


def study_page(found: Findings) -> str:
    """The page as text; the still drawings that stand in where scripts are off are taken from the run's figures/."""
    run = found.run
    version = run.provenance.get("distillscope") or ""
    return render_page(
        "study/page.html", title=f"{run.name}: what the students lost", data=page_data(found), scripts=("page.js", "map.js"),
        name=run.name, description=run.study.description, headline=headline(found.settings, found.summary),
        recommended=recommended(found.advice), notices=notices_of(run), merits=merits_of(found),
        legend=legend_of(found.settings),
        sections=STUDY.shown(found), footer=f"Made by Distillscope {version} from {len(run.trials)} trials.")


def page_data(found: Findings) -> dict[str, Any]:
    """Everything that the page's script reads: results.csv whole, each figure's panels, and what the map's dots are."""
    results = {str(name): _packed(_plain(v) for v in column) for name, column in found.run.all_results.items()}
    shown = [{"key": figure.key, "panels": to_plotly(figure)} for figure in found.figures.values()]
    return {"study": found.run.name, "results": results, "figures": shown, "palette": CLASS_COLOURS,
            **picture_data(found.albums)}


def _plain(value: Any) -> Hashable:
    """A value of results as JSON has it: what is not finite is null."""
    if value is None or value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value.item() if hasattr(value, "item") else value


def _packed(column: Iterable[Hashable]) -> dict[str, list[Any]]:
    """A column of results as ``levels`` and the level ``at`` each row: names repeat thousands of times."""
    values = list(column)
    levels = {value: i for i, value in enumerate(dict.fromkeys(values))}
    return {"levels": list(levels), "at": [levels[v] for v in values]}
