"""How Gaussian noise is added: the one place for where, in which unit, clipped or not. What adds it is `data.noise`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from distillscope.registry import Positive

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""The channel statistics that CLIP's images are normalised with: the default mean and std of models and of noise."""


class NoiseSpec(BaseModel):
    """Where noise is added, and in which unit its sigma counts.

    ``where``: "source" adds to the stored image before any resizing, so that teacher and student see the same noisy image;
    "input" adds to the model's own normalised tensor, as the paper does. ``unit``: "pixel" counts in [0, 1] pixel values,
    "normalised" in units of the per-channel ``std``. ``clip`` keeps a noisy source image in [0, 1].

    A part that takes it as a setting has its fields among its own settings, and the study's where it sets none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    where: Literal["source", "input"] = "source"
    unit: Literal["pixel", "normalised"] = "normalised"
    clip: bool = True
    std: tuple[Positive, Positive, Positive] = CLIP_STD

    def both_units(self, sigma: float) -> dict[str, Any]:
        """``sigma`` in pixels ([0, 1], mean over channels) and in units of ``std``, and what is done with it.

        >>> NoiseSpec(std=(0.25, 0.25, 0.25)).both_units(0.1)["sigma_pixel"]
        0.025
        """
        mean_std = sum(self.std) / len(self.std)
        pixel = sigma * mean_std if self.unit == "normalised" else sigma
        return {"sigma_normalised": sigma if self.unit == "normalised" else sigma / mean_std, "sigma_pixel": pixel,
                "sigma_255": pixel * 255, "where": "source pixels" if self.where == "source" else "model input",
                "clipped": self.where == "source" and self.clip}
