"""Measures of one side that compare pairs of its items, on a subsample of at most 4,096 drawn without replacement."""

from __future__ import annotations

import numpy as np

from distillscope.measure.quantity import NotMeasured
from distillscope.registry import measures

DISCARDED = 0.1
FEWEST = 10


def kernel_sums(unit_rows: np.ndarray, groups: np.ndarray, num_groups: int) -> np.ndarray:
    """Sums (g, g) of exp(-2 |z_i - z_j|^2) over pairs i != j of unit rows (n, d), by the groups (n,) of i and of j."""
    member = np.eye(num_groups)[groups]
    sums = np.zeros((num_groups, num_groups))
    for start in range(0, len(unit_rows), 1024):
        kernel = np.exp(4 * (unit_rows[start : start + 1024] @ unit_rows.T).clip(-1, 1) - 4)
        rows = np.arange(len(kernel))
        kernel[rows, start + rows] = 0  # no self-pairs
        sums += member[start : start + 1024].T @ (kernel @ member)
    return sums


@measures.register("uniformity", unit="log kernel", group="spectrum", interval="jackknife", n="sample_count")
def uniformity(kernel_sum: float, sample_count: int) -> float:
    """Uniformity: log mean exp(-2 |z_i - z_j|^2) over pairs i != j of unit rows (Wang & Isola 2020).

    0 where all rows are one point, about -4 where they are spread evenly over a sphere of many dimensions; two opposite
    points have the least value, -8. ``kernel_sum`` is the sum over ordered pairs.

    >>> opposite = np.array([[1.0, 0.0], [-1.0, 0.0]])
    >>> round(uniformity(kernel_sums(opposite, np.array([0, 0]), 1).sum(), 2), 12)
    -8.0
    """
    return float(np.log(kernel_sum / (sample_count * (sample_count - 1))))


@measures.register("duplicates", unit="share", group="spectrum", n="sample_count")
def duplicates(sample_count: int, distinct_count: int) -> float:
    """Share of the sampled rows that repeat another sampled row exactly; TwoNN leaves the repeats out."""
    return 1 - distinct_count / sample_count


@measures.register("twonn_dimension", unit="dims", group="spectrum", interval="jackknife", n="distinct_count")
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
