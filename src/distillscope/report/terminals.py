"""An audit and a comparison in a terminal.

Of an audit: which measures, each as a line of text (as on the page), and what they mean here. Of a comparison: the main
figures of A and B, the difference, its interval and n.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from distillscope.measure.results import Audit, Line, Value
from distillscope.progress import WholeWords
from distillscope.report.sentences.audit import headline
from distillscope.report.sentences.audit_measures import between, meaning, read_as, share, title_of, told
from distillscope.report.sentences.stages import stage_findings, stage_rows, stage_titles
from distillscope.results.keys import NBSP
from distillscope.visible import joined

if TYPE_CHECKING:
    from distillscope.compare.differences import Difference, Pair
    from distillscope.compare.runs import Comparison

HEAD = ("", "teacher", "student", "kept", f"95{NBSP}% interval")
GROUPS = {"spectrum": "Directions", "alignment": "Alignment with the teacher", "contrastive": "Distinguishing items",
          "retrieval": "Search", "swap": "Search, one side in the other's index", "codes": "Shorter embeddings",
          "similarity": "Similarity", "probe": "Labels: linear probe",
          "few": "Labels: few of them", "knn": "Labels: neighbours",
          "zero_shot": "Labels: class names", "ood": "Items from elsewhere", "paper": "As in the paper"}
PREFERRED = ["effective_rank", "alignment.teacher_r2", "probe.accuracy", "retrieval.recall_at_1",
             "retrieval.neighbour_overlap_10", "alignment.mean_cosine", "knn.accuracy", "zero_shot.accuracy",
             "contrastive.retained_share", "similarity.linear_cka_debiased", "dims_90",
             "retrieval.mapped_recall_at_1", "similarity.mutual_knn_10", "alignment.student_variance_top20",
             "effective_rank_corrected", "uniformity", "mean_energy", "participation_ratio", "twonn_dimension",
             "paper.probe.accuracy", "similarity.procrustes", "paper.infonce"]
"""The most useful first; as many of them are shown as fit into a screen."""
MOST = 13
FEW_ITEMS = "effective_rank_corrected"
SEEDS = "Intervals are 95 % over seeds"
SHARED = "n counts the seeds that both runs have"
APART = "* not paired (Welch's t): n counts the seeds of the run that has fewer"
ITEMS = "; those over items hold for other images, not for other seeds"
AUDITS = "Intervals are 95 % over items, joined from those of both audits (MOVER)"
CORRECTED = ". p is Holm's over every difference shown; bold remains at 0.05."
NARROW = 100
"""Below this width there is no room for the intervals over items; the page and --json have them."""


class AuditTable:
    """A Rich renderable that keeps to the width it is given; numbers never wrap, sentences do."""

    def __init__(self, found: Audit, full: bool = False) -> None:
        self.found, self.full = found, full
        self.lines = [shown_line(line, found) for line in (full_lines(found) if full else chosen_lines(found))]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table | Text | Padding]:
        cells = [_cells(line) for line in self.lines]
        widths = [max(len(row[i]) for row in [HEAD, *cells]) for i in range(len(HEAD))]
        narrow = sum(widths) + 2 * 4 + 2 > options.max_width  # then the interval goes before the sentence
        columns = len(HEAD) - narrow
        yield Text(headline(self.found), style="bold")
        yield Text()
        if self.found.stages:
            yield from self._stages()
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

    def _stages(self) -> Iterator[Table | Text | Padding]:
        """Every stage in a column, what each step changed below its value, and a sentence a step."""
        table = WholeWords(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for title in ["", *stage_titles(self.found)]:
            table.add_column(Text(title), justify="right" if title else "left", overflow="fold")
        for row in stage_rows(self.found):
            cells = [f"{cell.text}\n{cell.below}" if cell.below else cell.text for cell in row.cells]
            table.add_row(*map(Text, [row.title, *cells]))
        yield table
        yield Text("Below a value: what the step to it changed, in points; * a significant loss.", style="dim")
        for sentence in stage_findings(self.found):
            yield Text(sentence)
        yield Text()

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


@dataclass(frozen=True)
class ShownValue:
    """One side's value as text, its interval below it, and all digits of it."""

    text: str
    interval: str
    exact: float


@dataclass(frozen=True)
class ShownLine:
    """One measure of an audit as text; ``retained`` is '' where a share of the teacher's means nothing."""

    name: str
    group: str
    title: str
    keys: tuple[str, ...]
    teacher: ShownValue | None
    student: ShownValue | None
    of_pair: bool
    retained: str
    retained_exact: float | None
    interval: str
    n: int
    unit: str
    meaning: str
    definition: str


def group_of(name: str) -> str:
    """The group of a line's name; what has no dot is of one side's spectrum.

    >>> group_of("effective_rank"), group_of("paper.probe.accuracy")
    ('spectrum', 'paper')
    """
    head, dot, _ = name.partition(".")
    return head if dot else "spectrum"


def full_lines(found: Audit) -> list[Line]:
    """All lines, group by group in the order of `GROUPS`, the more useful ones of a group first."""
    order, groups = {name: i for i, name in enumerate(PREFERRED)}, list(GROUPS)

    def place(line: Line) -> tuple[int, int, list[int | str]]:
        counted: list[int | str] = [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", line.name)]
        return groups.index(group_of(line.name)), order.get(line.name, len(order)), counted  # recall at 5 stands before at 10

    return sorted(found.lines(), key=place)


def chosen_lines(found: Audit) -> list[Line]:
    """The dozen or so most useful lines."""
    lines = full_lines(found)
    useful = [name for name in PREFERRED if name in {line.name for line in lines}]
    if any(found.measured[key].value for key in ("teacher.undersampled", "student.undersampled") if key in found.measured):
        useful.sort(key=lambda name: name != FEW_ITEMS)  # with few items it is the rank to look at
    kept = useful[:MOST]
    return [line for line in lines if line.name in kept] if kept else lines


def shown_line(line: Line, found: Audit) -> ShownLine:
    """A line with what it means for this pair."""
    def side(value: Value | None) -> ShownValue | None:
        return None if value is None else ShownValue(told(value, line.name), between(value, line.name), float(value.value))

    known, retained = line.known, line.retained
    return ShownLine(
        line.name, GROUPS[group_of(line.name)], title_of(line.name), line.keys, side(line.teacher), side(line.student),
        line.teacher is None and "student" not in line.keys[0], "" if retained is None else share(retained, 1), retained,
        between(known, line.name), known.n, known.unit, meaning(line, found), known.definition)


def comparison_tables(found: Comparison, width: int = NARROW) -> Iterator:
    """Rich renderables for a terminal of that width: headline, warnings, a table for each pair of runs, what it says."""
    from distillscope.report.sentences import compare as words

    yield Text(words.headline(found.labels, found.differences), style="bold")
    for warning in found.warnings:
        yield Text(f"! {warning}", style="yellow")
    items = width >= NARROW and any(d.items for d in found.differences)
    for pair in found.pairs:
        yield _table(pair, items)
        reasons = words.left_out_lines(pair.differences)
        if reasons:
            yield Text(f"Left out: {'; '.join(reasons)}.", style="dim")
    yield Text((AUDITS if found.kind == "audit" else seeds_line(found)) + ITEMS * items + CORRECTED, style="dim")


def seeds_line(found: Comparison) -> str:
    """What the intervals are over and what n counts, for the ways in which this comparison counts."""
    from distillscope.compare.differences import WELCH

    hows = {d.how for d in found.differences if d.known and d.n}
    return ", ".join([SEEDS, *([SHARED] if hows - {WELCH} else []), *([APART] if WELCH in hows else [])])


def _table(pair: Pair, items: bool):
    from distillscope.report.sentences import compare as words

    table = Table(title=Text(f"A = {pair.first}, B = {pair.second}"), title_justify="left", box=SIMPLE_HEAD,
                  padding=(0, 1, 0, 0))
    for title in ["", "A", "B", "B - A", "95 % interval", *(["over items"] if items else []), "n", "p"]:
        table.add_column(title, justify="right" if title else "left", no_wrap=bool(title))
    previous = None
    for d in (d for d in pair.differences if d.known):
        heading = _heading(d, pair)
        if heading and heading != previous:
            table.add_row(Text(heading, style="bold"))
        previous = heading
        cells = [f"{'  ' if heading else ''}{words.title_text(d)}", words.value_text(d, d.a), words.value_text(d, d.b),
                 words.difference_text(d), words.interval_text(d), *([words.items_text(d)] if items else []), words.short_n(d),
                 words.p_text(d.p_holm)]
        table.add_row(*(Text(c, style="bold" if d.shown else "") for c in cells))
    return table


def _heading(d: Difference, pair: Pair) -> str:
    """The model, and its data set and teacher where there are several."""
    if d.match is None:
        return ""
    places = {(o.match.first.dataset, o.match.first.teacher) for o in pair.differences if o.match}
    return f"{d.name}, {d.match.first.dataset}, {d.match.first.teacher}" if len(places) > 1 else d.name
