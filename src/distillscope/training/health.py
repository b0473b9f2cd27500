"""Live health of a student while it is distilled: cosine, rank and kNN accuracy on images that it does not train on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from distillscope.data.source import Source
from distillscope.draws import keyed_rng
from distillscope.measure.neighbours import knn_accuracy
from distillscope.measure.probe import ridge_map
from distillscope.measure.results import NotMeasured
from distillscope.measure.spectrum import effective_rank, eigenvalues_of
from distillscope.students.load import StudentEncoder
from distillscope.targets.transforms import unit_rows

SKETCH = 512
LOWEST_RANK, COLLAPSED_SHARE = 1.5, 0.05
"""A student whose rank is below this, or this share of its target's on the same images, and falls or is what training ended
with, is called collapsed. One that rises from there has not learned enough yet."""
FALLING_SHARE = 0.1
"""Below this share it is called so where it fell twice in a row; students of the quickstart fall to 0.13 and rise again."""
FLAT_SHARE, FIRST_JUDGED = 0.01, 3
"""A loss that is less than this share below its highest is called flat, from this epoch on: a queue fills in the first."""


@dataclass(frozen=True)
class Health:
    """Held-out images with their target embeddings, and a gallery of training images for kNN and, with targets, for R^2."""

    held_out: Source
    targets: np.ndarray
    gallery: Source
    split: str
    gallery_targets: np.ndarray | None = None

    @cached_property
    def target_rank(self) -> float:
        """Effective rank of the targets of the held-out images."""
        return _rank(self.targets)

    def check(self, student: StudentEncoder) -> dict[str, Any]:
        """Mean cosine to the target, centred effective rank (s^2), R^2, kNN accuracy (k 10, cosine; None without labels).

        ``teacher_r2`` is the share of the held-out targets' variance that a ridge map from the student explains which was
        fitted to the gallery; None without the gallery's targets.
        """
        z = student.embed_source(self.held_out)
        wanted = len(self.gallery) and (self.held_out.labels is not None or self.gallery_targets is not None)
        gallery = student.embed_source(self.gallery) if wanted else None
        record: dict[str, Any] = {
            "cosine": float((unit_rows(z) * unit_rows(self.targets)).sum(axis=1).mean()),
            "effective_rank": _rank(z),
            "target_rank": self.target_rank,
            "teacher_r2": None,
            "knn_accuracy": None,
            "n": len(z),
            "split": self.split,
        }
        if gallery is not None and self.gallery_targets is not None and np.isfinite(z).all() and np.isfinite(gallery).all():
            record["teacher_r2"] = _explained(gallery, self.gallery_targets, z, self.targets)
        labels = self.gallery.labels
        if gallery is not None and self.held_out.labels is not None and labels is not None:
            record["knn_accuracy"] = float(
                knn_accuracy(gallery, labels, z, self.held_out.labels, k=min(10, len(self.gallery))))
        return record


def _rank(z: np.ndarray) -> float:
    """NaN for fewer than three rows; 0 where all are equal: a fully collapsed student is warned about; training goes on."""
    try:
        return float(effective_rank(eigenvalues_of(unit_rows(z)))) if len(z) > 2 else float("nan")
    except NotMeasured:
        return 0.0


def _explained(gallery: np.ndarray, gallery_targets: np.ndarray, z: np.ndarray, targets: np.ndarray) -> float:
    """R^2 on (z, targets) of the ridge map from unit rows of the gallery to those of its targets.

    A side of more than 512 dimensions is seen through a fixed random projection to 512, which keeps a total R^2 to about a
    hundredth and an epoch's health cheap.
    """
    gallery, z = _sketched(unit_rows(gallery)), _sketched(unit_rows(z))
    gallery_targets, held = _sketched(unit_rows(gallery_targets)), _sketched(unit_rows(targets)).astype(np.float64)
    predicted = ridge_map(gallery, gallery_targets)(z)
    total = np.square(held - held.mean(axis=0)).sum()
    return float(1 - np.square(held - predicted).sum() / total) if total > 0 else float("nan")


def _sketched(rows: np.ndarray) -> np.ndarray:
    if rows.shape[1] <= SKETCH:
        return rows
    projection = keyed_rng("health sketch", rows.shape[1]).standard_normal((rows.shape[1], SKETCH), dtype=np.float32)
    return rows @ (projection / np.float32(np.sqrt(SKETCH)))


def warnings_of(history: Sequence[Mapping[str, Any]], epochs: int) -> dict[str, str]:
    """What a user should hear once the last epoch of ``history`` is over, each kind of trouble once in a training.

    ``history`` holds the records of all epochs so far, of ``epochs`` in all; the kinds told before stand in their ``warned``.
    The rules and their numbers: docs/training.md.
    """
    told = {kind for record in history for kind in record.get("warned", ())}
    found = {kind: rule(history, epochs) for kind, rule in RULES.items() if kind not in told}
    return {kind: f"epoch {history[-1]['epoch']}: {text}" for kind, text in found.items() if text}


def collapse(history: Sequence[Mapping[str, Any]], epochs: int) -> str:
    """The student's rank is next to nothing beside its target's and does not rise, or is little and falls."""
    last = history[-1]
    ranks, target = [record.get("effective_rank", math.nan) for record in history[-3:]], last.get("target_rank", math.nan)
    falls = [after < before for before, after in zip(ranks, ranks[1:], strict=False)]
    low = ranks[-1] < min(max(LOWEST_RANK, COLLAPSED_SHARE * target), target / 2)
    stays_low = low and (any(falls[-1:]) or last["epoch"] >= epochs)
    if not (stays_low or (ranks[-1] < FALLING_SHARE * target and sum(falls) == 2)):
        return ""
    advice = "Add a contrastive term (objective infonce), or lower training.learning_rate"
    if last.get("step") == 1:
        advice = "It was trained for one step: give it more images, a smaller training.batch_size or more training.epochs"
    return (f"collapse, effective rank {ranks[-1]:.1f}{' and falling' * any(falls[-1:])} against {target:.1f} of the target "
            f"(n {last['n']}, {last['split']}). {advice}")


def flat_loss(history: Sequence[Mapping[str, Any]], epochs: int) -> str:
    """The loss has not left its highest level once the learning rate had time to rise."""
    if len(history) < max(FIRST_JUDGED, math.ceil(epochs / 3)):
        return ""
    highest, last = max(record["loss"] for record in history[:-1]), history[-1]["loss"]
    if highest - last >= FLAT_SHARE * abs(highest):
        return ""
    return (f"a flat loss, {last:.4g} where it was {highest:.4g} at its highest. Raise training.learning_rate, and see that "
            "the teacher's embeddings belong to these images")


RULES: dict[str, Callable[[Sequence[Mapping[str, Any]], int], str]] = {"collapse": collapse, "flat loss": flat_loss}
