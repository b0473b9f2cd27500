"""A training set of noise or of blobs, a small student, and one short training; and training as a part of several processes.

``python training.py FOLDER``, for tests that compare the two, leaves in FOLDER what this process saw: gradientsRANK.pt,
wholeRANK.pt and halvesRANK.pt, and the records of both trainings.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import numpy as np
import torch

from distillscope.config.study import Arm, Training
from distillscope.data.preprocess import Preprocess
from distillscope.data.source import Source
from distillscope.data.views import View
from distillscope.measure.probe import linear_probe
from distillscope.progress import say
from distillscope.registry import objectives
from distillscope.stress.subject import Subject
from distillscope.students.load import build_student
from distillscope.training.gathered_batch import BatchGather
from distillscope.training.loop import TrainingSet, distill
from distillscope.training.loss import Terms
from distillscope.training.streams import KeyedStreams

DIM, ITEMS = 8, 48
QUEUES = {"infonce": {"queue": 5}, "infonce_learned": {"queue": 5}, "crd": {"memory": 5}, "similarity_kl": {"queue": 5}}


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


def train(folder, one=None, arm=None, rows=None, warn=lambda text: None, track=None, **settings):
    rows = targets() if rows is None else rows
    return distill(
        one or student(),
        TrainingSet(source(), lambda epoch: rows),
        arm or Arm(name="cosine"),
        Training(**{"epochs": 2, "batch_size": 16, **settings}),
        KeyedStreams(0, "S"),
        folder,
        warn=warn,
        track=track,
    )


def gradients(rank: int, world: int) -> dict[str, list[torch.Tensor]]:
    """One objective at a time, behind a linear student and a projector; batches of 7, so parts of 4 and 3."""
    found = {}
    for name in objectives:
        arm = Arm(name="x", view={"name": "crop_flip"}, projector={"name": "linear"},
                  objective={"name": name, **QUEUES.get(name, {})})
        terms = Terms(arm, DIM, DIM, 3, teacher_classes=DIM, gather=BatchGather(rank, world))
        generator = torch.Generator().manual_seed(0)
        network = torch.nn.Linear(DIM, DIM, bias=False)
        network.weight.data = torch.randn(DIM, DIM, generator=generator)
        for step in range(3):  # the queue fills
            rows = {k: torch.randn(7, DIM, generator=generator) for k in ("student", "teacher", "other")}
            rows |= {"labels": torch.arange(7) % 3, "teacher_logits": rows["teacher"]}
            own = {k: v[rank::world] for k, v in rows.items()}
            given = {**own, "student": network(own["student"]), "other": network(own["other"])}
            terms.zero_grad(), network.zero_grad()
            loss = terms(given, (torch.arange(7) + 5 * step)[rank::world], 7)
            loss.backward()
            terms.share_gradients()
            if world > 1:  # what data-parallel training does to the student's
                torch.distributed.all_reduce(network.weight.grad)
                network.weight.grad /= world
            terms.remember()
            found[f"{name} {step}"] = [loss.detach(), network.weight.grad.clone(),
                                       *(p.grad.clone() for p in terms.parameters() if p.grad is not None)]
    return found


def train_whole(folder: Path) -> list[torch.Tensor]:
    """With batch norms, whose moments the processes share, and objectives that look at the whole batch."""
    one, rows = student(), targets()
    arm = Arm(name="x", view={"name": "crop_flip"}, projector={"name": "mlp"}, objective=(
        {"name": "cosine", "projected": False}, {"name": "infonce_learned", "queue": 24}, {"name": "cross_entropy"},
        {"name": "infonce_views", "weight": 0.1}, {"name": "crd", "memory": 8, "weight": 0.1}))
    distill(one, TrainingSet(source(), lambda e: rows, lambda e: View("crop_flip", {"padding": 1}, 0, e)), arm,
            Training(epochs=2, batch_size=20, drop_last=False, optimizer="sgd", learning_rate=0.02), KeyedStreams(0, "S"),
            folder)
    assert all(type(m).__name__ != "SharedBatchNorm2d" for m in one.module.modules())
    return [p.detach() for p in one.module.state_dict().values()]


def train_halves(folder: Path) -> list[torch.Tensor]:
    """Without batch norms: each process sees half of each batch, and nothing else is shared but gradients."""
    one, rows = student(), targets()
    for i, layer in enumerate(one.module):
        if isinstance(layer, torch.nn.BatchNorm2d):
            one.module[i] = torch.nn.Identity()
    distill(one, TrainingSet(source(), lambda e: rows), Arm(name="cosine"),
            Training(epochs=2, batch_size=16, optimizer="sgd", learning_rate=0.1), KeyedStreams(0, "S"), folder)
    return [p.detach() for p in one.module.parameters()]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main(folder: Path) -> None:
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if world > 1:
        torch.distributed.init_process_group("gloo")
    for name in ("whole", "halves"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    torch.save(gradients(rank, world), folder / f"gradients{rank}.pt")
    torch.save(train_whole(folder / "whole"), folder / f"whole{rank}.pt")
    torch.save(train_halves(folder / "halves"), folder / f"halves{rank}.pt")
    say(f"said by one of {world}")


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
        norms = [m for m in student.module.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        student.module.train()
        for norm in norms:  # running statistics that fit the images, as training leaves them: those of one pass
            norm.momentum = 1.0
        with torch.no_grad():
            student.module(student.preprocess(make_source(120, split="train").read(range(120))))
        for norm in norms:
            norm.momentum = 0.1
    student.module.eval()
    return student


def make_subject(student=None, side: str = "student") -> Subject:
    student, train = student or make_student(), make_source(120, split="train")

    def fit(z, labels):
        return {"paper.probe": linear_probe(z, labels)}

    return Subject(side, lambda items, perturbation, label: student.embed_source(items, perturbation),
                   fit(student.embed_source(train), train.labels),
                   train, fit, student.module, student.preprocess)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
