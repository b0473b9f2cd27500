"""Live health of a student while it is distilled: cosine, rank and kNN accuracy on images that it does not train on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from distillscope.data.source import Source
from distillscope.measure.neighbours import knn_accuracy
from distillscope.measure.spectrum import effective_rank, eigenvalues_of
from distillscope.objectives.targets import unit_rows
from distillscope.students.load import StudentEncoder

COLLAPSED_SHARE = 0.05
"""A student whose rank is below this share of its target's, on the same images, is called collapsed."""


@dataclass(frozen=True)
class Health:
    """Held-out images with their target embeddings, and a gallery of training images for kNN."""

    held_out: Source
    targets: np.ndarray
    gallery: Source
    split: str

    def check(self, student: StudentEncoder) -> dict[str, Any]:
        """Mean cosine to the target, centred effective rank (s^2), kNN accuracy (k 10, cosine; None without labels)."""
        z = student.embed(self.held_out)
        record: dict[str, Any] = {
            "cosine": float((unit_rows(z) * unit_rows(self.targets)).sum(axis=1).mean()),
            "effective_rank": _rank(z),
            "target_rank": _rank(self.targets),
            "knn_accuracy": None,
            "n": len(z),
            "split": self.split,
        }
        if self.held_out.labels is not None and len(self.gallery):
            record["knn_accuracy"] = float(knn_accuracy(
                student.embed(self.gallery), self.gallery.labels, z, self.held_out.labels, k=min(10, len(self.gallery))))
        return record


def _rank(z: np.ndarray) -> float:
    return float(effective_rank(eigenvalues_of(unit_rows(z)))) if len(z) > 2 else float("nan")


def warnings_of(record: dict[str, Any]) -> list[str]:
    """What a user should hear of one epoch's record."""
    rank, target = record["effective_rank"], record["target_rank"]
    if rank == rank and rank < max(1.5, COLLAPSED_SHARE * target):
        return [f"epoch {record['epoch']}: collapse, effective rank {rank:.1f} against {target:.1f} of the target "
                f"(n {record['n']}, {record['split']})"]
    return []
