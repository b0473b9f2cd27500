"""What the common corruptions are made of: kernels, zooms, clouds."""

from __future__ import annotations

import functools
import math

import numpy as np
from PIL import Image
from scipy import ndimage


def defocus_kernel(radius: float, softness: float) -> np.ndarray:
    """A disk of that radius on whole pixels, blurred by a 3 x 3 Gaussian of sigma ``softness``; it sums to 1.

    >>> bool(np.isclose(defocus_kernel(1.5, 0.1).sum(), 1))
    True
    """
    reach = max(2, math.ceil(radius) + 1)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disk = (x**2 + y**2 <= radius**2).astype(float)
    taps = np.exp(-np.array([1.0, 0.0, 1.0]) / (2 * softness**2))
    taps /= taps.sum()
    soft = ndimage.correlate(disk / disk.sum(), np.outer(taps, taps), mode="constant")
    return soft / soft.sum()


def motion_blurred(x: np.ndarray, radius: float, sigma: float, degrees: float) -> np.ndarray:
    """``x`` (h, w, c) averaged along a line from each pixel, with the half-Gaussian weights of ImageMagick's motion blur.

    The line has 2 ceil(radius) + 1 pixels; beyond the border the outermost pixel is repeated.
    """
    steps = np.arange(2 * math.ceil(radius) + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    angle = math.radians(degrees)
    height, width = x.shape[:2]
    rows, columns = np.arange(height), np.arange(width)
    out = np.zeros_like(x)
    for step, weight in zip(steps, weights, strict=True):
        if weight < 1e-4:  # a quarter of a grey level at most, for all the pixels that are left
            break
        down, right = math.ceil(step * math.sin(angle) - 0.5), math.ceil(step * math.cos(angle) - 0.5)
        out += weight * x[np.clip(rows + down, 0, height - 1)][:, np.clip(columns + right, 0, width - 1)]
    return out


def zoomed(x: np.ndarray, factor: float) -> np.ndarray:
    """The middle of ``x`` (h, w) or (h, w, c), enlarged linearly by ``factor`` to the old size."""
    height, width = x.shape[:2]
    tall = (_zoom_matrix(height, factor) @ x.reshape(height, -1)).reshape(height, width, -1)
    return np.matmul(_zoom_matrix(width, factor), tall).reshape(x.shape)


@functools.lru_cache(maxsize=256)
def _zoom_matrix(size: int, factor: float) -> np.ndarray:
    """(size, size): the middle of a line of pixels, enlarged. A matrix is five times faster than scipy's zoom, whose it is."""
    kept = math.ceil(size / factor)
    first = (size - kept) // 2
    enlarged = ndimage.zoom(np.eye(size)[first : first + kept], (factor, 1), order=1)
    start = (len(enlarged) - size) // 2
    return np.ascontiguousarray(enlarged[start : start + size])


def plasma(side: int, decay: float, rng: np.random.Generator) -> np.ndarray:
    """A cloud (m, m) in [0, 1], m the power of two from ``side`` up: diamond-square on a torus.

    Each round adds uniform noise of +-(100 / decay^round)^2 to the mean of four neighbours (the published code
    multiplies by the amplitude twice).
    """
    size = 1 << max(1, math.ceil(math.log2(side)))
    field, step, amplitude = np.zeros((size, size)), size, 100.0

    def jitter(shape: tuple[int, ...]) -> np.ndarray:
        return rng.uniform(-1, 1, shape) * amplitude**2

    while step >= 2:
        half = step // 2
        corners = field[::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=0)
        field[half::step, half::step] = (pairs + np.roll(pairs, -1, axis=1)) / 4 + jitter(corners.shape)
        centres = field[half::step, half::step]
        across, along = corners + np.roll(corners, -1, axis=1), corners + np.roll(corners, -1, axis=0)
        field[::step, half::step] = (centres + np.roll(centres, 1, axis=0) + across) / 4 + jitter(corners.shape)
        field[half::step, ::step] = (centres + np.roll(centres, 1, axis=1) + along) / 4 + jitter(corners.shape)
        step, amplitude = half, amplitude / decay
    field -= field.min()
    return field / field.max()


def affine_of(height: int, width: int, shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(matrix, offset) from output to input places for the affine map that moves three points by ``shifts`` (3, 2)."""
    centre, arm = np.array([height // 2, width // 2]), min(height, width) // 3
    before = np.array([centre + arm, centre + [arm, -arm], centre - arm], dtype=float)
    homogeneous = np.column_stack([before + shifts, np.ones(3)])
    found = np.linalg.solve(homogeneous, before)  # output points, with a 1, times this are input points
    return found[:2].T, found[2]


def box_resized(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """``x`` (h, w, 3) in [0, 1] resized by Pillow's box filter, in 8 bits."""
    image = Image.fromarray(np.round(x * 255).astype(np.uint8))
    return np.asarray(image.resize((max(1, width), max(1, height)), Image.Resampling.BOX)) / 255
