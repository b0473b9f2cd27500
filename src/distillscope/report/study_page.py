"""A run -> what a reader of it needs: results.csv, summary.json, claims.json, tables/, figures/, report.html; and paper/."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from distillscope.errors import UserError
from distillscope.files.writing import finite, write_atomic, write_json, write_text
from distillscope.report.claims import Claims, claims_of, write_claims
from distillscope.report.context.figure import ShownFigure, legend_of, shown_figures
from distillscope.report.context.images import picture_data
from distillscope.report.context.study import headline, merits_of, notices_of
from distillscope.report.context.verdicts import recommended
from distillscope.report.draw.with_matplotlib import draw, save_as, write_figures
from distillscope.report.draw.with_plotly import to_plotly
from distillscope.report.figures.figure import Figure
from distillscope.report.figures.keepsakes import Kept, damaged, kept_of
from distillscope.report.page import STUDY, STUDY_FIGURES, render_page
from distillscope.report.recommendation import Advice, advise
from distillscope.report.sentences import study as sentences
from distillscope.report.tables import Table, build_table, latex_text, to_latex, write_tables
from distillscope.results.models import CLASS_COLOURS, Setting, settings_of
from distillscope.results.run import Run, read_run
from distillscope.results.summary import Summary
from distillscope.visible import sheet_cell

ONE_COLUMN, TWO_COLUMNS = 3.25, 6.75
"""Inches, as the column and the text of most two-column styles."""
KEYS = ("noise", "cumulative_variance", "effective_rank", "cosine_rank", "alignment", "information")
"""The six plots of the study, in their order."""


@dataclass(frozen=True)
class Findings:
    """A run with its settings and its summary; the rest is made when it is first asked for, and once.

    Figures and sections name in their signature which of these attributes they are made from.
    """

    run: Run
    settings: list[Setting]
    summary: Summary

    @classmethod
    def of(cls, run: Run) -> Findings:
        """What ``run`` holds."""
        return cls(run, settings_of(run), Summary.of(run))

    @cached_property
    def albums(self) -> list[Kept]:
        """The keepsakes of each setting that has any."""
        return kept_of(self.run, self.settings)

    @cached_property
    def table(self) -> Table:
        """The main table."""
        return build_table(self.run, self.settings, self.summary)

    @cached_property
    def claims(self) -> Claims:
        """What was decided, from this run and from the others that its claims.json names."""
        return claims_of(self.run)

    @cached_property
    def advice(self) -> Advice:
        """Which arm to train with, and what to run next."""
        return advise([self.run])

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """Every figure by its key, in the page's order; one that lacks its measures says so in ``absent``."""
        return STUDY_FIGURES.drawn(self)

    def drawn(self, *keys: str) -> list[ShownFigure]:
        """These figures as templates take them, with their still drawings where these are written already."""
        return shown_figures((self.figures[k] for k in keys), self.folder)

    def measured(self, *keys: str) -> list[ShownFigure]:
        """`drawn`, without those that have nothing to show."""
        return self.drawn(*(k for k in keys if self.figures[k].panels))

    @property
    def folder(self) -> Path:
        """Where the run is."""
        return self.run.path


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


def write_summary(run: Run, summary: Summary, verdicts: list[str]) -> Path:
    """summary.json: what is complete, the verdict of each setting, and every quantity over seeds."""
    return write_json(run.path / "summary.json", finite({
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
        recommended=recommended(found.advice), notices=notices_of(run), merits=merits_of(run, found.settings, found.summary),
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


def write_paper(run_dir: Path | str) -> list[Path]:
    """DIR/paper: each of the six plots as one-KEY and two-KEY, .pdf and .svg, with table.tex and figures.tex.

    Widths are 3.25 and 6.75 inches, text is 6 to 8.5 points at that size, fonts are embedded as TrueType. figures.tex holds a
    float with a caption for each figure, to be pasted. No model is loaded. A directory that is no run, or a run
    without a plot to draw, is a UserError.
    """
    run = read_run(Path(run_dir))
    findings = Findings.of(run)
    found = {key: figure for key, figure in STUDY_FIGURES.drawn(findings, KEYS).items() if figure.panels}
    if not found:
        raise UserError(str(run_dir), "finished trials to draw", "none", "Finish it with `distillscope run ... --resume`.")
    folder, written = run.path / "paper", []
    for key in (k for k in KEYS if k in found):
        figure = found[key]
        one, two = draw(figure, 1, ONE_COLUMN), draw(figure, 2, TWO_COLUMNS / min(2, len(figure.panels)))
        for name, canvas in (("one", one), ("two", two)):
            written += save_as(canvas, folder / f"{name}-{key}", "pdf", "svg")
    written.append(write_text(folder / "table.tex", to_latex(findings.table)))
    written.append(write_text(folder / "figures.tex", "\n".join(map(_float, found.values()))))
    return written


def _float(figure: Figure) -> str:
    """A LaTeX float of one column, its caption the title and what was found; the wide form is named in a comment."""
    caption = " ".join([f"\\textbf{{{latex_text(figure.title)}.}}", *map(latex_text, figure.findings)])
    return (f"% over both columns: figure*, two-{figure.key}, \\textwidth\n\\begin{{figure}}\n  \\centering\n"
            f"  \\includegraphics[width=\\columnwidth]{{one-{figure.key}}}\n  \\caption{{{caption}}}\n"
            f"  \\label{{fig:{figure.key.replace('_', '-')}}}\n\\end{{figure}}\n")
