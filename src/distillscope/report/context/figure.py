"""A figure as its template takes it, the legend that a page's figures share, and tables (macros of templates/_parts.html)."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from distillscope.report.figures.figure import Figure, Grid, Panel, Series
from distillscope.report.sentences.numbers import interval_text, number, percent
from distillscope.results.models import MOST_ARMS, Model, Setting
from distillscope.results.summary import Statistic

STAND_IN = 900
"""Pixels across of the drawings that stand in where scripts are off."""
LAYOUTS = {1: "single", 3: "three"}


@dataclass(frozen=True)
class ShownPanel:
    """One pair of axes; ``alone`` is the model that a panel of one model fades with when another is highlighted."""

    title: str
    note: str
    alt: str
    alone: str | None


@dataclass(frozen=True)
class Scale:
    """The one colour scale of all panels of cells: what a cell holds, and its two ends."""

    of: str
    first: str
    last: str
    root: bool


@dataclass(frozen=True)
class ShownFigure:
    """A figure with its tools and its key; ``still`` is the drawing that stands in where scripts are off (a data: address)."""

    key: str
    title: str
    absent: str
    reading: str
    findings: list[str]
    alt: str
    panels: list[ShownPanel]
    can_log: bool
    units: list[str]
    views: list[str]
    kind: str
    across: int
    named: list[Series]
    scale: Scale | None
    still: str


def shown_figure(figure: Figure, folder: Path, known: Collection[str] | None = None) -> ShownFigure:
    """``figure`` for the template; its still drawing is in ``folder``/figures.

    Nulls are named below the figure; so is, where the page's ``known`` labels are given, every other series.
    """
    squares, series = any(p.grid or p.square for p in figure.panels), [s for p in figure.panels for s in p.series]
    named = {s.label: s for s in series if s.highlight == "null" or (known is not None and s.label not in known and s.legend)}
    still = folder / "figures" / f"{figure.key}.png"
    return ShownFigure(
        figure.key, figure.title, figure.absent, figure.reading, figure.findings, figure.alt,
        [ShownPanel(p.title, p.note, f"{p.title}. {figure.alt}" if p.title else figure.alt, _alone(p)) for p in figure.panels],
        any(p.can_log for p in figure.panels),
        next(([name for name, *_ in p.x_units] for p in figure.panels if p.x_units), []),
        next(([name for name, *_ in p.views] for p in figure.panels if p.views), []),
        "squares" if squares else LAYOUTS.get(len(figure.panels), ""), across(len(figure.panels)) if squares else 0,
        list(named.values()), scale_of(next((p.grid for p in figure.panels if p.grid), None)),
        small_png(still) if figure.panels and still.exists() else "")


def shown_figures(figures: Iterable[Figure], folder: Path, known: Collection[str] | None = None) -> list[ShownFigure]:
    """Several figures for the template."""
    return [shown_figure(f, folder, known) for f in figures]


def across(panels: int) -> int:
    """How many squares to a row: five at most, in rows of about one length.

    >>> [across(n) for n in (1, 5, 6, 11)]
    [1, 5, 3, 4]
    """
    return math.ceil(panels / math.ceil(panels / 5)) if panels else 1


def scale_of(grid: Grid | None) -> Scale | None:
    """The ends of a grid's colours, as they are written."""
    if grid is None:
        return None
    first, last = (percent(v, 0) if grid.percent else number(v, 2) for v in (grid.low, grid.high))
    return Scale(grid.of, first, last, grid.root)


def _alone(panel: Panel) -> str | None:
    if panel.grid:
        return panel.grid.highlight
    return panel.series[0].highlight if panel.square and panel.series else None


def small_png(path: Path) -> str:
    """A drawing as a data: address in 64 colours: a tenth of the SVG, whose curves hold every point."""
    with Image.open(path) as image, io.BytesIO() as kept:
        image.thumbnail((STAND_IN, 10 * STAND_IN))
        image.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(kept, "PNG", optimize=True)
        return f"data:image/png;base64,{base64.b64encode(kept.getvalue()).decode()}"


@dataclass(frozen=True)
class Legend:
    """Models that can be highlighted, and the arms to choose from where they are many (else none)."""

    models: list[Model]
    arms: list[str]


def legend_of(settings: Sequence[Setting], pick: bool = True) -> Legend:
    """One legend for the whole page; where arms are many (and ``pick``), a choice of arms too."""
    arms = list(dict.fromkeys(m.arm for s in settings for m in s.students))
    many = pick and len(arms) > MOST_ARMS
    models: dict[str, Model] = {}
    for setting in settings:
        for model in setting.main if many else setting.models:
            models.setdefault(model.label, model)
    return Legend(list(models.values()), arms if many else [])


@dataclass(frozen=True)
class Head:
    """The head of a column; ``hint`` is its tooltip."""

    title: str
    kind: str = ""
    hint: str | None = None


@dataclass(frozen=True)
class PageCell:
    """A value, and the lines below it: an interval, a published value (``paper``)."""

    text: str
    below: Sequence[str] = ()
    kind: str = "num"
    strong: bool = False
    paper: str | None = None


@dataclass(frozen=True)
class PageRow:
    """A row under the name of a model (then drawn as in the figures) or of anything else; None: it has no name."""

    name: str | None
    cells: Sequence[PageCell]
    model: Model | None = None
    kind: str | None = None
    hint: str | None = None
    highlight: str | None = None

    @classmethod
    def of(cls, model: Model, cells: Sequence[PageCell], kind: str | None = None) -> PageRow:
        """A model's row, which fades when another model is highlighted."""
        return cls(model.label, cells, model, kind, highlight=model.highlight)


@dataclass(frozen=True)
class PageTable:
    """A table; ``label`` is what a screen reader calls it, ``kind`` its style ("narrow": no wider than its text)."""

    label: str
    head: Sequence[Head]
    rows: Sequence[PageRow]
    kind: str = ""


def heads(first: str, others: Sequence[str]) -> list[Head]:
    """The names' column, and plain ones."""
    return [Head(first, "name"), *map(Head, others)]


def below(*lines: str) -> tuple[str, ...]:
    """The lines that have something to say."""
    return tuple(line for line in lines if line)


def mean_cell(s: Statistic, digits: int = 2, scale: float = 1.0) -> PageCell:
    """The mean, and below it the interval."""
    return PageCell(number(scale * s.mean, digits), below(interval_text(s, digits, scale)))


def duration(seconds: object) -> str:
    """
    >>> duration(61.5), duration(None)
    ('1 min 2 s', '')
    """
    if not isinstance(seconds, (int, float)):
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
