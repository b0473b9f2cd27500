"""The figures of merit of a comparison: the difference of every model, a card a quantity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distillscope.compare.differences import Difference, Pair
from distillscope.compare.runs import Comparison
from distillscope.report.sentences.compare import difference_text, interval_text, title_text
from distillscope.visible import joined


@dataclass(frozen=True)
class DifferenceRow:
    """One model's difference; ``remains``: after Holm's correction."""

    name: str
    highlight: str
    value: str
    interval: str
    remains: bool


@dataclass(frozen=True)
class DifferenceCard:
    """One quantity, whose difference ``note`` says what it is of."""

    title: str
    note: str
    rows: list[DifferenceRow]


@dataclass(frozen=True)
class Cards:
    """The cards of a pair of runs (named by ``title`` where there are several), or of all audits."""

    title: str
    cards: list[DifferenceCard]


def merits(found: Comparison) -> list[Cards]:
    """A row of cards for each pair of studies, one for all audits."""
    whole = Pair(found.labels[0], joined(found.labels[1:]), found.differences)
    pairs = found.pairs if found.kind == "study" else [whole]
    several = len(found.pairs) > 1
    return [Cards(f"{pair.second} against {pair.first}" if several else "", _cards(pair.differences)) for pair in pairs]


def _cards(differences: Sequence[Difference]) -> list[DifferenceCard]:
    known = [d for d in differences if d.known]
    several, by_title = len({d.second for d in known}) > 1, dict[str, list[Difference]]()
    for d in known:
        by_title.setdefault(title_text(d), []).append(d)
    return [DifferenceCard(title, _of(same[0], several), [_row(d) for d in same]) for title, same in by_title.items()
            if any(d.quantity.tested for d in same)]


def _of(d: Difference, several: bool) -> str:
    """What is taken from what, and in which unit."""
    return f"{'minus' if several else f'{d.second} −'} {d.first}{f', {d.quantity.unit}' if d.quantity.unit else ''}"


def _row(d: Difference) -> DifferenceRow:
    return DifferenceRow(d.name or d.second, highlight_of(d), difference_text(d), interval_text(d), d.shown)


def highlight_of(d: Difference) -> str:
    """The model that a row fades with."""
    return d.match.first.student if d.match else d.second
