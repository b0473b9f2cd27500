"""A training set of noise, a small student, and one short training of it."""

from __future__ import annotations

import numpy as np
import torch

from distillscope.config.study import Arm, Training
from distillscope.data.preprocess import Preprocess
from distillscope.data.source import Source
from distillscope.distill.loop import TrainingSet, distill
from distillscope.distill.streams import KeyedStreams
from distillscope.students.load import build_student

DIM, ITEMS = 8, 48


def source(split: str = "train") -> Source:
    pixels = np.random.default_rng(0).integers(0, 256, (ITEMS, 8, 8, 3), dtype=np.uint8)
    return Source(
        "noise",
        split,
        np.array([f"{split}/{i}" for i in range(ITEMS)]),
        pixels.__getitem__,
        np.arange(ITEMS) % 3,
        pixels=pixels,
    )


def targets() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(ITEMS, DIM)).astype(np.float32)


def student(precision: str = "float32", seed: int = 0):
    return KeyedStreams(seed, "S").build(
        lambda: build_student("paper_cnn", {}, DIM, Preprocess(8), "S", torch.device("cpu"), precision)
    )


def train(folder, one=None, arm=None, rows=None, **settings):
    rows = targets() if rows is None else rows
    return distill(
        one or student(),
        TrainingSet(source(), lambda epoch: rows),
        arm or Arm(name="cosine"),
        Training(**{"epochs": 2, "batch_size": 16, **settings}),
        KeyedStreams(0, "S"),
        folder,
    )
