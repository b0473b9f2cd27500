"""Intervals over items, each of the kind that its measure allows.

Means of per-item scores are bootstrapped, teacher and student paired. Spectra, CKA and neighbour measures are not:
duplicated rows bias them (a teacher's rank lay outside every bootstrap draw), so groups of items are left out instead.
None of this says anything of other seeds; seeds are the unit of replication of a study.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np

from distillscope.draws import keyed_rng
from distillscope.measure import tolerances
from distillscope.measure.results import NotMeasured

Name = TypeVar("Name")
RESAMPLES = 1000
MOST_SCORES = 5000


def bootstrap_interval(statistic: Callable[..., float], scores: Sequence[np.ndarray], *, items: np.ndarray | None = None,
                       level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """Percentile interval of ``statistic(*scores)``, a function of means, resampling items of all ``scores`` together.

    More than 5,000 items are first averaged in random blocks of equal size, which leaves the variance of a mean as it is.
    ``items`` (n,) says which scores are of one item and are drawn together; each is its own item otherwise. The order of the
    items makes no difference.

    >>> low, high = bootstrap_interval(lambda x: x.mean(), [np.tile([0.0, 1.0], 200)])
    >>> 0.44 < low < 0.47 and 0.53 < high < 0.56
    True
    """
    tail = (1 - level) / 2
    if items is not None:
        return _interval(statistic, _drawn_together(scores, items, resamples, seed), tail)
    numbers = [np.asarray(s, np.float64) for s in scores]
    order = np.lexsort(numbers)  # items of equal scores are all one
    blocks = _averaged([s[order] for s in numbers], seed)
    rng = keyed_rng(seed, "bootstrap")
    count = len(blocks[0])
    indices = (rng.integers(0, count, count) for _ in range(resamples))
    return _interval(statistic, ([b[index] for b in blocks] for index in indices), tail)


def _interval(statistic: Callable[..., float], drawn: Iterable[Sequence[np.ndarray]], tail: float) -> tuple[float, float]:
    def of(scores: Sequence[np.ndarray]) -> float:
        try:
            return statistic(*scores)
        except NotMeasured:  # a draw may lack what the items have: a teacher that is right on any of them
            return np.nan

    draws = np.array([of(scores) for scores in drawn])
    low, high = np.quantile(draws[np.isfinite(draws)], [tail, 1 - tail])
    return float(low), float(high)


def _drawn_together(scores: Sequence[np.ndarray], items: np.ndarray, resamples: int, seed: int) -> Iterator[list[np.ndarray]]:
    """The mean of each of ``scores`` over items drawn with replacement, each with all of its rows."""
    number = np.unique(items, return_inverse=True)[1]
    number = number % min(number.max() + 1, MOST_SCORES)  # items drawn in blocks, where there are many
    sums = [np.bincount(number, np.asarray(s, np.float64)) for s in scores]
    sizes, rng = np.bincount(number).astype(np.float64), keyed_rng(seed, "bootstrap")
    for _ in range(resamples):
        times = np.bincount(rng.integers(0, len(sizes), len(sizes)), minlength=len(sizes))
        yield [np.array([times @ s / (times @ sizes)]) for s in sums]


def independent_count(items: np.ndarray) -> float:
    """How many independent scores scores of repeated ``items`` (n,) amount to: n^2 / sum of squared sizes (Kish 1965).

    >>> independent_count(np.repeat(np.arange(80), 5)), independent_count(np.arange(7))
    (80.0, 7.0)
    """
    sizes = np.bincount(np.unique(items, return_inverse=True)[1]).astype(np.float64)
    return float(sizes.sum() ** 2 / np.square(sizes).sum())


def _averaged(scores: list[np.ndarray], seed: int) -> list[np.ndarray]:
    """At most 5,000 block means of each, of the same items; the few that fill no block are left to the point estimate.

    Neighbours in a file are often of one class: blocks of them would differ by what classes differ, by far too much.
    """
    count = len(scores[0])
    size = -(-count // MOST_SCORES)
    if size == 1:
        return scores
    chosen = keyed_rng(seed, "bootstrap blocks").permutation(count)[: count // size * size]
    return [s[chosen].reshape(-1, size).mean(axis=1) for s in scores]


def mean_interval(scores: np.ndarray, *, level: float = 0.95) -> tuple[float | None, float | None]:
    """Student's t interval of the mean of independent ``scores`` (n,); none where there is one score.

    >>> [round(v, 3) for v in mean_interval(np.array([1.0, 2.0, 3.0]))]
    [-0.484, 4.484]
    """
    from scipy.special import stdtrit

    if len(scores) < 2:
        return None, None
    mean, error = float(np.mean(scores)), float(np.std(scores, ddof=1) / np.sqrt(len(scores)))
    reach = float(stdtrit(len(scores) - 1, (1 + level) / 2)) * error
    return mean - reach, mean + reach


def jackknife_interval(value: float, left_out: Sequence[float], *, level: float = 0.95) -> tuple[float, float]:
    """``value`` -+ t times the delete-a-group jackknife standard error, from its values with each group left out.

    se^2 = (g - 1) / g * sum (value_g - mean)^2 over g groups of equal size drawn at random (Shao & Tu 1995, chapter 2),
    and t has g - 1 degrees of freedom.
    """
    from scipy.special import stdtrit

    reach = float(stdtrit(len(left_out) - 1, (1 + level) / 2) * jackknife_error(left_out))
    return float(value - reach), float(value + reach)


def jackknife_error(left_out: Sequence[float]) -> float:
    """The delete-a-group jackknife standard error, from the values with each of g groups left out."""
    values = np.asarray(left_out, np.float64)
    groups = len(values)
    return float(np.sqrt((groups - 1) / groups * np.square(values - values.mean()).sum()))


SHARE = (0.0, 1.0)
REACH = {"share": SHARE, "R2": (-np.inf, 1.0), "correlation": (-1.0, 1.0), "cosine": (-1.0, 1.0), "degrees": (0.0, 90.0),
         "nats": (0.0, np.inf), "log kernel": (-8.0, 0.0)}
"""Unit -> the least and the most that a measure in it can be."""


def possible(ends: tuple[float | None, float | None], value: float, scores: Sequence[np.ndarray], reach: tuple[float, float],
             count: int, ratio: bool = False) -> tuple[float | None, float | None]:
    """An interval without values out of ``reach``, and with a width where ``scores`` left a share none at 0 or at 1.

    No spread among ``count`` items is not certainty: there, a share that is the mean of its only ``scores`` has Wilson's
    interval, and a ``ratio`` of two shares of right (n,) items that of Bonett & Price; a ratio of anything else has none.

    >>> possible((0.97, 1.01), 0.99, [], SHARE, 100), possible((1.0, 1.0), 1.0, [np.ones(4)], SHARE, 100)[0] < 0.97
    ((0.97, 1.0), True)
    """
    low, high = ends
    if low is None or high is None:
        return ends
    flat = reach == SHARE and high - low < tolerances.REORDERED
    if flat and ratio:
        if len(scores) != 2 or any(s.dtype != bool for s in scores):
            return None, None
        low, high = retention_interval(*scores)
    elif flat and len(scores) == 1 and (np.abs(scores[0] - round(value)) < tolerances.REORDERED).all():
        low, high = map(float, wilson_ends(np.float64(round(value)), np.float64(count)))
    least, most = reach
    if value > least - tolerances.REORDERED:
        low = max(low, min(least, value))
    if value < most + tolerances.REORDERED and not ratio:
        high = min(high, max(most, value))
    return low, high


def dependent_interval(correct: np.ndarray, left_out: Sequence[float], *, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of the share of true entries in ``correct`` (n,), whose entries depend on one another.

    The jackknife's error, from the shares with each group left out, says how many independent entries the n amount to: at
    most n, and n where all or none are true, which leaves nothing to estimate an error from.

    >>> correct = np.arange(100) < 80
    >>> dependent_interval(correct, [0.8] * 10) == wilson_interval(correct)
    True
    """
    share, error = float(np.mean(correct)), jackknife_error(left_out)
    count = float(len(correct))
    if 0 < share < 1 and error > 0:
        count = min(count, share * (1 - share) / error**2)
    return wilson_interval(correct, level=level, count=count)


def dependent_difference(first: np.ndarray, second: np.ndarray, left_out: Sequence[float], *,
                         level: float = 0.95) -> tuple[float, float]:
    """Interval of the mean of ``first`` (n,) less that of ``second`` (n,), whose entries from 0 to 1 depend on one another.

    The jackknife's, from the differences with each group left out, and at least that of Agresti & Min (2005) for independent
    pairs: the jackknife has no width where nothing differs.

    >>> [round(v, 3) for v in dependent_difference(np.ones(100, bool), np.ones(100, bool), [0.0] * 10)]
    [-0.019, 0.019]
    """
    from scipy.special import ndtri

    apart, n = np.asarray(first, np.float64) - second, len(first) + 2
    middle = apart.sum() / n
    reach = float(ndtri((1 + level) / 2)) * np.sqrt(((np.square(apart).sum() + 1) / n - middle**2) / n)
    low, high = jackknife_interval(float(apart.mean()), left_out, level=level)
    return max(-1.0, min(low, float(middle - reach))), min(1.0, max(high, float(middle + reach)))


def wilson_interval(correct: np.ndarray, *, level: float = 0.95, count: float | None = None) -> tuple[float, float]:
    """Wilson's interval of the share of true entries in ``correct`` (n,): the bootstrap has no width at 0 and 1.

    ``count`` is the number of independent entries where that is not n.

    >>> [round(v, 3) for v in wilson_interval(np.ones(10, bool))]
    [0.722, 1.0]
    """
    low, high = wilson_ends(np.mean(correct), np.float64(count or len(correct)), level)
    return float(low), float(high)


def wilson_ends(share: np.ndarray, n: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Both ends (k,) of Wilson's interval of each ``share`` (k,) of ``n`` (k,) items."""
    from scipy.special import ndtri

    z = float(ndtri((1 + level) / 2))
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return np.maximum(0.0, centre - reach), np.minimum(1.0, centre + reach)


def ratio_ends(both: np.ndarray, lost: np.ndarray, won: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Both ends (k,) of the interval of a ratio of paired shares: (both + won) / (both + lost), each (k,) a number of items.

    Wilson's intervals of both shares, narrowed by what they have in common (Bonett & Price 2006). The upper end is infinite
    where the lower share may be 0, as where ``both`` and ``lost`` are.

    >>> [np.round(v, 3).item() for v in ratio_ends(np.array(80.0), np.array(10.0), np.array(0.0))]
    [0.825, 0.958]
    """
    from scipy.special import ndtri

    n, after, before = both + lost + won, both + won, both + lost
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.sqrt((lost + won + 2) / ((after + 1) * (before + 1)))
        apart = sum(np.sqrt((1 - (m + 1) / (n + 2)) / (m + 1)) for m in (after, before))
        z = spread / apart * float(ndtri((1 + level) / 2))
        reach = [z * np.sqrt(z**2 + 4 * m * (1 - m / n)) for m in (after, before)]
        low, high = ((2 * after + z**2 + sign * reach[0]) / (2 * (n + z**2)) for sign in (-1, 1))
        least, most = ((2 * before + z**2 + sign * reach[1]) / (2 * (n + z**2)) for sign in (-1, 1))
        return np.where(n > 0, low / most, 0.0), np.where((n > 0) & (least > 0), high / least, np.inf)


def retention_interval(after: np.ndarray, before: np.ndarray, *, level: float = 0.95,
                       count: float | None = None) -> tuple[float, float]:
    """Interval of the share right in ``after`` (n,) over that in ``before`` (n,), two boolean arrays of the same items.

    That of `ratio_ends`: with few items that differ, as of a good student, a bootstrap covers 0.8 where it says 0.95.
    ``count`` is the number of independent items where that is not n.

    >>> [round(v, 3) for v in retention_interval(np.arange(100) < 80, np.arange(100) < 90)]
    [0.825, 0.958]
    """
    cells = (after & before, ~after & before, after & ~before)
    scale = (count or len(after)) / len(after)
    both, lost, won = (np.float64(scale * np.count_nonzero(cell)) for cell in cells)
    low, high = ratio_ends(both, lost, won, level)
    return float(low), float(high)


def loss_interval(before: np.ndarray, after: np.ndarray, *, level: float = 0.95,
                  count: float | None = None) -> tuple[float, float]:
    """Interval of the share right in ``before`` (n,) less that in ``after`` (n,), two boolean arrays of the same items.

    Agresti & Min (2005): Wald's interval of paired proportions with half an item added to each of the four cells, so that it
    has a width where no item changed. ``count`` is the number of independent items where that is not n.

    >>> [round(v, 3) for v in loss_interval(np.ones(100, bool), np.arange(100) >= 10)]
    [0.037, 0.159]
    """
    from scipy.special import ndtri

    n = (count or len(before)) + 2
    lost, won = ((n - 2) * float(np.mean(a & ~b)) + 0.5 for a, b in ((before, after), (after, before)))
    middle = (lost - won) / n
    reach = float(ndtri((1 + level) / 2)) * np.sqrt((lost + won) / n - middle**2) / np.sqrt(n)
    return max(-1.0, float(middle - reach)), min(1.0, float(middle + reach))


def mcnemar_p(first: np.ndarray, second: np.ndarray, items: np.ndarray | None = None) -> float:
    """Exact two-sided McNemar p of two boolean arrays (n,) of correct answers on the same items.

    Rows of one of ``items`` (n,) are one answer: for the side that is right on more of them.

    >>> mcnemar_p(np.array([True] * 6), np.array([False] * 6))
    0.03125
    """
    from scipy.stats import binomtest

    lead = np.asarray(first, np.int64) - np.asarray(second, np.int64)
    if items is not None:
        lead = np.bincount(np.unique(items, return_inverse=True)[1], lead)
    only_first, only_second = int((lead > 0).sum()), int((lead < 0).sum())
    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second, 0.5).pvalue)


def holm(ps: Mapping[Name, float]) -> dict[Name, float]:
    """Holm's step-down adjusted p of each name: the family-wise error stays below alpha whatever the dependence.

    >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
    {'a': 0.03, 'c': 0.06, 'b': 0.06}
    """
    ordered = sorted(ps, key=lambda k: ps[k])
    steps = [min(1.0, (len(ordered) - i) * ps[k]) for i, k in enumerate(ordered)]
    return dict(zip(ordered, itertools.accumulate(steps, max), strict=True))
