"""Cross-validated ridge regression from the student to the teacher, from moments alone: no second look at the rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distillscope.measure.moments import Accumulator, Moments

PENALTIES = 10.0 ** np.arange(-9, 3)  # relative to the largest eigenvalue of the student's scatter
FOLDS = 5


@dataclass(frozen=True)
class Map:
    """Affine map x -> target_mean + (x - mean) @ weights, with the penalty that was chosen."""

    mean: np.ndarray
    weights: np.ndarray
    target_mean: np.ndarray
    penalty: float

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self.target_mean + (x - self.mean) @ self.weights


def ridge(x: Moments, cross: Moments, y_energy: float, items: int | None = None) -> Map:
    """Ridge map fitted to moments, its penalty chosen by generalised cross-validation (Golub, Heath & Wahba 1979).

    ``x``: moments of the inputs, ``cross``: of inputs and targets, ``y_energy``: trace of the targets' scatter. Only the
    rows behind these moments take part in the choice. ``items`` is how many of them are distinct, where some repeat: a repeat
    takes no degree of freedom and gives none.
    """
    count = x.count if items is None else items
    values, vectors = np.linalg.eigh(x.scatter)
    values = values.clip(min=0)
    rotated = vectors.T @ cross.scatter
    explained = np.square(rotated).sum(axis=1)
    best = np.inf
    penalties = PENALTIES * (values[-1] if values[-1] > 0 else 1.0)
    chosen = penalties[0]
    for penalty in penalties:
        shrunk = 1 / (values + penalty)
        residual = max(y_energy - (explained * (2 * shrunk - values * shrunk**2)).sum(), 0.0)
        free = count - 1 - (values * shrunk).sum()
        score = residual / free**2 if free > 0.05 * count else np.inf  # near interpolation the score means nothing
        if score < best:
            best, chosen = score, penalty
    shrunk = 1 / (values + chosen)
    return Map(x.mean, vectors @ (shrunk[:, None] * rotated), cross.other_mean, float(chosen))


def ridge_map(student: np.ndarray, teacher: np.ndarray, block: int = 8192) -> Map:
    """Ridge map from the student's train embeddings (n, d) into the teacher's space (n, k), to be applied to others.

    What a rank is worth: directions of the student that say nothing of the teacher are shrunk away by it, so that a rank won
    by whitening or noise alone does not pass. Rows are taken as they are given; scale them alike on both sides first.

    >>> x = np.random.default_rng(0).normal(size=(300, 4))
    >>> bool(np.allclose(ridge_map(x, x @ np.eye(4, 2) + 3)(x), x[:, :2] + 3))
    True
    """
    inputs, cross, outputs = Accumulator(), Accumulator(), 0.0
    centre = np.asarray(teacher[:block], np.float64).mean(axis=0)
    total = np.zeros_like(centre)
    for i in range(0, len(student), block):
        x, y = student[i : i + block], np.asarray(teacher[i : i + block], np.float64)
        inputs.add(x)
        cross.add(x, y)
        total += (y - centre).sum(axis=0)
        outputs += np.square(y - centre).sum()
    return ridge(inputs.result(), cross.result(), float(outputs - np.square(total).sum() / len(student)))


def fold_groups(groups: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The groups of items, cut into folds."""
    return [tuple(fold) for fold in np.array_split(np.array(groups), min(FOLDS, len(groups)))]


def residual_energy(model: Map, directions: np.ndarray, x: Moments, cross: Moments, y: Moments) -> np.ndarray:
    """Sum of squared errors of ``model`` along each column of ``directions``, on the rows behind these moments."""
    weights = model.weights @ directions
    centred = ((directions * (y.scatter @ directions)).sum(axis=0) - 2 * (weights * (cross.scatter @ directions)).sum(axis=0)
               + (weights * (x.scatter @ weights)).sum(axis=0))
    shift = (y.mean - model.target_mean) @ directions - (x.mean - model.mean) @ weights
    return centred.clip(min=0) + x.count * shift**2
