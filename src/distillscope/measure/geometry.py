"""Measures of one side that compare pairs of its items, on a subsample of at most 4,096 drawn without replacement."""

from __future__ import annotations

import numpy as np

from distillscope.measure.quantity import gives
from distillscope.registry import measures


@measures.register("uniformity")
@gives("log kernel", group="spectrum", interval="jackknife", n="sample_count")
def uniformity(unit_sample: np.ndarray) -> float:
    """Uniformity: log mean exp(-2 |z_i - z_j|^2) over pairs i != j of unit rows (Wang & Isola 2020).

    0 where all rows are one point, about -4 where they are spread over a sphere of many dimensions.

    >>> round(uniformity(np.array([[1.0, 0.0], [-1.0, 0.0]])), 12)
    -8.0
    """
    count = len(unit_sample)
    total = 0.0
    for start in range(0, count, 1024):
        cosines = unit_sample[start : start + 1024] @ unit_sample.T
        total += np.exp(4 * cosines.clip(-1, 1) - 4).sum()
    return float(np.log((total - count) / (count * (count - 1))))
