"""Figures and table for a paper: a run directory -> paper/, sized for one and two columns, of the report's own numbers."""

from __future__ import annotations

from pathlib import Path

from distillscope.errors import UserError
from distillscope.files.writing import write_text
from distillscope.report.draw.with_matplotlib import draw, save_as
from distillscope.report.figures.figure import Figure
from distillscope.report.findings import Findings
from distillscope.report.registered import STUDY_FIGURES
from distillscope.report.tables import latex_text, to_latex
from distillscope.results.run import read_run

ONE_COLUMN, TWO_COLUMNS = 3.25, 6.75
"""Inches, as the column and the text of most two-column styles."""
KEYS = ("noise", "cumulative_variance", "effective_rank", "cosine_rank", "alignment", "information")
"""The six plots of the study, in their order."""


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
