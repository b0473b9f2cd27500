"""Targets that spread the teacher's variance over dimensions: graded whitening, PHI-S, and a random teacher."""

from __future__ import annotations

import numpy as np

from distillscope.draws import keyed_rng
from distillscope.errors import UserError
from distillscope.registry import Count, Positive, Share, Size, targets
from distillscope.targets.transforms import (
    Target,
    checked_dim,
    directions,
    fitted,
    moments,
    precision_of,
    rank_of,
    rounding,
    unit_rows,
)

PAIRS = 2000


def check_whiten(d: int, count: int, *, exponent: float, dim: int | None) -> None:
    """Centred, so many images have a rank of one less at most."""
    dim = checked_dim(dim, d)
    if exponent > 0 and dim > count - 1:
        raise UserError("target whiten", f"embeddings of rank {dim} or more",
                        f"rank {count - 1} at most on {count} train images",
                        f"Set target.dim={count - 1} or less, or use more images.")


@targets.register("whiten", check=check_whiten)
def whiten(embeddings: np.ndarray, precision: str = "float32", *, exponent: Share = 1.0, dim: Size | None = None) -> Target:
    """Graded whitening: the top `dim` principal components over variance^(exponent / 2): 0 is PCA, 1 whitening.

    Centred on train; then one factor for all, so that the mean variance is 1 whatever the exponent, and losses of different
    exponents have one size. The train covariance is proportional to diag(variance^(1 - exponent)). With an exponent
    above 0, a teacher whose rank on train is below ``dim`` is an error: its empty directions would be amplified rounding. What
    counts as rounding depends on the precision that the embeddings were made or stored in.

    >>> z = np.random.default_rng(0).normal(size=(500, 3)) * [3.0, 1.0, 0.3]
    >>> np.cov(whiten(z, exponent=1.0, dim=2)(z).T, bias=True).round(3).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    dim = checked_dim(dim, embeddings.shape[1])
    mean, values, vectors = spread(embeddings, precision, "whiten", dim if exponent > 0 else 1)
    scales = values[:dim] ** (-exponent / 2) if exponent > 0 else np.ones(dim)
    scales /= np.sqrt(np.mean(values[:dim] * scales**2))
    return fitted(f"whiten{exponent:g}_{dim}", mean, vectors[:, :dim] * scales)


def spread(embeddings: np.ndarray, made: str, name: str, needed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, variances and principal directions of the unit rows, of which at least ``needed`` are more than rounding."""
    precision = precision_of(embeddings, made)
    mean, covariance = moments(embeddings)
    values, vectors = directions(covariance)
    rank = rank_of(values, rounding(mean, covariance, precision, vectors))
    if rank < needed:
        finer = "" if precision == "float32" else ", or embed in float32"
        todo = f"Set target.dim={rank} or less, or use more images{finer}." if rank else "Use embeddings that differ."
        raise UserError(f"target {name}", f"embeddings of rank {needed} or more",
                        f"rank {rank} on {len(embeddings)} train images in {precision}", todo)
    return mean, values, vectors


@targets.register("phi_s", check=lambda d, count, *, dim: checked_rotation(checked_dim(dim, d)))
def phi_s(embeddings: np.ndarray, precision: str = "float32", *, dim: Size | None = None) -> Target:
    """PHI-S: PCA rotated by a Hadamard matrix, and one factor, so that each dimension has variance 1 (Ranzinger et al. 2024).

    Distances keep their proportions, unlike with whitening: the spectrum is the teacher's, but every dimension holds an equal
    share of it. ``dim`` keeps that many principal components first; a Hadamard matrix must exist for it (1, 2, and most
    multiples of 4).

    >>> z = np.random.default_rng(0).normal(size=(500, 4)) * [3.0, 1.0, 0.3, 0.1]
    >>> phi_s(z)(z).var(axis=0).round(3).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    dim = checked_dim(dim, embeddings.shape[1])
    rotation = checked_rotation(dim)
    mean, values, vectors = spread(embeddings, precision, "phi_s", 1)
    return fitted(f"phi_s{dim}", mean, vectors[:, :dim] @ rotation.T / np.sqrt(dim * values[:dim].mean()))


def checked_rotation(dim: int) -> np.ndarray:
    """The Hadamard matrix of that order, once it is sure that there is one."""
    rotation = hadamard(dim)
    if rotation is None:
        below = next(d for d in range(dim - 1, 0, -1) if hadamard(d) is not None)
        raise UserError("target phi_s dim", "1, 2 or a multiple of 4 with a Hadamard matrix", str(dim),
                        f"Set target.dim={below}.")
    return rotation


def hadamard(order: int) -> np.ndarray | None:
    """A matrix of +1 and -1 with orthogonal rows, by Sylvester's and Paley's constructions; None where they give none.

    >>> h = hadamard(20)
    >>> bool((h @ h.T == 20 * np.eye(20)).all()), hadamard(6)
    (True, None)
    """
    if order in (1, 2):
        return np.array([[1.0, 1.0], [1.0, -1.0]])[:order, :order]
    if order % 4:
        return None
    if _is_prime(order - 1):  # Paley I, q = order - 1 = 3 mod 4
        skew = np.zeros((order, order))
        skew[0, 1:], skew[1:, 0], skew[1:, 1:] = 1, -1, _residues(order - 1)
        return skew + np.eye(order)
    half = hadamard(order // 2)
    if half is not None:  # Sylvester
        return np.block([[half, half], [half, -half]])
    q = order // 2 - 1
    if q % 4 == 1 and _is_prime(q):  # Paley II
        conference = np.zeros((q + 1, q + 1))
        conference[0, 1:], conference[1:, 0], conference[1:, 1:] = 1, 1, _residues(q)
        return np.kron(conference, [[1, 1], [1, -1]]) + np.kron(np.eye(q + 1), [[1, -1], [-1, -1]])
    return None


def _is_prime(q: int) -> bool:
    return q > 1 and all(q % f for f in range(2, int(q**0.5) + 1))


def _residues(q: int) -> np.ndarray:
    """(q, q): +1 where i - j is a square modulo the prime q, -1 where it is none, 0 on the diagonal."""
    character = np.full(q, -1.0)
    character[(np.arange(q) ** 2) % q] = 1
    character[0] = 0
    return character[(np.arange(q)[:, None] - np.arange(q)) % q]


@targets.register("random", check=lambda d, count, *, dim, **settings: checked_dim(dim, d))
def random(embeddings: np.ndarray, *, dim: Size | None = None, frequency: Positive = 10.0, seed: Count = 0) -> Target:
    """A random teacher: random cosine waves over the teacher's embedding, too fast for any two images to look related.

    sqrt(2) cos(w . x + b), w from N(0, (frequency / median distance of two train images)^2) (Rahimi & Recht 2007). Values have
    mean 0 and variance 1; images at the median distance correlate by exp(-frequency^2 / 2), and only near-copies do
    noticeably. So there is nothing to generalise, only to memorise: what the student fits on train is its capacity. A wave,
    not a hash of the row, because a hash gives another target when the last bit of an embedding differs, as between
    machines; a wave moves by about ``frequency`` times that bit. A low frequency (about 1) is a smooth, learnable target.
    """
    dim = checked_dim(dim, embeddings.shape[1])
    mean = moments(embeddings)[0]
    rng = keyed_rng("random target pairs", seed)
    first, second = (unit_rows(embeddings[rng.integers(0, len(embeddings), PAIRS)].astype(np.float64)) for _ in range(2))
    distances = np.linalg.norm(first - second, axis=1)
    if not distances.any():
        raise UserError("target random", "embeddings that differ", "equal ones", "Use another teacher.")
    speed = frequency / np.median(distances[distances > 0])
    rng = keyed_rng("random target", seed)
    waves, phases = rng.normal(size=(len(mean), dim)) * speed, rng.uniform(0, 2 * np.pi, dim)
    return fitted(f"random{dim}_{frequency:g}_{seed}", mean, waves, phases, wave=True)
