"""Logistic regressions over several parts of the same rows at once: standardised, along C; and the paper's, by plain lbfgs.

L-BFGS alone takes hundreds of steps where columns are correlated. Here it runs in coordinates in which the scatter of the rows,
with the penalty added, is the identity: a tenth of the steps, from where the smaller C before ended. The parts (the folds of a
cross-validation) are one problem, their sum: what it minimises is the sum of independent problems, and their products with
the rows, which are all of the time, become one product of many columns. Where a part has no more rows than columns, its weights
lie in the span of its rows: it is rotated into that, which changes no optimum, and solved there alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

BLOCK = 2**19  # logits at a time: 4 MiB, which stay in the cache between both products
MOST_WEIGHTS = 2**19  # in one problem: L-BFGS keeps 20 times as many values
HISTORY = 10


@dataclass(frozen=True)
class Fit:
    """Weights (classes, d) and bias (classes,) on columns (x - shift) / scale, their gradient's norm, and how it ended."""

    weights: np.ndarray
    bias: np.ndarray
    gradient_norm: float
    n_iter: int
    converged: bool


@dataclass(frozen=True)
class Part:
    """Some ``rows`` of all, the class ``codes`` (m,) of each, and the mean and deviation (d,) of its columns."""

    rows: np.ndarray
    codes: np.ndarray
    num_classes: int
    shift: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, rows: np.ndarray, codes: np.ndarray, num_classes: int) -> Part:
        return cls(rows, codes, num_classes, *standard(x if len(rows) == len(x) else x[rows]))


def standard(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (d,) of the columns of ``x`` (n, d); a constant column, which says nothing, has deviation 1.

    >>> standard(np.array([[0.1, 1.0], [0.1, 3.0], [0.1, 5.0]]))[1].round(3).tolist()
    [1.0, 1.633]
    """
    from_first = x - x[0]  # exactly zero in a constant column
    step = from_first.mean(axis=0)
    from_first -= step
    deviation = np.sqrt(np.einsum("ij,ij->j", from_first, from_first) / len(x))
    return x[0] + step, np.where(deviation > 0, deviation, 1.0)


def paths(x: np.ndarray, parts: Sequence[Part], cs: Sequence[float], tol: float, max_iter: int) -> list[list[Fit]]:
    """For each part, its fits for each of ``cs``, ascending: mean cross-entropy + |weights|^2 / (2 c m), bias free.

    Two classes are penalised as one vector of weights, as scikit-learn does. ``tol`` bounds the norm of each part's gradient.
    """
    if any(len(part.rows) <= x.shape[1] for part in parts):
        return [_rotated(x, part, cs, tol, max_iter) for part in parts]
    shift, scale = standard(x)
    x = x - shift
    x /= scale
    inside = [Part(p.rows, p.codes, p.num_classes, (p.shift - shift) / scale, p.scale / scale) for p in parts]
    return [fits for some in _joined(x, inside) for fits in _along(_Losses(x, some), cs, tol, max_iter)]


def _joined(x: np.ndarray, parts: Sequence[Part]) -> list[Sequence[Part]]:
    """The parts by as many as fit into one problem."""
    size = max(1, MOST_WEIGHTS // (x.shape[1] * max(part.num_classes for part in parts)))
    return [parts[i : i + size] for i in range(0, len(parts), size)]


def _rotated(x: np.ndarray, part: Part, cs: Sequence[float], tol: float, max_iter: int) -> list[Fit]:
    """The path of one part in coordinates of the span of its standardised rows."""
    basis, coordinates = np.linalg.qr(((x[part.rows] - part.shift) / part.scale).T)
    width = len(coordinates)  # the rows, or the dimensions where another part alone has fewer rows than these
    inside = Part(np.arange(len(part.rows)), part.codes, part.num_classes, np.zeros(width), np.ones(width))
    fits = _along(_Losses(np.ascontiguousarray(coordinates.T), [inside]), cs, tol, max_iter)[0]
    return [Fit(f.weights @ basis.T, f.bias, f.gradient_norm, f.n_iter, f.converged) for f in fits]


class _Losses:
    """The mean cross-entropies of parts of the same rows ``x`` (n, d), standardised as a whole, and their gradients.

    The weights of all parts stand below one another, (K, d) with K the sum of their classes.
    """

    def __init__(self, x: np.ndarray, parts: Sequence[Part]) -> None:
        self.parts = parts
        ends = np.cumsum([0, *(p.num_classes for p in parts)])
        self.columns = [slice(a, b) for a, b in zip(ends, ends[1:], strict=False)]
        repeats = [p.num_classes for p in parts]
        self.shift, self.scale = (np.repeat([getattr(p, what) for p in parts], repeats, axis=0) for what in ("shift", "scale"))
        self.count = np.repeat([len(p.rows) for p in parts], repeats)[:, None]
        classes = np.repeat(repeats, repeats)
        self.penalty = np.where(classes[:, None] == 2, 2.0, 1.0) / self.count  # of two classes, each has half of the one vector
        self.spread = (1 - 1 / classes) / classes  # mean of p (1 - p) of each class: here without weights
        self.pieces = list(self._cut(x))

    @cached_property
    def gram(self) -> np.ndarray:
        """Mean of x x^T (d, d) over the rows that are of any part."""
        total = np.zeros((self.scale.shape[1],) * 2)
        for x, *_ in self.pieces:
            total += x.T @ x
        return total / sum(len(x) for x, *_ in self.pieces)

    def _cut(self, x: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, list[tuple[int, slice, np.ndarray]]]]:
        """Rows that are of the same parts, those parts' columns, and of each part its own and the class of each row."""
        codes = np.full((len(x), len(self.parts)), -1)
        for i, part in enumerate(self.parts):
            codes[part.rows, i] = part.codes
        patterns, pattern_of = np.unique(codes >= 0, axis=0, return_inverse=True)
        for number, pattern in enumerate(patterns):
            members = np.flatnonzero(pattern).tolist()
            if not members:
                continue
            rows = np.flatnonzero(pattern_of.reshape(-1) == number)
            here = x if len(rows) == len(x) else x[rows]
            columns = np.concatenate([np.arange(self.columns[i].start, self.columns[i].stop) for i in members])
            ends = np.cumsum([0, *(self.parts[i].num_classes for i in members)])
            size = max(1, BLOCK // len(columns))
            for start in range(0, len(rows), size):
                block = slice(start, start + size)
                yield here[block], columns, [(i, slice(a, b), codes[rows[block], i]) for a, b, i in
                                             zip(ends, ends[1:], members, strict=False)]

    def __call__(self, weights: np.ndarray, bias: np.ndarray, c: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The loss of each part, and the gradients by ``weights`` (K, d) and ``bias`` (K,)."""
        direct = weights / self.scale
        offset = bias - (direct * self.shift).sum(axis=1)
        slope, level, spread = np.zeros_like(weights), np.zeros(len(bias)), np.zeros(len(bias))
        loss = np.array([(self.penalty[part] / c * weights[part] ** 2).sum() / 2 for part in self.columns])
        for x, columns, members in self.pieces:
            logits = direct[columns] @ x.T
            logits += offset[columns, None]
            for number, where, codes in members:
                loss[number] += self._residuals(logits[where], codes, spread, columns[where])
            logits /= self.count[columns]
            slope[columns] += logits @ x
            level[columns] += logits.sum(axis=1)
        self.spread = spread / self.count[:, 0]
        slope = (slope - level[:, None] * self.shift) / self.scale + self.penalty / c * weights
        return loss, slope, level

    def _residuals(self, logits: np.ndarray, codes: np.ndarray, spread: np.ndarray, columns: np.ndarray) -> float:
        """Turns ``logits`` (classes, m) into probabilities less what is true; the mean loss, and adds to p (1 - p)."""
        items = np.arange(len(codes))
        logits -= logits.max(axis=0)
        own = logits[codes, items]
        np.exp(logits, out=logits)
        total = logits.sum(axis=0)
        logits /= total
        spread[columns] += logits.sum(axis=1) - np.einsum("ij,ij->i", logits, logits)
        logits[codes, items] -= 1
        return float((np.log(total) - own).sum()) / self.count[columns[0], 0]


def _along(losses: _Losses, cs: Sequence[float], tol: float, max_iter: int) -> list[list[Fit]]:
    weights, bias = np.zeros_like(losses.scale), np.zeros(len(losses.scale))
    found = []
    for c in cs:
        weights, bias, norms, steps = _minimum(losses, c, weights, bias, tol, max_iter)
        found.append([Fit(weights[part], bias[part], norm, steps, norm <= tol)
                      for part, norm in zip(losses.columns, norms, strict=True)])
    return [list(fits) for fits in zip(*found, strict=True)]


def _minimum(losses: _Losses, c: float, weights: np.ndarray, bias: np.ndarray, tol: float,
             max_iter: int) -> tuple[np.ndarray, np.ndarray, list[float], int]:
    """Weights, bias and the norm of each part's gradient at the optimum for ``c``, and the steps taken from the given ones."""
    from scipy.linalg import cholesky, solve_triangular
    from scipy.optimize import minimize

    num, dim = weights.shape
    curvature = losses.spread.mean() * losses.gram
    curvature[np.diag_indices(dim)] += losses.penalty.mean() / c
    factor = cholesky(curvature)  # curvature = factor^T factor
    bias_scale = 1 / np.sqrt(losses.spread.clip(min=1e-6))
    last: dict[str, np.ndarray] = {}

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        point = flat.reshape(num, dim + 1)
        w, b = solve_triangular(factor, point[:, :dim].T, check_finite=False).T, point[:, dim] * bias_scale
        loss, slope, level = losses(w, b, c)
        last.update(at=flat.copy(), weights=w, bias=b, slope=slope, level=level)
        inner = solve_triangular(factor, slope.T, trans=1, check_finite=False).T
        return float(loss.sum()), np.column_stack([inner, level * bias_scale]).ravel()

    def norms() -> list[float]:
        return [_norm(last["slope"][part], last["level"][part]) for part in losses.columns]

    def stop(flat: np.ndarray) -> None:
        if max(norms()) <= tol:
            raise StopIteration

    start = np.column_stack([weights @ factor.T, bias / bias_scale]).ravel()
    result = minimize(value, start, jac=True, method="L-BFGS-B", callback=stop, options={
        "maxiter": max_iter, "maxfun": 20 * max_iter, "maxls": 50, "maxcor": HISTORY, "gtol": 0.0, "ftol": 0.0})
    if not np.array_equal(last["at"], result.x):
        value(result.x)
    return last["weights"], last["bias"], norms(), int(result.nit)


def lbfgs_in_step(x: np.ndarray, parts: Sequence[Part], c: float, tol: float, max_iter: int) -> list[Fit]:
    """Each part's fit by scikit-learn's lbfgs (its start, its stops), on more than two classes, all parts in one pass.

    Each runs on its own and takes the steps that it would take alone; only the products with the rows are made together. The
    columns are taken as they are.
    """
    return [fit for some in _joined(x, parts) for fit in _in_step(_Losses(x, some), c, tol, max_iter)]


def _in_step(losses: _Losses, c: float, tol: float, max_iter: int) -> list[Fit]:
    from scipy.optimize import minimize

    dim, count = losses.scale.shape[1], len(losses.parts)
    points = [np.zeros((part.num_classes, dim + 1)) for part in losses.parts]

    def answers(asked: dict[int, np.ndarray]) -> dict[int, tuple[float, np.ndarray]]:
        for number, flat in asked.items():
            points[number] = flat.reshape(-1, dim + 1)
        joined = np.concatenate(points)
        loss, slope, level = losses(joined[:, :dim], joined[:, dim], c)
        gradient = np.column_stack([slope, level])
        return {number: (float(loss[number]), gradient[losses.columns[number]].ravel()) for number in asked}

    together = _Together(answers, count)

    def fitted(number: int) -> Any:
        try:
            return minimize(lambda flat: together.ask(number, flat), points[number].ravel(), jac=True, method="L-BFGS-B",
                            options={"maxiter": max_iter, "maxls": 50, "gtol": tol, "ftol": 64 * np.finfo(float).eps})
        finally:
            together.leave(number)

    with ThreadPoolExecutor(count) as pool:
        results = list(pool.map(fitted, range(count)))
    last = answers({number: result.x for number, result in enumerate(results)})
    return [Fit(points[number][:, :dim], points[number][:, dim], float(np.linalg.norm(last[number][1])), int(result.nit),
                result.nit < max_iter) for number, result in enumerate(results)]


class _Together:
    """Answers what several threads ask, once all that still run have asked: who asked when changes nothing."""

    def __init__(self, answers: Callable[[dict[int, np.ndarray]], dict[int, Any]], count: int) -> None:
        self._answers, self._running = answers, set(range(count))
        self._asked: dict[int, np.ndarray] = {}
        self._answered: dict[int, Any] = {}
        self._changed = threading.Condition()

    def ask(self, number: int, question: np.ndarray) -> Any:
        with self._changed:
            self._asked[number] = question.copy()
            self._answer()
            self._changed.wait_for(lambda: number in self._answered)
            found = self._answered.pop(number)
        if isinstance(found, BaseException):
            raise found
        return found

    def leave(self, number: int) -> None:
        with self._changed:
            self._running.discard(number)
            self._answer()

    def _answer(self) -> None:
        if self._asked and self._asked.keys() == self._running:
            try:
                self._answered.update(self._answers(self._asked))
            except BaseException as error:  # each that waits must hear of it
                self._answered.update(dict.fromkeys(self._asked, error))
            self._asked = {}
            self._changed.notify_all()


def _norm(slope: np.ndarray, level: np.ndarray) -> float:
    """Norm of a part's gradient; of two classes, that of the one vector that they are halves of."""
    first = 1 if len(level) == 2 else 0
    return float(np.sqrt(np.square(slope[first:]).sum() + np.square(level[first:]).sum()))
