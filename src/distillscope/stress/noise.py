"""Gaussian noise, declared once: where it is added, in which unit, clipped or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from distillscope.config.normalisation import CLIP_STD
from distillscope.data.preprocess import unit_floats
from distillscope.data.source import Images, stack
from distillscope.data.units import both_units, channel_scale
from distillscope.draws import keyed_rng


@dataclass(frozen=True)
class Noise:
    """Adds sigma * N(0, 1) to each image; the same draw for every model, and for every sigma up to its scale.

    ``where``: "source" adds to the stored image before any resizing, so that teacher and student see the same noisy
    image; "input" adds to the model's own normalised tensor, as the paper does. ``unit``: "pixel" counts in [0, 1]
    pixel values, "normalised" in units of the per-channel ``std``. ``clip`` keeps a noisy source image in [0, 1].
    """

    sigma: float
    draw: int = 0
    where: Literal["source", "input"] = "source"
    unit: Literal["pixel", "normalised"] = "pixel"
    clip: bool = True
    std: tuple[float, ...] = CLIP_STD
    seed: int = 0

    def __call__(self, images: Images, ids: Sequence[str]) -> Images:
        if self.where == "source":
            images = unit_floats(images)
        scale = self.sigma * channel_scale(self.where, self.unit, self.std)
        noisy = []
        for image, item in zip(images, ids, strict=True):
            rng = keyed_rng(self.seed, "noise", self.draw, item)
            normal = torch.from_numpy(rng.standard_normal(tuple(image.shape), dtype="float32"))
            noisy.append(image + (normal * scale).to(image.device))
        out = stack(noisy)
        if not (self.where == "source" and self.clip):
            return out
        return [i.clamp(0, 1) for i in out] if isinstance(out, list) else out.clamp_(0, 1)

    def describe(self) -> dict[str, Any]:
        return {"kind": "noise", **asdict(self)}

    def both_units(self) -> dict[str, Any]:
        """The same sigma in pixels ([0, 1], mean over channels) and in units of ``std``, and what was done with it."""
        return both_units(self.sigma, self.where, self.unit, self.clip, self.std)
