"""Statements with two p values, one against their being false and one against their being true; and how they combine.

A claim is a statement. Small ``yes`` shows that it holds, small ``no`` that it does not. At any truth only one of the two
null hypotheses is true, so the smaller p is a test of the claim, whichever verdict follows.

    and: yes = the largest of the parts (all must be shown), no = the number of parts x the smallest (one is enough)
    or:  the same with yes and no exchanged
    each: both the largest of the parts; where some hold and some do not, neither is shown
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from distillscope.results.statistics import Contrast, Numbers, paired, tost

Outcome = Literal["supported", "refuted", "undecided"]


@dataclass(frozen=True)
class Endpoint:
    """What an effect is, its unit, and the factor that turns the measured number into it (100 for points of accuracy)."""

    name: str
    unit: str
    scale: float = 1.0


@dataclass(frozen=True)
class Statement:
    """What is stated and its contrary, the two p values, and the contrast, less ``bound``, behind them.

    A compound statement has ``parts``, and shows the contrast of the part that decides it (``decider``); where its own
    words are empty, that part's are said. ``times`` is how many parts and arms the smaller p was multiplied by (Bonferroni).
    """

    text: str
    otherwise: str
    endpoint: Endpoint
    yes: float
    no: float
    contrast: Contrast
    bound: float
    test: str
    parts: tuple[Statement, ...] = ()
    decider: Statement | None = None
    times: int = 1

    @property
    def p(self) -> float:
        """The smaller of the two."""
        return min(self.yes, self.no)

    def said(self, outcome: Outcome) -> str:
        """The words for an outcome."""
        own = self.text if outcome == "supported" else self.otherwise
        return own or (self.decider.said(outcome) if self.decider else "")

    def leaves(self) -> list[Statement]:
        """The simple statements that it is made of, in order."""
        return [leaf for part in self.parts for leaf in part.leaves()] if self.parts else [self]


def above(text: str, otherwise: str, endpoint: Endpoint, contrast: Contrast, bound: float = 0.0) -> Statement:
    """The mean lies above ``bound``; both p are two-sided.

    >>> found = above("it grew", "it did not", Endpoint("growth", "dims"), paired([1.0, 2.0, 3.0, 2.0, 2.5]))
    >>> found.yes < 0.01, found.no, found.said("supported")
    (True, 1.0, 'it grew')
    """
    return Statement(text, otherwise, endpoint, min(1.0, 2 * contrast.p_above(bound)), min(1.0, 2 * contrast.p_below(bound)),
                     contrast, bound, contrast.test)


def below(text: str, otherwise: str, endpoint: Endpoint, contrast: Contrast, bound: float = 0.0) -> Statement:
    """The mean lies below ``bound``; both p are two-sided."""
    return denied(above(otherwise, text, endpoint, contrast, bound))


def same(text: str, otherwise: str, endpoint: Endpoint, first: Numbers, second: Numbers,
         share: float) -> Statement:
    """Paired ``first`` and ``second`` (n,) differ by at most ``share`` of the second: two one-sided tests (TOST).

    That they differ by more is tested at the nearer end of the margin, two-sided.

    >>> first, second = [10.1, 9.9, 10.2, 10.0, 9.8], [10.0, 10.0, 10.1, 9.9, 10.0]
    >>> found = same("no change", "change", Endpoint("rank", "dims"), first, second, 0.1)
    >>> found.yes < 0.001, found.no
    (True, 1.0)
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    difference = paired(a - b)
    beyond = min(paired(a - (1 + share) * b).p_above(), paired(a - (1 - share) * b).p_below())
    bound = float(share * b.mean()) * (1 if difference.mean >= 0 else -1)
    return Statement(text, otherwise, endpoint, tost(a - b, share * b), min(1.0, 2 * beyond), difference, bound, "paired TOST")


def denied(statement: Statement) -> Statement:
    """The contrary of a statement."""
    return replace(statement, text=statement.otherwise, otherwise=statement.text, yes=statement.no, no=statement.yes,
                   parts=tuple(denied(p) for p in statement.parts),
                   decider=None if statement.decider is None else denied(statement.decider))


def all_of(parts: Sequence[Statement], text: str = "", otherwise: str = "") -> Statement:
    """Every part holds: shown by the weakest of them, denied by any one (Bonferroni over the parts).

    >>> end = Endpoint("growth", "dims")
    >>> first, second = (above("", "", end, paired(x)) for x in ([1.0, 1.2, 0.9, 1.1], [-0.1, 0.2, 0.1, -0.2]))
    >>> all_of([first, second]).yes == second.yes
    True
    """
    weakest, against = max(parts, key=lambda s: s.yes), min(parts, key=lambda s: s.no)
    no = min(1.0, len(parts) * against.no)
    decider = weakest if weakest.yes <= no else against
    times = weakest.times if decider is weakest and weakest.yes <= no else len(parts) * against.times
    return Statement(text, otherwise, decider.endpoint, weakest.yes, no, decider.contrast, decider.bound, decider.test,
                     tuple(parts), decider, times)


def each_of(parts: Sequence[Statement], text: str = "", otherwise: str = "") -> Statement:
    """Every part holds, or every part is false: each by the weakest of them. Some of each is neither.

    >>> end = Endpoint("growth", "dims")
    >>> first, second = (above("", "", end, paired(x)) for x in ([1.0, 1.2, 0.9, 1.1], [-1.0, -1.2, -0.9, -1.1]))
    >>> found = each_of([first, second])
    >>> found.yes > 0.5, found.no > 0.5
    (True, True)
    """
    holds, fails = max(parts, key=lambda s: s.yes), max(parts, key=lambda s: s.no)
    decider = holds if holds.yes <= fails.no else fails
    return Statement(text, otherwise, decider.endpoint, holds.yes, fails.no, decider.contrast, decider.bound, decider.test,
                     tuple(parts), decider, decider.times)


def any_of(parts: Sequence[Statement], text: str = "", otherwise: str = "") -> Statement:
    """At least one part holds: shown by any one (Bonferroni over the parts), denied by all being false."""
    return denied(all_of([denied(p) for p in parts], otherwise, text))
