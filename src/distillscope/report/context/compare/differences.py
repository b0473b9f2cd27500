"""What differs, how it looks, and what was set otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from distillscope.compare.differences import Difference, Pair
from distillscope.compare.runs import Comparison
from distillscope.report.context.compare.head import highlight_of
from distillscope.report.context.figure import ShownFigure
from distillscope.report.context.tables import PageCell, PageRow, PageTable, heads
from distillscope.report.registered import COMPARISON
from distillscope.report.sentences import compare as sentences
from distillscope.report.sentences.numbers import MISSING

Shown = Callable[..., list[ShownFigure]]
COLUMNS = ("figure", "A", "B", "B − A", "95 % interval", "over items", "n", "p (Holm)")


@dataclass(frozen=True)
class PairTable:
    """The differences of two runs, and why some were left out."""

    first: str
    second: str
    table: PageTable
    left_out: list[str]


@COMPARISON.register("lost", "What differs", order=10)
def lost(found: Comparison, present: Shown) -> dict[str, Any]:
    """Every difference: how to read it, drawn, and in a table for each pair of runs."""
    return {"reading": sentences.READING if found.kind == "study" else sentences.OVER_ITEMS, "figures": present("differences"),
            "pairs": [pair_table(p, named=len(found.pairs) > 1) for p in found.pairs]}


def pair_table(pair: Pair, named: bool) -> PairTable:
    """One row a difference; a table of several on a page is ``named``."""
    known = [d for d in pair.differences if d.known]
    models, items = any(d.match for d in pair.differences), any(d.items for d in pair.differences)
    columns = [c for c in COLUMNS if items or c != "over items"]
    head = heads("model", columns) if models else heads("", columns)[1:]
    rows, previous = [], None
    for d in known:
        group = d.match and (d.match.first.dataset, d.match.first.teacher, d.name)
        kind = " ".join(["shown"] * d.shown + ["first"] * (previous not in (None, group)))
        previous = group
        cells = [PageCell(text) for text in _cells(d, items)]
        rows.append(PageRow(d.name if models else None, cells, kind=kind, highlight=highlight_of(d)))
    label = f"Differences of {pair.second} from {pair.first}" if named else "Differences"
    return PairTable(pair.first, pair.second, PageTable(label, head, rows), sentences.left_out_lines(pair.differences))


def _cells(d: Difference, items: bool) -> list[str]:
    over_items = [sentences.items_text(d)] if items else []
    return [sentences.title_text(d), sentences.value_text(d, d.a), sentences.value_text(d, d.b), sentences.difference_text(d),
            sentences.interval_text(d), *over_items, sentences.n_text(d), sentences.p_text(d.p_holm)]


@COMPARISON.register("matter", "Does it matter?", order=20)
def matter(found: Comparison, present: Shown) -> dict[str, Any] | None:
    """Accuracy under noise."""
    return {"figures": present("noise")} if found.kind == "study" else None


@COMPARISON.register("geometry", "Geometry", order=30)
def geometry(present: Shown) -> dict[str, Any]:
    """How many directions the students fill, and whose."""
    return {"variance": present("cumulative_variance"), "ranks": present("effective_rank", "cosine_rank"),
            "alignment": present("alignment", "component_r2")}


@COMPARISON.register("information", "Information", order=40)
def information(found: Comparison, present: Shown) -> dict[str, Any] | None:
    """How well one image can be distinguished from the others."""
    return {"figures": present("information")} if found.kind == "study" else None


@COMPARISON.register("training", "Training", order=50)
def training(found: Comparison, present: Shown) -> dict[str, Any] | None:
    """The course of training."""
    return {"figures": present("training")} if found.kind == "study" else None


@COMPARISON.register("settings", "What was set otherwise", order=60)
def settings(found: Comparison) -> dict[str, Any] | None:
    """Every setting in which the configurations differ, a column a run."""
    if found.kind != "study":
        return None
    rows = [PageRow(key, [PageCell(values[label] or MISSING, kind="setting") for label in found.labels])
            for key, values in found.differs]
    return {"table": PageTable("Settings that differ", heads("setting", found.labels), rows) if rows else None}
