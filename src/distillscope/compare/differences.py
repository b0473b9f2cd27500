"""Differences B - A between runs: what is compared, over what, with which interval and which p."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from distillscope.compare.agree import ALL, COUNT, FITTED, ITEMS, NOISE, TARGET, TEACHER, Match, Mismatch, mismatches
from distillscope.compare.read import StudySide
from distillscope.measure.intervals import bootstrap_interval, holm
from distillscope.results.keys import ACCURACIES, PARAMETERS, RANK, facts_of
from distillscope.results.models import trials_of_model
from distillscope.results.rows import CLEAN, Condition
from distillscope.results.statistics import Contrast, paired, welch

PAIRED, WELCH, SINGLE, FIXED = "paired over seeds", "Welch over seeds", "too few seeds for an interval", "no seeds: a constant"
NO_PREDICTIONS = "no seed has its predictions in both runs"
PREDICTED = {"paper.probe.student.accuracy": "paper", "probe.student.accuracy": "tuned"}
"""Accuracies whose predictions a trial keeps, and the name that its columns begin with."""


@dataclass(frozen=True)
class Quantity:
    """One figure that is compared. ``measures`` are (dotted key, what it depends on), first found in both runs first."""

    key: str
    title: str
    measures: tuple[tuple[str, frozenset[str]], ...]
    digits: int = 2
    scale: float = 1.0
    unit: str = ""
    noisy: bool = False  # under the strongest noise that both runs have
    tested: bool = True


def _measures(*pairs: tuple[str, set[str]]) -> tuple[tuple[str, frozenset[str]], ...]:
    return tuple((key, frozenset({ALL, *tags})) for key, tags in pairs)


def _quantity(key: str, *measures: tuple[str, set[str]], title: str = "", noisy: bool = False, tested: bool = True) -> Quantity:
    """A quantity as `results.keys` describes the first of its measures."""
    facts = facts_of(measures[0][0])
    tagged = _measures(*measures) if tested else tuple((m, frozenset(tags)) for m, tags in measures)
    return Quantity(key, title or facts.title, tagged, facts.digits, facts.scale, facts.difference, noisy, tested)


QUANTITIES = (
    _quantity("effective_rank", (RANK, {COUNT})),
    _quantity("r2", ("alignment.teacher_r2", {TEACHER, TARGET, COUNT}), ("mapped.teacher_r2", {TEACHER, FITTED, COUNT})),
    _quantity("accuracy", *((key, set()) for key in ACCURACIES), title="probe, clean"),
    _quantity("accuracy_noisy", *((key, {NOISE}) for key in ACCURACIES), title="probe, noisy", noisy=True),
    _quantity("recall", ("mapped.recall_at_1", {TEACHER, COUNT, FITTED})),
    _quantity("parameters", (PARAMETERS, set()), tested=False))
"""The headline: every one of these but the parameters is tested, and counts in Holm's correction."""


@dataclass(frozen=True)
class Items:
    """The same difference, of the same seeds, over test items: how far it holds for other images, not for other seeds."""

    low: float
    high: float
    n: int
    seeds: int


@dataclass(frozen=True)
class Difference:
    """B - A of one quantity of one model. Numbers are in the stored unit; ``left_out`` says why there are none."""

    first: str
    second: str
    match: Match | None
    quantity: Quantity
    measure: str = ""
    condition: str = CLEAN
    a: float = math.nan
    b: float = math.nan
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    seeds: tuple[int, ...] = ()
    how: str = ""
    p: float = math.nan
    p_holm: float = math.nan
    items: Items | None = None
    items_left_out: str = ""
    left_out: str = ""

    @property
    def value(self) -> float:
        return self.b - self.a

    @property
    def known(self) -> bool:
        return not self.left_out

    @property
    def shown(self) -> bool:
        """Whether the difference remains after Holm's correction, at 0.05."""
        return self.p_holm < 0.05

    @property
    def name(self) -> str:
        return self.match.name if self.match else ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values; what is not known is null."""
        def plain(value: float) -> float | None:
            return float(value) if math.isfinite(value) else None

        where = {}
        if self.match:
            one, other = self.match.first, self.match.second
            where = {"dataset": one.dataset, "teacher": {self.first: one.teacher, self.second: other.teacher}, "arm": one.arm,
                     "student": one.student}
        items = self.items and {"low": self.items.low, "high": self.items.high, "n": self.items.n, "seeds": self.items.seeds}
        return {**where, "quantity": self.quantity.key, "measure": self.measure, "condition": self.condition,
                "a": {"run": self.first, "value": plain(self.a)}, "b": {"run": self.second, "value": plain(self.b)},
                "difference": plain(self.value), "low": plain(self.low), "high": plain(self.high), "n": self.n,
                "seeds": list(self.seeds), "over": self.how, "p": plain(self.p), "p_holm": plain(self.p_holm),
                "items": items, "items_left_out": self.items_left_out or None, "left_out": self.left_out or None}


@dataclass(frozen=True)
class Pair:
    """Two runs side by side: their differences, and what stands between them."""

    first: str
    second: str
    differences: list[Difference]
    mismatches: dict[str, list[Mismatch]] = field(default_factory=dict)  # by the model's name
    only_first: list[str] = field(default_factory=list)
    only_second: list[str] = field(default_factory=list)


def quantities(measured: Iterable[str]) -> list[Quantity]:
    """The headline, and whatever else was measured and has a column of its own (`facts.Shown.column`)."""
    known = {measure for q in QUANTITIES for measure, _ in q.measures}
    more = sorted(m for m in set(measured) - known if facts_of(m).column and not m.startswith("teacher."))
    return [*QUANTITIES, *(_quantity(m, (m, {TEACHER, TARGET, COUNT})) for m in more)]


def compare_pair(a: StudySide, b: StudySide, found: Sequence[Match]) -> tuple[list[Difference], dict[str, list[Mismatch]]]:
    """Every quantity of every match, uncorrected; and what the runs do not share, model by model."""
    differences, between = [], {}
    wanted = quantities(a.summary.measures() | b.summary.measures())
    for match in found:
        doubts = mismatches(a, b, match)
        between[f"{match.first.dataset} {match.name}"] = doubts
        read = cache(_predictions)  # several quantities look at the same trials
        differences += [difference(a, b, match, quantity, doubts, read) for quantity in wanted]
    return [d for d in differences if d is not None], between


def difference(a: StudySide, b: StudySide, match: Match, quantity: Quantity, doubts: Sequence[Mismatch],
               read: Callable[[Path], pd.DataFrame]) -> Difference | None:
    """One quantity of one model; None where neither run measured it. ``read`` gives a trial's predictions."""
    empty = Difference(a.label, b.label, match, quantity)
    condition = _strongest(a, b) if quantity.noisy else CLEAN
    if condition is None:
        return None
    reason, seen = "", False
    for measure, tags in quantity.measures:
        ours = a.summary.per_seed(match.first, measure, condition)
        theirs = b.summary.per_seed(match.second, measure, condition)
        seen = seen or bool(ours or theirs)
        if not (ours and theirs):
            continue
        barred = [m for m in doubts if m.left_out & tags]
        if barred:
            reason = reason or f"the {barred[0].what} differs"
            continue
        may_pair = not any(m.unpaired & tags for m in doubts)
        made = replace(empty, measure=measure, condition=condition, **_over_seeds(ours, theirs, quantity, may_pair))
        over = made.seeds or (tuple(s for s in ours if s is not None) if set(ours) == set(theirs) else ())
        if measure not in PREDICTED:
            return made
        if apart := [m for m in doubts if ITEMS in m.left_out]:
            return replace(made, items_left_out=f"the {apart[0].what} differs")
        return _with_items(made, over, a, b, read)
    if not seen:
        return None
    return replace(empty, condition=condition, left_out=reason or "only one of the two measured it")


def _strongest(a: StudySide, b: StudySide) -> Condition | None:
    """The strongest noise that both runs have."""
    shared = [c for c in a.summary.conditions() if c in b.summary.conditions() and (c.sigma or 0) > 0]
    return max(shared, key=lambda c: c.sigma or 0, default=None)


def _over_seeds(ours: dict, theirs: dict, quantity: Quantity, may_pair: bool) -> dict[str, Any]:
    """Both means, the interval, p, and over which seeds; what is paired is the mean of the shared seeds."""
    shared = sorted(s for s in ours if s in theirs and s is not None)
    first, second = list(ours.values()), list(theirs.values())
    if not quantity.tested:
        return {"a": _mean(first), "b": _mean(second), "how": FIXED, "n": 0}
    contrast: Contrast | None = None
    how, n, seeds = SINGLE, min(len(first), len(second)), ()
    if may_pair and shared and (len(shared) > 1 or min(len(first), len(second)) == 1):
        first, second = [ours[s] for s in shared], [theirs[s] for s in shared]
        n, seeds = len(shared), tuple(shared)
        if n > 1:
            contrast, how = paired([y - x for x, y in zip(first, second, strict=True)]), PAIRED
    elif n > 1:
        contrast, how = welch(second, first), WELCH
    made: dict[str, Any] = {"a": _mean(first), "b": _mean(second), "how": how, "n": n, "seeds": seeds}
    if contrast is not None:
        low, high = contrast.interval()
        made |= {"low": low, "high": high, "p": contrast.p()}
    return made


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def corrected(pairs: Sequence[Pair]) -> list[Pair]:
    """The same with Holm's p over every tested difference of every pair: all that is shown as headline is one family."""
    ps = {(i, j): d.p for i, pair in enumerate(pairs) for j, d in enumerate(pair.differences) if math.isfinite(d.p)}
    adjusted = holm(ps)
    return [replace(pair, differences=[replace(d, p_holm=adjusted.get((i, j), math.nan))
                                       for j, d in enumerate(pair.differences)])
            for i, pair in enumerate(pairs)]


def _with_items(d: Difference, over: tuple[int, ...], a: StudySide, b: StudySide,
                read: Callable[[Path], pd.DataFrame]) -> Difference:
    """Adds the interval over items, where all trials of the difference keep predictions of the same items.

    ``over`` are the seeds of the difference, empty where the runs do not have the same: an interval of some of them would be of
    another difference than the one that it stands beside.
    """
    if d.match is None:
        return d
    files = [{t.seed: side.run.path / "trials" / t.folder / "predictions.parquet" for t in trials_of_model(side.run, model)}
             for side, model in ((a, d.match.first), (b, d.match.second))]
    kept = [{seed for seed, path in held.items() if path.is_file()} for held in files]
    if not (kept[0] and kept[1]):
        return replace(d, items_left_out=NO_PREDICTIONS)
    if not over:
        return replace(d, items_left_out="the runs do not have the same seeds")
    if not set(over) <= kept[0] & kept[1]:
        return replace(d, items_left_out="not every seed of the difference has its predictions in both runs")
    try:
        scores = [_correct(read(files[1][s]), d) - _correct(read(files[0][s]), d) for s in over]
    except ValueError as error:
        return replace(d, items_left_out=str(error))
    if any(not s.index.equals(scores[0].index) or s.isna().any() for s in scores):
        return replace(d, items_left_out="the predictions are of other items")
    mean = np.mean([s.to_numpy() for s in scores], axis=0)
    low, high = bootstrap_interval(np.mean, [mean])
    return replace(d, items=Items(low, high, len(mean), len(over)))


def _predictions(path: Path) -> pd.DataFrame:
    """predictions.parquet of a trial, sorted by its index of id and label."""
    frame = pd.read_parquet(path)
    return frame.set_index(pd.MultiIndex.from_arrays([frame["id"].astype(str), frame["label"].astype(int)])).sort_index()


def _correct(predictions: pd.DataFrame, d: Difference) -> pd.Series:
    """Whether each item was answered right, averaged over draws; indexed by id and label. ValueError: why not."""
    columns = [c for c in predictions.columns if c.rpartition("|")[0] == f"{PREDICTED[d.measure]}|{d.condition}"]
    if not columns:
        raise ValueError("the predictions lack this condition")
    if predictions.index.has_duplicates:
        raise ValueError("the predictions repeat an item")
    right = (predictions[columns].to_numpy() == predictions["label"].to_numpy()[:, None]).mean(axis=1)
    return pd.Series(right, index=predictions.index)
