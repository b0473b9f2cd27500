"""Stresses by spatial frequency: to which detail a model listens, and which noise hurts it.

``fourier`` is the heat map of Yin et al. (2019, arXiv:1906.08988), the error that each frequency causes; ``band_noise``
Gaussian noise limited to bands of radial frequency; ``gradient`` the energy of the input gradient, with no noise at all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch

from distillscope.config.parts import NoiseSpec
from distillscope.data.noise import with_noise
from distillscope.data.preprocess import Preprocess, unit_floats
from distillscope.data.source import Images, Source, one_tensor, stack
from distillscope.devices import kept_memory
from distillscope.draws import keyed_rngs
from distillscope.errors import UserError
from distillscope.registry import Size, stresses
from distillscope.results.rows import Condition, Row
from distillscope.stress.subject import Findings, ProbeLogits, Subject, few, need_labels, need_range, probe_logits, shape_of

THIRDS = ("low", "mid", "high")
GRADIENT_BATCH = 32


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
        raise UserError("stresses.fourier.step", "a whole number of at least 1", str(step), "1 takes every frequency.")
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


@dataclass(frozen=True)
class BandNoise:
    """Noise whose frequencies lie in [low, high), fractions of the source image's Nyquist, of standard deviation sigma.

    White noise (the same draw for every band and sigma) is filtered in the Fourier domain and scaled so that its
    expected variance is sigma^2 at every pixel: all bands have equal total power. ``source_side``: on a model's input,
    the shorter side of the stored image, in whose Nyquist frequencies are counted; above 1 is then out of band, where an
    image that was enlarged has nothing. Clipping spills a little power into other bands.
    """

    low: float
    high: float
    sigma: float
    spec: NoiseSpec = NoiseSpec()
    draw: int = 0
    seed: int = 0
    source_side: int | None = None

    @property
    def where(self) -> str:
        return self.spec.where

    @property
    def std(self) -> tuple[float, ...]:
        return self.spec.std

    def __call__(self, images: Images, ids: Sequence[str] | np.ndarray) -> Images:
        if isinstance(images, list):
            return stack([self(image[None], [item])[0] for image, item in zip(images, ids, strict=True)])
        white = np.empty(tuple(images.shape), np.float32)
        for i, rng in zip(range(len(white)), keyed_rngs(ids, self.seed, "band noise", self.draw), strict=False):
            rng.standard_normal(dtype=np.float32, out=white[i])
        return with_noise(images, torch.from_numpy(self.filtered(white)), self.sigma, self.spec)

    def filtered(self, white: np.ndarray) -> np.ndarray:
        """``white`` (..., h, w) of variance 1 with only this band left, and variance 1 in expectation."""
        height, width = white.shape[-2:]
        ratio = min(height, width) / self.source_side if self.source_side else 1.0
        mask = band_mask(radial_frequency(height, width, 1 / ratio), self.low, self.high, ratio)
        if not mask.any():
            raise UserError("band_noise.bands", f"a band with frequencies in it (the input shows 0 to {ratio:g})",
                            f"{self.low:g}-{self.high:g} at {height} x {width}", "Choose a wider band.")
        gain = mask * np.sqrt(mask.size / mask.sum())
        return np.fft.ifft2(np.fft.fft2(white) * gain).real.astype(np.float32)

    def describe(self) -> dict[str, Any]:
        return {"kind": "band noise", "low": self.low, "high": self.high, "sigma": self.sigma, "draw": self.draw,
                **self.spec.model_dump(), "seed": self.seed, "source_side": self.source_side}

    def both_units(self) -> dict[str, Any]:
        return {**self.spec.both_units(self.sigma), "band": [self.low, self.high],
                "band_unit": "fractions of the source image's Nyquist frequency"}


@stresses.register("band_noise")
def band_noise(model: Subject, test: Source, labels: np.ndarray | None, seed: int, *,
               bands: tuple[tuple[float, float], ...] = ((0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1)),
               sigmas: tuple[float, ...] = (0.1, 0.2), draws: Size = 1, spec: NoiseSpec = NoiseSpec(),
               items: int = 1000) -> Findings:
    """Accuracy under Gaussian noise of equal power in bands of radial frequency (condition band=LOW-HIGH/SIGMA).

    Bands are fractions of the source image's Nyquist, [low, high). At the source they lie in 0 to 1. With `where: input`
    they may reach input size / source size: above 1 lies what an enlarged image does not have (@input in the condition).
    """
    need_labels(labels, "stresses.band_noise")
    few_items, shorter = few(test, items, "stresses.band_noise"), min(shape_of(test))
    # What an input shows depends on the model, so the bound above is checked for each; a source shows up to its Nyquist.
    limit = 1.0 if spec.where == "source" else float("inf")
    for low, high in bands:
        if not 0 <= low < high <= limit:
            raise UserError("stresses.band_noise.bands", f"0 <= low < high{' <= 1' if limit == 1 else ''}",
                            f"[{low:g}, {high:g}]", "Bands are fractions of the source image's Nyquist frequency.")
    for sigma in sigmas:
        need_range(sigma, "stresses.band_noise.sigmas")
    found = Findings(rows=model.accuracy(few_items, Condition.unchanged("band"), None, None))  # clean, on the same items
    shown = 1.0 if spec.where == "source" or model.preprocess is None else model.preprocess.size / shorter
    for low, high in bands:
        if low >= shown and model.preprocess is not None:
            found.skipped.append(f"band={low:g}-{high:g}: this model's input shows only 0 to {shown:g} of the source's Nyquist")
            continue
        for sigma in sigmas:
            name = Condition.band(low, high, sigma, at_input=spec.where == "input")
            for draw in range(draws):
                noise = BandNoise(low, high, sigma, spec, draw, seed, shorter if spec.where == "input" else None)
                found.rows += model.accuracy(few_items, name, draw, noise)
            found.conditions[name] = noise.both_units()
    return found


@stresses.register("gradient")
def gradient(model: Subject, test: Source, labels: np.ndarray | None, seed: int, *,
             of: Literal["embedding", "margin"] = "embedding", bins: int = 16, items: int = 512) -> Findings:
    """Energy of the gradient with respect to the stored pixels, by radial frequency (curve stress.gradient.SIDE).

    `of: embedding`: of u . z / |z| with u normal, drawn for each image: in expectation the squared Frobenius norm of the
    Jacobian of the unit-norm embedding (the cosine to the clean embedding itself has no gradient there, being at its
    maximum); the teacher's is taken before any target transform. `of: margin`: of the true class's logit less the largest
    other one, by the first probe; students only (gradient.margin.*). The
    curve gives each bin's share of the energy; rows its sum, its mean frequency (an even spectrum: 0.765), and its share
    above half of Nyquist.
    """
    if bins < 1:
        raise UserError("stresses.gradient.bins", "a whole number of at least 1", str(bins), "16 suits 32 px.")
    if of == "margin":
        need_labels(labels, "stresses.gradient")
    few_items = few(test, items, "stresses.gradient")
    shape_of(few_items)
    if model.module is None or model.preprocess is None:
        return Findings(skipped=["gradient: ready-made embeddings have no network to differentiate"])
    if of == "margin" and not model.is_student:
        return Findings(skipped=[("gradient of the margin: for students only "
                                  "(the teacher's probe sees a transform of its output)")])
    head = probe_logits(next(iter(model.probes.values())), model.device) if of == "margin" else None
    edges, energy = energy_by_frequency(model.module, model.preprocess, model.device, head, few_items, bins, seed)
    total = float(energy.sum())
    centres = (edges[:-1] + edges[1:]) / 2
    if total == 0:
        return Findings(skipped=["gradient: it is zero for every image"])
    # Half of Nyquist is the edge of a bin where their number is even; else the bin in the middle counts by its half.
    above = np.clip((edges[1:] - 0.5) / (edges[1:] - edges[:-1]), 0, 1)
    name, n = f"gradient.{model.side}" if of == "embedding" else f"gradient.{of}.{model.side}", len(few_items)
    rows = [Row.clean(f"{name}.energy", total / n, n, f"squared gradient of {of} an image, a pixel value in [0, 1]"),
            Row.clean(f"{name}.frequency", float(energy @ centres) / total, n, "fraction of Nyquist, energy-weighted mean"),
            Row.clean(f"{name}.high_share", float(energy @ above) / total, n, "fraction of the energy above half of Nyquist")]
    curve = {"x": centres.tolist(), "y": (energy / total).tolist(), "low": None, "high": None, "unit": "share of the energy",
             "definition": f"energy of the gradient of {of}, by radial frequency "
                           "(fractions of Nyquist; the last bin is the corners)"}
    return Findings(rows=rows, curves={f"stress.{name}": curve})


@kept_memory()
def energy_by_frequency(module: torch.nn.Module, preprocess: Preprocess, device: torch.device, head: ProbeLogits | None,
                        items: Source, bins: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(edges, energy) summed over images and channels: of the margin of ``head`` where there is one, else of the embedding."""
    was_training = module.training
    module.eval()
    labels = need_labels(items.labels, "stresses.gradient") if head is not None else np.empty(0)
    total = np.zeros(bins + 1)
    for start in range(0, len(items), GRADIENT_BATCH):
        indices = np.arange(start, min(start + GRADIENT_BATCH, len(items)))
        pixels = unit_floats(one_tensor(items.read(indices))).to(device).requires_grad_(True)
        z = module(preprocess(pixels)).float()
        if head is None:
            rngs = keyed_rngs(items.ids[indices], seed, "gradient")
            u = np.stack([rng.standard_normal(z.shape[1], dtype=np.float32) for rng in rngs])
            scalar = (torch.nn.functional.normalize(z, dim=1) * torch.from_numpy(u).to(z.device)).sum()
        else:
            scalar = margins(head(z), torch.from_numpy(head.places(labels[indices])).to(z.device)).sum()
        found = torch.autograd.grad(scalar, pixels)[0]
        edges, energy = radial_energy(found.double().cpu().numpy(), bins)
        total = total + energy
    module.train(was_training)
    return edges, total


def margins(logits: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """(n,) logit of the true class less the largest of the others.

    >>> margins(torch.tensor([[1.0, 4.0, 2.0]]), torch.tensor([2])).item()
    -2.0
    """
    own = logits.gather(1, true[:, None])[:, 0]
    return own - logits.scatter(1, true[:, None], -torch.inf).max(dim=1).values
