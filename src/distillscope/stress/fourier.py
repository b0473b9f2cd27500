"""Fourier heat map (Yin et al. 2019, arXiv:1906.08988): the error that each spatial frequency causes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from distillscope.data.preprocess import unit_floats
from distillscope.data.source import Images, Source, stack
from distillscope.draws import keyed_rngs
from distillscope.errors import UserError
from distillscope.registry import stresses
from distillscope.results.rows import Condition, Row
from distillscope.stress.subject import Findings, Subject, few, need_labels, need_range, shape_of

THIRDS = ("low", "mid", "high")


def fourier_basis(height: int, width: int, row: int, column: int) -> np.ndarray:
    """(height, width) real, of unit norm, whose only frequencies are (row, column) cycles an image and its mirror.

    >>> wave = fourier_basis(8, 8, 1, 2)
    >>> float(np.linalg.norm(wave).round(6)), np.argwhere(np.abs(np.fft.fft2(wave)) > 1e-6).tolist()
    (1.0, [[1, 2], [7, 6]])
    """
    y, x = np.mgrid[:height, :width]
    wave = np.cos(2 * np.pi * (row * y / height + column * x / width))
    return wave / np.linalg.norm(wave)


@dataclass(frozen=True)
class FourierNoise:
    """Adds +-norm x one basis wave to each channel of the stored image, its sign drawn for each image and channel.

    ``norm`` is the L2 norm in each channel, in pixel values of [0, 1]; the result is clipped to [0, 1].
    """

    row: int
    column: int
    norm: float = 4.0
    seed: int = 0

    where = "source"

    def __call__(self, images: Images, ids: Sequence[str] | np.ndarray) -> Images:
        if isinstance(images, list):
            return stack([self(image[None], [item])[0] for image, item in zip(images, ids, strict=True)])
        images = unit_floats(images)
        channels, height, width = images.shape[1:]
        wave = torch.from_numpy(fourier_basis(height, width, self.row, self.column)).float().to(images.device)
        drawn = (rng.integers(0, 2, channels) for rng in keyed_rngs(ids, self.seed, "fourier", self.row, self.column))
        signs = torch.from_numpy(2.0 * np.stack(list(drawn)) - 1).float().to(images.device)
        return (images + self.norm * signs[:, :, None, None] * wave).clamp_(0, 1)

    def describe(self) -> dict[str, Any]:
        return {"kind": "fourier", **asdict(self)}


def half_plane(height: int, width: int, step: int) -> list[tuple[int, int]]:
    """Every ``step``-th frequency (row, column), centred at 0, one of each mirrored pair.

    >>> half_plane(4, 4, 2)
    [(-2, -2), (-2, 0), (0, -2), (0, 0)]
    """
    found, seen = [], set()
    for row in range(-(height // 2), (height + 1) // 2):
        for column in range(-(width // 2), (width + 1) // 2):
            if row % step == 0 and column % step == 0 and (row % height, column % width) not in seen:
                seen |= {(row % height, column % width), (-row % height, -column % width)}
                found.append((row, column))
    return found


def heat_map(height: int, width: int, errors: dict[tuple[int, int], float]) -> np.ndarray:
    """(height, width) errors with frequency 0 in the middle, mirrored; NaN where nothing was measured."""
    table = np.full((height, width), np.nan)
    for (row, column), error in errors.items():
        table[row % height, column % width] = table[-row % height, -column % width] = error
    return np.fft.fftshift(table)


def by_third(errors: dict[tuple[int, int], float], height: int, width: int) -> dict[str, float]:
    """Mean error in the low, middle and high third of radial frequencies up to Nyquist; the corners beyond count as high."""
    groups: dict[str, list[float]] = {}
    for (row, column), error in errors.items():
        radius = np.hypot(row / (height / 2), column / (width / 2))
        # A mirrored pair is two points of the map; frequencies that are their own mirror are one.
        twice = 1 if (2 * row % height, 2 * column % width) == (0, 0) else 2
        groups.setdefault(THIRDS[min(2, int(3 * radius + 1e-9))], []).extend([error] * twice)
    return {third: float(np.mean(groups[third])) for third in THIRDS if third in groups}


@stresses.register("fourier")
def fourier(model: Subject, test: Source, labels: np.ndarray | None, seed: int, *, norm: float = 4.0, step: int = 1,
            items: int = 256, teacher: bool = False) -> Findings:
    """Fourier heat map: error under each basis wave of L2 norm `norm` a channel (condition fourier=low, mid, high).

    The map is saved as stress/fourier.PROBE.npy, frequency 0 in the middle; the rows hold the means over thirds of the
    radial frequencies. 4 is the norm of Yin et al. at 32 px: a wave of root mean square norm / sqrt(h w) = 0.125. Students
    only, unless `teacher`: there are half as many waves as pixels. `step: 2` takes every second frequency along each axis.
    """
    need_labels(labels, "stresses.fourier")
    need_range(norm, "stresses.fourier.norm")
    if step < 1:
        raise UserError("stresses.fourier.step", "a whole number from 1 up", str(step), "1 takes every frequency.")
    few_items = few(test, items, "stresses.fourier")
    height, width = shape_of(few_items)
    if not (model.is_student or teacher):
        return Findings(skipped=["fourier: for students only (teacher: true measures the teacher too)"])
    errors: dict[str, dict[tuple[int, int], float]] = {head: {} for head in model.probes}
    for row, column in half_plane(height, width, step):
        label = f"fourier {row},{column}"
        rows = model.accuracy(few_items, label, None, FourierNoise(row, column, norm, seed))
        for head, accuracy in zip(model.probes, rows, strict=True):
            errors[head][row, column] = 1 - accuracy.value
    found = Findings()
    for head, each in errors.items():
        found.arrays[f"fourier.{head}"] = heat_map(height, width, each)
        found.rows += [Row(f"{head}.{model.side}.fourier_error", Condition.of("fourier", third), None, error, len(few_items),
                           "fraction, mean over frequencies") for third, error in by_third(each, height, width).items()]
    for third in THIRDS:
        found.conditions[Condition.of("fourier", third)] = {"norm": norm, "rms_pixel": norm / (height * width) ** 0.5,
                                                           "where": "source pixels", "clipped": True}
    return found


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
