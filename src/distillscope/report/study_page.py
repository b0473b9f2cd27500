"""A run -> what a reader of it needs: results.csv, summary.json, claims.json, tables/, figures/ and report.html."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from distillscope.files.writing import write_atomic, write_json, write_text
from distillscope.report.claims import write_claims
from distillscope.report.context.figure import legend_of
from distillscope.report.context.images import picture_data
from distillscope.report.context.study import headline, merits_of, notices_of
from distillscope.report.context.verdicts import recommended
from distillscope.report.draw.with_matplotlib import write_figures
from distillscope.report.draw.with_plotly import to_plotly
from distillscope.report.figures.keepsakes import damaged
from distillscope.report.findings import Findings
from distillscope.report.registered import STUDY
from distillscope.report.render import render_page
from distillscope.report.sentences import study as sentences
from distillscope.report.tables import write_tables
from distillscope.results.models import CLASS_COLOURS
from distillscope.results.run import Run, read_run
from distillscope.results.summary import Summary
from distillscope.visible import sheet_cell


def write_report(run_dir: Path) -> Path:
    """Write everything that a reader of the run needs, and return the path of report.html.

    Reads the run directory only: no model, no data set. A partial run is reported as what it is. Raises UserError when
    ``run_dir`` is no run directory.
    """
    run = read_run(Path(run_dir))
    run.problems.extend(damaged(run))
    found = Findings.of(run)
    write_results(run)
    write_summary(run, found.summary, [sentences.headline(s, found.summary) for s in found.settings])
    write_tables(found.table, run.path / "tables")
    write_figures(list(found.figures.values()), run.path / "figures")
    write_claims(found.claims, run.path)
    return write_text(run.path / "report.html", study_page(found))


def _finite(value: Any) -> Any:
    """JSON has no NaN: a missing interval is null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, list) else value


def write_summary(run: Run, summary: Summary, verdicts: list[str]) -> Path:
    """summary.json: what is complete, the verdict of each setting, and every quantity over seeds."""
    return write_json(run.path / "summary.json", _finite({
        "study": run.name, "complete": len(run.trials), "missing": run.missing, "problems": run.problems,
        "verdicts": verdicts, "quantities": summary.frame.to_dict("records")}))


def write_results(run: Run) -> Path:
    """results.csv: the rows of all trials, with names as a spreadsheet may open them (`visible.sheet_cell`)."""
    rows = run.all_results.copy()
    for name in rows.select_dtypes(exclude="number"):
        rows[name] = rows[name].map(lambda v: sheet_cell(v) if isinstance(v, str) else v)
    path = run.path / "results.csv"
    write_atomic(path, lambda p: rows.to_csv(p, index=False))
    return path


def study_page(found: Findings) -> str:
    """The page as text; the still drawings that stand in where scripts are off are taken from the run's figures/."""
    run = found.run
    version = run.provenance.get("distillscope") or ""
    return render_page(
        "study", title=f"{run.name}: what the students lost", data=page_data(found),
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
