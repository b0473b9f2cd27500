"""Gaussian noise on images. Each kind (a sweep's, a view's, a band's, the notebook's) draws its own way and is added here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from distillscope.config.parts import NoiseSpec
from distillscope.data.preprocess import unit_floats
from distillscope.data.source import Images, stack
from distillscope.draws import keyed_rng


def channel_scale(spec: NoiseSpec) -> torch.Tensor:
    """What one unit of sigma is, (channels, 1, 1), in the values that the noise is added to.

    >>> channel_scale(NoiseSpec(std=(0.25, 0.5, 0.25))).flatten().tolist()
    [0.25, 0.5, 0.25]
    >>> channel_scale(NoiseSpec(where="input", unit="pixel", std=(0.25, 0.5, 0.25))).flatten().tolist()
    [4.0, 2.0, 4.0]
    """
    if (spec.where == "source") == (spec.unit == "pixel"):
        scale = [1.0] * len(spec.std)
    else:
        scale = [s if spec.where == "source" else 1 / s for s in spec.std]
    return torch.tensor(scale).view(-1, 1, 1)


def with_noise(images: torch.Tensor, normal: torch.Tensor, sigma: float | torch.Tensor, spec: NoiseSpec) -> torch.Tensor:
    """``images`` (..., c, h, w) with sigma x ``normal`` of the same shape added; ``normal`` is used up.

    ``sigma`` is a number, or one for each image (b, 1, 1, 1). Stored images (uint8) become floats, in [0, 1] where clipped.

    >>> grey = torch.full((1, 3, 2, 2), 51, dtype=torch.uint8)
    >>> with_noise(grey, torch.ones(1, 3, 2, 2), 0.5, NoiseSpec(unit="pixel")).unique().tolist()
    [0.699999988079071]
    """
    if spec.where == "source":
        images = unit_floats(images)
    noisy = images + normal.mul_(sigma * channel_scale(spec)).to(images.device)
    return noisy.clamp_(0, 1) if spec.where == "source" and spec.clip else noisy


def own_units(perturbation: Any, std: Sequence[float]) -> torch.Tensor | None:
    """What values that a model normalised by ``std`` are times to be in units of the noise's own std, (channels, 1, 1).

    None where they are so already (to 1e-4), where the noise is on stored images, and for what is no noise.

    >>> own_units(Noise(0.1, NoiseSpec(where="input", std=(0.25, 0.25, 0.25))), (0.5, 0.5, 0.25)).flatten().tolist()
    [2.0, 2.0, 1.0]
    >>> own_units(Noise(0.1, NoiseSpec(where="input")), NoiseSpec().std)
    """
    own = getattr(perturbation, "std", None)
    if own is None or perturbation.where != "input" or np.allclose(own, std, rtol=1e-4, atol=0):
        return None
    return torch.tensor([s / o for s, o in zip(std, own, strict=True)]).view(-1, 1, 1)


def on_input(perturbation: Any, inputs: torch.Tensor, ids: Sequence[str] | np.ndarray, std: Sequence[float]) -> torch.Tensor:
    """What a model sees of its ``inputs`` (b, c, h, w), normalised by ``std``: noise of one strength in pixels for all models.

    >>> noise = Noise(0.1, NoiseSpec(where="input", std=(0.25, 0.25, 0.25)))
    >>> zeros, ids = torch.zeros(1, 3, 4, 4), ["a"]
    >>> other = on_input(noise, zeros, ids, (0.5, 0.5, 0.5)) * 0.5
    >>> torch.allclose(other, on_input(noise, zeros, ids, (0.25, 0.25, 0.25)) * 0.25)
    True
    """
    units = own_units(perturbation, std)
    if units is None:
        seen: torch.Tensor = perturbation(inputs, ids)
        return seen
    units = units.to(inputs.device)
    changed: torch.Tensor = perturbation(inputs * units, ids)
    return changed / units


@dataclass(frozen=True)
class Noise:
    """Adds sigma x N(0, 1) to each image; the same draw for every model, and for every sigma up to its scale."""

    sigma: float
    spec: NoiseSpec = NoiseSpec()
    draw: int = 0
    seed: int = 0

    @property
    def where(self) -> str:
        return self.spec.where

    @property
    def std(self) -> tuple[float, ...]:
        """Of the values that its sigma counts in units of."""
        return self.spec.std

    def __call__(self, images: Images, ids: Sequence[str] | np.ndarray) -> Images:
        noisy = []
        for image, item in zip(images, ids, strict=True):
            rng = keyed_rng(self.seed, "noise", self.draw, item)
            normal = torch.from_numpy(rng.standard_normal(tuple(image.shape), dtype="float32"))
            noisy.append(with_noise(image, normal, self.sigma, self.spec))
        return stack(noisy)

    def describe(self) -> dict[str, Any]:
        return {"kind": "noise", "sigma": self.sigma, "draw": self.draw, **self.spec.model_dump(), "seed": self.seed}

    def both_units(self) -> dict[str, Any]:
        """The same sigma in pixels and in units of std, and what is done with it."""
        return self.spec.both_units(self.sigma)
