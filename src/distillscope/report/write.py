"""write_report: a run directory -> results.csv, summary.json, claims.json, tables/, figures/ and report.html."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from distillscope.files.writing import write_atomic, write_json
from distillscope.report.claims import write_claims
from distillscope.report.draw.with_matplotlib import write_figures
from distillscope.report.figures.keepsakes import damaged
from distillscope.report.findings import Findings
from distillscope.report.sentences.study import headline
from distillscope.report.study_page import write_page
from distillscope.report.tables import write_tables
from distillscope.results.run import Run, read_run
from distillscope.results.summary import Summary
from distillscope.visible import sheet_cell


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


def write_report(run_dir: Path) -> Path:
    """Write everything that a reader of the run needs, and return the path of report.html.

    Reads the run directory only: no model, no data set. A partial run is reported as what it is. Raises UserError when
    ``run_dir`` is no run directory.
    """
    run = read_run(Path(run_dir))
    run.problems.extend(damaged(run))
    found = Findings.of(run)
    write_results(run)
    write_summary(run, found.summary, [headline(s, found.summary) for s in found.settings])
    write_tables(found.table, run.path / "tables")
    write_figures(list(found.figures.values()), run.path / "figures")
    write_claims(found.claims, run.path)
    return write_page(found)
