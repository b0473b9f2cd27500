"""An audit -> a folder: report.html, audit.json, measures.csv and the figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from distillscope.files.writing import write_atomic
from distillscope.measure.results import Audit
from distillscope.report import audit_sections as parts
from distillscope.report.draw.with_matplotlib import write_figures
from distillscope.report.draw.with_plotly import to_plotly
from distillscope.report.figures.figure import Figure
from distillscope.report.figures.of_audit import prepare_audit_figures
from distillscope.report.page import assembled
from distillscope.report.sections import escape, legend, tiles
from distillscope.report.sentences.audit import SETTING, headline, merits

COLUMNS = ["teacher", "student", "measure", "value", "low", "high", "n", "unit", "definition"]


def write_audit(found: Audit, folder: Path, *, teacher: str, student: str, command: str, provenance: dict[str, Any]) -> Path:
    """Write everything that a reader of the audit needs into ``folder``; returns the path of report.html.

    ``teacher`` and ``student`` are what the page calls them, ``command`` makes the audit again, and ``provenance`` says with
    what. The page opens offline and loads nothing; it is written last.
    """
    folder = Path(folder)
    found.to_json(folder / "audit.json")
    write_atomic(folder / "measures.csv", lambda p: measures_frame(found, teacher, student).to_csv(p, index=False))
    figures = prepare_audit_figures(found)
    for absent in (f for f in figures if not f.panels):  # an earlier audit in this folder may have had them
        for suffix in ("svg", "png"):
            (folder / "figures" / f"{absent.key}.{suffix}").unlink(missing_ok=True)
    write_figures(figures, folder / "figures")
    page = render_audit(found, figures, folder, teacher=teacher, student=student, command=command, provenance=provenance)
    return write_atomic(folder / "report.html", lambda p: p.write_text(page, encoding="utf-8"))


def measures_frame(found: Audit, teacher: str, student: str) -> pd.DataFrame:
    """One row a value, with the names of both sides, so that the files of several audits can be stacked."""
    rows = [(teacher, student, key, v.value, v.low, v.high, v.n, v.unit, v.definition) for key, v in found.values.items()]
    return pd.DataFrame(rows, columns=COLUMNS)


def page_data(found: Audit, figures: list[Figure], teacher: str, student: str) -> dict[str, Any]:
    """Everything that the page's script reads: each value, and each figure's panels."""
    values = {key: {"value": v.value, "low": v.low, "high": v.high, "n": v.n, "unit": v.unit} for key, v in found.values.items()}
    return {"study": f"{student} against {teacher}", "measures": values, "n_of": "n",
            "figures": [{"key": f.key, "panels": to_plotly(f)} for f in figures]}


def render_audit(found: Audit, figures: list[Figure], folder: Path, *, teacher: str, student: str, command: str,
                 provenance: dict[str, Any]) -> str:
    """The page as text; ``folder`` holds the static figures that stand in where scripts are off."""
    made = parts.provenance_html(provenance, teacher, student, command)
    version = str(provenance.get("distillscope") or "")
    return assembled(
        title=f"{student}: what it lost of {teacher}", data=page_data(found, figures, teacher, student),
        scripts=("page.js", "table.js"), styles=("page.css", "audit.css"), study=parts.study_line(found, teacher, student),
        headline=escape(headline(found)), notices=parts.notices(found), merits=tiles(merits(found)), legend=legend([SETTING]),
        sections=parts.body(found, {f.key: f for f in figures}, folder, made),
        footer=f"Made by Distillscope {escape(version)}. This file is complete: it loads nothing.")
