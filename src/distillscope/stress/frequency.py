"""Radial spatial frequency, as a fraction of Nyquist: 1 is half a cycle a pixel along an axis, the corners are beyond it."""

from __future__ import annotations

import math

import numpy as np


def radial_frequency(height: int, width: int, nyquist: float = 1.0) -> np.ndarray:
    """(height, width) in FFT order: the length of each frequency vector, in units where ``nyquist`` x the axes' Nyquist is 1.

    >>> radial_frequency(4, 4).round(2)[0].tolist(), float(radial_frequency(4, 4).max().round(3))
    ([0.0, 0.5, 1.0, 0.5], 1.414)
    """
    rows, columns = np.fft.fftfreq(height) / 0.5, np.fft.fftfreq(width) / 0.5
    return np.hypot(rows[:, None], columns[None, :]) / nyquist


def band_mask(radius: np.ndarray, low: float, high: float, top: float = 1.0) -> np.ndarray:
    """Which frequencies lie in [low, high); a band that reaches ``top`` includes it."""
    return (radius >= low) & ((radius < high) | (np.isclose(radius, high) & (high >= top)))


def radial_energy(images: np.ndarray, num_bins: int) -> tuple[np.ndarray, np.ndarray]:
    """(edges, energy): the squared norm of ``images`` (..., h, w) by radial frequency; the bins sum to all of it.

    ``num_bins`` equal bins from 0 to Nyquist, and one more for the corners beyond.

    >>> edges, energy = radial_energy(np.ones((2, 4, 4)), 4)
    >>> energy.round(6).tolist()
    [32.0, 0.0, 0.0, 0.0, 0.0]
    """
    height, width = images.shape[-2:]
    power = np.square(np.abs(np.fft.fft2(images, norm="ortho"))).reshape(-1, height, width).sum(axis=0)
    edges = np.append(np.linspace(0, 1, num_bins + 1), math.sqrt(2))
    place = np.searchsorted(edges, radial_frequency(height, width) + 1e-9, side="right") - 1
    return edges, np.bincount(np.minimum(place, num_bins).ravel(), weights=power.ravel(), minlength=num_bins + 1)
