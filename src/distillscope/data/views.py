"""Augmented views: (image, rng) -> image, replayable from (seed, epoch, item id).

The teacher's cached embedding of a view and the student's later sight of it come from the same draw, so that a cached
target is what a live teacher would have given. A view registered with ``whole_batch=True`` sees all images of a batch at once,
with a generator for each (`facts.ViewFacts`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torchvision.transforms.v2 import functional as F

from distillscope.config.parts import NoiseSpec
from distillscope.data.noise import with_noise
from distillscope.data.source import Images, stack
from distillscope.draws import keyed_rng, keyed_rngs
from distillscope.errors import UserError
from distillscope.registry import Count, Share, Strength, views


@views.register("crop_flip")
def crop_flip(image: torch.Tensor, rng: np.random.Generator, *, padding: Count = 4, flip: Share = 0.5) -> torch.Tensor:
    """Pad with zeros, crop at random to the old size, mirror with probability `flip` (the usual CIFAR augmentation)."""
    height, width = image.shape[-2:]
    top, left = rng.integers(0, 2 * padding + 1, size=2)
    mirrored = rng.random() < flip
    image = F.pad(image, [padding] * 4)[..., top : top + height, left : left + width]
    return image.flip(-1) if mirrored else image


def fixed_draws(settings: Mapping[str, Any]) -> int | None:
    """A fixed sigma's draws were others once: embeddings stored then are not theirs."""
    return 2 if settings["fixed"] else None


@views.register("noise", whole_batch=True, revision=fixed_draws)
def noise(images: Images, rngs: Iterator[np.random.Generator], *, sigma: Strength = 0.3, fixed: bool = False,
          spec: NoiseSpec = NoiseSpec()) -> Images:
    """Gaussian noise, its sigma drawn for each image from 0 to `sigma`, or `fixed` at it; the remedy for noise.

    Settings are no part of the draw's key, so two strengths, fixed or drawn, share their draws up to scale.

    >>> grey = torch.full((2, 3, 4, 4), 128, dtype=torch.uint8)
    >>> View("noise", {"sigma": 0.0}, 1, 0)(grey, ["a", "b"]).mul(255).unique().round()
    tensor([128.])
    """
    if not 0 <= sigma < float("inf"):
        raise UserError("view.sigma", "a finite number of at least 0", str(sigma), "0.1 to 0.3 suits normalised units.")
    if isinstance(images, list):
        return stack([noise(image[None], rngs, sigma=sigma, fixed=fixed, spec=spec)[0] for image in images])
    count, channels, height, width = images.shape
    normal = np.empty((count, height, width, channels), np.float32)
    levels = np.empty(count, np.float32)
    for i, rng in zip(range(count), rngs, strict=False):
        drawn = rng.random()  # also where it is not used, so that a fixed sigma shares the draws that follow
        levels[i] = sigma if fixed else sigma * drawn
        rng.standard_normal(dtype=np.float32, out=normal[i])
    return with_noise(images, torch.from_numpy(normal).permute(0, 3, 1, 2), torch.from_numpy(levels).view(-1, 1, 1, 1), spec)


@dataclass(frozen=True)
class OnTop:
    """A view, and on top of it another: what a student sees of an image of which the teacher saw the first alone."""

    first: View
    then: View

    @property
    def where(self) -> str:
        """Where both are applied."""
        return self.first.where

    @property
    def std(self) -> tuple[float, ...] | None:
        """That of the noise among them; of two they are one (`study.prepared.seen_view`)."""
        return self.first.std or self.then.std

    def __call__(self, images: Images, ids: Sequence[str] | np.ndarray) -> Images:
        return self.then(self.first(images, ids), ids)


@dataclass(frozen=True)
class View:
    """A registered view at one epoch of one seed: a perturbation that any encoder can be given."""

    name: str
    settings: dict[str, Any]
    seed: int | str
    epoch: int | str

    @property
    def where(self) -> str:
        """"source": applied to the stored image; "input": to the model's own normalised tensor."""
        return self.settings.get("where", "source")

    @property
    def std(self) -> tuple[float, ...] | None:
        """Of the values that noise counts in units of; None of a view that is none."""
        if not views.takes(self.name, NoiseSpec):
            return None
        return tuple(self.settings.get("std", NoiseSpec().std))

    def __call__(self, images: Images, ids: Sequence[str] | np.ndarray) -> Images:
        view = partial(views.get(self.name), **views.arguments(self.name, self.settings))
        if views.facts(self.name).whole_batch:
            return view(images, keyed_rngs(ids, self.seed, "view", self.name, self.epoch))
        keyed = ((image, keyed_rng(self.seed, "view", self.name, self.epoch, item))
                 for image, item in zip(images, ids, strict=True))
        return stack([view(image, rng) for image, rng in keyed])

    def describe(self) -> dict[str, Any]:
        settings = {k: p.default for k, p in views.settings(self.name).items()} | self.settings
        revised = views.facts(self.name).revision
        revision = revised(settings) if revised else None
        return {"kind": "view", "name": self.name, "settings": settings, "seed": self.seed, "epoch": self.epoch,
                **({"revision": revision} if revision else {})}
