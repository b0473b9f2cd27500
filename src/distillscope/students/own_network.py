"""What a caller hands over as a student: a network of their own, and how it wants its images, in terms that can be stored."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from distillscope.data.preprocess import Preprocess
from distillscope.errors import UserError
from distillscope.students.networks import own_network
from distillscope.teachers.encoder import hash_state
from distillscope.teachers.given import PillowPreprocess, seen_by
from distillscope.teachers.models import plain_timm

TO_TENSOR = ("ToTensor", "MaybeToTensor", "PILToTensor", "ToImage", "ConvertImageDtype", "ToDtype", "MaybePILToTensor")
TOLERANCE = 6 / 255
"""By how much of [0, 1] a transform may differ from the `Preprocess` that stands for it: Pillow and torch round otherwise."""


@dataclass(frozen=True)
class OwnNetwork:
    """A module (b, 3, size, size) -> (b, k) with its weights as they are, and its preprocessing."""

    module: torch.nn.Module
    preprocess: Preprocess
    label: str
    reading: str = ""

    def fingerprint(self) -> str:
        """Names the weights that it begins with."""
        return hash_state(self.module.state_dict().items())


def read_network(model: torch.nn.Module, preprocess: Any, image_size: int | None = None) -> OwnNetwork:
    """The student that ``model`` is, copied; ``preprocess``, its attribute of that name, or timm's own says what it sees.

    ``reading`` says what becomes of its images, and what was decided about the model.
    """
    label = type(model).__name__
    where = f"student {label}"
    module, own, reading = plain_timm(copy.deepcopy(model))
    if not any(p.requires_grad for p in module.parameters()):
        raise UserError(where, "parameters to train", "none", "Unfreeze some: module.requires_grad_(True).")
    given = preprocess if preprocess is not None else getattr(model, "preprocess", None) or own
    if given is None and image_size is not None:
        given = {"size": image_size}
    seen, notes = seen_by(given, where), [reading] if reading else []
    if isinstance(seen, PillowPreprocess):
        seen, assumed = stored_form(seen, where)
        notes += [assumed] if assumed else []
    if image_size is not None:
        seen = replace(seen, size=image_size)
    notes.insert(0, f"student {label}: images are {seen.in_words()}, {seen.interpolation}")
    own_network(copy.deepcopy(module).cpu(), seen.size, 1, label)  # what it cannot take or give is said before any work
    return OwnNetwork(module, seen, label, "; ".join(notes))


def stored_form(seen: PillowPreprocess, where: str) -> tuple[Preprocess, str]:
    """The `Preprocess` that does what a Resize, CenterCrop, ToTensor, Normalize of torchvision or timm does, and what it adds.

    Resize(n) resizes the shorter side, Resize((n, n)) squashes. What is added, in words, is a centre crop after a Resize(n)
    that stands alone: it gives images of several shapes.

    >>> from torchvision import transforms as T
    >>> steps = [T.CenterCrop(8), T.ToTensor(), T.Normalize((0.5,) * 3, (0.2,) * 3)]
    >>> stored_form(PillowPreprocess(T.Compose([T.Resize(9), *steps])), "student mine")[0].in_words()
    'resized by their shorter side to 9 px, centre crop of 8'
    >>> stored_form(PillowPreprocess(T.Compose([T.Resize((9, 9)), *steps])), "student mine")[0].in_words()
    'squashed to 9 x 9 px, centre crop of 8'
    """
    expected = ("Resize(n) or Resize((n, n)), CenterCrop(n), ToTensor(), Normalize(mean, std), which can be stored with the "
                "student")
    found: dict[str, Any] = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    shorter = None
    for step in getattr(seen.transform, "transforms", [seen.transform]):
        kind = type(step).__name__
        if kind == "ImageClassification":  # what torchvision's weights bring
            shorter, found["size"] = _one(step.resize_size), _one(step.crop_size)
            found["resize_mode"] = _mode(step.resize_size)
            found.update(interpolation=step.interpolation.value, mean=tuple(step.mean), std=tuple(step.std))
            continue
        if kind == "Resize" and "size" not in found:
            if (shorter := _one(step.size)) is None or getattr(step, "max_size", None) is not None:
                raise UserError(f"{where} preprocess", expected, f"{step}", "Give size, mean and std instead.")
            found["resize_mode"] = _mode(step.size)
            found["interpolation"] = getattr(step.interpolation, "value", str(step.interpolation))
        elif kind == "CenterCrop":
            found["size"] = _one(step.size)
        elif kind == "Normalize":
            found.update({key: tuple(round(float(v), 6) for v in getattr(step, key)) for key in ("mean", "std")})
        elif kind not in TO_TENSOR:
            raise UserError(f"{where} preprocess", expected, kind, "Give size, mean and std instead.")
    size = found.get("size", shorter)
    if size is None or len(found["mean"]) != 3:
        raise UserError(f"{where} preprocess", expected, f"{seen.transform}", "Give size, mean and std instead.")
    stored = Preprocess(**{**found, "size": size, "crop_fraction": 1.0 if shorter is None else size / shorter})
    added = "size" not in found and stored.resize_mode == "shortest"
    wide = 2 * size + 1 if added else 3 * size + 1
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, 2 * size, wide), dtype=np.uint8))
    apart = _apart(seen(image), stored(image))
    if not apart <= TOLERANCE / min(stored.std):
        raise UserError(f"{where} preprocess", expected, f"a transform that differs from that by {apart:.2g} on a random image",
                        "Give size, mean and std instead.")
    return stored, f"the transform has no CenterCrop({size}), which images that are not square get" if added else ""


def _mode(size: Any) -> str:
    return "squash" if not isinstance(size, int) and len(size) == 2 else "shortest"


def _one(size: Any) -> int | None:
    sides = [size] if isinstance(size, int) else list(size)
    return sides[0] if len(sides) == 1 or (len(sides) == 2 and sides[0] == sides[1]) else None


def _apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max()) if one.shape == other.shape else float("inf")
