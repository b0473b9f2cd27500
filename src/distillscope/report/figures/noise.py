"""Noise levels in both units, and where the small and the large student change places."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from distillscope.report.sentences.numbers import interval_text, number, seeds_text
from distillscope.results.models import Model, Setting
from distillscope.results.rows import CLEAN, Condition
from distillscope.results.run import Run
from distillscope.results.summary import Statistic, Summary, statistic


@dataclass(frozen=True)
class Sigma:
    """One noise level: in pixels (0 to 1) and in units of the model's normalised input (mean over channels)."""

    condition: str
    value: float
    pixel: float | None
    normalised: float | None
    where: str = ""
    clipped: bool | None = None

    @property
    def text(self) -> str:
        """'σ 0.05 (12.8/255 in pixels, 0.186 normalised)'; the unit that the study counts in is not repeated."""
        units = [f"{_short(255 * self.pixel)}/255 in pixels"] if self.pixel is not None else []
        if self.normalised is not None:
            same = math.isclose(self.normalised, self.value, rel_tol=1e-3)
            units.append("normalised" if same else f"{_short(self.normalised)} normalised")
        return f"σ {_short(self.value)}" + (f" ({', '.join(reversed(units))})" if units else "")


def _short(value: float) -> str:
    return f"{value:.3g}"


def _mean(value: Any) -> float | None:
    numbers = [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, (int, float))]
    return float(np.mean(numbers)) if numbers else None


def sigma_info(run: Run, condition: str) -> Sigma:
    """What the run recorded of a condition; clean is zero in every unit."""
    value = Condition.parse(condition).sigma or 0.0
    if condition == CLEAN:
        return Sigma(condition, 0.0, 0.0, 0.0)
    known = (run.provenance.get("conditions") or {}).get(condition) or {}
    return Sigma(condition, value, _mean(known.get("sigma_pixel")), _mean(known.get("sigma_normalised")),
                 str(known.get("where") or ""), known.get("clipped"))


def noise_conditions(run: Run, summary: Summary) -> list[Sigma]:
    """The noise levels of the run, weakest first, without clean."""
    return [sigma_info(run, c) for c in summary.conditions() if c != CLEAN and c.sigma is not None]


def _recorded(run: Run) -> list[Sigma]:
    infos = [sigma_info(run, c) for c in (run.provenance.get("conditions") or {}) if Condition.parse(c).sigma]
    return [i for i in infos if i.pixel is not None and i.normalised is not None]


def sigma_label(run: Run) -> str:
    """The axis' name, which says where the noise was added."""
    known = _recorded(run)
    if not known:
        return "noise σ (the run recorded no units)"
    clipped = {True: ", clipped", False: ", not clipped"}.get(known[0].clipped, "")
    where = f"added to {known[0].where}{clipped}" if known[0].where else ""
    return f"noise σ (pixels of 255; normalised below)\n{where}".strip()


def sigma_ticks(run: Run, sigmas: list[float]) -> list[tuple[float, str]]:
    """A tick per level that says it in both units, one below the other."""
    by_value = {i.value: i for i in _recorded(run)}
    if not by_value:
        return [(s, _short(s)) for s in sigmas]
    ticks = []
    for sigma in sigmas:
        info = by_value.get(sigma)
        if sigma == 0:
            ticks.append((sigma, "0\n0"))
        else:
            ticks.append((sigma, f"{_short(255 * info.pixel)}\n{_short(info.normalised)}" if info else f"{_short(sigma)}\n?"))
    return ticks


def sigma_units(run: Run, sigmas: list[float]) -> list[tuple[str, str, list[str]]]:
    """The axis in one unit at a time, for the page's switch: (name, axis' name, tick texts). Empty where units are unknown."""
    ticks = sigma_ticks(run, sigmas)
    if not _recorded(run):
        return []
    where = sigma_label(run).partition("\n")[2]
    pixels, normalised = ([text.split("\n")[i] for _, text in ticks] for i in (0, 1))
    return [("both", sigma_label(run), [text for _, text in ticks]), ("pixels", f"noise σ, pixels of 255\n{where}".strip(), pixels),
            ("normalised", f"noise σ, units of the normalised input\n{where}".strip(), normalised)]


@dataclass(frozen=True)
class Crossover:
    """The sigma at which the mean accuracies of two students are equal."""

    sigma: float
    label: str
    sentence: str


def by_size(setting: Setting, summary: Summary, arm: str) -> list[Model]:
    """The students of one arm, smallest first; in the study's order where sizes are unknown."""
    models = [m for m in setting.students if m.arm == arm]
    sizes = [summary.get(m, "capacity.parameters") for m in models]
    if all(sizes):
        return [m for _, m in sorted(zip((s.mean for s in sizes), models, strict=True), key=lambda pair: pair[0])]
    return models


def paired_difference(summary: Summary, a: Model, b: Model, key: str, condition: str) -> Statistic | None:
    """a - b over the seeds that both have (they share order and noise draws); None without a common seed."""
    left, right = summary.per_seed(a, key, condition), summary.per_seed(b, key, condition)
    shared = [s for s in left if s in right]
    return statistic([left[s] - right[s] for s in shared]) if shared else None


def crossovers(setting: Setting, summary: Summary, key: str) -> list[Crossover]:
    """Where the smallest and the largest student of the first arm cross, by linear interpolation of the means."""
    arms = list(dict.fromkeys(m.arm for m in setting.students))
    ordered = by_size(setting, summary, arms[0]) if arms else []
    if len(ordered) < 2:
        return []
    small, large = ordered[0], ordered[-1]
    points = []
    for condition in summary.conditions():
        sigma = condition.sigma
        a, b = summary.get(small, key, condition), summary.get(large, key, condition)
        if sigma is not None and a and b:
            points.append((sigma, a.mean - b.mean, condition))
    found = []
    for (s0, d0, _), (s1, d1, after) in pairwise(points):
        if d0 * d1 >= 0 or d0 == d1:
            continue
        sigma = s0 + (s1 - s0) * d0 / (d0 - d1)
        up, down = (small, large) if d1 > 0 else (large, small)
        difference = paired_difference(summary, up, down, key, after)
        evidence = ""
        if difference:
            interval = interval_text(difference, 1, 100)
            unsure = " (includes zero)" if interval and difference.low <= 0 <= difference.high else ""
            evidence = (f"; at σ {_short(s1)} it leads by {number(100 * difference.mean, 1)} points"
                        f"{' ' + interval if interval else ''}{unsure}, {seeds_text(difference.n_seeds)}")
        found.append(Crossover(sigma, f"{up.label} over {down.label}",
                               f"The means of {small.label} and {large.label} cross at σ ≈ {sigma:.2g}: beyond it "
                               f"{up.label} is ahead{evidence}."))
    return found
