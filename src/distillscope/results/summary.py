"""Tidy results -> one row per quantity, with its spread over seeds.

Seeds are the unit of replication: independent noise draws are averaged inside a seed first. The interval is Student's
t over seeds, which keeps its coverage at three seeds, where a percentile bootstrap does not. One seed has no interval.
Intervals of accuracies and other shares of items end at 0 and 1.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from distillscope.results.keys import teacher_key
from distillscope.results.models import Model
from distillscope.results.robustness import MEAN
from distillscope.results.rows import CLEAN, TEACHER, Condition, in_order
from distillscope.results.run import Finished, Run, measured_split, of_test
from distillscope.results.statistics import half_width

IS_SHARE = re.compile(r"(accuracy|recall_at_\d+|neighbour_overlap_\d+|mutual_knn_\d+|flips)$")
"""Measures that are shares of items: nothing lies below 0 or above 1."""
KEYS = ["dataset", "teacher", "target", "objective", "arm", "student", "split", "condition", "measure"]


@dataclass(frozen=True)
class Statistic:
    """A quantity over seeds. ``std`` is the sample's, ``std_population`` the paper's; low and high are the 95 % t interval."""

    mean: float
    std: float
    std_population: float
    low: float
    high: float
    n_seeds: int
    values: tuple[float, ...]
    n: int | None = None
    unit: str = ""

    def spread(self, kind: str) -> float:
        """The standard deviation that the study asks for: 'sample' or 'population'."""
        return self.std_population if kind == "population" else self.std


def statistic(values: Iterable[float], n: int | None = None, unit: str = "") -> Statistic:
    """Mean, both standard deviations and the 95 % t interval of the finite ``values``, one per seed.

    >>> s = statistic([15.0, 16.0, 17.0])
    >>> s.mean, s.std, round(s.low, 3), round(s.high, 3), s.n_seeds
    (16.0, 1.0, 13.516, 18.484, 3)
    >>> statistic([15.0]).low, statistic([15.0, 15.0]).low  # no spread is known
    (nan, nan)
    """
    kept = np.asarray([v for v in values if math.isfinite(v)], dtype=np.float64)
    count = len(kept)
    if count == 0:
        return Statistic(math.nan, math.nan, math.nan, math.nan, math.nan, 0, (), n, unit)
    mean = float(kept.mean())
    if count == 1:
        return Statistic(mean, math.nan, math.nan, math.nan, math.nan, 1, (mean,), n, unit)
    std = 0.0 if np.ptp(kept) == 0 else float(kept.std(ddof=1))
    half = half_width(std, count) if std else math.nan  # equal numbers tell nothing of their spread
    return Statistic(mean, std, float(kept.std()), mean - half, mean + half, count, tuple(kept.tolist()), n, unit)


def within_unit(s: Statistic) -> Statistic:
    """An interval of a share, ended at 0 and 1: Student's t does not know that nothing lies beyond."""
    return replace(s, low=max(s.low, 0.0), high=min(s.high, 1.0)) if math.isfinite(s.low) else s


def _record(key: tuple, s: Statistic, seeds: list) -> dict:
    return {**dict(zip(KEYS, key, strict=True)), "mean": s.mean, "std": s.std, "std_population": s.std_population,
            "low": s.low, "high": s.high, "n_seeds": s.n_seeds, "seeds": seeds, "values": list(s.values), "n": s.n,
            "unit": s.unit}


def summarise(results: pd.DataFrame, trials: Iterable[Finished] = ()) -> pd.DataFrame:
    """One row per (dataset, teacher, target, objective, arm, student, split, condition, measure).

    Columns: mean, std (sample), std_population, low, high (95 % t interval over seeds), n_seeds, seeds, values (one per
    seed), n (items), unit. A value that is not finite is left out, and n_seeds says so. Where ``trials`` carry singular
    values, the rank and dims of the seed-averaged spectrum are added (the paper publishes those, not the mean of ranks).
    """
    per_seed = results.groupby([*KEYS, "seed"], dropna=False, sort=False).agg(
        value=("value", "mean"), n=("n", "max"), unit=("unit", "first")).reset_index()
    rows_of: dict[int, list[tuple]] = {}
    for number, row in zip(per_seed.groupby(KEYS, dropna=False, sort=False).ngroup(),
                           per_seed[["seed", "value", "n", "unit"]].itertuples(index=False, name=None), strict=True):
        rows_of.setdefault(number, []).append(row)
    records = []
    for key, rows in zip(per_seed[KEYS].drop_duplicates().itertuples(index=False, name=None), rows_of.values(), strict=True):
        rows.sort(key=lambda row: math.inf if pd.isna(row[0]) else row[0])
        n = max((int(n) for _, _, n, _ in rows if not pd.isna(n)), default=None)
        kept = [row for row in rows if not pd.isna(row[1]) and math.isfinite(row[1])]
        found = statistic([value for _, value, _, _ in kept], n, str(kept[0][-1]) if kept else "")
        found = within_unit(found) if IS_SHARE.search(str(key[-1])) else found
        records.append(_record(key, found, [None if pd.isna(seed) else int(seed) for seed, *_ in kept]))
    records += _of_mean_spectrum(results, trials)
    return pd.DataFrame(records, columns=[*KEYS, "mean", "std", "std_population", "low", "high", "n_seeds", "seeds",
                                          "values", "n", "unit"])


def _of_mean_spectrum(results: pd.DataFrame, trials: Iterable[Finished]) -> list[dict]:
    """Effective rank (p = s^2 / sum s^2) and dims of the singular values averaged over seeds."""
    groups: dict[tuple, dict[int | None, list[float]]] = {}
    for trial in trials:
        spectrum = trial.curves.get("student.spectrum")
        if spectrum and trial.student != TEACHER:
            key = (trial.dataset, trial.teacher, trial.target, trial.arm, trial.student)
            groups.setdefault(key, {})[trial.seed] = spectrum["y"]
    records = []
    for (dataset, teacher, target, arm, student), spectra in groups.items():
        own = results[(results["dataset"] == dataset) & (results["teacher"] == teacher) & (results["arm"] == arm)
                      & (results["student"] == student)]
        objective = own["objective"].iloc[0] if len(own) else ""
        split = measured_split(own)
        length = min(map(len, spectra.values()))
        mean = np.mean([np.asarray(s[:length], dtype=np.float64) for s in spectra.values()], axis=0)
        if not np.isfinite(mean).all() or mean.sum() <= 0:
            continue
        for name, value, unit in _rank_and_dims(mean):
            measure = f"student.{name}_of_mean_spectrum"
            single = Statistic(value, math.nan, math.nan, math.nan, math.nan, len(spectra), (value,), None, unit)
            whose = (dataset, teacher, target, objective, arm, student, split, CLEAN, measure)
            records.append(_record(whose, single, sorted(spectra, key=str)))
    return records


def _rank_and_dims(singular_values: np.ndarray) -> list[tuple[str, float, str]]:
    from distillscope.measure.spectrum import dims_for_share, effective_rank_from_singular_values

    dims = [(f"dims_{share}", float(dims_for_share(singular_values, share / 100)), "dimensions") for share in (90, 95, 99)]
    return [("effective_rank", float(effective_rank_from_singular_values(singular_values)), "dimensions"), *dims]


class Summary:
    """Look-ups in `summarise`'s rows of the split that each data set is tested on."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame
        self._rows: dict[tuple, Statistic] = {}
        self._per_seed: dict[tuple, tuple[list, list]] = {}
        key_of = operator.itemgetter("dataset", "teacher", "target", "arm", "student", "condition", "measure")
        for row in frame.to_dict("records"):
            self._per_seed.setdefault(key_of(row), (row["seeds"], row["values"]))
        for row in of_test(frame).to_dict("records"):
            self._rows[key_of(row)] = Statistic(row["mean"], row["std"], row["std_population"], row["low"], row["high"],
                                        row["n_seeds"], tuple(row["values"]), row["n"], row["unit"])

    @classmethod
    def of(cls, run: Run) -> Summary:
        return cls(summarise(run.all_results, run.trials))

    def get(self, model, measure: str, condition: str = CLEAN) -> Statistic | None:
        """The statistic of a `results.models.Model`; teacher rows answer to student.* keys too. None when absent."""
        if model.is_teacher:
            measure = teacher_key(measure)
        found = self._rows.get((model.dataset, model.teacher, model.target, model.arm, model.student, condition, measure))
        return found if found is not None and found.n_seeds else None

    def measures(self) -> set[str]:
        return {key[-1] for key in self._rows}

    def difference(self, a: Model, b: Model, measure: str, condition: str = CLEAN) -> Statistic | None:
        """a - b over the seeds that both have (they share order and noise draws); None without a common seed."""
        left, right = self.per_seed(a, measure, condition), self.per_seed(b, measure, condition)
        shared = [s for s in left if s in right]
        return statistic([left[s] - right[s] for s in shared]) if shared else None

    def noise_probe(self, model: Model, kind: str, condition: Condition) -> dict[str, Statistic]:
        """What noise moves and what it destroys, by the 'paper' or the 'tuned' probe; empty where it was not measured.

        ``clean``: accuracy without noise. ``noisy``: the clean probe's under noise. ``won_back``: what a probe that was
        fitted to noise adds to that. ``lost``: what it still lacks to ``clean``.
        """
        key, none = f"noise_probe.{kind}.student", Condition.of("noise_probe", level=0)
        clean, noisy, fitted = (self.per_seed(model, f"{key}.{what}", c) for what, c in (
            ("accuracy", none), ("clean_fit_accuracy", condition), ("accuracy", condition)))
        shared = [s for s in fitted if s in clean and s in noisy]
        if not shared:
            return {}
        return {"clean": statistic(clean[s] for s in shared), "noisy": statistic(noisy[s] for s in shared),
                "won_back": statistic(fitted[s] - noisy[s] for s in shared),
                "lost": statistic(clean[s] - fitted[s] for s in shared)}

    def conditions(self) -> list[Condition]:
        """'clean' first, then the noise conditions by sigma, then the others."""
        return in_order(key[-2] for key in self._rows)

    def per_seed(self, model, measure: str, condition: str = CLEAN) -> dict[int | None, float]:
        """{seed: value}, so that models trained from one seed can be paired."""
        if model.is_teacher:
            measure = teacher_key(measure)
        key = (model.dataset, model.teacher, model.target, model.arm, model.student, condition, measure)
        return dict(zip(*self._per_seed.get(key, ((), ())), strict=False))


def training_curve(log: pd.DataFrame, model: Model, column: str) -> list[tuple[int, Statistic]]:
    """A column of a run's training log over the epochs of a model's trials: (epoch, over seeds), where it was measured."""
    own = log[(log["dataset"] == model.dataset) & (log["teacher"] == model.teacher) & (log["arm"] == model.arm)
              & (log["student"] == model.student)]
    epochs = own.drop_duplicates(["epoch", "seed"], keep="last").groupby("epoch")[column]
    found = [(int(e), statistic(values.astype(float))) for e, values in epochs]
    return [(e, s) for e, s in found if s.n_seeds]


def suite_over_seeds(model: Model, suite: pd.DataFrame) -> dict[str, Statistic]:
    """`robustness.against_teacher`'s corruptions of one model: the means over them all, over seeds; empty without any.

    ``accuracy``; ``relative_retention``: its share of the clean one, relative to the teacher's share; ``error``: the error
    relative to the teacher's.
    """
    own = suite[(suite["dataset"] == model.dataset) & (suite["teacher"] == model.teacher) & (suite["target"] == model.target)
                & (suite["arm"] == model.arm) & (suite["student"] == model.student)]
    if not len(own):
        return {}
    whole, n = own["condition"] == MEAN, int(own["n"].max())
    each = own[~whole].groupby("seed")[["accuracy", "relative_retention"]].mean()
    return {**{c: statistic(each[c], n) for c in each}, "error": statistic(own.loc[whole, "mean_corruption_error"], n)}
