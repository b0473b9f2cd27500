"""An audit in a terminal: a line of numbers a measure, and below it what they mean for this pair."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rich.console import Console, ConsoleOptions
from rich.padding import Padding
from rich.text import Text

from distillscope.measure.results import Audit, Line
from distillscope.report.sentences.audit import headline
from distillscope.report.sentences.audit_measures import (
    GROUPS,
    between,
    group_of,
    meaning,
    num_items,
    read_as,
    reasons,
    title_of,
    told,
    warnings,
)
from distillscope.report.sentences.numbers import NBSP, joined, percent

MOST = 13
PREFERRED = ["effective_rank", "alignment.teacher_r2", "probe.accuracy", "retrieval.recall_at_1", "retrieval.neighbour_overlap_10",
             "alignment.mean_cosine", "knn.accuracy", "zero_shot.accuracy", "contrastive.retained_share",
             "similarity.linear_cka_debiased", "dims_90", "retrieval.mapped_recall_at_1", "similarity.mutual_knn_10",
             "alignment.student_variance_top20", "effective_rank_corrected", "uniformity", "mean_energy", "participation_ratio",
             "twonn_dimension", "paper.probe.accuracy", "similarity.procrustes", "paper.infonce"]
"""The most useful first; as many of them are shown as fit into a screen."""
FEW_ITEMS = "effective_rank_corrected"


def full_lines(found: Audit) -> list[Line]:
    """All lines, group by group in the order of `GROUPS`, the more useful ones of a group first."""
    order, groups = {name: i for i, name in enumerate(PREFERRED)}, list(GROUPS)

    def place(line: Line) -> tuple:
        counted = [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", line.name)]  # recall at 5 before at 10
        return groups.index(group_of(line.name)), order.get(line.name, len(order)), counted

    return sorted(found.lines(), key=place)


def chosen_lines(found: Audit) -> list[Line]:
    """The dozen or so most useful lines."""
    lines = full_lines(found)
    useful = [name for name in PREFERRED if name in {line.name for line in lines}]
    if any(found.values[key].value for key in ("teacher.undersampled", "student.undersampled") if key in found.values):
        useful.sort(key=lambda name: name != FEW_ITEMS)  # with few items it is the rank to look at
    kept = useful[:MOST]
    return [line for line in lines if line.name in kept] if kept else lines


class AuditTable:
    """A Rich renderable that keeps to the width it is given; numbers never wrap, sentences do."""

    def __init__(self, found: Audit, full: bool = False) -> None:
        self.found, self.full = found, full
        self.lines = full_lines(found) if full else chosen_lines(found)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text | Padding]:
        cells = [self._cells(line) for line in self.lines]
        head = ["", "teacher", "student", "kept", f"95{NBSP}% interval"]
        widths = [max(len(row[i]) for row in [head, *cells]) for i in range(5)]
        narrow = sum(widths) + 2 * 4 + 2 > options.max_width  # then the interval goes before the sentence
        shown_columns = 4 if narrow else 5
        yield Text(headline(self.found), style="bold")
        yield Text()
        yield self._row(head[:shown_columns], widths, "dim")
        group = None
        for line, row in zip(self.lines, cells, strict=True):
            if group != group_of(line.name):
                group = group_of(line.name)
                yield Text(GROUPS[group], style="bold")
            yield self._row(row[:shown_columns], widths, "")
            sentence = meaning(line, self.found)
            yield Padding(Text(f"{row[4]} {sentence}" if narrow and row[4] else sentence, style="dim"), (0, 0, 0, 4), expand=False)
        yield Text()
        yield from self._notes()

    def _cells(self, line: Line) -> list[str]:
        def text(value) -> str:
            return "" if value is None else told(value, line.name)

        return [title_of(line.name), text(line.teacher), text(line.student),
                "" if line.retained is None else percent(line.retained), between(line.student or line.teacher, line.name)]

    @staticmethod
    def _row(cells: list[str], widths: list[int], style: str) -> Text:
        parts = [cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in
                 enumerate(zip(cells, widths, strict=False))]
        return Text(f"  {'  '.join(parts)}".rstrip(), style=style, no_wrap=True, overflow="ellipsis")

    def _notes(self) -> Iterator[Text | Padding]:
        total = len(self.found.lines())
        kept = f"{len(self.lines)} of {total} measures" if len(self.lines) < total else f"{total} measures"
        yield Text(f"{kept}, {num_items(self.found):,} items; intervals are over items, of the student where there are two sides.",
                   style="dim")
        for line in read_as(self.found):
            yield Text(f"read: {line}", style="dim")
        for note in warnings(self.found):
            yield Text(f"note: {note}")
        for reason, keys in reasons(self.found).items():
            groups = joined(dict.fromkeys(key.partition(".")[0] for key in keys))
            what = ", ".join(keys) if self.full else f"{len(keys)} measures and curves of {groups}"
            yield Text(f"left out: {what}, because {reason}.", style="dim")


def audit_table(found: Audit, *, full: bool = False) -> AuditTable:
    """The audit as a Rich renderable: the dozen or so most useful measures, or every one where ``full``.

    >>> from distillscope.measure.results import Value
    >>> found = Audit({"alignment.teacher_r2": Value(0.9, 0.8, 1.0, 50, "Share predicted.", "R2")})
    >>> [line.name for line in audit_table(found).lines]
    ['alignment.teacher_r2']
    """
    return AuditTable(found, full)
