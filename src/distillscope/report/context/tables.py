"""Tables of a page as their template takes them (templates/_table.html), and durations in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distillscope.report.sentences.numbers import interval_text, number
from distillscope.results.models import Model
from distillscope.results.summary import Statistic


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
