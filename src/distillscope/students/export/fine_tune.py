"""Quantisation-aware fine-tuning: a student's weights moved a little, so that rounding to int8 costs its embeddings less."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from distillscope import progress
from distillscope.config.parts import DESCRIPTION, Teacher
from distillscope.data.source import Source, content_hash
from distillscope.devices import kept_memory
from distillscope.draws import keyed_rng
from distillscope.errors import UserError
from distillscope.files.json_reader import read_json
from distillscope.students.export.images import asked_of, origin_of, pixels_of
from distillscope.students.export.network import PixelNetwork
from distillscope.students.export.verify import network_rows
from distillscope.students.load import StudentEncoder
from distillscope.teachers.encoder import load_teacher

LEARNING_RATE = 1e-4
"""Of Adam at the first step; it falls to 0 along a cosine."""
TUNED_ON = 2048
"""Images that the weights are tuned on, at most."""
TUNING_BATCH = 32
DRIFT = 0.01
"""How much of the way to each batch's extremes a range goes."""
WEIGHTED = ("conv1d", "conv2d", "conv_transpose2d", "linear")
ROUNDED = ("add", "mul", "matmul", "bmm", "cat", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d",
           "hardswish", "silu", "gelu", "sigmoid", "hardsigmoid")
"""Functions of torch whose inputs a quantised file rounds, without the marks of in-place and operator forms. Not those that
only cut a range off: they are part of the layer before."""


@dataclass(frozen=True)
class Tuning:
    """How long to tune and on which images; what the teacher gives for those for verification, or why that is not known."""

    steps: int
    images: Source
    teacher: np.ndarray | None
    without_teacher: str = ""


class Rounding(TorchFunctionMode):
    """Rounds weights per channel and activations per tensor to int8 and back, as a quantised file does; gradients pass.

    An activation is known by when it comes: the same network asks for the same ones in the same order. ``ranges`` widen over
    what is ``watch``ed, then follow each batch slowly.
    """

    def __init__(self, weight_bits: int) -> None:
        super().__init__()
        self.most = {8: 127, 7: 64}[weight_bits]
        self.ranges: list[tuple[float, float]] = []
        self.at, self.watching = 0, True

    def __enter__(self) -> Any:
        self.at = 0
        return super().__enter__()

    def activation(self, x: Any) -> Any:
        if not isinstance(x, torch.Tensor) or not x.is_floating_point() or x.ndim < 2:
            return x
        low, high = min(0.0, float(x.detach().amin())), max(0.0, float(x.detach().amax()))
        if self.at == len(self.ranges):
            self.ranges.append((low, high))
        a, b = self.ranges[self.at]
        if self.watching:
            self.ranges[self.at] = min(a, low), max(b, high)
        elif torch.is_grad_enabled():
            self.ranges[self.at] = a + DRIFT * (low - a), b + DRIFT * (high - b)
        a, b = self.ranges[self.at]
        self.at += 1
        if self.watching:
            return x
        scale = max((b - a) / 255, 1e-8)
        return torch.fake_quantize_per_tensor_affine(x, scale, max(-128, min(127, round(-128 - a / scale))), -128, 127)

    def weight(self, w: torch.Tensor, axis: int) -> torch.Tensor:
        if self.watching:
            return w
        scale = w.detach().abs().transpose(0, axis).flatten(1).amax(1).clamp_min(1e-8) / self.most
        return torch.fake_quantize_per_channel_affine(w, scale, torch.zeros_like(scale, dtype=torch.int32), axis, -self.most,
                                                      self.most)

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(getattr(func, "__name__", "")).strip("_").removeprefix("i").removeprefix("r")
        if name in WEIGHTED and len(args) > 1:
            args = (self.activation(args[0]), self.weight(args[1], 1 if "transpose" in name else 0), *args[2:])
        elif name in ROUNDED:
            args = [type(a)(map(self.activation, a)) if isinstance(a, (list, tuple)) else self.activation(a) for a in args]
        return func(*args, **(kwargs or {}))


@kept_memory()
def fine_tuned(student: StudentEncoder, tuning: Tuning, calibration: np.ndarray, weight_bits: int) -> PixelNetwork:
    """The student's network after ``steps`` of Adam with everything rounded, towards its own embeddings without rounding.

    Batch norms are folded, or frozen where they cannot be; weights and biases of convolutions and linear layers move. The loss
    is the squared distance over the squared norm. ``calibration`` (n, size, size, 3) uint8 gives the first ranges.
    """
    network, rounding = PixelNetwork(student), Rounding(weight_bits)
    pixels = pixels_of(tuning.images, student.preprocess)
    goal = torch.from_numpy(network_rows(student, pixels))
    moved = [p for m in network.network.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))
             for p in m.parameters(recurse=False)]
    with torch.no_grad():
        for start in range(0, len(calibration), TUNING_BATCH):
            _embedded(network, calibration[start : start + TUNING_BATCH], rounding)
    rounding.watching = False
    for parameter in moved:
        parameter.requires_grad_(True)
    optimiser = torch.optim.Adam(moved, lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, tuning.steps)
    with torch.enable_grad(), progress.task("quantisation-aware fine-tuning", tuning.steps, "steps") as advance:
        for chosen in _batches(tuning):
            found, wanted = _embedded(network, pixels[chosen], rounding), goal[chosen]
            loss = ((found - wanted).square().sum(1) / wanted.square().sum(1).clamp_min(1e-12)).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            advance(1)
    return network.requires_grad_(False)


def _embedded(network: PixelNetwork, pixels: np.ndarray, rounding: Rounding) -> torch.Tensor:
    colours = network.colours(torch.from_numpy(pixels))
    with rounding:
        return network.network(colours).float()


def _batches(tuning: Tuning) -> Iterable[np.ndarray]:
    """Indices of a batch for each step: all images in a drawn order, again and again."""
    count, rng = len(tuning.images), keyed_rng("export.qat", tuning.images.name, tuning.images.split)
    order = np.empty(0, dtype=int)
    for _ in range(tuning.steps):
        while len(order) < min(TUNING_BATCH, count):
            order = np.concatenate([order, rng.permutation(count)])
        yield order[:TUNING_BATCH]
        order = order[TUNING_BATCH:]


def tuning_of(folder: Path, student: StudentEncoder, source: Source, held: Iterable[Source], verification: Source,
              steps: int) -> Tuning:
    """What `--qat` needs: images of ``source`` that none of ``held`` has, and the teacher's embeddings of others if at hand."""
    apart = {content_hash(part.image(i)) for part in held for i in range(len(part))}
    free = [i for i in range(len(source)) if content_hash(source.image(i)) not in apart]
    if len(free) < TUNING_BATCH:
        raise UserError("--qat", f"at least {TUNING_BATCH} images that neither choose nor verify", str(len(free)),
                        "Name more: --calibrate DATA.")
    try:
        return Tuning(steps, source.take(free[:TUNED_ON]), _cached_rows(folder, student, verification))
    except UserError as error:
        return Tuning(steps, source.take(free[:TUNED_ON]), None, f"{error.where}: {error.got}")


def _cached_rows(folder: Path, student: StudentEncoder, source: Source) -> np.ndarray:
    """The teacher's embeddings of ``source``, which the cache must hold: nothing is embedded for a comparison."""
    asked, title, origin = asked_of(folder), read_json(folder / DESCRIPTION, dict, "").get("teacher"), origin_of(folder)
    located = [(t, origin.located(t)) for t in asked.get("teacher") or []]
    named = [Teacher.model_validate(there) for t, there in located if title in (None, Teacher.model_validate(t).title)]
    targets = [asked.get("target"), *(arm.get("target") for arm in asked.get("arms") or [])]
    if len(named) != 1 or any(t and t != "none" and t.get("name") != "none" for t in targets):
        raise UserError("teacher", "one that the student learned from directly", "none, or through a transform")
    teacher = load_teacher(named[0], "cpu", asked.get("precision"))
    weights, now = asked.get("teacher's weights"), teacher.mark
    if weights and now and weights != now:
        raise UserError("teacher", "the weights that the student learned from", "other ones under the same name")
    if teacher.dim != student.dim:
        raise UserError("teacher", f"{student.dim}-d embeddings", f"{teacher.dim}-d ones")
    if missing := teacher.num_missing(source):
        raise UserError("teacher", "its embeddings in the cache", f"{missing} of {len(source)} not in the cache")
    return teacher.rows(source)
