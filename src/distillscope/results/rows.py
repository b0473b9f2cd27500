"""One measured number as a row of results.csv, and the condition that it was measured under."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

COLUMNS = ("study", "dataset", "split", "teacher", "student", "target", "objective", "seed", "condition", "draw",
           "measure", "value", "n", "unit", "arm")
"""The columns of results.csv, in their order. Runs before the arm had a column lack the last."""
TEACHER = "teacher"
"""What the column ``student`` says in the teacher's own rows."""
NONE = "none"
"""What a stress that looks at a part of the test images calls them unchanged: ``band=none``."""
WHOLE, WHITE = "all", "whitened"
"""Embeddings that are cut to none of their directions, as they are and at equal variance in each: ``top_k=all``."""


class Condition(str):
    """What was done to the images: a string that knows its parts, ``KIND`` or ``KIND=WHAT/LEVEL@PLACE``.

    ==================================  =====================================================================
    ``clean``                           nothing
    ``noise=SIGMA``                     the study's Gaussian noise
    ``noise_probe=SIGMA``               the same, seen by a probe that was fitted to noise
    ``band=LOW-HIGH/SIGMA[@input]``     noise in a band of frequencies; ``band=none``
    ``corruption=NAME/SEVERITY``        a common corruption; ``corruption=none``, ``corruption=mean``
    ``attack=NORM/EPS``                 a perturbation that was searched for; ``attack=none``
    ``fourier=THIRD``                   single waves of the low, mid or high frequencies
    ``top_k=K[/SIGMA]``                 embeddings cut to K directions (a number, ``all`` or ``whitened``)
    ==================================  =====================================================================

    A stress of your own has a kind of its own: ``Condition.of("blur", "gaussian", 3)``. Text that does not follow the form is
    a kind as a whole.

    >>> found = Condition.parse("band=0-0.25/0.1@input")
    >>> found.kind, found.what, found.level, found.place
    ('band', '0-0.25', '0.1', 'input')
    >>> found == Condition.of(*found.parts) == "band=0-0.25/0.1@input"
    True
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Condition:
        """The condition of that text, as it stands in results.csv."""
        return cls(text)

    @classmethod
    def of(cls, kind: str, what: str | float = "", level: str | float = "", place: str = "") -> Condition:
        """The condition of these parts; numbers are written as short as six digits allow.

        >>> Condition.of("corruption", "fog", 3), Condition.of("noise", level=0.10)
        ('corruption=fog/3', 'noise=0.1')
        """
        what, level = (part if isinstance(part, str) else f"{part:g}" for part in (what, level))
        value = "/".join(part for part in (what, level) if part)
        return cls(f"{kind}{f'={value}' if value else ''}{f'@{place}' if place else ''}")

    @classmethod
    def noise(cls, sigma: float) -> Condition:
        """The study's own noise.

        >>> Condition.noise(0.1)
        'noise=0.1'
        """
        return cls.of("noise", level=sigma)

    @classmethod
    def band(cls, low: float, high: float, sigma: float, *, at_input: bool = False) -> Condition:
        """Noise between two frequencies, fractions of the source image's Nyquist.

        >>> Condition.band(0.75, 1, 0.2)
        'band=0.75-1/0.2'
        """
        return cls.of("band", f"{low:g}-{high:g}", sigma, "input" if at_input else "")

    @classmethod
    def top_k(cls, k: int | str, sigma: float | str | None = None) -> Condition:
        """Embeddings cut to their ``k`` leading directions, clean or under noise.

        >>> Condition.top_k(64, 0.2), Condition.top_k("all")
        ('top_k=64/0.2', 'top_k=all')
        """
        return cls.of("top_k", str(k), "" if sigma is None else sigma)

    @classmethod
    def unchanged(cls, kind: str) -> Condition:
        """The images of a stress as they are.

        >>> Condition.unchanged("band")
        'band=none'
        """
        return cls.of(kind, NONE)

    @property
    def parts(self) -> tuple[str, str, str, str]:
        """(kind, what, level, place), '' where there is none."""
        kind, equals, value = self.partition("=")
        if not equals:
            return str(self), "", "", ""
        value, _, place = value.partition("@")
        what, slash, level = value.partition("/")
        if kind in ("noise", "noise_probe") and not slash:  # nothing but a level
            what, level = "", what
        found = (kind, what, level, place)
        return found if Condition.of(*found) == self else (str(self), "", "", "")

    @property
    def kind(self) -> str:
        return self.parts[0]

    @property
    def what(self) -> str:
        return self.parts[1]

    @property
    def level(self) -> str:
        return self.parts[2]

    @property
    def place(self) -> str:
        return self.parts[3]

    @property
    def strength(self) -> float | None:
        """The level as a number; None where there is none.

        >>> Condition.parse("corruption=fog/3").strength, Condition.parse("top_k=64").strength
        (3.0, None)
        """
        return _number(self.level)

    @property
    def sigma(self) -> float | None:
        """The sigma of the study's noise, 0 for clean images; None for any other condition.

        >>> Condition.parse("noise=0.1").sigma, CLEAN.sigma, Condition.parse("noise_probe=0.1").sigma
        (0.1, 0.0, None)
        """
        return 0.0 if self == CLEAN else self.strength if self.kind == "noise" else None

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The ends of a band of frequencies; None for any other condition.

        >>> Condition.parse("band=0.25-0.5/0.1").bounds
        (0.25, 0.5)
        """
        if self.kind != "band":
            return None
        low, dash, high = self.what.partition("-")
        if low.endswith("e"):  # 1e-05
            more, dash, high = high.partition("-")
            low = f"{low}-{more}"
        ends = _number(low), _number(high)
        return None if not dash or ends[0] is None or ends[1] is None else (ends[0], ends[1])

    @property
    def reference(self) -> Condition:
        """The condition without the harm, on the same items: ``band=none`` for a band, else clean.

        >>> Condition.parse("corruption=fog/3").reference, Condition.parse("noise=0.1").reference
        ('corruption=none', 'clean')
        """
        return Condition.unchanged(self.kind) if self.kind in ("band", "corruption", "attack") else CLEAN


CLEAN = Condition("clean")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


class Row(NamedTuple):
    """One number: what was measured, under which condition and independent draw of it, over ``n`` items, in ``unit``."""

    measure: str
    condition: str
    draw: int | None
    value: float
    n: int
    unit: str

    @classmethod
    def clean(cls, measure: str, value: float, n: int, unit: str) -> Row:
        """A number of the images as they are.

        >>> Row.clean("knn.student.accuracy", 0.7, 1000, "fraction").condition
        'clean'
        """
        return cls(measure, CLEAN, None, value, n, unit)


def tidy(head: Mapping[str, Any], rows: Iterable[tuple]) -> list[dict[str, Any]]:
    """Rows with the columns that they share (data set, student, seed, ...): one mapping per line of results.csv.

    A plain (measure, condition, draw, value, n, unit) will do as a row.

    >>> tidy({"student": "S", "seed": 1}, [Row.clean("knn.student.accuracy", 0.7, 1000, "fraction")])[0]["value"]
    0.7
    """
    return [{**head, **dict(zip(Row._fields, row, strict=True))} for row in rows]


def in_order(conditions: Iterable[str]) -> list[Condition]:
    """Each condition once: clean, the study's noise by sigma, then the others by their text.

    >>> in_order(["noise=0.2", "top_k=all", "noise=0.05", "clean", "band=none", "clean"])
    ['clean', 'noise=0.05', 'noise=0.2', 'band=none', 'top_k=all']
    """
    found = map(Condition.parse, set(conditions))
    return sorted(found, key=lambda c: (math.inf if c.sigma is None else c.sigma, c))
