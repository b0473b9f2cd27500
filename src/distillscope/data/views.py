"""Augmented views: (image, rng) -> image, replayable from (seed, epoch, item id).

The teacher's cached embedding of a view and the student's later sight of it come from the same draw, so that a cached
target is what a live teacher would have given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torchvision.transforms.v2 import functional as F

from distillscope.data.source import Images, stack
from distillscope.draws import keyed_rng
from distillscope.registry import views


@views.register("crop_flip")
def crop_flip(image: torch.Tensor, rng: np.random.Generator, *, padding: int = 4, flip: float = 0.5) -> torch.Tensor:
    """Pad with zeros, crop at random to the old size, mirror with probability `flip` (the usual CIFAR augmentation)."""
    height, width = image.shape[-2:]
    top, left = rng.integers(0, 2 * padding + 1, size=2)
    mirrored = rng.random() < flip
    image = F.pad(image, [padding] * 4)[..., top : top + height, left : left + width]
    return image.flip(-1) if mirrored else image


@dataclass(frozen=True)
class View:
    """A registered view at one epoch of one seed: a perturbation that any encoder can be given."""

    name: str
    settings: dict[str, Any]
    seed: int
    epoch: int | str
    where: str = "source"

    def __call__(self, images: Images, ids: Sequence[str]) -> Images:
        view = partial(views.get(self.name), **self.settings)
        keyed = ((image, keyed_rng(self.seed, "view", self.name, self.epoch, item)) for image, item in zip(images, ids, strict=True))
        return stack([view(image, rng) for image, rng in keyed])

    def describe(self) -> dict[str, Any]:
        settings = {k: p.default for k, p in views.settings(self.name).items()} | self.settings
        return {"kind": "view", "name": self.name, "settings": settings, "seed": self.seed, "epoch": self.epoch}
