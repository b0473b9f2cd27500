"""The main table of a study in a terminal: the columns that it has room for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from distillscope.report.tables import Row, Table, build_table
from distillscope.results.models import settings_of
from distillscope.results.run import read_run
from distillscope.results.summary import Summary


def _for_terminal(table: Table) -> Table:
    kept = [i for i, c in enumerate(table.columns) if c.narrow]
    columns = [replace(table.columns[i], title=table.columns[i].narrow, digits=table.columns[i].few) for i in kept]
    return replace(table, columns=columns, rows=[Row(r.model, [r.cells[i] for i in kept]) for r in table.rows])


def terminal_table(run_dir: Path):
    """The main table as a ``rich.table.Table``, to be printed at the end of a run."""
    from rich.table import Table as RichTable
    from rich.text import Text

    run = read_run(run_dir)
    table = _for_terminal(build_table(run, settings_of(run), Summary.of(run)))
    shown = RichTable(title=Text(run.name), caption=Text(" ".join(table.notes)), title_justify="left", caption_justify="left")
    for index, name in enumerate(table.head):
        shown.add_column(Text(name), justify="left" if index < len(table.head) - len(table.columns) else "right",
                         overflow="fold")
    previous = None
    for row in table.rows:
        group = (row.model.dataset, row.model.teacher, row.model.arm, row.model.is_teacher)
        if previous not in (None, group):
            shown.add_section()
        previous = group
        cells = [table.text(c, k, " ±") for c, k in zip(row.cells, table.columns, strict=True)]
        style = "bold" if row.model.is_teacher else ""
        shown.add_row(*(Text(t, style=style) for t in [*table.names(row), *cells]))
    return shown
