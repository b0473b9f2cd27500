"""The main table: teachers, then students under each arm; built once, written as Markdown, LaTeX, CSV and for a terminal."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from distillscope.config.study import Published
from distillscope.files.writing import write_text
from distillscope.report.figures.noise import Sigma, noise_conditions
from distillscope.report.sentences import numbers as words
from distillscope.report.sentences.numbers import accuracy_of, count, first_known, interval_text, number, seeds_text
from distillscope.results.keys import COSINE, facts_of, teacher_key
from distillscope.results.models import Model, Setting, settings_of
from distillscope.results.rows import CLEAN, TEACHER
from distillscope.results.run import Run, read_run
from distillscope.results.summary import Statistic, Summary
from distillscope.visible import markdown_text, sheet_cell, visible

if TYPE_CHECKING:
    from rich.table import Table as RichTable


@dataclass(frozen=True)
class Column:
    """One quantity of the table. ``scale`` turns the stored unit into the shown one (100 for per cent)."""

    key: str
    title: str
    measure: str
    condition: str = CLEAN
    digits: int = 2
    scale: float = 1.0
    hint: str = ""
    short: bool = False  # show as 1.41 M
    constant: bool = False  # has no spread to speak of
    narrow: str = ""  # its title in a terminal, where it has a place there
    few: int = 1  # its decimals there


@dataclass(frozen=True)
class Cell:
    """A measured value with its spread, and the published one where there is one."""

    statistic: Statistic | None = None
    published: float | None = None
    published_std: float | None = None


@dataclass(frozen=True)
class Row:
    model: Model
    cells: list[Cell]


@dataclass(frozen=True)
class Table:
    """The table, ready to be written in any format."""

    columns: list[Column]
    rows: list[Row]
    spread: str
    notes: list[str] = field(default_factory=list)
    settings: int = 1

    @property
    def usual_seeds(self) -> int:
        """The most seeds that any cell of a student has."""
        return max((c.statistic.n_seeds for r in self.rows if not r.model.is_teacher for c in r.cells if c.statistic),
                   default=0)

    @property
    def head(self) -> list[str]:
        place = ["data", "teacher"] if self.settings > 1 else []
        return [*place, "model", *(c.title for c in self.columns)]

    def names(self, row: Row) -> list[str]:
        place = [row.model.dataset, row.model.teacher] if self.settings > 1 else []
        return [*place, row.model.label]

    def measured(self, cell: Cell, column: Column, plus_minus: str = " ± ") -> str:
        """'71.10 ± 0.44'; a dash where nothing was measured."""
        s = cell.statistic
        if s is None:
            return "–"
        shown = count(s.mean) if column.short else number(column.scale * s.mean, column.digits)
        spread = column.scale * s.spread(self.spread)
        if math.isfinite(spread) and not (column.short or column.constant):
            shown += f"{plus_minus}{number(spread, column.digits)}"
        return shown

    def published(self, cell: Cell, column: Column, plus_minus: str = " ± ") -> str:
        """The published value, '71.11 ± 0.44'; empty where there is none."""
        if cell.published is None:
            return ""
        value = number(column.scale * cell.published, column.digits)
        std = cell.published_std
        return value if std is None else f"{value}{plus_minus}{number(column.scale * std, column.digits)}"

    def text(self, cell: Cell, column: Column, plus_minus: str = " ± ") -> str:
        """'71.10 ± 0.44 (paper 71.11 ± 0.44)'."""
        published = self.published(cell, column, plus_minus)
        return self.measured(cell, column, plus_minus) + (f" (paper {published})" if published else "")


NARROW = ("capacity.parameters", "student.effective_rank", "student.dims_90", "contrastive.infonce", "paper.infonce",
          "alignment.mean_cosine")
"""What a terminal has room for, beside accuracies; the files have the rest."""


def _column(measure: str, key: str = "", *, condition: str = CLEAN, title: str = "", hint: str | None = None,
            narrow: str = "") -> Column:
    """A column as `results.keys` describes its measure; ``key`` is what table.csv calls it."""
    facts = facts_of(measure)
    short = narrow or (facts.in_short if measure in NARROW or facts.column else "")
    return Column(key or measure.rpartition(".")[2], title or facts.in_table, measure, condition, facts.digits, facts.scale,
                  facts.hint if hint is None else hint, facts.counted, facts.constant, short, facts.num_few)


def _columns(run: Run, summary: Summary) -> list[Column]:
    columns = [_column(measure, key) for measure, key in (
        ("capacity.parameters", ""), ("student.effective_rank", ""),
        ("student.effective_rank_of_mean_spectrum", "rank_of_mean_spectrum"), ("student.effective_rank_corrected", ""),
        ("student.dims_90", ""), ("student.dims_90_of_mean_spectrum", ""))]
    published = {p.measure for p in run.study.published}
    if run.study.spread != "population" and "student.effective_rank_of_mean_spectrum" not in published:
        columns = [c for c in columns if not c.key.endswith("of_mean_spectrum")]
    accuracy = accuracy_of(summary)
    if accuracy:
        columns.append(_column(accuracy[0], "accuracy_clean", title="clean, %", narrow="clean %"))
        second = words.second_accuracy(summary)
        if second:
            short = "tuned" if "tuned" in second[1] else facts_of(second[0]).short
            columns.append(_column(second[0], f"accuracy_clean_{short}", title=f"clean {words.by(second[1])}, %",
                                   narrow=f"clean % ({short})"))
        columns += [_column(accuracy[0], f"accuracy_{s.condition}", condition=s.condition, title=f"σ {s.value:g}, %",
                            hint=f"{accuracy[1]}, {s.text}", narrow=f"σ {s.value:g} %") for s in noise_conditions(run, summary)]
    loss, spread = first_known(words.INFONCE, summary), first_known(words.UNIFORMITY, summary)
    if loss:
        columns.append(_column(loss[0], "infonce", hint=f"{loss[0]} {loss[2]}".strip()))
        columns.append(_column(loss[1], "infonce_ceiling"))
    if spread:
        columns.append(_column(spread[0], "uniformity", hint=f"{spread[0]} {spread[1]}".strip()))
    columns.append(_column(COSINE))
    known = {c.measure for c in columns}
    return columns + [_column(m, m) for m in sorted(summary.measures() - known) if facts_of(m).column
                      and not m.startswith(TEACHER)]


def sample_note(settings: list[Setting], summary: Summary) -> str:
    """How many images the ranks rest on, and a warning where they are fewer than twice the dimensions."""
    models = [m for s in settings for m in s.models]
    counts = sorted({int(s.n) for m in models if (s := summary.get(m, "student.effective_rank")) and s.n})
    if not counts:
        return ""
    text = f"Ranks are over N = {counts[0] if len(counts) == 1 else f'{counts[0]} to {counts[-1]}'} images"
    if undersampled(settings, summary):
        return f"{text}, fewer than twice the dimensions: every rank here is biased low, the highest most."
    return f"{text}."


def undersampled(settings: list[Setting], summary: Summary) -> bool:
    """Whether the images are fewer than twice the dimensions of any model, so that every rank is biased low."""
    flags = (summary.get(m, "student.undersampled") for s in settings for m in s.models)
    return any(flag is not None and flag.mean > 0 for flag in flags)


def _find_published(entries: Sequence[Published], model: Model, column: Column) -> Published | None:
    plain = model.is_teacher or model.label == model.student  # only what departs from the study's first arm has it in its name
    for entry in entries:
        if (entry.student == model.student and (model.is_teacher or entry.arm == model.arm if entry.arm else plain)
                and entry.condition == column.condition and teacher_key(entry.measure) == teacher_key(column.measure)):
            return entry
    return None


def build_table(run: Run, settings: list[Setting], summary: Summary) -> Table:
    """The main table of a run; columns that no model has are left out."""
    entries, columns = run.study.published, _columns(run, summary)
    rows, used = [], set()
    for setting in settings:
        for model in setting.models:
            cells = []
            for column in columns:
                entry = _find_published(entries, model, column)
                used.add(id(entry))
                value, std = (entry.value, entry.std) if entry else (None, None)
                cells.append(Cell(summary.get(model, column.measure, column.condition), value, std))
            rows.append(Row(model, cells))
    kept = [i for i in range(len(columns)) if any(r.cells[i].statistic or r.cells[i].published is not None for r in rows)]
    spread = run.study.spread
    table = Table([columns[i] for i in kept], [Row(r.model, [r.cells[i] for i in kept]) for r in rows], spread,
                  settings=len(settings))
    unplaced = sum(id(e) not in used for e in entries)
    levels = noise_conditions(run, summary) if accuracy_of(summary) else []
    return replace(table, notes=_notes(table, levels, sample_note(settings, summary), unplaced))


def _notes(table: Table, levels: list[Sigma], sample: str, unplaced: int) -> list[str]:
    seeds = sorted({c.statistic.n_seeds for r in table.rows if not r.model.is_teacher for c in r.cells if c.statistic})
    notes = []
    if seeds:
        how = seeds_text(seeds[0]) if len(seeds) == 1 else f"n = {seeds[0]} to {seeds[-1]} seeds"
        notes.append(f"Mean ± {table.spread} standard deviation over seeds; {how}."
                     if seeds[-1] > 1 else f"One run each: {how}.")
    if any(c.key.startswith("accuracy_") for c in table.columns):
        shown = next((f", {words.by(c.hint)} where nothing else is said" for c in table.columns if c.key == "accuracy_clean"),
                     "")
        notes.append(f"Accuracies are per cent of the test images{shown}; noise draws are averaged within a seed.")
    notes += ["Noise: " + "; ".join(s.text for s in levels) + "."] if levels else []
    notes.append("The teacher is frozen: it has no seeds.")
    notes += [sample] if sample else []
    if unplaced:
        notes.append(f"{unplaced} published values have no row or column here.")
    return notes


def to_markdown(table: Table) -> str:
    """GitHub's table syntax; names stay in their cells and are text."""
    def line(cells):
        return "| " + " | ".join(map(markdown_text, cells)) + " |"

    names = len(table.head) - len(table.columns)
    rows = [line([*table.names(r), *(table.text(c, k) for c, k in zip(r.cells, table.columns, strict=True))])
            for r in table.rows]
    rule = "| " + " | ".join(["---"] * names + ["---:"] * len(table.columns)) + " |"
    return "\n".join([line(table.head), rule, *rows, "", *map(markdown_text, table.notes), ""])


_LATEX = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
          "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
          "±": r"$\pm$", "−": "$-$", "–": "--", "σ": r"$\sigma$", "Σ": r"$\Sigma$", "²": r"$^2$", "×": r"$\times$",
          "\u00a0": "~", "\n": " "}


def latex_text(text: str) -> str:
    """``text`` in one line, with LaTeX's special characters escaped, and the report's own symbols as commands."""
    return "".join(_LATEX.get(c, c) for c in visible(text.replace("\r", "\n")))


def to_latex(table: Table) -> str:
    """A tabular with booktabs' rules."""
    names = len(table.head) - len(table.columns)
    lines = ["% needs \\usepackage{booktabs}", f"\\begin{{tabular}}{{{'l' * names}{'r' * len(table.columns)}}}", "\\toprule",
             " & ".join(map(latex_text, table.head)) + r" \\", "\\midrule"]
    previous = None
    for row in table.rows:
        group = (row.model.dataset, row.model.teacher, row.model.arm, row.model.is_teacher)
        if previous is not None and group != previous and (row.model.is_teacher is False or previous[:2] != group[:2]):
            lines.append("\\midrule")
        previous = group
        cells = [table.text(c, k) for c, k in zip(row.cells, table.columns, strict=True)]
        lines.append(" & ".join(map(latex_text, [*table.names(row), *cells])) + r" \\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", *(f"% {' '.join(visible(n).split())}" for n in table.notes),
                      ""])


def to_csv(table: Table) -> str:
    """Full precision in the stored units: mean, both standard deviations, interval, seeds and published value a column each.

    Names that a spreadsheet would run as formulas begin with an apostrophe (`visible.sheet_cell`).
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    parts = ["", "_std", "_std_population", "_low", "_high", "_seeds", "_published"]
    writer.writerow(["dataset", "teacher", "target", "arm", "student", *(c.key + p for c in table.columns for p in parts)])
    for row in table.rows:
        m, cells = row.model, []
        for cell in row.cells:
            s = cell.statistic
            values = [s.mean, s.std, s.std_population, s.low, s.high, s.n_seeds] if s else [None] * 6
            cells += ["" if v is None or math.isnan(v) else v for v in [*values, cell.published]]
        writer.writerow([*map(sheet_cell, (m.dataset, m.teacher, m.target, m.arm, m.student)), *cells])
    return out.getvalue()


def interval_line(cell: Cell, column: Column, usual: int) -> str:
    """'[70.0, 72.2]' for the page, with n where it is not the table's ``usual`` one; empty without a measurement."""
    s = cell.statistic
    if s is None:
        return ""
    n = "" if s.n_seeds == usual else f"n = {s.n_seeds}"
    return " ".join(p for p in (interval_text(s, column.digits, column.scale), n) if p)


def write_tables(table: Table, folder: Path) -> list[Path]:
    """table.md, table.tex and table.csv."""
    return [write_text(folder / name, write(table)) for name, write in
            (("table.md", to_markdown), ("table.tex", to_latex), ("table.csv", to_csv))]


def _for_terminal(table: Table) -> Table:
    kept = [i for i, c in enumerate(table.columns) if c.narrow]
    columns = [replace(table.columns[i], title=table.columns[i].narrow, digits=table.columns[i].few) for i in kept]
    return replace(table, columns=columns, rows=[Row(r.model, [r.cells[i] for i in kept]) for r in table.rows])


GIVES_WAY = ("dims_90", "infonce", "paper_infonce", "uniformity", "parameters")
"""What a narrow terminal does without, before noise levels below the highest and what stands further right."""


def terminal_table(run_dir: Path, width: int | None = None) -> RichTable:
    """The main table, to be printed at the end of a run; at ``width`` letters those columns whose words fit into a line."""
    run = read_run(run_dir)
    table, left_out = _for_terminal(build_table(run, settings_of(run), Summary.of(run))), []
    while width and len(table.columns) > 2 and _least_width(table) > width:
        known = [c.key for c in table.columns]
        levels = [key for key in known if key.startswith("accuracy_") and "clean" not in key][:-1]
        gone = known.index(next((key for key in (*GIVES_WAY, *levels) if key in known), known[-1]))
        left_out.append(table.columns[gone].title)
        table = replace(table, columns=[c for i, c in enumerate(table.columns) if i != gone],
                        rows=[Row(r.model, [c for i, c in enumerate(r.cells) if i != gone]) for r in table.rows])
    narrow = f"This terminal is too narrow for {', '.join(left_out)}: the run's tables/table.md has them."
    notes = table.notes + ([narrow] if left_out else [])
    return _drawn(replace(table, notes=notes), run.name)


def _least_width(table: Table) -> int:
    """The width at which no word of the table need be cut: each column's longest word, with a border and padding."""
    rows = [table.head, *([*table.names(r), *_terminal_cells(table, r)] for r in table.rows)]
    return sum(max(len(word) for row in rows for word in row[i].split() or [""]) + 3 for i in range(len(table.head))) + 1


def _terminal_cells(table: Table, row: Row) -> list[str]:
    return [table.text(c, k, " ±") for c, k in zip(row.cells, table.columns, strict=True)]


def _drawn(table: Table, name: str) -> RichTable:
    """The table with its notes, a section for each group of models."""
    from rich.text import Text

    from distillscope.progress import WholeWords

    shown = WholeWords(title=Text(name), caption=Text(" ".join(table.notes)), title_justify="left", caption_justify="left")
    for index, name in enumerate(table.head):
        shown.add_column(Text(name), justify="left" if index < len(table.head) - len(table.columns) else "right",
                         overflow="fold")
    previous = None
    for row in table.rows:
        group = (row.model.dataset, row.model.teacher, row.model.arm, row.model.is_teacher)
        if previous not in (None, group):
            shown.add_section()
        previous = group
        style = "bold" if row.model.is_teacher else ""
        shown.add_row(*(Text(t, style=style) for t in [*table.names(row), *_terminal_cells(table, row)]))
    return shown
