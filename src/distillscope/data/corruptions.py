"""Common corruptions: (image, severity, rng) -> image, after Hendrycks & Dietterich 2019 (arXiv:1903.12261).

Fourteen of their fifteen, with the strengths of CIFAR-10-C; frost is left out, since it pastes photographs of ice that
are not ours to ship. An image is float64 (h, w, 3) in [0, 1]; the result may leave that range and is clipped by
`apply_corruption`. Lengths are CIFAR-10-C's, made for 32 px, and grow with the image's shorter side. The kernels are
SciPy's and Pillow's where theirs are scikit-image's, OpenCV's and ImageMagick's: borders and rounding differ a little,
random draws altogether, so accuracies are near those on the published CIFAR-10-C and never equal to them.
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from distillscope.errors import UserError
from distillscope.registry import corruptions

SEVERITIES = (1, 2, 3, 4, 5)
SIDE = 32
"""The shorter side of the images that the strengths were made for."""

Rng = np.random.Generator


def apply_corruption(name: str, image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """The corrupted image, uint8 (h, w, 3) like ``image``; values are cut off to whole numbers as in CIFAR-10-C.

    >>> grey = np.full((8, 8, 3), 100, np.uint8)
    >>> int(apply_corruption("brightness", grey, 3, np.random.default_rng(0))[0, 0, 0])
    138
    """
    check_severity(severity)
    found = corruptions.get(name, "corruption")(image / 255.0, severity, rng)
    return np.floor(np.clip(found, 0, 1) * 255 + 1e-6).astype(np.uint8)


def check_severity(severity: int, where: str = "severity") -> None:
    """Refuse what is not 1 to 5: severity 0 is the clean image and measured as such."""
    if severity not in SEVERITIES:
        raise UserError(where, "a whole number from 1 to 5", str(severity),
                        "0 would be the clean image, which is always measured.")


def _of(strengths: Sequence[Any], severity: int) -> Any:
    return strengths[severity - 1]


def _side(x: np.ndarray) -> float:
    return min(x.shape[:2]) / SIDE


def _smooth(x: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(x, sigma=(sigma, sigma, 0)[: x.ndim], mode="nearest")


@corruptions.register("gaussian_noise")
def gaussian_noise(x: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """Normal noise of sigma 0.04 to 0.1 in pixels, as in bad light."""
    return x + _of([0.04, 0.06, 0.08, 0.09, 0.10], severity) * rng.standard_normal(x.shape)


@corruptions.register("shot_noise")
def shot_noise(x: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """Poisson noise of 500 down to 50 photons at full brightness."""
    photons = _of([500, 250, 100, 75, 50], severity)
    return rng.poisson(x * photons) / photons


@corruptions.register("impulse_noise")
def impulse_noise(x: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """Salt and pepper: 1 to 7 per cent of the values set to 0 or 1, half each."""
    struck = rng.random(x.shape) < _of([0.01, 0.02, 0.03, 0.05, 0.07], severity)
    return np.where(struck, (rng.random(x.shape) < 0.5).astype(x.dtype), x)


@corruptions.register("defocus_blur")
def defocus_blur(x: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """Averaging over a disk, softened at its edge: a lens out of focus."""
    radius, softness = _of([(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)], severity)
    return ndimage.correlate(x, defocus_kernel(radius * _side(x), softness)[..., None], mode="mirror")


@corruptions.register("glass_blur")
def glass_blur(x: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """Each pixel taken from up to `reach` pixels above and to its left, between two light blurs: frosted glass.

    The published code means to swap neighbours, yet in effect copies them, and only from one side; so does this.
    """
    sigma, reach, rounds = _of([(0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)], severity)
    sigma, reach = sigma * _side(x), max(1, round(reach * _side(x)))
    x = np.floor(_smooth(x, sigma) * 255 + 1e-6) / 255
    height, width = x.shape[:2]
    rows, columns = np.mgrid[reach + 1 : height - reach + 1, reach + 1 : width - reach + 1]
    for _ in range(rounds):
        down, right = rng.integers(-reach, reach, size=(2, *rows.shape))
        shuffled = x.copy()
        shuffled[rows, columns] = x[np.minimum(rows + down, height - 1), np.minimum(columns + right, width - 1)]
        x = shuffled
    return _smooth(x, sigma)


@corruptions.register("motion_blur")
def motion_blur(x: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """A trail of half-Gaussian weight in a direction within 45 degrees of the horizontal."""
    radius, sigma = _of([(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)], severity)
    return motion_blurred(x, radius * _side(x), sigma * _side(x), rng.uniform(-45, 45))


@corruptions.register("zoom_blur")
def zoom_blur(x: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """The mean of the image and its enlargements by up to 6 to 26 per cent, in steps of 1."""
    factors = np.arange(1, _of([1.06, 1.11, 1.16, 1.21, 1.26], severity), 0.01)
    return (x + sum(zoomed(x, f) for f in factors)) / (len(factors) + 1)


@corruptions.register("snow")
def snow(x: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """Flakes that fall, blurred by their motion, over a whitened image."""
    mean, spread, zoom, threshold, radius, sigma, kept = _of(
        [(0.1, 0.2, 1, 0.6, 8, 3, 0.95), (0.1, 0.2, 1, 0.5, 10, 4, 0.9), (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
         (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85), (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8)], severity)
    layer = zoomed(mean + spread * rng.standard_normal(x.shape[:2]), zoom)
    layer = np.clip(np.where(layer < threshold, 0, layer), 0, 1)[..., None]
    layer = motion_blurred(layer, radius * _side(x), sigma * _side(x), rng.uniform(-135, -45))
    grey = x @ np.array([0.299, 0.587, 0.114])
    return kept * x + (1 - kept) * np.maximum(x, 1.5 * grey[..., None] + 0.5) + layer + np.rot90(layer, 2)


@corruptions.register("fog")
def fog(x: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """A cloud from the diamond-square algorithm added, and the whole scaled back to its old maximum."""
    amount, decay = _of([(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)], severity)
    top = x.max()
    cloud = plasma(max(x.shape[:2]), decay, rng)[: x.shape[0], : x.shape[1], None]
    return (x + amount * cloud) * top / (top + amount)


@corruptions.register("brightness")
def brightness(x: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """HSV's value raised by 0.05 to 0.3, hue and saturation kept."""
    value = x.max(axis=2, keepdims=True)
    raised = np.minimum(value + _of([0.05, 0.1, 0.15, 0.2, 0.3], severity), 1)
    return np.where(value > 0, x * (raised / np.where(value > 0, value, 1)), raised)


@corruptions.register("contrast")
def contrast(x: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """Each channel drawn towards its mean, to 0.75 down to 0.15 of its contrast."""
    mean = x.mean(axis=(0, 1), keepdims=True)
    return mean + _of([0.75, 0.5, 0.4, 0.3, 0.15], severity) * (x - mean)


@corruptions.register("elastic_transform")
def elastic_transform(x: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """A random affine map, then a smooth random displacement."""
    strengths = [(0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)]
    height, width = x.shape[:2]
    size = min(height, width)
    alpha, sigma, shift = (size * v for v in _of(strengths, severity))
    inverse, offset = affine_of(height, width, rng.uniform(-shift, shift, size=(3, 2)))
    x = np.stack([ndimage.affine_transform(x[..., c], inverse, offset, order=1, mode="mirror") for c in range(3)], axis=-1)
    moved = [alpha * ndimage.gaussian_filter(rng.uniform(-1, 1, (height, width)), sigma, mode="reflect", truncate=3)
             for _ in range(2)]
    at = np.mgrid[:height, :width] + np.stack(moved)
    return np.stack([ndimage.map_coordinates(x[..., c], at, order=1, mode="reflect") for c in range(3)], axis=-1)


@corruptions.register("pixelate")
def pixelate(x: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """Reduced to 95 down to 65 per cent of its size by averaging over boxes, and enlarged again."""
    share = _of([0.95, 0.9, 0.85, 0.75, 0.65], severity)
    height, width = x.shape[:2]
    return box_resized(box_resized(x, int(height * share), int(width * share)), height, width)


@corruptions.register("jpeg_compression")
def jpeg_compression(x: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """JPEG at quality 80 down to 40."""
    encoded = io.BytesIO()
    Image.fromarray(np.round(x * 255).astype(np.uint8)).save(encoded, "JPEG", quality=_of([80, 65, 58, 50, 40], severity))
    with Image.open(encoded) as decoded:
        return np.asarray(decoded.convert("RGB")) / 255


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
