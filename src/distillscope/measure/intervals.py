"""Intervals over items, each of the kind that its measure allows.

Means of per-item scores are bootstrapped, teacher and student paired. Spectra, CKA and neighbour measures are not:
duplicated rows bias them (a teacher's rank lay outside every bootstrap draw), so groups of items are left out instead.
None of this says anything of other seeds; seeds are the unit of replication of a study.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from distillscope.draws import keyed_rng

RESAMPLES = 1000
MOST_SCORES = 5000


def bootstrap_interval(statistic: Callable[..., float], scores: Sequence[np.ndarray], *, level: float = 0.95,
                       resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """Percentile interval of ``statistic(*scores)``, a function of means, resampling items of all ``scores`` together.

    More than 5,000 items are first averaged in blocks of equal size, which leaves the variance of a mean as it is.

    >>> low, high = bootstrap_interval(lambda x: x.mean(), [np.tile([0.0, 1.0], 200)])
    >>> 0.44 < low < 0.47 and 0.53 < high < 0.56
    True
    """
    blocks = [_averaged(np.asarray(s, np.float64)) for s in scores]
    rng = keyed_rng(seed, "bootstrap")
    count = len(blocks[0])
    draws = np.array([statistic(*(b[index] for b in blocks))
                      for index in (rng.integers(0, count, count) for _ in range(resamples))])
    tail = (1 - level) / 2
    return tuple(float(v) for v in np.quantile(draws[np.isfinite(draws)], [tail, 1 - tail]))


def _averaged(scores: np.ndarray) -> np.ndarray:
    """At most 5,000 block means; the few items that fill no block are left to the point estimate."""
    size = -(-len(scores) // MOST_SCORES)
    whole = len(scores) // size * size
    return scores[:whole].reshape(-1, size).mean(axis=1)


def mean_interval(scores: np.ndarray, *, level: float = 0.95) -> tuple[float | None, float | None]:
    """Student's t interval of the mean of independent ``scores`` (n,); none where there is one score.

    >>> [round(v, 3) for v in mean_interval(np.array([1.0, 2.0, 3.0]))]
    [-0.484, 4.484]
    """
    from scipy.stats import t

    if len(scores) < 2:
        return None, None
    mean, error = float(np.mean(scores)), float(np.std(scores, ddof=1) / np.sqrt(len(scores)))
    reach = float(t.ppf((1 + level) / 2, len(scores) - 1)) * error
    return mean - reach, mean + reach


def jackknife_interval(value: float, left_out: Sequence[float], *, level: float = 0.95) -> tuple[float, float]:
    """``value`` -+ t times the delete-a-group jackknife standard error, from its values with each group left out.

    se^2 = (g - 1) / g * sum (value_g - mean)^2 over g groups of equal size drawn at random (Shao & Tu 1995, chapter 2),
    and t has g - 1 degrees of freedom.
    """
    from scipy.stats import t

    left_out = np.asarray(left_out, np.float64)
    groups = len(left_out)
    error = np.sqrt((groups - 1) / groups * np.square(left_out - left_out.mean()).sum())
    reach = float(t.ppf((1 + level) / 2, groups - 1) * error)
    return float(value - reach), float(value + reach)


def wilson_interval(correct: np.ndarray, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of the share of true entries in ``correct`` (n,): the bootstrap has no width at 0 and 1.

    >>> [round(v, 3) for v in wilson_interval(np.ones(10, bool))]
    [0.722, 1.0]
    """
    from scipy.stats import norm

    n, share, z = len(correct), float(np.mean(correct)), float(norm.ppf((1 + level) / 2))
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, float(centre - reach)), min(1.0, float(centre + reach))


def mcnemar_p(first: np.ndarray, second: np.ndarray) -> float:
    """Exact two-sided McNemar p of two boolean arrays (n,) of correct answers on the same items.

    >>> mcnemar_p(np.array([True] * 6), np.array([False] * 6))
    0.03125
    """
    from scipy.stats import binomtest

    only_first, only_second = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second, 0.5).pvalue)
