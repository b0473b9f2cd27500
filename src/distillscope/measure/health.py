"""Health of embeddings during a training loop of one's own: a batch at a time, in memory that does not grow."""

from __future__ import annotations

from typing import Any

import numpy as np

from distillscope.errors import UserError, unknown_name
from distillscope.measure.given import array_of
from distillscope.measure.rows import Accumulator, Moments, merged
from distillscope.measure.spectrum import effective_rank, kernel_sums, mean_energy, participation_ratio

KERNEL, PAIRS, COSINE, PAIRED, ZERO, NORM = range(6)
"""What is summed beside moments: the kernel over pairs, their number, cosines to the teacher, theirs, zero rows, norms."""

LARGEST = 1e60
"""Fourth powers of larger values leave float64."""


class EmbeddingHealth:
    """Rank, spread and collapse of embeddings, updated batch by batch like a metric of torchmetrics.

    ``update(z)`` takes embeddings (b, d), and ``update(z, teacher)`` with them the teacher's (b, k) of the same items: NumPy,
    or tensors of any float precision on any device, which are detached. ``compute()`` gives figures of all rows since the
    last ``reset()``; it may be called at any time. Memory is one matrix (d, d) in float64, and (k, k) with a teacher; a batch
    costs b d^2 operations on the CPU. Rows of different steps are of different networks: reset after each epoch, or update
    with held-out images alone. ``normalize="l2"`` scales rows to unit norm first, as in `distillscope.audit`.

    compute() gives a dict of floats:

    num_items : rows seen
    effective_rank : exp of the entropy of p = s^2 / sum s^2, centred, as audit has it; 1 to min(n - 1, d), 0 where all rows are
        equal
    participation_ratio : (sum s^2)^2 / sum s^4, 1 to d, 0 where all rows are equal
    top_variance : share of the variance along the first direction, 0 to 1; near 1 is a collapse to a line
    mean_energy : share of the energy that the common mean holds, 0 to 1; near 1 is a collapse to a point
    dead_dims : dimensions that do not vary at all
    mean_norm : mean L2 norm of the rows as given
    zero_rows : rows without a direction, which uniformity and cosine leave out
    uniformity : log mean exp(-2 |z_i - z_j|^2) over pairs of unit rows of one batch (Wang & Isola 2020), -8 to 0, 0 is a
        collapse; audit takes all pairs, which agrees where batches are drawn at random; left out without pairs
    teacher_effective_rank, and where d = k mean_cosine (-1 to 1) : with a teacher

    NaN, infinity, another shape than before and a compute() of fewer than two rows are a `UserError`.

    >>> rng = np.random.default_rng(0)
    >>> health = EmbeddingHealth()
    >>> for step in range(20):
    ...     health.update(rng.normal(size=(64, 16)) * ([1] * 4 + [0] * 12))
    >>> found = health.compute()
    >>> round(found["effective_rank"], 1), found["dead_dims"], found["num_items"]
    (4.0, 12.0, 1280.0)
    """

    def __init__(self, *, normalize: str | None = None) -> None:
        if normalize not in (None, "l2"):
            raise unknown_name("normalize", "normalization", str(normalize), ["l2"])
        self.normalize = normalize
        self.reset()

    def reset(self) -> None:
        """Forget every row, as before a new epoch.

        >>> health = EmbeddingHealth()
        >>> health.update(np.eye(3)); health.reset(); health.update(np.eye(4))
        """
        self._own: Moments | None = None
        self._teacher: Moments | None = None
        self._sums = np.zeros(6)

    def update(self, embeddings: Any, teacher: Any = None) -> None:
        """Add a batch (b, d), and its teacher's embeddings (b, k), in the same order; nothing is added where one is refused.

        >>> health = EmbeddingHealth()
        >>> health.update(np.eye(3), teacher=-np.eye(3))
        >>> health.compute()["mean_cosine"]
        -1.0
        """
        z = _batch("embeddings", embeddings, self._own)
        t = None if teacher is None else _batch("teacher", teacher, self._teacher)
        if t is not None and len(t) != len(z):
            raise UserError("teacher", f"{len(z)} rows like the embeddings", f"{len(t)}", "Pass embeddings of the same items.")
        if not len(z):
            return
        norms = np.linalg.norm(z, axis=1)
        unit = z / np.where(norms > 0, norms, 1)[:, None]
        self._own = _with(self._own, unit if self.normalize else z)
        seen, new = unit[norms > 0], np.zeros(6)
        new[ZERO], new[NORM] = len(z) - len(seen), norms.sum()
        if len(seen) > 1:
            new[KERNEL] = kernel_sums(seen, np.zeros(len(seen), int), 1)[0, 0]
            new[PAIRS] = len(seen) * (len(seen) - 1)
        if t is not None:
            lengths = np.linalg.norm(t, axis=1)
            unit_t = t / np.where(lengths > 0, lengths, 1)[:, None]
            self._teacher = _with(self._teacher, unit_t if self.normalize else t)
            if t.shape == z.shape:
                new[COSINE], new[PAIRED] = (unit * unit_t).sum(), int(((norms > 0) & (lengths > 0)).sum())
        self._sums += new

    def merge(self, other: EmbeddingHealth) -> None:
        """Add all that ``other`` has seen, for instance in another process; both of one ``normalize`` and dimension.

        >>> one, two = EmbeddingHealth(), EmbeddingHealth()
        >>> one.update(np.eye(3)); two.update(-np.eye(3)); one.merge(two)
        >>> one.compute()["num_items"]
        6.0
        """
        if other.normalize != self.normalize:
            raise UserError("merge", f"normalize={self.normalize!r}", f"{other.normalize!r}", "Merge what was measured alike.")
        for name in ("_own", "_teacher"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine is not None and theirs is not None and len(mine.mean) != len(theirs.mean):
                raise UserError("merge", f"{len(mine.mean)} dimensions", f"{len(theirs.mean)}", "Merge what one network gave.")
        for name in ("_own", "_teacher"):
            parts = [m for m in (getattr(self, name), getattr(other, name)) if m is not None]
            setattr(self, name, merged(parts) if parts else None)
        self._sums = self._sums + other._sums

    def compute(self) -> dict[str, float]:
        """The figures of all rows since `reset`, by their names; those that nothing was given for are left out.

        >>> health = EmbeddingHealth()
        >>> health.update(np.ones((8, 3)))
        >>> {key: value for key, value in health.compute().items() if key in ("effective_rank", "mean_energy", "uniformity")}
        {'effective_rank': 0.0, 'mean_energy': 1.0, 'uniformity': 0.0}
        """
        own, sums = self._own, self._sums
        if own is None or own.count < 2:
            raise UserError("EmbeddingHealth.compute", "two rows or more", f"{own.count if own else 0}",
                            "Call update with embeddings first.")
        s = np.linalg.eigvalsh(own.scatter)[::-1].clip(min=0)
        varies = bool(s[0] > 0)
        found = {
            "num_items": float(own.count),
            "effective_rank": float(effective_rank(s)) if varies else 0.0,
            "participation_ratio": float(participation_ratio(s)) if varies else 0.0,
            "top_variance": float(s[0] / s.sum()) if varies else 0.0,
            "mean_energy": float(mean_energy(own.mean, s, own.count)) if varies or own.mean.any() else 0.0,
            "dead_dims": float((np.diag(own.scatter) == 0).sum()),
            "mean_norm": float(sums[NORM] / own.count),
            "zero_rows": float(sums[ZERO]),
        }
        if sums[PAIRS]:
            found["uniformity"] = float(np.log(sums[KERNEL] / sums[PAIRS]))
        if self._teacher is not None:
            t = np.linalg.eigvalsh(self._teacher.scatter)[::-1].clip(min=0)
            found["teacher_effective_rank"] = float(effective_rank(t)) if t[0] > 0 else 0.0
        if sums[PAIRED]:
            found["mean_cosine"] = float(sums[COSINE] / sums[PAIRED])
        return found


def _batch(name: str, given: Any, before: Moments | None) -> np.ndarray:
    """A batch (b, d) as float64, of as many dimensions as ``before``, or the line that says what is wrong with it."""
    z = np.asarray(array_of(given))
    if z.ndim != 2 or z.dtype.kind != "f":
        raise UserError(name, "floats of shape (items, dimensions)", f"{z.dtype} of shape {z.shape}",
                        "Pass a batch, one embedding per row.")
    if before is not None and z.shape[1] != len(before.mean):
        raise UserError(name, f"{len(before.mean)} dimensions as before", f"{z.shape[1]}", "Call reset() for another network.")
    z = z.astype(np.float64)
    if (wrong := ~(np.abs(z) < LARGEST)).any():
        row = int(wrong.any(axis=1).argmax())
        raise UserError(name, f"finite values below {LARGEST:g}", f"{z[row][wrong[row]][0]} in row {row}",
                        "The network has diverged: lower the learning rate, or clip gradients.")
    return z


def _with(before: Moments | None, z: np.ndarray) -> Moments:
    total = Accumulator(before)
    total.add(z)
    return total.result()
