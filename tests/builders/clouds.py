"""Embeddings that the tests of measures share: small, seeded, and with a spectrum that is not flat."""

import numpy as np


def cloud(seed: int, n: int = 200, d: int = 12, decay: float = 0.7, mean: float = 0.3) -> np.ndarray:
    """Gaussian rows (n, d) whose k-th standard deviation is k^-decay, around a mean, in a random basis."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(d, d)))[0]
    return (rng.normal(size=(n, d)) * np.arange(1, d + 1) ** -decay + mean) @ basis


def student_of(teacher: np.ndarray, seed: int, noise: float = 0.3) -> np.ndarray:
    """The teacher with noise."""
    return teacher + noise * np.random.default_rng(seed).normal(size=teacher.shape)


def rotation(seed: int, d: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]
