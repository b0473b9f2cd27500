"""What a stress is given, a model with its probes, and what it gives back; running those of a study, or rehearsing them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from distillscope.data.preprocess import Preprocess
from distillscope.data.source import Source, stratified
from distillscope.errors import UserError
from distillscope.files.writing import write_atomic
from distillscope.registry import stresses
from distillscope.results.rows import NONE, Condition, Row


class Probe(Protocol):
    """A fitted classifier of embeddings (n, d)."""

    def predict(self, z: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Subject:
    """One model under stress.

    ``embed(source, perturbation, label)`` gives embeddings (n, d) of every item as the perturbation shows it, the
    teacher's through its cache. ``probes`` were fitted on clean train embeddings, by the head of their keys
    ("paper.probe", "probe"); ``fit(z, labels)`` fits the same kinds to other embeddings. ``module`` after ``preprocess``
    is the network itself, None where only embeddings are available; a teacher's output goes through the target transform
    before the probes see it.
    """

    side: str
    embed: Callable[[Source, Any, str], np.ndarray]
    probes: Mapping[str, Probe]
    train: Source
    fit: Callable[[np.ndarray, np.ndarray], Mapping[str, Probe]]
    module: torch.nn.Module | None = None
    preprocess: Preprocess | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_student(self) -> bool:
        return self.side == "student"

    def accuracy(self, items: Source, condition: str, draw: int | None, perturbation: Any) -> list[Row]:
        """One row a probe: its accuracy on the perturbed items."""
        z = self.embed(items, perturbation, f"{condition}, draw {(draw or 0) + 1}")
        right = {head: float((probe.predict(z) == items.labels).mean()) for head, probe in self.probes.items()}
        return [Row(f"{head}.{self.side}.accuracy", condition, draw, share, len(items), "fraction")
                for head, share in right.items()]


@dataclass
class Findings:
    """Rows of results.csv; curves by key; arrays to be saved; what was left out, and why.

    ``conditions`` says of each condition what was done, in both units where it is noise.
    """

    rows: list[Row] = field(default_factory=list)
    curves: dict[str, dict[str, Any]] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    conditions: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, other: Findings) -> None:
        self.rows += other.rows
        self.skipped += other.skipped
        self.curves |= other.curves
        self.arrays |= other.arrays
        self.conditions |= other.conditions


def few(items: Source, count: int, where: str) -> Source:
    """A fixed stratified part of the items, the same for every model; all of them where ``count`` is 0 or too large."""
    if count < 0:
        raise UserError(f"{where}.items", "a whole number of at least 1, or 0 for all", str(count), "1000 is usual.")
    return items if count == 0 else items.take(stratified(items, count, "stress"))


def need_labels(labels: np.ndarray | None, where: str) -> np.ndarray:
    """The labels, or the one line that says that this stress cannot do without."""
    if labels is None:
        raise UserError(where, "data with labels, since it measures accuracy", "none",
                        "Leave this stress out; gradient and latency need no labels.")
    return labels


def need_range(value: float, where: str, low: float = 0.0, high: float = math.inf) -> None:
    """Refuse a strength that is not finite or not between the two."""
    if not (low <= value <= high and math.isfinite(value)):
        span = f"of at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
        raise UserError(where, f"a finite number {span}", str(value), "Correct the value.")


def shape_of(items: Source) -> tuple[int, int]:
    """Height and width of the stored images; images of several sizes have none in common."""
    if items.pixels is None:
        first = items.read([0])
        shapes = {tuple(items.read([i])[0].shape[-2:]) for i in range(min(len(items), 16))} | {tuple(first[0].shape[-2:])}
    else:
        shapes = {tuple(items.pixels.shape[1:3])}
    if len(shapes) > 1:
        raise UserError("stresses", "images of one size, since frequencies are counted in it", f"{len(shapes)} sizes",
                        "Resize the data first, or leave this stress out.")
    height, width = shapes.pop()
    return height, width


class ProbeLogits(nn.Module):
    """Logits (n, classes) of embeddings (n, d): what ``LinearProbe.scores`` gives, in torch and float32."""

    weights: torch.Tensor
    bias: torch.Tensor

    def __init__(self, probe: Any, device: torch.device) -> None:
        super().__init__()
        self.unit_norm, self.classes = probe.unit_norm, np.asarray(probe.classes)
        # ((z - shift) / scale) @ w.T + b = z @ (w / scale).T + (b - shift @ (w / scale).T)
        weights = probe.weights / probe.scale
        self.register_buffer("weights", torch.from_numpy(weights).float().to(device))
        self.register_buffer("bias", torch.from_numpy(probe.bias - weights @ probe.shift).float().to(device))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return (nn.functional.normalize(z, dim=1) if self.unit_norm else z) @ self.weights.T + self.bias

    def places(self, labels: np.ndarray) -> np.ndarray:
        """The column (n,) of each label."""
        return np.searchsorted(self.classes, labels)


def probe_logits(probe: Any, device: torch.device | None = None) -> ProbeLogits:
    """The layer of a probe with ``classes``, ``weights``, ``bias``, ``shift``, ``scale`` and ``unit_norm``."""
    return ProbeLogits(probe, device or torch.device("cpu"))


class Asked(Protocol):
    """One entry of the study's ``stresses``."""

    @property
    def name(self) -> str: ...

    @property
    def settings(self) -> dict[str, Any]: ...


def run_stresses(asked: Sequence[Asked], model: Subject, test: Source, seed: int, folder: Path | None = None) -> Findings:
    """Everything that the stresses found on one model; their arrays are saved as ``folder``/stress/NAME.npy."""
    found = Findings()
    for part in asked:
        found.add(stresses.call(part.name, part.settings, model, test, test.labels, seed, where=f"stresses.{part.name}"))
    found.rows = _each_once(found.rows)
    if folder is not None:
        for name, array in found.arrays.items():
            write_atomic(folder / "stress" / f"{name}.npy", partial(np.save, arr=array, allow_pickle=False))
    return found


def _each_once(rows: Sequence[Row]) -> list[Row]:
    """The rows, the clean ones that several stresses share once; two numbers under one name would be averaged later."""
    kept: dict[tuple, Row] = {}
    for row in map(Row._make, rows):
        key = row.measure, row.condition, row.draw
        if key in kept and not (Condition.parse(row.condition).what == NONE and row == kept[key]):
            raise UserError("stresses", "conditions that differ by name", f"'{row.condition}' twice",
                            "Merge the two entries of `stresses`, or run them in two studies.")
        kept[key] = row
    return list(kept.values())


class _Constant:
    """A probe that always says 0."""

    def predict(self, z: np.ndarray) -> np.ndarray:
        return np.zeros(len(z), np.int64)


def rehearse(asked: Sequence[Asked], train: Source, test: Source, seed: int,
             side: str = "teacher") -> tuple[list[tuple[Source, Any]], Findings]:
    """What the stresses would show to a model, (items, perturbation) in order, without a model; wrong settings are said.

    The same functions run on a model that embeds nothing, so a plan cannot drift from what is done. The findings hold
    the conditions in both units; their numbers mean nothing.
    """
    wanted: list[tuple[Source, Any]] = []

    def embed(items: Source, perturbation: Any, label: str) -> np.ndarray:
        wanted.append((items, perturbation))
        return np.zeros((len(items), 2), np.float32)

    probes = {"paper.probe": _Constant()}
    found = run_stresses(asked, Subject(side, embed, probes, train, lambda z, labels: probes), test, seed)
    return wanted, found
