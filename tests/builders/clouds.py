"""Embeddings and labelled clouds that tests share: small, seeded, and with a spectrum that is not flat."""

from __future__ import annotations

import numpy as np
import torch

from distillscope.data.preprocess import Preprocess
from distillscope.data.source import Source
from distillscope.measure.probe import linear_probe
from distillscope.stress.subject import Subject
from distillscope.students.load import build_student


def cloud(seed: int, n: int = 200, d: int = 12, decay: float = 0.7, mean: float = 0.3) -> np.ndarray:
    """Gaussian rows (n, d) whose k-th standard deviation is k^-decay, around a mean, in a random basis."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(d, d)))[0]
    return (rng.normal(size=(n, d)) * np.arange(1, d + 1) ** -decay + mean) @ basis


def student_of(teacher: np.ndarray, seed: int, noise: float = 0.3) -> np.ndarray:
    """The teacher with noise."""
    return teacher + noise * np.random.default_rng(seed).normal(size=teacher.shape)


def rotation(seed: int, d: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]


def make_source(count: int = 60, side: int = 16, labels: bool = True, split: str = "test") -> Source:
    """Smooth coloured blobs, three classes that differ in colour."""
    rng = np.random.default_rng(0 if split == "test" else 1)
    classes = np.arange(count) % 3
    y, x = np.mgrid[:side, :side] / side
    pixels = np.empty((count, side, side, 3), np.uint8)
    for i, k in enumerate(classes):
        waves = [np.cos(2 * np.pi * (rng.integers(0, 3) * x + rng.integers(0, 3) * y + rng.random())) for _ in range(3)]
        image = 110 + 30 * np.stack(waves, axis=-1) + rng.normal(0, 6, (side, side, 3))
        image[..., k] += 40
        pixels[i] = np.clip(image, 0, 255)
    ids = np.array([f"{split}/{i}" for i in range(count)])
    return Source("blobs", split, ids, lambda i: pixels[i], classes.astype(np.int64) if labels else None, pixels=pixels)


def make_student(side: int = 16):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        student = build_student("paper_cnn", {"width": 1}, 32, Preprocess(side), "S", torch.device("cpu"))
        student.module.train()
        with torch.no_grad():  # running statistics that fit the images, as training leaves them
            for _ in range(120):
                student.module(student.preprocess(make_source(120, split="train").read(range(120))))
    student.module.eval()
    return student


def make_subject(student=None, side: str = "student") -> Subject:
    student, train = student or make_student(), make_source(120, split="train")

    def fit(z, labels):
        return {"paper.probe": linear_probe(z, labels)}

    return Subject(side, lambda items, perturbation, label: student.embed(items, perturbation),
                   fit(student.embed(train), train.labels),
                   train, fit, student.module, student.preprocess)
