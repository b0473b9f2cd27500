"""An audit -> a folder: report.html, audit.json, measures.csv and the figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from distillscope.files.writing import write_atomic, write_text
from distillscope.measure.results import Audit
from distillscope.report.context.audit import merits, study_of
from distillscope.report.context.figure import ShownFigure, legend_of, shown_figures
from distillscope.report.draw.with_matplotlib import write_figures
from distillscope.report.draw.with_plotly import to_plotly
from distillscope.report.figures.audit_items import SETTING
from distillscope.report.figures.figure import Figure
from distillscope.report.page import AUDIT, AUDIT_FIGURES, render_page
from distillscope.report.sentences.audit import headline
from distillscope.report.sentences.stages import stage_rows, stage_titles
from distillscope.report.terminals import chosen_lines, shown_line

COLUMNS = ["teacher", "student", "measure", "value", "low", "high", "n", "unit", "definition"]
KNOWN = ("teacher", "student")
"""Labels that the page's legend has."""


@dataclass(frozen=True)
class Audited:
    """An audit, and what its page says beside it: what the sections of the page are made from.

    ``teacher`` and ``student`` are what the page calls them, ``command`` makes the audit again, ``provenance`` says with what,
    and ``folder`` holds the still drawings. ``pictures`` are images (h, w, 3) uint8 by the ids of items.
    """

    found: Audit
    folder: Path
    teacher: str
    student: str
    command: str
    provenance: dict[str, Any]
    pictures: dict[str, np.ndarray] = field(default_factory=dict)

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """Every figure by its key, in the page's order; one that lacks its measures says so in ``absent``."""
        return AUDIT_FIGURES.drawn(self)

    def drawn(self, *keys: str) -> list[ShownFigure]:
        """These figures as templates take them, with their still drawings where these are written already."""
        return shown_figures((self.figures[k] for k in keys), self.folder, KNOWN)


def write_audit(found: Audit, folder: Path, *, teacher: str, student: str, command: str, provenance: dict[str, Any],
                pictures: dict[str, np.ndarray] | None = None) -> Path:
    """Write everything that a reader of the audit needs into ``folder``; returns the path of report.html.

    ``teacher`` and ``student`` are what the page calls them, ``command`` makes the audit again, and ``provenance`` says with
    what; ``pictures``, images by id, are those that it may show. The page opens offline and loads nothing; it is written last.
    """
    audited = Audited(found, Path(folder), teacher, student, command, provenance, pictures or {})
    found.to_json(audited.folder / "audit.json")
    write_atomic(audited.folder / "measures.csv", lambda p: measures_frame(audited).to_csv(p, index=False))
    drawn = {key: figure for key, figure in audited.figures.items() if figure.panels}
    for absent in (key for key in AUDIT_FIGURES if key not in drawn):  # an earlier audit in this folder may have had them
        for suffix in ("svg", "png"):
            (audited.folder / "figures" / f"{absent}.{suffix}").unlink(missing_ok=True)
    write_figures(list(drawn.values()), audited.folder / "figures")
    return write_text(audited.folder / "report.html", audit_page(audited))


def measures_frame(audited: Audited) -> pd.DataFrame:
    """One row per value, with the names of both sides, so that the files of several audits can be stacked."""
    values = dict(audited.found.measured)
    for number, stage in enumerate(audited.found.stages):
        values |= {f"stages.{number}.{stage.kind}.{key}": value for key, value in stage.values.items()}
    rows = [(audited.teacher, audited.student, key, v.value, v.low, v.high, v.n, v.unit, v.definition)
            for key, v in values.items()]
    return pd.DataFrame(rows, columns=COLUMNS)


def audit_markdown(found: Audit, teacher: str, student: str, missed: Sequence[str] = ()) -> str:
    """The audit for a pull request or a job's summary: bounds that are missed, headline, the main measures, notes.

    >>> from distillscope.measure.results import Value
    >>> found = Audit({"alignment.teacher_r2": Value(0.9, 0.8, 1.0, 50, "Share predicted.", "R2")})
    >>> print(audit_markdown(found, "T", "S").splitlines()[0])
    ## S against its teacher T
    """
    lines = [f"## {_cell(student)} against its teacher {_cell(teacher)}", ""]
    if missed:
        lines += ["**Missed:**", "", *(f"- {_cell(line)}" for line in missed), ""]
    lines += [_cell(headline(found)), ""]
    if found.stages:
        rows = [[row.title, *(_joined(cell.text, cell.below) for cell in row.cells)] for row in stage_rows(found)]
        lines += [*_markdown_table(["", *stage_titles(found)], rows), "",
                  "Below a value: what the step to it changed, in points; \\* a significant loss.", ""]
    shown = [shown_line(line, found) for line in chosen_lines(found)]
    rows = [[line.title, line.teacher.text if line.teacher else "", line.student.text if line.student else "", line.retained,
             line.interval] for line in shown]
    lines += [*_markdown_table(["", "teacher", "student", "kept", "95 % interval"], rows), ""]
    lines += [f"- {_cell(note)}" for note in found.notes]
    return "\n".join(lines).rstrip() + "\n"


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(map(_cell, row))} |" for row in (head, ["---", *["---:"] * (len(head) - 1)], *rows)]


def _joined(text: str, below: str) -> str:
    return f"{text} ({below})" if below else text


def _cell(text: str) -> str:
    """Text from names and data, which must not become Markdown or HTML."""
    found = "".join(f"\\{c}" if c in "\\`*_[]<>|#!" else c for c in text)
    return " ".join(found.split())


def audit_page(audited: Audited) -> str:
    """The page as text."""
    found, version = audited.found, str(audited.provenance.get("distillscope") or "")
    return render_page(
        "audit", title=f"{audited.student}: what it lost of {audited.teacher}", data=page_data(audited),
        study=study_of(audited), headline=headline(found), notes=found.notes, merits=merits(found),
        legend=legend_of([SETTING]), sections=AUDIT.shown(audited), footer=f"Made by Distillscope {version}.")


def page_data(audited: Audited) -> dict[str, Any]:
    """Everything that the page's script reads: each value, and each figure's panels."""
    values = {key: {"value": v.value, "low": v.low, "high": v.high, "n": v.n, "unit": v.unit}
              for key, v in audited.found.measured.items()}
    return {"study": f"{audited.student} against {audited.teacher}", "measures": values, "n_of": "n",
            "figures": [{"key": f.key, "panels": to_plotly(f)} for f in audited.figures.values()]}
