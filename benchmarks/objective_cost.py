"""What each objective costs: an epoch of the paper's S at 32 px with it, against an epoch with cosine.

    python benchmarks/objective_cost.py [--images 5000] [--batch 64] [--rounds 3] [--only NAME ...] [--out DIR]

One thread, processor time, 512-d random targets; cosine is timed before each.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from timing import publish, some_images, spread

from distillscope.config.study import Arm, Training
from distillscope.data.preprocess import Preprocess
from distillscope.data.source import Source
from distillscope.data.views import View
from distillscope.devices import kept_memory
from distillscope.registry import objectives
from distillscope.students.load import build_student
from distillscope.training.loop import TrainingSet, distill
from distillscope.training.streams import KeyedStreams

EXTRA = {"infonce, queue 1024": {"name": "infonce", "queue": 1024}, "infonce, queue 4096": {"name": "infonce", "queue": 4096},
         "cosine, mlp projector": {"name": "cosine"}}


@kept_memory()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    source = some_images(args.images)
    rows = np.random.default_rng(1).normal(size=(len(source), 512)).astype(np.float32)
    arms = {name: {"name": name} for name in objectives if name != "cosine"} | EXTRA
    arms = {name: part for name, part in arms.items() if not args.only or name in args.only}
    epoch(source, rows, arm_of("cosine", {"name": "cosine"}), args.batch)
    ratios: dict[str, list[float]] = {name: [] for name in arms}
    seconds = []
    for _ in range(args.rounds):
        for name, objective in arms.items():
            before = epoch(source, rows, arm_of("cosine", {"name": "cosine"}), args.batch)
            its = epoch(source, rows, arm_of(name, objective), args.batch)
            ratios[name].append(its / before)
            seconds.append(before)
    publish("objective_cost", args.out, {
        "threads": 1, "images": len(source), "batch": args.batch, "cosine_seconds": spread(seconds),
        "over_cosine": {n: spread(r) for n, r in sorted(ratios.items(), key=lambda item: np.median(item[1]))}})


def arm_of(name: str, objective: dict) -> Arm:
    return Arm(name=name, objective=objective, view={"name": "crop_flip"} if name == "infonce_views" else None,
               projector={"name": "mlp"} if "projector" in name else None)


def epoch(source: Source, rows: np.ndarray, arm: Arm, batch: int) -> float:
    """Processor seconds of one epoch: other work on the machine does not count."""
    student = build_student("paper_cnn", {}, 512, Preprocess(32), "S", torch.device("cpu"))
    view = (lambda epoch: View("crop_flip", {}, 0, epoch)) if arm.view else (lambda epoch: None)
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        distill(student, TrainingSet(source, lambda epoch: rows, view), arm, Training(epochs=1, batch_size=batch),
                KeyedStreams(1, "S"), Path(folder))
    return time.process_time() - began


if __name__ == "__main__":
    main()
