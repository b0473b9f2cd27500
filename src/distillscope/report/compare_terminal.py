"""A comparison in a terminal: the main figures of A and B, the difference, its interval and n."""

from __future__ import annotations

from collections.abc import Iterator

from distillscope.compare.differences import WELCH, Difference, Pair
from distillscope.compare.runs import Comparison
from distillscope.report.sentences import compare as words

SEEDS = "Intervals are 95 % over seeds"
SHARED = "n counts the seeds that both runs have"
APART = "* not paired (Welch's t): n counts the seeds of the run that has fewer"
ITEMS = "; those over items hold for other images, not for other seeds"
AUDITS = "Intervals are 95 % over items, joined from those of both audits (MOVER)"
CORRECTED = ". p is Holm's over every difference shown; bold remains at 0.05."
NARROW = 100
"""Below this width there is no room for the intervals over items; the page and --json have them."""


def comparison_tables(found: Comparison, width: int = NARROW) -> Iterator:
    """Rich renderables for a terminal of that width: headline, warnings, a table for each pair of runs, what it says."""
    from rich.text import Text

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
    hows = {d.how for d in found.differences if d.known and d.n}
    return ", ".join([SEEDS, *([SHARED] if hows - {WELCH} else []), *([APART] if WELCH in hows else [])])


def _table(pair: Pair, items: bool):
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

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
