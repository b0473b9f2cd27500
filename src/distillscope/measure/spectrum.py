"""Measures of one side: how many directions the embeddings use, and how its items lie to one another.

Throughout, s are the singular values of the centred embeddings and ``eigenvalues`` are s^2 in descending order (the
eigenvalues of the centred scatter matrix). Every rank is biased low by small N: for isotropic data it reads about
d exp(-d / (2 (N - 1))).
"""

from __future__ import annotations

import numpy as np

from distillscope.measure import tolerances
from distillscope.measure.results import NotMeasured, Points
from distillscope.measure.threads import over_blocks
from distillscope.registry import curves, measures

ALL_EQUAL = "all embeddings are equal, so there is no variance to measure"
"""Why a collapsed side has no rank."""


def entropy_rank(weights: np.ndarray) -> float:
    """exp of the entropy of ``weights`` (k,) >= 0 scaled to sum one; 0 log 0 is 0.

    >>> round(entropy_rank([1, 1, 1, 0]), 12)
    3.0
    """
    weights = np.asarray(weights, np.float64)
    total = weights.sum()
    if not total > 0:
        raise NotMeasured(ALL_EQUAL)
    p = weights[weights > 0] / total
    return float(np.exp(-(p * np.log(p)).sum()))


def effective_rank_from_singular_values(s: np.ndarray) -> float:
    """Effective rank of singular values ``s`` (k,), with p = s^2 / sum s^2: for a spectrum averaged over seeds.

    >>> round(effective_rank_from_singular_values([2, 2, 0]), 12)
    2.0
    """
    return entropy_rank(np.square(np.asarray(s, np.float64)))


def dims_for_share(s: np.ndarray, share: float) -> int:
    """The first k whose largest singular values ``s`` hold ``share`` of sum s^2.

    >>> dims_for_share([3, 1, 0], 0.9), dims_for_share([3, 1, 0], 0.91)
    (1, 2)
    """
    return dims_for_energy(np.sort(np.square(np.asarray(s, np.float64)))[::-1], share)


def dims_for_energy(eigenvalues: np.ndarray, share: float) -> int:
    """The first k for which the k largest ``eigenvalues`` (descending) hold ``share`` of their sum."""
    return int(np.ceil(crossing(eigenvalues, share)))


def crossing(eigenvalues: np.ndarray, share: float) -> float:
    """Where the cumulative sum of ``eigenvalues`` (descending), joined by straight lines, reaches ``share`` of the total.

    >>> crossing(np.array([2.0, 2.0]), 0.25), crossing(np.array([3.0, 1.0]), 0.875)
    (0.5, 1.5)
    """
    total = eigenvalues.sum()
    if not total > 0:
        raise NotMeasured(ALL_EQUAL)
    held = np.cumsum(eigenvalues)
    wanted = share * total
    # the slack keeps a share that is met exactly from being missed by a rounding error
    k = int(np.argmax(held >= wanted * (1 - 16 * tolerances.EPSILON)))
    return k + min(1.0, 1 - float((held[k] - wanted) / eigenvalues[k]))


def eigenvalues_of(z: np.ndarray) -> np.ndarray:
    """Squared singular values (d,) of the centred ``z`` (n, d), descending, for the functions of this file.

    >>> eigenvalues_of(np.array([[1.0, 0.0], [-1.0, 0.0]])).tolist()
    [2.0, 0.0]
    """
    from distillscope.measure.rows import moments

    return np.linalg.eigvalsh(moments(z).scatter)[::-1].clip(min=0)


@measures.register("effective_rank", unit="dims", group="spectrum", interval="jackknife", title="effective rank", digits=2,
                   few=1, better="higher", short="eff. rank",
                   hint="exp of the entropy of p = s²/Σs², centred; mean over seeds")
def effective_rank(eigenvalues: np.ndarray) -> float:
    """Effective rank: exp(-sum p ln p) with p = s^2 / sum s^2 of the centred embeddings.

    Between 1 and min(n - 1, d). Entropy after Roy & Vetterli (2007), who take p = s / sum s; s^2 is arXiv:2603.06698's.

    >>> z = np.random.default_rng(0).normal(size=(4000, 8))
    >>> round(effective_rank(eigenvalues_of(z)))
    8
    """
    return entropy_rank(eigenvalues)


@measures.register("effective_rank_corrected", unit="dims", group="spectrum", interval="jackknife",
                   title="rank, corrected for n", digits=1, better="higher", heading="corrected for N",
                   hint="effective rank with its small-sample bias removed: 2 log R(N) - mean log R(N/2)")
def effective_rank_corrected(eigenvalues: np.ndarray, half_eigenvalues: list, half_counts: list, count: int) -> float:
    """Effective rank with its small-sample bias removed: log R = 2 log R(N) - mean log R(N/2), over two halves.

    The bias of log R is about -c / N, so the line through (1/N, log R) is followed to 1/N = 0; with exact halves that is
    the formula above.
    """
    whole = np.log(entropy_rank(eigenvalues))
    halves = np.mean([np.log(entropy_rank(half)) for half in half_eigenvalues])
    step = (1 / count) / (np.mean([1 / c for c in half_counts]) - 1 / count)
    return float(np.exp(whole + step * (whole - halves)))


@measures.register("effective_rank_by_s", unit="dims", group="spectrum", interval="jackknife", title="effective rank by s",
                   digits=2, few=1, better="higher")
def effective_rank_by_s(eigenvalues: np.ndarray) -> float:
    """Roy & Vetterli's effective rank: exp(-sum p ln p) with p = s / sum s of the centred embeddings.

    Never below ``effective_rank``; never to be put into one table with it.
    """
    return entropy_rank(np.sqrt(eigenvalues))


@measures.register("rankme", unit="dims", group="spectrum", interval="jackknife", title="RankMe", digits=2, few=1,
                   better="higher")
def rankme(uncentred_eigenvalues: np.ndarray, count: int) -> float:
    """RankMe: exp(-sum p ln p) with p = s / sum s + 1e-7 of the embeddings as they are, not centred.

    Garrido et al. (2023), equation 1, over the min(n, d) singular values. Their p does not sum to one, which is kept.
    It compares runs of one method; with a large mean it reads near 1 whatever the data.
    """
    s = np.sqrt(uncentred_eigenvalues[: min(count, len(uncentred_eigenvalues))])
    if not s.sum() > 0:
        raise NotMeasured("all embeddings are zero")
    p = s / s.sum() + tolerances.RANKME
    return float(np.exp(-(p * np.log(p)).sum()))


@measures.register("dims_90", unit="dims", group="spectrum", interval="jackknife",
                   smooth=lambda eigenvalues: crossing(eigenvalues, 0.90), title="dims for 90\u00a0%", digits=1, few=0,
                   better="higher", heading="dims 90 %", short="dims 90 %", hint="components that hold 90 % of the variance")
def dims_90(eigenvalues: np.ndarray) -> int:
    """The fewest principal components that hold 90 % of the centred variance."""
    return dims_for_energy(eigenvalues, 0.90)


@measures.register("dims_95", unit="dims", group="spectrum", interval="jackknife",
                   smooth=lambda eigenvalues: crossing(eigenvalues, 0.95), title="dims for 95\u00a0%", digits=1, few=0,
                   better="higher")
def dims_95(eigenvalues: np.ndarray) -> int:
    """The fewest principal components that hold 95 % of the centred variance."""
    return dims_for_energy(eigenvalues, 0.95)


@measures.register("dims_99", unit="dims", group="spectrum", interval="jackknife",
                   smooth=lambda eigenvalues: crossing(eigenvalues, 0.99), title="dims for 99\u00a0%", digits=1, few=0,
                   better="higher")
def dims_99(eigenvalues: np.ndarray) -> int:
    """The fewest principal components that hold 99 % of the centred variance."""
    return dims_for_energy(eigenvalues, 0.99)


@measures.register("participation_ratio", unit="dims", group="spectrum", interval="jackknife")
def participation_ratio(eigenvalues: np.ndarray) -> float:
    """Participation ratio: (sum s^2)^2 / sum s^4 of the centred embeddings. Never above the effective rank.

    >>> participation_ratio(np.array([1.0, 1.0, 0.0]))
    2.0
    """
    entropy_rank(eigenvalues)  # says so where there is no variance
    return float(eigenvalues.sum() ** 2 / np.square(eigenvalues).sum())


@measures.register("stable_rank", unit="dims", group="spectrum", interval="jackknife")
def stable_rank(eigenvalues: np.ndarray) -> float:
    """Stable rank: sum s^2 / s_1^2 of the centred embeddings (Rudelson & Vershynin 2007)."""
    entropy_rank(eigenvalues)
    return float(eigenvalues.sum() / eigenvalues[0])


@measures.register("algebraic_rank", unit="dims", group="spectrum")
def algebraic_rank(eigenvalues: np.ndarray, resolved_rank: int | None = None) -> int:
    """The number of s^2 of the centred embeddings that exceed rounding, in float64 and in the file's own precision.

    Above 1e-12 of the largest, which is what a float64 scatter can tell from zero, and among the leading ``resolved_rank``
    that the precision of the stored values can (`rounding_energy`).

    >>> algebraic_rank(np.array([4.0, 1.0, 1e-13])), algebraic_rank(np.array([4.0, 1.0, 1e-6]), 2)
    (2, 2)
    """
    entropy_rank(eigenvalues)
    told = int((eigenvalues > tolerances.RANK * eigenvalues[0]).sum())
    return told if resolved_rank is None else min(told, resolved_rank)


def rounding_energy(energy: np.ndarray, count: int, precision: str, scale: float = 1.0) -> np.ndarray:
    """What rounding to ``precision`` adds to the scatter: the squared errors (d,) expected at most in each dimension.

    ``energy`` (d,) is each dimension's sum of squares over ``count`` rows, the mean included. Rounding errs evenly by up to
    u |x|, so by u^2 x^2 / 3 in the mean of squares, and by the smallest number where x is below the normal range; ``scale`` is
    what the rows were multiplied by after they were rounded.
    """
    smallest = scale * tolerances.SMALLEST[precision]
    return tolerances.ROUNDOFF[precision] ** 2 / 3 * energy + count * smallest**2 / 12


@measures.register("spectral_decay", unit="exponent", group="spectrum", interval="jackknife")
def spectral_decay(eigenvalues: np.ndarray, resolved_rank: int | None = None) -> float:
    """Spectral decay alpha: s_k^2 falls as k^-alpha, by least squares in log-log weighted by 1/k.

    The fit is Stringer et al. (2019)'s: components 11 to 500 where there are at least 40, else all of them. alpha near 1
    is the smooth, high-dimensional code of their theory; a flat spectrum has 0. It ends where the spectrum does: at the
    algebraic rank, or at a step to less than a thousandth, below which lies a noise floor and no part of the power law.

    >>> round(spectral_decay(np.arange(1.0, 101) ** -1.5), 9)
    1.5
    >>> round(spectral_decay(np.append(np.arange(1.0, 101) ** -1.5, [1e-9] * 20)), 9)
    1.5
    """
    rank = algebraic_rank(eigenvalues, resolved_rank)
    steps = np.flatnonzero(eigenvalues[1:rank] < tolerances.STEP * eigenvalues[: rank - 1])
    rank = int(steps[steps >= 2][0]) + 1 if (steps >= 2).any() else rank
    if rank < 3:
        raise NotMeasured(f"a decay needs three components, and the embeddings have {rank}")
    first, last = (10, min(rank, 500)) if rank >= 40 else (0, rank)
    k = np.arange(first + 1, last + 1, dtype=np.float64)
    slope, _ = np.polyfit(np.log(k), np.log(eigenvalues[first:last]), 1, w=np.sqrt(1 / k))
    return float(-slope)


@measures.register("mean_energy", unit="share", group="spectrum", interval="jackknife", title="mean energy", percent=True,
                   better="lower")
def mean_energy(mean: np.ndarray, eigenvalues: np.ndarray, count: int) -> float:
    """The share of the energy sum |z|^2 that is the mean's: n |mean|^2 / sum |z|^2. Between 0 and 1."""
    of_mean = count * float(mean @ mean)
    if not of_mean + eigenvalues.sum() > 0:
        raise NotMeasured("all embeddings are zero")
    return float(of_mean / (of_mean + eigenvalues.sum()))


@measures.register("undersampled", unit="flag", group="spectrum", n="item_count")
def undersampled(item_count: int, dim: int) -> int:
    """1 where n < 2 d, so that every rank of this side is biased low by the sample; else 0. Repeated rows count once."""
    return int(item_count < 2 * dim)


@curves.register("spectrum", unit="singular value", group="spectrum")
def spectrum_curve(eigenvalues: np.ndarray, exponent: int) -> Points:
    """Singular values of the centred embeddings over the component."""
    return Points(np.arange(1, len(eigenvalues) + 1), np.ldexp(np.sqrt(eigenvalues), -exponent))


@curves.register("cumulative_variance", unit="share", group="spectrum")
def cumulative_variance_curve(eigenvalues: np.ndarray) -> Points:
    """Share of the centred variance held by the first k principal components."""
    entropy_rank(eigenvalues)
    return Points(np.arange(1, len(eigenvalues) + 1), np.cumsum(eigenvalues) / eigenvalues.sum())


@curves.register("rank_by_n", unit="dims", group="spectrum")
def rank_by_n_curve(nested_eigenvalues: list, nested_counts: list) -> Points:
    """Effective rank of nested subsamples without replacement, over their size: flat where n suffices."""
    return Points(np.array(nested_counts), np.array([entropy_rank(e) for e in nested_eigenvalues]))


def descending_eigenvalues(scatter: np.ndarray) -> np.ndarray:
    """Eigenvalues of a symmetric positive matrix, descending; rounding below zero is zero."""
    return np.linalg.eigvalsh(scatter)[::-1].clip(min=0)


def padded(values: np.ndarray, count: int) -> np.ndarray:
    """``values`` (k,) with zeros after them: (count,)."""
    return np.pad(values, (0, count - len(values)))


DISCARDED = 0.1
FEWEST = 10
STRIP = 256  # rows whose kernel is held at a time


def kernel_sums(unit_rows: np.ndarray, groups: np.ndarray, num_groups: int) -> np.ndarray:
    """Sums (g, g) of exp(-2 |z_i - z_j|^2) over pairs i != j of unit rows (n, d), by the groups (n,) of i and of j."""
    member = np.eye(num_groups)[groups]
    starts = range(0, len(unit_rows), STRIP)
    sums = np.zeros((len(starts), num_groups, num_groups))

    def strip(number: int, start: int) -> None:
        rows = unit_rows[start : start + STRIP]
        kernel = (rows @ unit_rows[start:].T).clip(-1, 1)  # the pairs before are the same, turned round
        kernel -= 1
        kernel *= 4
        np.exp(kernel, out=kernel)
        kernel[:, : len(rows)][np.tril_indices(len(rows))] = 0  # no self-pairs, and no pair twice
        sums[number] = member[start : start + STRIP].T @ (kernel @ member[start:])

    over_blocks(strip, enumerate(starts))
    half = sums.sum(axis=0)
    return half + half.T


@measures.register("uniformity", unit="log kernel", group="spectrum", interval="jackknife", n="sample_count",
                   title="uniformity", better="lower")
def uniformity(kernel_sum: float, sample_count: int) -> float:
    """Uniformity: log mean exp(-2 |z_i - z_j|^2) over pairs i != j of unit rows (Wang & Isola 2020).

    0 where all rows are one point, about -4 where they are spread evenly over a sphere of many dimensions; two opposite
    points have the least value, -8. ``kernel_sum`` is the sum over ordered pairs.

    >>> opposite = np.array([[1.0, 0.0], [-1.0, 0.0]])
    >>> round(uniformity(kernel_sums(opposite, np.array([0, 0]), 1).sum(), 2), 12)
    -8.0
    """
    return float(np.log(kernel_sum / (sample_count * (sample_count - 1))))


@measures.register("duplicates", unit="share", group="spectrum", n="sample_count", title="duplicates", percent=True)
def duplicates(sample_count: int, distinct_count: int) -> float:
    """Share of the sampled rows that repeat another sampled row exactly; TwoNN leaves the repeats out."""
    return 1 - distinct_count / sample_count


@measures.register("twonn_dimension", unit="dims", group="spectrum", interval="jackknife", n="distinct_count",
                   title="TwoNN dimension", digits=1, better="higher")
def twonn_dimension(two_nearest: np.ndarray) -> float:
    """TwoNN intrinsic dimension: from the ratio of distances to the second and the first neighbour, of distinct rows.

    Facco et al. (2017): -log(1 - F(mu)) = d log mu, fitted through the origin without the largest tenth of mu = r2 / r1.
    ``two_nearest`` (n, 2) holds r1 <= r2. Zero distances raise. Reads low above about 20 dimensions, and
    depends on n, since n sets the scale.
    """
    if len(two_nearest) < FEWEST:
        raise NotMeasured(f"TwoNN needs {FEWEST} distinct rows, and there are {len(two_nearest)}")
    if not two_nearest[:, 0].all():
        raise ValueError("two_nearest holds zero distances: remove duplicate rows first")
    count = len(two_nearest)
    kept = int(count * (1 - DISCARDED))
    log_mu = np.sort(np.log(two_nearest[:, 1] / two_nearest[:, 0]))[:kept]
    if not log_mu.any():
        raise NotMeasured("every row's two nearest neighbours are equally far, so there is no ratio to fit")
    empirical = -np.log1p(-np.arange(1, kept + 1) / count)
    return float((log_mu @ empirical) / (log_mu @ log_mu))
