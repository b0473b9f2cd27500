"""Several frozen networks as one teacher: the unit rows of each, side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from distillscope.data.preprocess import Names
from distillscope.data.source import Images, Source
from distillscope.errors import UserError
from distillscope.registry import teachers
from distillscope.teachers.encoder import Encoder, Perturbation


class Ensemble(Encoder):
    """Rows (n, sum of dims): each network's unit row over the root of their number, so that the whole is of unit norm.

    Each embeds through its own preprocessing and its own cache. It is no one network, so nothing is differentiated through it.
    """

    def __init__(self, parts: list[Encoder]) -> None:
        self.parts = parts
        name = " + ".join(part.name for part in parts)
        weights = " ".join(part.weights_hash for part in parts)
        super().__init__(name, torch.nn.ModuleList(part.module for part in parts), sum(part.dim for part in parts),
                         parts[0].preprocess, weights)

    def __post_init__(self) -> None:
        self.num_parameters = 0

    def describe(self) -> dict[str, Any]:
        """What decides its rows: all of each network's."""
        parts = [part.describe() for part in self.parts]
        return {"name": self.name, "weights": self.weights_hash, "dim": self.dim, "of": parts}

    def to(self, device: torch.device, precision: str | None = None) -> Ensemble:
        """Move each network, and make it fast."""
        for part in self.parts:
            part.to(device, precision)
        self.revised = "; ".join(f"{part.name} {part.revised}" for part in self.parts if part.revised)
        self.device, self.precision = device, precision or self.precision
        return self

    def rescales(self, perturbation: Perturbation | None) -> bool:
        return any(part.rescales(perturbation) for part in self.parts)

    @property
    def place(self) -> str:
        """The cache's entries for clean images."""
        return ", ".join(part.place for part in self.parts)

    def rows(self, source: Source, perturbation: Perturbation | None = None, *, label: str | None = None,
             workers: int = 0) -> np.ndarray:
        """Rows (n, dim) float32 of every item, from the cache of each network where it has them."""
        return joined([part.rows(source, perturbation, label=label and f"{label}, {part.name}", workers=workers)
                       for part in self.parts])

    def num_missing(self, source: Source, perturbation: Perturbation | None = None) -> int:
        """Images that some network must still embed."""
        return max(part.num_missing(source, perturbation) for part in self.parts)

    def _encode(self, images: Images, ids: Names, perturbation: Perturbation | None) -> np.ndarray:
        return joined([part._encode(images, ids, perturbation) for part in self.parts])


def joined(rows: list[np.ndarray]) -> np.ndarray:
    """Unit rows (n, d), (n, d'), ... side by side, over the root of their number; a row of zeros stays zero.

    >>> [round(float(value), 3) for value in joined([np.array([[3.0, 4.0]]), np.array([[0.0, 2.0]])])[0]]
    [0.424, 0.566, 0.0, 0.707]
    """
    lengths = [np.linalg.norm(z, axis=1, keepdims=True) for z in rows]
    units = [z / np.where(length > 0, length, 1) for z, length in zip(rows, lengths, strict=True)]
    return (np.hstack(units) / np.sqrt(len(rows))).astype(np.float32)


@teachers.register("ensemble")
def ensemble(*, of: tuple[str, ...]) -> Ensemble:
    """Several teachers' unit rows side by side: {name: ensemble, of: [efficientnet_lite0, efficientnet_lite1]}."""
    from distillscope.config.parts import Teacher

    if len(of) < 2 or len(set(of)) < len(of):
        raise UserError("teacher.of", "two teachers or more, each once", str(list(of)),
                        "For instance of: [efficientnet_lite0, efficientnet_lite1].")
    parts = []
    for name in of:
        part = Teacher.model_validate(name)
        found = teachers.call(part.name, part.settings, where="teacher.of")
        if not isinstance(found, Encoder):
            raise UserError("teacher.of", "teachers that are networks", name, "Join ready embeddings in a file of your own.")
        parts.append(found)
    return Ensemble(parts)
