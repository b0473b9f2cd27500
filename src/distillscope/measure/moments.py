"""Mean and scatter of rows, accumulated in float64 blocks and merged without loss.

A float32 Gram matrix loses every singular value below about 3e-4 of the largest, and an uncentred sum of products loses
the variance of a cloud that lies far from the origin. Here every block is centred on its own mean in float64 before the
product, and blocks are merged by the exact update of Chan, Golub and LeVeque (1979). Means are taken as distances from a
first row or mean, so that equal rows have a scatter of exactly zero and no rounding noise that reads like a spectrum.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Moments:
    """``count`` rows, their mean (d,), and their centred scatter sum (x - mean)(x - mean)^T (d, d), in float64.

    For a pair of row-aligned arrays ``mean`` and ``other_mean`` differ and ``scatter`` is the cross scatter (d, d').

    >>> x = np.arange(12.0).reshape(6, 2) ** 2
    >>> both = merged([moments(x[:2]), moments(x[2:])])
    >>> bool(np.allclose(both.scatter, moments(x).scatter)), both.count
    (True, 6)
    """

    count: int
    mean: np.ndarray
    other_mean: np.ndarray
    scatter: np.ndarray


def moments(x: np.ndarray, y: np.ndarray | None = None) -> Moments:
    """Moments of the rows of ``x`` (n, d), or the cross moments of ``x`` (n, d) and ``y`` (n, d')."""
    mean, centred = _centred(np.asarray(x, np.float64))
    if y is None:
        return Moments(len(x), mean, mean, centred.T @ centred)
    other_mean, other = _centred(np.asarray(y, np.float64))
    return Moments(len(x), mean, other_mean, centred.T @ other)


def _centred(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean (d,) of ``x`` (n, d), and ``x`` less its mean."""
    from_first = x - x[0]
    step = from_first.mean(axis=0)
    return x[0] + step, from_first - step


def merged(parts: Iterable[Moments]) -> Moments:
    """Moments of all the rows of ``parts`` together."""
    parts = [p for p in parts if p.count]
    count = sum(p.count for p in parts)
    mean = parts[0].mean + sum(p.count * (p.mean - parts[0].mean) for p in parts) / count
    other_mean = parts[0].other_mean + sum(p.count * (p.other_mean - parts[0].other_mean) for p in parts) / count
    scatter = np.zeros_like(parts[0].scatter)
    weights = np.sqrt([p.count for p in parts])[:, None]
    scatter += (weights * [p.mean - mean for p in parts]).T @ (weights * [p.other_mean - other_mean for p in parts])
    for part in parts:
        scatter += part.scatter
    return Moments(count, mean, other_mean, scatter)


class Accumulator:
    """Moments of a stream of blocks, in constant memory."""

    def __init__(self) -> None:
        self._total: Moments | None = None

    def add(self, x: np.ndarray, y: np.ndarray | None = None) -> None:
        """Merge one block of rows, which may be empty."""
        if len(x):
            block = moments(x, y)
            self._total = block if self._total is None else _add_into(self._total, block)

    def result(self) -> Moments:
        """What was accumulated, of at least one row."""
        if self._total is None:
            raise ValueError("moments of no rows")
        return self._total


def _add_into(total: Moments, block: Moments) -> Moments:
    """``total`` and ``block`` merged, reusing the memory of total's scatter: a stream must not allocate d x d per block."""
    count = total.count + block.count
    step, other_step = block.mean - total.mean, block.other_mean - total.other_mean
    scatter = total.scatter
    scatter += block.scatter
    scatter += np.outer(step * (total.count * block.count / count), other_step)
    share = block.count / count
    return Moments(count, total.mean + share * step, total.other_mean + share * other_step, scatter)
