"""Noise levels in both units, and where the small and the large student change places."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from distillscope.measure.results import decimals
from distillscope.report.sentences.numbers import interval_text, number, seeds_text
from distillscope.results.models import Model, Setting
from distillscope.results.rows import CLEAN, Condition
from distillscope.results.run import Run
from distillscope.results.summary import Summary


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


SIGMA = "noise σ"
"""What the axis is called beside a point."""


def sigma_label(run: Run) -> str:
    """The axis' name, which says where the noise was added."""
    if not _recorded(run):
        return f"{SIGMA} (the run recorded no units)"
    return f"{SIGMA} (pixels of 255; normalised below)\n{_where(run)}".strip()


def _where(run: Run) -> str:
    """'added to source pixels, not clipped', as far as the run recorded it."""
    first = _recorded(run)[0]
    clipped = "" if first.clipped is None else ", clipped" if first.clipped else ", not clipped"
    return f"added to {first.where}{clipped}" if first.where else ""


def sigma_ticks(run: Run, sigmas: list[float]) -> list[tuple[float, str]]:
    """A tick per level that says it in both units, one below the other."""
    return [(s, "\n".join(_in_both_units(run, s)) if _recorded(run) else _short(s)) for s in sigmas]


def _in_both_units(run: Run, sigma: float) -> tuple[str, str]:
    """In pixels of 255 and in units of the normalised input; '?' for a level that the run recorded no units of."""
    if sigma == 0:
        return "0", "0"
    info = {i.value: i for i in _recorded(run)}.get(sigma)
    if info is None or info.pixel is None or info.normalised is None:
        return _short(sigma), "?"
    return _short(255 * info.pixel), _short(info.normalised)


def sigma_units(run: Run, sigmas: list[float]) -> list[tuple[str, str, list[str]]]:
    """The axis in one unit at a time, for the page's switch: (name, axis' name, tick texts). Empty where units are unknown."""
    if not _recorded(run):
        return []
    where, texts = _where(run), [_in_both_units(run, s) for s in sigmas]
    return [("both", sigma_label(run), ["\n".join(both) for both in texts]),
            ("pixels", f"{SIGMA}, pixels of 255\n{where}".strip(), [pixels for pixels, _ in texts]),
            ("normalised", f"{SIGMA}, units of the normalised input\n{where}".strip(), [normalised for _, normalised in texts])]


TIE = 1e-9
"""Accuracies that differ by less are equal: the rest is rounding."""


@dataclass(frozen=True)
class Crossover:
    """The sigma at which the mean accuracies of two students are equal."""

    sigma: float
    label: str
    sentence: str


def by_size(setting: Setting, summary: Summary, arm: str) -> list[Model]:
    """The students of one arm, smallest first; in the study's order where sizes are unknown."""
    models = [m for m in setting.students if m.arm == arm]
    sizes = [(s.mean, m) for m in models if (s := summary.get(m, "capacity.parameters"))]
    return [m for _, m in sorted(sizes, key=lambda pair: pair[0])] if len(sizes) == len(models) else models


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
    found, apart = [], [p for p in points if abs(p[1]) > TIE]
    for (s0, d0, _), (s1, d1, after) in pairwise(apart):
        if d0 * d1 >= 0:
            continue
        level = [s for s, _, _ in points if s0 < s < s1]  # measured, and equal there
        sigma = float(np.mean(level)) if level else s0 + (s1 - s0) * d0 / (d0 - d1)
        up, down = (small, large) if d1 > 0 else (large, small)
        difference = summary.difference(up, down, key, after)
        evidence = ""
        if difference:
            interval, lead = interval_text(difference, 1, 100), 100 * difference.mean
            unsure = " (includes zero)" if interval and difference.low <= 0 <= difference.high else ""
            evidence = (f"; at σ {_short(s1)} it leads by {number(lead, decimals(lead, least=1))} points"
                        f"{' ' + interval if interval else ''}{unsure}, {seeds_text(difference.n_seeds)}")
        found.append(Crossover(sigma, f"{up.label} over {down.label}",
                               f"The means of {small.label} and {large.label} cross at σ ≈ {sigma:.2g}: beyond it "
                               f"that of {up.label} is higher{evidence}."))
    return found
