"""What a figure shows, before anything is drawn: matplotlib and Plotly both draw from these, so they cannot disagree."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from distillscope.results.models import Model, mean_curve
from distillscope.results.run import Run


class Bounded(Protocol):
    """What may have an interval; no end, or NaN: none is known."""

    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...


def ends(values: Iterable[Bounded]) -> dict[str, list[float] | None]:
    """``low`` and ``high`` of a series: NaN where one value has no interval, None where no value has one."""
    known = [(v.low, v.high) if v.low is not None and v.high is not None and math.isfinite(v.low) else (math.nan, math.nan)
             for v in values]
    if all(math.isnan(low) for low, _ in known):
        return {"low": None, "high": None}
    return {"low": [low for low, _ in known], "high": [high for _, high in known]}


@dataclass(frozen=True)
class Series:
    """One line, cloud of points or row of bars. ``low`` and ``high`` bound y; ``x_low`` and ``x_high`` bound x.

    An end is NaN where a point has no interval (one seed, or seeds that all gave one number); the others keep theirs.
    """

    label: str
    highlight: str
    colour: tuple[str, str]
    x: list[float]
    y: list[float]
    kind: str = "line"  # line, points, faint (one point per seed), bars, cloud (one point per item)
    low: list[float] | None = None
    high: list[float] | None = None
    x_low: list[float] | None = None
    x_high: list[float] | None = None
    hover: list[str] = field(default_factory=list)  # one text a point, in place of x
    dash: str = "solid"
    marker: str | None = None
    legend: bool = True
    n: int | None = None
    n_of: str = "seed"  # what n counts
    arms: tuple[str, ...] = ()  # that it belongs to; none: to all of them
    groups: list[int] = field(default_factory=list)  # of a cloud: the class of each point
    written: str = ""  # beside a point

    @property
    def lower(self) -> list[float]:
        """How far down each point reaches: the end of its interval, itself where it has none."""
        return [y if math.isnan(v) else v for y, v in zip(self.y, self.low or self.y, strict=True)]

    @property
    def upper(self) -> list[float]:
        """How far up each point reaches."""
        return [y if math.isnan(v) else v for y, v in zip(self.y, self.high or self.y, strict=True)]

    @property
    def gaps(self) -> bool:
        """Whether some points lack the interval that others have: a band over them all would not show which."""
        return bool(self.low) and any(math.isnan(v) and math.isfinite(y) for v, y in zip(self.low or [], self.y, strict=True))

    @classmethod
    def of(cls, model: Model, x, y, **more) -> Series:
        """A series in the model's own name, colour, marker and dash."""
        settings = {"dash": model.dash, "arms": model.arms, "label": model.label, **more}
        return cls(highlight=model.highlight, colour=model.colour, x=list(x), y=list(y), **settings)


@dataclass(frozen=True)
class Mark:
    """A straight reference line across the panel, with its name written on it."""

    value: float
    label: str
    axis: str = "y"
    colour: tuple[str, str] = ("#8C8C8C", "#8C8C8C")
    dash: str = "dash"
    highlight: str = ""
    arms: tuple[str, ...] = ()
    shift: int = 0  # pixels by which the name is moved up, so that it keeps clear of what else is written there


@dataclass(frozen=True)
class Grid:
    """One model's values in cells: ``values`` by row from the top down, None where nothing was measured."""

    label: str
    highlight: str
    values: list[list[float | None]]
    rows: list[str]
    columns: list[str]
    of: str  # what a cell's number is, for the hover and the download
    low: float = 0.0
    high: float = 1.0
    percent: bool = True
    n: int | None = None
    n_of: str = "seed"
    root: bool = False  # colours by the root of the value: small ones stay distinguishable


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    title: str
    x_label: str
    y_label: str
    series: list[Series]
    marks: list[Mark] = field(default_factory=list)
    x_log: bool = False
    can_log: bool = False  # offers the reader a switch between linear and logarithmic x
    y_log: bool = False
    y_percent: bool = False
    x_ticks: list[tuple[float, str]] | None = None
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    note: str = ""
    grid: Grid | None = None  # in place of series
    x_tilt: bool = False  # long tick labels, written aslant
    square: bool = False  # both axes in one unit and without numbers: a map
    views: list[tuple[str, list[float], list[float]]] = field(default_factory=list)  # of a cloud: (name, x, y), to choose from
    x_name: str = ""  # what x is called beside a point, where its label says more
    x_units: list[tuple[str, str, list[str]]] = field(default_factory=list)  # (name, axis' name, tick texts), to choose from


@dataclass(frozen=True)
class Figure:
    """A figure of one or more panels; ``absent`` says why there is none, and is shown in its place."""

    key: str
    title: str
    reading: str  # how to read it, in a sentence or two
    panels: list[Panel] = field(default_factory=list)
    absent: str = ""
    findings: list[str] = field(default_factory=list)  # computed sentences

    @property
    def alt(self) -> str:
        """Alternative text: what is drawn, and the computed findings."""
        shown: list[str] = []
        for panel in self.panels:
            shown += [s.label for s in panel.series if s.legend] + ([panel.grid.label] if panel.grid else [])
        names = ", ".join(dict.fromkeys(shown))
        return " ".join([f"{self.title}: {names}.", *self.findings]) if self.panels else self.absent


def gaps_said(panels: Iterable[Panel]) -> str:
    """Why lines have bars in place of a band, as a sentence to be added; empty where none has."""
    some = any(s.gaps for p in panels for s in p.series)
    return " Bars stand in place of a band where some points have no interval: one seed, or all seeds gave one number." * some


def curve_over_seeds(run: Run, model: Model, key: str, **more: Any) -> Series | None:
    """Mean and 95 % t interval at each x; None when no seed has the curve."""
    found = mean_curve(run, model, key)
    if found is None:
        return None
    return Series.of(model, found.x, found.y, low=found.low, high=found.high, n=found.n, **more)
