"""From images as they are stored to what one model wants to see. Every model has its own."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, overload

import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from distillscope.config.parts import CLIP_MEAN, CLIP_STD
from distillscope.data.source import Images, stack


@dataclass(frozen=True)
class Preprocess:
    """Resize the shorter side, centre crop, scale to [0, 1], normalise.

    ``crop_fraction`` is timm's crop_pct: the shorter side is resized to size / crop_fraction before the crop of
    ``size``. uint8 images are resized in uint8, as PIL does it; float images in [0, 1] are clamped after resizing,
    since uint8 cannot overshoot either.

    >>> import torch
    >>> Preprocess(size=4, mean=(0.5,) * 3, std=(0.5,) * 3)(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)).unique()
    tensor([1.])
    """

    size: int
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD
    interpolation: str = "bicubic"
    crop_fraction: float = 1.0

    def __call__(self, images: Images) -> torch.Tensor:
        """(b, 3, size, size) float32, normalised, in channels-last memory."""
        if isinstance(images, list):
            return torch.cat([self(image[None]) for image in images])
        return self.normalise(self.resize(images))

    def resize(self, images: Images) -> torch.Tensor:
        """(b, 3, size, size) float32 in [0, 1], not normalised."""
        if isinstance(images, list):
            return torch.cat([self.resize(image[None]) for image in images])
        seen: torch.Tensor = images
        shorter = round(self.size / self.crop_fraction)
        if min(seen.shape[-2:]) != shorter:
            mode = InterpolationMode(self.interpolation)
            seen = F.resize(seen, [shorter], interpolation=mode, antialias=True)
        if tuple(seen.shape[-2:]) != (self.size, self.size):
            seen = F.center_crop(seen, [self.size, self.size])
        if seen.dtype == torch.uint8:
            return seen.float().div_(255)
        return seen.float().clamp(0, 1)

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """(images - mean) / std, per channel."""
        mean = torch.tensor(self.mean, device=images.device).view(1, -1, 1, 1)
        scale = torch.tensor(self.std, device=images.device).reciprocal().view(1, -1, 1, 1)
        return images.sub(mean).mul_(scale).contiguous(memory_format=torch.channels_last)

    def describe(self) -> dict[str, Any]:
        """Plain values that name this preprocessing, for cache keys and for the file beside a student's weights."""
        return asdict(self)


@overload
def unit_floats(images: torch.Tensor) -> torch.Tensor: ...


@overload
def unit_floats(images: list[torch.Tensor]) -> Images: ...


def unit_floats(images: Images) -> Images:
    """uint8 images as float32 in [0, 1]; floats as they are."""
    return stack([_unit_floats(i) for i in images]) if isinstance(images, list) else _unit_floats(images)


def _unit_floats(images: torch.Tensor) -> torch.Tensor:
    return images.float().div(255) if images.dtype == torch.uint8 else images
