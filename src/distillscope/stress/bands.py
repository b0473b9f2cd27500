"""Gaussian noise limited to bands of radial frequency: what a model hears, and what it is deaf to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from distillscope.config.noise import NoiseSpec
from distillscope.data.noise import with_noise
from distillscope.data.source import Images, Source, stack
from distillscope.draws import keyed_rngs
from distillscope.errors import UserError
from distillscope.registry import Size, stresses
from distillscope.results.rows import Condition
from distillscope.stress.fourier import band_mask, radial_frequency
from distillscope.stress.subject import Findings, Subject, few, need_labels, need_range, shape_of


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
