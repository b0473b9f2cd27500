"""Linear probes: how well a class can be read off the embeddings by logistic regression.

The paper's probe is scikit-learn's LogisticRegression (lbfgs, C 1) on unit rows. The tuned one standardises and chooses C
on a validation split, so that no embedding is favoured by its scale. The gradient norm at the optimum is the certificate
that the fit stopped where it should.

The ridge regression from student to teacher is here too: cross-validated, from moments alone, with no second look at the rows.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from distillscope.errors import UserError
from distillscope.measure.logistic import Part, lbfgs_in_step, paths
from distillscope.measure.rows import Accumulator, Frame, Moments, unit

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController


CS = (0.0001, 0.001, 0.01, 0.1, 1.0)
MOST_STEPS = 2000
PAPERS_TOLERANCE = 1e-4
TOLERANCE = 1e-5
"""Of the gradient's norm. With it 1 of 100,000 predictions differed from those at 1e-7 (10,000 x 512, ten classes)."""
VALIDATION = 0.2


@dataclass(frozen=True)
class LinearProbe:
    """A fitted probe. ``gradient_norm`` is the Euclidean norm of the gradient of the mean penalised loss.

    The loss is mean cross-entropy + |weights|^2 / (2 c n); ``converged`` says that the fit met its tolerance before
    ``max_iter``.
    """

    classes: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    shift: np.ndarray
    scale: np.ndarray
    unit_norm: bool
    c: float
    n_iter: int
    converged: bool
    gradient_norm: float

    def _inputs(self, z: np.ndarray) -> np.ndarray:
        z = np.asarray(z, np.float64)
        return ((unit(z) if self.unit_norm else z) - self.shift) / self.scale

    def scores(self, z: np.ndarray) -> np.ndarray:
        """Logits (n, classes) of embeddings ``z`` (n, d)."""
        return self._inputs(z) @ self.weights.T + self.bias

    def predict(self, z: np.ndarray) -> np.ndarray:
        """Most likely label (n,) of each row of ``z`` (n, d)."""
        return self.classes[np.argmax(self.scores(z), axis=1)]

    def certainty(self, z: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """For each row (n, 3): the largest probability, whether it is right, the log loss (infinite for an unknown class)."""
        scores = self.scores(z)
        scores -= scores.max(axis=1, keepdims=True)
        total = np.log(np.exp(scores).sum(axis=1))
        place = np.searchsorted(self.classes, labels).clip(max=len(self.classes) - 1)
        own = np.where(self.classes[place] == labels, scores[np.arange(len(z)), place], -np.inf)
        return np.stack([np.exp(-total), self.classes[np.argmax(scores, axis=1)] == labels, total - own], axis=1)


def linear_probe(train: np.ndarray, labels: np.ndarray, *, c: float = 1.0, max_iter: int = MOST_STEPS, unit_norm: bool = True,
                 tol: float = PAPERS_TOLERANCE) -> LinearProbe:
    """Logistic regression fitted to ``train`` (n, d) and ``labels`` (n,) by scikit-learn's lbfgs, in float64.

    The defaults are the paper's (arXiv:2603.06698). ``unit_norm`` scales rows to unit norm. ``tol`` bounds the largest entry of
    the mean loss's gradient; 1e-4 is scikit-learn's default. One class is a UserError.

    >>> z = np.array([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.1]])
    >>> probe = linear_probe(z, np.array([3, 3, 5, 5]))
    >>> probe.predict(z).tolist(), probe.converged
    ([3, 3, 5, 5], True)
    """
    from sklearn.linear_model import LogisticRegression

    x, labels = np.asarray(train, np.float64), np.asarray(labels)
    _classes(labels)
    x = unit(x) if unit_norm else x
    model = LogisticRegression(C=c, solver="lbfgs", max_iter=max_iter, tol=tol)
    # Its products are small: a second BLAS thread gains little on a quiet machine and cost a factor of 5 on a busy one.
    with warnings.catch_warnings(), _thread_pools().limit(limits=1):
        warnings.simplefilter("ignore")  # lack of convergence is reported in the result
        model.fit(x, labels)
    weights, bias = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # two logits that differ by sklearn's one, so that scores have a column per class
        weights, bias = np.vstack([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    n_iter = int(np.max(model.n_iter_))
    return LinearProbe(model.classes_, weights, bias, np.zeros(x.shape[1]), np.ones(x.shape[1]), unit_norm, c, n_iter,
                       n_iter < max_iter, _gradient_norm(x, labels, model, c))


def linear_probes(z: np.ndarray, labels: np.ndarray, parts: Sequence[np.ndarray]) -> list[LinearProbe]:
    """For each of ``parts``, row numbers of ``z`` (n, d), the paper's probe of these rows.

    They are those of ``linear_probe`` but for rounding: all parts take the same steps of lbfgs in step, for half of the time.
    """
    labels = np.asarray(labels)
    known = [_classes(labels[rows]) for rows in parts]
    if len(parts) == 1 or min(len(classes) for classes, _ in known) == 2:  # of two, scikit-learn's steps are of one vector
        return [linear_probe(z[rows], labels[rows]) for rows in parts]
    x = unit(np.asarray(z, np.float64))
    zero, one = np.zeros(x.shape[1]), np.ones(x.shape[1])
    made = [Part(rows, codes, len(classes), zero, one) for rows, (classes, codes) in zip(parts, known, strict=True)]
    with _thread_pools().limit(limits=1):
        fits = lbfgs_in_step(x, made, 1.0, PAPERS_TOLERANCE, MOST_STEPS)
    return [LinearProbe(classes, f.weights, f.bias, zero, one, True, 1.0, f.n_iter, f.converged, f.gradient_norm)
            for (classes, _), f in zip(known, fits, strict=True)]


def _classes(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The classes of ``labels`` (n,), and the number of each label's."""
    classes, codes = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise UserError("probe labels", "at least two classes", "one", "Pass labels of more classes, or leave them out.")
    return classes, codes


@functools.cache
def _thread_pools() -> ThreadpoolController:
    """The loaded libraries that have threads: to look for them takes as long as to fit a small probe."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _gradient_norm(x: np.ndarray, labels: np.ndarray, model, c: float) -> float:
    """Norm of the gradient of mean cross-entropy + |w|^2 / (2 c n) at the fitted weights, bias included."""
    count, target = len(x), (labels[:, None] == model.classes_[None, :]).astype(np.float64)
    residual = model.predict_proba(x) - target
    if len(model.classes_) == 2:
        residual = residual[:, 1:]
    weights = (residual.T @ x + model.coef_ / c) / count
    return float(np.sqrt(np.square(weights).sum() + np.square(residual.sum(axis=0) / count).sum()))


def standardised_probe(train: np.ndarray, labels: np.ndarray, c: float = 1.0, *, max_iter: int = MOST_STEPS,
                       tol: float = TOLERANCE) -> LinearProbe:
    """Logistic regression fitted to the standardised columns of ``train`` (n, d), in float64; ``tol`` bounds the gradient.

    It is the optimum that ``linear_probe`` would find on such columns, but for where each stops: here where the gradient's norm
    is at most ``tol``. One class is a UserError.
    """
    return standardised_probes(train, labels, [np.arange(len(train))], [c], max_iter=max_iter, tol=tol)[0][0]


def standardised_probes(z: np.ndarray, labels: np.ndarray, parts: Sequence[np.ndarray], cs: Sequence[float] = CS, *,
                        max_iter: int = MOST_STEPS, tol: float = TOLERANCE) -> list[list[LinearProbe]]:
    """For each of ``parts``, row numbers of ``z`` (n, d), the probes fitted to these rows, one for each of ``cs`` ascending.

    >>> z, labels = np.array([[0.0, 5], [1, 5], [2, 5], [3, 5]]), np.array(["a", "a", "b", "b"])
    >>> (probe,), = standardised_probes(z, labels, [np.arange(4)], [1.0])
    >>> probe.predict(z).tolist(), bool(probe.gradient_norm <= TOLERANCE)
    (['a', 'a', 'b', 'b'], True)
    """
    z, labels, made, classes = np.asarray(z, np.float64), np.asarray(labels), [], []
    for rows in parts:
        known, codes = _classes(labels[rows])
        classes.append(known)
        made.append(Part.of(z, rows, codes, len(known)))
    cs = sorted(cs)
    with _thread_pools().limit(limits=1):
        found = paths(z, made, cs, tol, max_iter)
    return [[LinearProbe(known, f.weights, f.bias, part.shift, part.scale, False, c, f.n_iter, f.converged, f.gradient_norm)
             for c, f in zip(cs, fits, strict=True)] for known, part, fits in zip(classes, made, found, strict=True)]


def tuned_probe(train: np.ndarray, labels: np.ndarray, validation: np.ndarray, validation_labels: np.ndarray, *,
                cs: Sequence[float] = CS, max_iter: int = MOST_STEPS, tol: float = TOLERANCE) -> LinearProbe:
    """Standardised probe fitted to ``train``, its C the one of ``cs`` with the highest accuracy on ``validation``.

    Nothing else is chosen, and the test split is never seen. Among equals the lowest log loss there wins.
    """
    if not len(cs):
        raise UserError("probe cs", "at least one C", "none", "Pass cs=(1.0,).")
    probes, = standardised_probes(train, labels, [np.arange(len(train))], cs, max_iter=max_iter, tol=tol)
    return _most_accurate(probes, validation, validation_labels)


def cross_validated_probes(z: np.ndarray, labels: np.ndarray, parts: Sequence[np.ndarray]) -> list[LinearProbe]:
    """For each of ``parts``, row numbers of ``z`` (n, d), the tuned probe of these rows, whose C is chosen on their last fifth.

    Rows in random order make that a random fifth.
    """
    cuts = [len(rows) - max(1, round(VALIDATION * len(rows))) for rows in parts]
    found = standardised_probes(z, labels, [rows[:cut] for rows, cut in zip(parts, cuts, strict=True)])
    return [_most_accurate(probes, z[rows[cut:]], labels[rows[cut:]])
            for probes, rows, cut in zip(found, parts, cuts, strict=True)]


def _most_accurate(probes: Sequence[LinearProbe], z: np.ndarray, labels: np.ndarray) -> LinearProbe:
    """The one whose predictions of ``labels`` (n,) are most often right; among equals, the one with the lowest log loss.

    With few labels many are equal, and the first, of the smallest C, is so unsure that its probabilities say nothing.
    """
    right = [np.count_nonzero(probe.predict(z) == labels) for probe in probes]
    equals = [probe for probe, count in zip(probes, right, strict=True) if count == max(right)]
    return equals[0] if len(equals) == 1 else min(equals, key=lambda probe: _mean_log_loss(probe, z, labels))


def _mean_log_loss(probe: LinearProbe, z: np.ndarray, labels: np.ndarray) -> float:
    """Over the rows whose class the probe knows."""
    losses = probe.certainty(z, labels)[:, 2]
    return float(np.mean(losses[np.isfinite(losses)])) if np.isfinite(losses).any() else 0.0


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

    def between(self, inputs: Frame, targets: Frame) -> Map:
        """A map of coordinates of both frames as one of rows; what lies outside the span of ``inputs`` changes nothing."""
        weights = targets.turned(inputs.turned(self.weights).T).T
        return Map(inputs.outside(self.mean), weights, targets.outside(self.target_mean), self.penalty)


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

    What a rank is worth: directions of the student that say nothing about the teacher are shrunk away by it, so that a rank won
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


def missed(model: Map, x: Moments, cross: Moments, y_energy: float) -> float:
    """Sum of squared errors of ``model`` on the rows behind these moments: `residual_energy` over all directions.

    ``y_energy`` is the trace of the targets' scatter.
    """
    weights = model.weights
    shift = (cross.other_mean - model.target_mean) - (x.mean - model.mean) @ weights
    centred = y_energy - 2 * np.vdot(weights, cross.scatter) + np.vdot(weights, x.scatter @ weights)
    return max(float(centred), 0.0) + x.count * float(shift @ shift)
