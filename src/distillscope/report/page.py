"""report.html: one file that opens offline, asks nothing of any network, and shows everything that a run found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from distillscope.files.writing import write_text
from distillscope.report import body, pictures, render
from distillscope.report.draw.with_plotly import to_plotly
from distillscope.report.figures.figure import Figure
from distillscope.report.figures.keepsakes import ABSENT, Kept, kept_of
from distillscope.report.sections import legend, notices
from distillscope.report.tables import Table
from distillscope.results.models import CLASS_COLOURS, Setting
from distillscope.results.run import Run
from distillscope.results.summary import Summary


def _plain(value: object) -> object:
    if value is None or value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value.item() if hasattr(value, "item") else value


def _packed(column: list) -> dict[str, list]:
    """A column of results as ``levels`` and the level ``at`` each row: names repeat thousands of times."""
    levels = {value: i for i, value in enumerate(dict.fromkeys(column))}
    return {"levels": list(levels), "at": [levels[v] for v in column]}


def page_data(run: Run, figures: list[Figure], albums: Sequence[Kept] = ()) -> dict:
    """Everything that the page's script reads: results.csv whole, each figure's panels, and what the map's dots are."""
    results = {name: _packed([_plain(v) for v in column]) for name, column in run.results.items()}
    shown = [{"key": figure.key, "panels": to_plotly(figure)} for figure in figures]
    return {"study": run.name, "results": results, "figures": shown, "palette": CLASS_COLOURS, **pictures.picture_data(list(albums))}


def assembled(*, title: str, data: dict, scripts: tuple[str, ...] = ("page.js",), styles: tuple[str, ...] = ("page.css",),
              **parts: str) -> str:
    """A page whose ``parts`` are HTML already, escaped by hand: until each has its templates."""
    return render.render_page("strings.html", title=title, data=data, scripts=scripts, styles=styles,
                              **{name: Markup(part) for name, part in parts.items()})


def render_page(run: Run, settings: list[Setting], summary: Summary, figures: list[Figure], table: Table,
                claims: str = "", advice: str = "", recommended: str = "") -> str:
    """The page as text; ``claims`` and ``advice`` are their sections, ``recommended`` the head's line, as HTML."""
    albums, drawn = kept_of(run, settings), {f.key: f for f in figures}
    shown = ({"lost": pictures.styles(albums) + pictures.lost_html(albums), "neighbours": pictures.neighbours_html(albums),
              "card": pictures.map_card(albums, drawn["map"])} if albums else
             {"absent": pictures.absent_html("pictures", "The images themselves", ABSENT)} if run.trials else {})
    return assembled(
        title=f"{run.name}: what the students lost", data=page_data(run, figures, albums), scripts=("page.js", "map.js"),
        study=body.study_line(run), headline=body.headline(settings, summary), notices=recommended + notices(run),
        merits=body.merit_tiles(run, settings, summary), legend=legend(settings),
        sections=body.body(run, settings, summary, drawn, table, claims, advice, shown),
        footer=body.footer(run))


def write_page(run: Run, settings: list[Setting], summary: Summary, figures: list[Figure], table: Table,
               claims: str = "", advice: str = "", recommended: str = "") -> Path:
    """Write report.html into the run directory."""
    return write_text(run.path / "report.html", render_page(run, settings, summary, figures, table, claims, advice, recommended))
