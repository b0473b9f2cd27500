"""An audit in a terminal: a line of numbers a measure, and below it what they mean for this pair."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console, ConsoleOptions
from rich.padding import Padding
from rich.text import Text

from distillscope.measure.results import Audit
from distillscope.report.audit_lines import ShownLine, chosen_lines, full_lines, shown_line
from distillscope.report.sentences.audit import headline
from distillscope.report.sentences.audit_measures import read_as
from distillscope.results.keys import NBSP
from distillscope.visible import joined

HEAD = ("", "teacher", "student", "kept", f"95{NBSP}% interval")


class AuditTable:
    """A Rich renderable that keeps to the width it is given; numbers never wrap, sentences do."""

    def __init__(self, found: Audit, full: bool = False) -> None:
        self.found, self.full = found, full
        self.lines = [shown_line(line, found) for line in (full_lines(found) if full else chosen_lines(found))]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text | Padding]:
        cells = [_cells(line) for line in self.lines]
        widths = [max(len(row[i]) for row in [HEAD, *cells]) for i in range(len(HEAD))]
        narrow = sum(widths) + 2 * 4 + 2 > options.max_width  # then the interval goes before the sentence
        columns = len(HEAD) - narrow
        yield Text(headline(self.found), style="bold")
        yield Text()
        yield _row(HEAD[:columns], widths, "dim")
        group = None
        for line, row in zip(self.lines, cells, strict=True):
            if group != line.group:
                group = line.group
                yield Text(group, style="bold")
            yield _row(row[:columns], widths, "")
            sentence = f"{line.interval} {line.meaning}" if narrow and line.interval else line.meaning
            yield Padding(Text(sentence, style="dim"), (0, 0, 0, 4), expand=False)
        yield Text()
        yield from self._notes()

    def _notes(self) -> Iterator[Text | Padding]:
        total = len(self.found.lines())
        kept = f"{len(self.lines)} of {total} measures" if len(self.lines) < total else f"{total} measures"
        yield Text(f"{kept}, {self.found.num_items:,} items; intervals are over items, of the student where there are two "
                   "sides.", style="dim")
        for line in read_as(self.found):
            yield Text(f"read: {line}", style="dim")
        for note in self.found.notes:
            yield Text(f"note: {note}")
        for reason, keys in self.found.reasons.items():
            groups = joined(dict.fromkeys(key.partition(".")[0] for key in keys))
            what = ", ".join(keys) if self.full else f"{len(keys)} measures and curves of {groups}"
            yield Text(f"left out: {what}, because {reason}.", style="dim")


def _cells(line: ShownLine) -> list[str]:
    sides = ("" if side is None else side.text for side in (line.teacher, line.student))
    return [line.title, *sides, line.retained, line.interval]


def _row(cells: Sequence[str], widths: Sequence[int], style: str) -> Text:
    parts = [cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=False))]
    return Text(f"  {'  '.join(parts)}".rstrip(), style=style, no_wrap=True, overflow="ellipsis")


def audit_table(found: Audit, *, full: bool = False) -> AuditTable:
    """The audit as a Rich renderable: the dozen or so most useful measures, or every one where ``full``.

    >>> from distillscope.measure.results import Value
    >>> found = Audit({"alignment.teacher_r2": Value(0.9, 0.8, 1.0, 50, "Share predicted.", "R2")})
    >>> [line.name for line in audit_table(found).lines]
    ['alignment.teacher_r2']
    """
    return AuditTable(found, full)
