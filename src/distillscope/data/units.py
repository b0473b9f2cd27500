"""Units of noise: pixels in [0, 1], or a model's normalised input (pixels over the per-channel std)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def channel_scale(where: str, unit: str, std: Sequence[float]) -> torch.Tensor:
    """What one unit of sigma is, (channels, 1, 1), in the values that the noise is added to.

    ``where``: "source" is pixels, "input" the model's normalised tensor. ``unit``: "pixel" or "normalised".

    >>> channel_scale("source", "normalised", (0.25, 0.5, 0.25)).flatten().tolist()
    [0.25, 0.5, 0.25]
    >>> channel_scale("input", "pixel", (0.25, 0.5, 0.25)).flatten().tolist()
    [4.0, 2.0, 4.0]
    """
    if (where == "source") == (unit == "pixel"):
        scale = [1.0] * len(std)
    else:
        scale = [s if where == "source" else 1 / s for s in std]
    return torch.tensor(scale).view(-1, 1, 1)


def both_units(sigma: float, where: str, unit: str, clip: bool, std: Sequence[float]) -> dict[str, Any]:
    """The same sigma in pixels ([0, 1], mean over channels) and in units of ``std``, and what was done with it."""
    mean_std = sum(std) / len(std)
    pixel = sigma * mean_std if unit == "normalised" else sigma
    return {"sigma_normalised": sigma if unit == "normalised" else sigma / mean_std, "sigma_pixel": pixel,
            "sigma_255": pixel * 255, "where": "source pixels" if where == "source" else "model input",
            "clipped": where == "source" and clip}
