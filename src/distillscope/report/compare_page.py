"""A comparison -> a folder: report.html, compare.json, figures/ and, for studies, tables/."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distillscope.compare.overlay import joined_run, joined_settings
from distillscope.compare.read import AuditSide, StudySide
from distillscope.compare.runs import Comparison
from distillscope.files.folders import check_fresh
from distillscope.files.writing import write_json, write_text
from distillscope.report.context.compare import merits
from distillscope.report.context.figure import ShownFigure, legend_of, shown_figures
from distillscope.report.draw.with_matplotlib import write_figures
from distillscope.report.draw.with_plotly import to_plotly
from distillscope.report.figures.differences import audit_setting, differences_figure, overlaid, overlaid_audits
from distillscope.report.figures.figure import Figure
from distillscope.report.page import COMPARISON, render_page
from distillscope.report.sentences.compare import headline
from distillscope.report.tables import Table, build_table, write_tables
from distillscope.results.models import Setting
from distillscope.results.summary import Summary
from distillscope.visible import joined

VALUES = "compare.json"


@dataclass(frozen=True)
class Compared:
    """A comparison with its figures and, for studies, their main table: what the sections of its page are made from."""

    found: Comparison
    figures: dict[str, Figure]
    settings: list[Setting]
    table: Table | None
    folder: Path
    command: str

    @classmethod
    def of(cls, found: Comparison, folder: Path, command: str) -> Compared:
        """What is drawn of ``found``; its still drawings will be in ``folder``."""
        settings, figures, table = _of_studies(found, folder) if found.kind == "study" else _of_audits(found)
        return cls(found, {f.key: f for f in (differences_figure(found.pairs), *figures)}, settings, table, folder, command)

    def present(self, *keys: str) -> list[ShownFigure]:
        """These figures as templates take them, without those that this kind of comparison does not draw."""
        return shown_figures((self.figures[k] for k in keys if k in self.figures), self.folder)


def _of_studies(found: Comparison, folder: Path) -> tuple[list[Setting], Sequence[Figure], Table]:
    run = joined_run([s for s in found.sides if isinstance(s, StudySide)], found.pairs, folder)
    settings, summary = joined_settings(run), Summary.of(run)
    return settings, overlaid(run, settings, summary), build_table(run, settings, summary)


def _of_audits(found: Comparison) -> tuple[list[Setting], Sequence[Figure], None]:
    sides = [s for s in found.sides if isinstance(s, AuditSide)]
    return [audit_setting(sides)], overlaid_audits(sides), None


def default_out(found: Comparison) -> str:
    """The folder's name where none is given: compare-A-B, with characters that any file system takes.

    >>> default_out(Comparison([], [], []))
    'compare'
    """
    return "-".join(["compare", *(re.sub(r"[^A-Za-z0-9_.+-]+", "_", label) for label in found.labels)])[:120]


def check_out(folder: Path) -> Path:
    """``folder``, if a comparison may be written there: new, empty, or an earlier comparison's."""
    return check_fresh(f"--out {folder}", folder, mark=VALUES, whose="an earlier comparison's")


def write_comparison(found: Comparison, folder: Path, command: str = "") -> Path:
    """Write everything that a reader of the comparison needs; returns the path of report.html, which is written last.

    The page opens offline and loads nothing, and holds the values of compare.json. ``command`` makes it again.
    """
    compared = Compared.of(found, check_out(Path(folder)), command)
    write_json(compared.folder / VALUES, found.to_dict())  # first: it says whose the folder is, should the rest be interrupted
    if compared.table is not None:
        write_tables(compared.table, compared.folder / "tables")
    write_figures(list(compared.figures.values()), compared.folder / "figures")
    return write_text(compared.folder / "report.html", comparison_page(compared))


def comparison_page(compared: Compared) -> str:
    """The page as text."""
    found = compared.found
    against = f"{joined(found.labels[1:])} against {found.labels[0]}"
    data = {"study": against, "comparison": found.to_dict(),
            "figures": [{"key": f.key, "panels": to_plotly(f)} for f in compared.figures.values()]}
    return render_page(
        "compare", title=f"{against}: what differs", data=data, against=against,
        headline=headline(found.labels, found.differences), warnings=found.warnings, merits=merits(found),
        legend=legend_of(compared.settings, pick=False), sections=COMPARISON.shown(compared), footer="Made by Distillscope.")
