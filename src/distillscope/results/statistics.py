"""Tests on one number per seed: paired t, Welch, sameness, sign flips, Holm, and what n seeds could have shown.

Seeds are the unit of replication. A contrast is a mean over seeds with its standard error and degrees of freedom; every
interval and p of this file follows from these three by Student's t.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.ArrayLike
"""One number per seed (n,): a list, an array or a column of a table."""
ALPHA, POWER = 0.05, 0.8
MOST_FLIPS = 20
"""Seeds up to which all sign flips are counted one by one (2^20)."""


@dataclass(frozen=True)
class Contrast:
    """A mean over seeds (or a difference of two), its standard error, degrees of freedom, and the test it stands for.

    ``n`` counts the seeds: of the pairs, or of the smaller side where unpaired. ``values`` are the per-seed numbers of a
    paired contrast, and empty for an unpaired one.
    """

    mean: float
    error: float
    df: float
    n: int
    test: str
    values: tuple[float, ...] = ()

    @property
    def std(self) -> float:
        """Sample standard deviation of the paired values; of an unpaired difference, error * sqrt(n)."""
        return self.error * math.sqrt(self.n)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Student's t interval of the mean; NaN where every seed gave the same number, which tells nothing of their spread.

        >>> low, high = paired([15.0, 16.0, 17.0]).interval()
        >>> round(low, 3), round(high, 3)
        (13.516, 18.484)
        """
        from scipy.special import stdtrit

        if self.error == 0:
            return math.nan, math.nan
        reach = float(stdtrit(self.df, (1 + level) / 2)) * self.error
        return self.mean - reach, self.mean + reach

    def p_above(self, bound: float = 0.0) -> float:
        """One-sided p of the hypothesis that the mean is at most ``bound``: small where it is shown to lie above.

        Where every seed gave the same number the spread is unknown, not 0 (shares of few items often agree by chance), and p is
        that of sign flips: n numbers on one side of ``bound`` happen once in 2^n.

        >>> paired([0.1, 0.1, 0.1]).p_above(0)
        0.125
        """
        from scipy.special import stdtr  # what scipy.stats.t calls, without the second that importing that takes

        if self.error == 0:
            return 0.5 if self.mean == bound else 0.5**self.n if self.mean > bound else 1 - 0.5**self.n
        return float(stdtr(self.df, -(self.mean - bound) / self.error))

    def p_below(self, bound: float = 0.0) -> float:
        """One-sided p of the hypothesis that the mean is at least ``bound``."""
        return 1 - self.p_above(bound) if self.error == 0 else (-self).p_above(-bound)

    def p(self, bound: float = 0.0) -> float:
        """Two-sided p of the hypothesis that the mean is ``bound``.

        >>> from scipy.stats import ttest_1samp
        >>> x = [1.0, 2.0, 4.0, 3.0, 2.5]
        >>> bool(np.isclose(paired(x).p(1.0), ttest_1samp(x, 1.0).pvalue))
        True
        """
        return min(1.0, 2 * min(self.p_above(bound), self.p_below(bound)))

    def __neg__(self) -> Contrast:
        return Contrast(-self.mean, self.error, self.df, self.n, self.test, tuple(-v for v in self.values))


def half_width(std: Any, n: int, level: float = 0.95) -> Any:
    """Half of Student's t interval of a mean over ``n`` values of sample standard deviation ``std`` (a number or an array).

    >>> round(half_width(1.0, 3), 3)
    2.484
    """
    return _quantile((1 + level) / 2, n - 1) * std / math.sqrt(n)


@functools.cache
def _quantile(share: float, degrees: int) -> float:
    """Student's t below which ``share`` lies."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, share))


def paired(differences: Numbers, test: str = "paired t") -> Contrast:
    """The contrast of per-seed differences (n,): a one-sample t with n - 1 degrees of freedom. Needs two seeds.

    >>> paired([1.0, 2.0, 3.0]).mean
    2.0
    """
    x = np.asarray(differences, np.float64)
    if len(x) < 2 or not np.isfinite(x).all():
        raise ValueError("a paired contrast needs two finite differences or more")
    # the mean of equal numbers may differ from them in the last digit, which would be a spread that is not there
    error = 0.0 if np.ptp(x) == 0 else float(x.std(ddof=1)) / math.sqrt(len(x))
    return Contrast(float(x.mean()), error, len(x) - 1, len(x), test, tuple(x.tolist()))


def welch(first: Numbers, second: Numbers) -> Contrast:
    """The contrast of two independent groups of seeds, mean(first) - mean(second), with unequal variances (Welch 1947)."""
    x, y = np.asarray(first, np.float64), np.asarray(second, np.float64)
    return welch_from_summaries(float(x.mean()), float(x.std(ddof=1)), len(x), float(y.mean()), float(y.std(ddof=1)), len(y))


def welch_from_summaries(mean: float, std: float, n: int, other_mean: float, other_std: float, other_n: int, *,
                         population: bool = False) -> Contrast:
    """The same from published means and standard deviations; ``population`` where those divide by n, not n - 1.

    Papers seldom say which: NumPy's default is the population's. arXiv:2603.06698, sigma 0.1, S against L:

    >>> found = welch_from_summaries(54.84, 3.73, 3, 43.76, 6.10, 3, population=True)
    >>> round(found.mean, 2), round(found.p(), 3)
    (11.08, 0.108)
    """
    if n < 2 or other_n < 2:
        raise ValueError("Welch's test needs two seeds or more on both sides")
    scale = (n / (n - 1), other_n / (other_n - 1)) if population else (1.0, 1.0)
    a, b = scale[0] * std**2 / n, scale[1] * other_std**2 / other_n
    df = (a + b) ** 2 / (a**2 / (n - 1) + b**2 / (other_n - 1)) if a + b > 0 else n + other_n - 2
    return Contrast(mean - other_mean, math.sqrt(a + b), df, min(n, other_n), "Welch's t")


def tost(differences: Numbers, margins: Numbers) -> float:
    """p of two one-sided paired t tests for sameness: the larger p of mean > -margin and mean < margin.

    ``margins`` is one number, or one per seed where the margin is a share of that seed's reference: the tests are then
    on differences + margins and margins - differences, so that the reference's own spread counts (Schuirmann 1987).

    >>> x = [0.1, -0.2, 0.0, 0.2, -0.1]
    >>> tost(x, 1.0) < 0.001 < 0.2 < tost(x, 0.05)
    True
    """
    d = np.asarray(differences, np.float64)
    m = np.broadcast_to(np.asarray(margins, np.float64), d.shape)
    if (m <= 0).any():
        raise ValueError("a margin of sameness is above 0")
    return max(paired(d + m).p_above(), paired(m - d).p_above())


def sign_flip_p(differences: Numbers, bound: float = 0.0) -> float:
    """Exact two-sided p of the mean under all 2^n sign flips of differences - bound: no normality, at least 2 / 2^n.

    >>> sign_flip_p([1.0, 2.0, 3.0])
    0.25
    """
    d = np.asarray(differences, np.float64) - bound
    if not 1 <= len(d) <= MOST_FLIPS:
        raise ValueError(f"sign flips are counted for 1 to {MOST_FLIPS} seeds")
    sums = np.zeros(1)
    for value in d:
        sums = np.concatenate([sums + value, sums - value])
    seen = abs(d.sum())
    return float(np.mean(np.abs(sums) >= seen - 1e-12 * max(1.0, np.abs(d).sum())))


def all_pairs(ps: Mapping[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    """Shaffer's (1986) adjusted p of every pair of k arms: Holm's, sharpened by what can be true at once.

    Once one pair differs, not all of the others can be equal: with k arms at most (k - 1)(k - 2) / 2 of them. The family-wise
    error over all pairs stays below alpha whatever the dependence, so that arms may be picked by their outcome.

    >>> all_pairs({("a", "b"): 0.01, ("a", "c"): 0.03, ("b", "c"): 0.02})
    {('a', 'b'): 0.03, ('b', 'c'): 0.03, ('a', 'c'): 0.03}
    """
    arms = len({name for pair in ps for name in pair})
    possible = sorted(_true_pairs(arms))
    ordered = sorted(ps, key=lambda pair: ps[pair])
    times = [possible[bisect.bisect_right(possible, len(ps) - i) - 1] for i in range(len(ps))]
    least = (min(1.0, t * ps[pair]) for t, pair in zip(times, ordered, strict=True))
    return dict(zip(ordered, itertools.accumulate(least, max), strict=True))


@functools.cache
def _true_pairs(arms: int) -> frozenset[int]:
    """How many of the pairs of so many arms can be equal: the arms fall into groups of equals.

    >>> sorted(_true_pairs(4))
    [0, 1, 2, 3, 6]
    """
    if arms < 2:
        return frozenset({0})
    return frozenset(size * (size - 1) // 2 + rest for size in range(1, arms + 1) for rest in _true_pairs(arms - size))


def power_of(effect: float, std: float, n: int, *, alpha: float = ALPHA) -> float:
    """Chance that a two-sided paired t over ``n`` seeds shows a true mean of ``effect`` with per-seed ``std``.

    From the noncentral t with n - 1 degrees of freedom and noncentrality effect sqrt(n) / std.

    >>> round(power_of(1.0, 1.0, 10), 3)
    0.803
    """
    from scipy.special import stdtrit
    from scipy.stats import nct

    if n < 2:
        return 0.0
    if std == 0:
        return 1.0 if effect else alpha
    reach, shift = float(stdtrit(n - 1, 1 - alpha / 2)), abs(effect) * math.sqrt(n) / std
    # far in the tail SciPy's noncentral t gives NaN for the wrong-way part, which is then nothing
    wrong = float(nct.cdf(-reach, n - 1, shift))
    return float(nct.sf(reach, n - 1, shift)) + (wrong if math.isfinite(wrong) else 0.0)


def smallest_effect(std: float, n: int, *, alpha: float = ALPHA, power: float = POWER) -> float:
    """The smallest mean that ``n`` seeds of per-seed ``std`` show with that power: what a null result can exclude.

    >>> round(smallest_effect(1.0, 10), 3), round(smallest_effect(1.0, 5), 3)
    (0.996, 1.682)
    """
    from scipy.optimize import brentq

    if n < 2 or not math.isfinite(std):
        return math.inf
    if std == 0:
        return 0.0
    top = 1.0
    while power_of(top, 1.0, n, alpha=alpha) < power:
        top *= 2
    return std * float(brentq(lambda e: power_of(e, 1.0, n, alpha=alpha) - power, 0, top, xtol=1e-10))


def seeds_for(effect: float, std: float, *, alpha: float = ALPHA, power: float = POWER, most: int = 1000) -> int | None:
    """How many paired seeds would show ``effect`` with that power; None where ``most`` would not.

    >>> seeds_for(1.0, 1.0), seeds_for(2.0, 1.0)
    (10, 5)
    """
    counts = range(2, most + 1)  # power grows with n
    place = bisect.bisect_left(counts, power, key=lambda n: power_of(effect, std, n, alpha=alpha))
    return counts[place] if place < len(counts) else None
