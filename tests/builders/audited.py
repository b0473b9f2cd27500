"""Audits that the tests of an audit's page share: digits' pixels as the teacher, their leading components as the student."""

from __future__ import annotations

import functools

import numpy as np
from sklearn.datasets import load_digits

from distillscope.measure.audit import audit
from distillscope.measure.pool import Settings
from distillscope.measure.results import Audit

FEW = Settings(null_draws=9)


@functools.cache
def pixels(num_items: int = 500) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Teacher (n, 64), a student (n, 64) that keeps 8 of its components with noise, and labels."""
    digits = load_digits()
    teacher, labels = digits.data[:num_items] / 16, digits.target[:num_items]
    mean = teacher.mean(axis=0)
    components = np.linalg.svd(teacher - mean, full_matrices=False)[2][:8]
    noise = np.random.default_rng(0).normal(size=teacher.shape)
    return teacher, mean + (teacher - mean) @ components.T @ components + 0.05 * noise, labels


@functools.cache
def labelled() -> Audit:
    return audit(*pixels(), settings=FEW)


@functools.cache
def of_two_dimensions() -> Audit:
    """No labels, and the student has 20 dimensions."""
    teacher, student, _ = pixels()
    return audit(teacher, student[:, :20], settings=FEW)
