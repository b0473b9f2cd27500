"""A comparison -> a folder: report.html, compare.json, figures/ and, for studies, tables/."""

from __future__ import annotations

import re
from pathlib import Path

from distillscope.compare.overlay import joined_run, joined_settings, overlaid
from distillscope.compare.runs import Comparison
from distillscope.errors import UserError
from distillscope.files.writing import write_json, write_text
from distillscope.report.compare_page import render_comparison
from distillscope.report.draw.with_matplotlib import write_figures
from distillscope.report.figures.compare_audits import audit_setting, overlaid_audits
from distillscope.report.figures.differences import differences_figure
from distillscope.report.tables import build_table, write_tables
from distillscope.results.summary import Summary

VALUES = "compare.json"


def default_out(found: Comparison) -> str:
    """The folder's name where none is given: compare-A-B, with characters that any file system takes.

    >>> default_out(Comparison([], [], []))
    'compare'
    """
    return "-".join(["compare", *(re.sub(r"[^A-Za-z0-9_.+-]+", "_", label) for label in found.labels)])[:120]


def check_out(folder: Path) -> Path:
    """``folder``, if a comparison may be written there: new, empty, or an earlier comparison's."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder}", "a new or empty folder, or an earlier comparison's", "a file", "Name another.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / VALUES).is_file():
        raise UserError(f"--out {folder}", "a new or empty folder, or an earlier comparison's", "one with other files", "Name another.")
    return folder


def write_comparison(found: Comparison, folder: Path, command: str = "") -> Path:
    """Write everything that a reader of the comparison needs; returns the path of report.html, which is written last.

    The page opens offline and loads nothing, and holds the values of compare.json. ``command`` makes it again.
    """
    folder, table = check_out(Path(folder)), None
    if found.kind == "study":
        run = joined_run(found.sides, found.pairs, folder)
        settings, summary = joined_settings(run), Summary.of(run)
        figures, table = overlaid(run, settings, summary), build_table(run, settings, summary)
        write_tables(table, folder / "tables")
    else:
        settings, figures = [audit_setting(found.sides)], overlaid_audits(found.sides)
    figures = [differences_figure(found.pairs), *figures]
    write_json(folder / VALUES, found.to_dict())
    write_figures(figures, folder / "figures")
    return write_text(folder / "report.html", render_comparison(found, figures, settings, table, folder, command))
