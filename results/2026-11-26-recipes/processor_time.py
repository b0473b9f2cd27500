"""Processor time of each arm's training: OMP_NUM_THREADS=1 python processor_time.py STUDY.yaml [IMAGES [ROUNDS]].

A line of JSON for each arm. Arms take turns in one process, each for one epoch of as many images and from the same weights; the
seconds are those of the process, not of the clock on the wall, which other work lengthens. Targets are random: what a step
costs does not depend on them.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from distillscope.config.load import load_preset
from distillscope.study.prepared import load_data, view_of
from distillscope.study.trial import fresh_student
from distillscope.training.loop import TrainingSet, distill


def main(path: str, images: int = 1280, rounds: int = 3) -> None:
    torch.set_num_threads(1)
    study = load_preset(path)
    train = load_data(study, study.data[0]).train
    train = train.take(np.arange(min(images, len(train))))
    targets = np.random.default_rng(0).normal(size=(len(train), study.target.settings["dim"])).astype(np.float32)
    prepared = SimpleNamespace(rows=lambda name: targets)
    seconds: dict[str, list[float]] = {arm.name: [] for arm in study.arms}
    for turn in range(rounds + 1):  # the first warms up
        for arm in study.arms:
            settings = study.training_of(arm).model_copy(update={"epochs": 1})
            student, streams = fresh_student(study, arm, study.students[0], 1, prepared, "cpu", "float32")
            shown = TrainingSet(train, lambda epoch: targets, lambda epoch, arm=arm: view_of(arm, 1, epoch))
            with tempfile.TemporaryDirectory() as folder:
                began = time.process_time()
                distill(student, shown, arm, settings, streams, Path(folder))
            if turn:
                seconds[arm.name].append(1000 * (time.process_time() - began) / settings.num_seen(len(train)))
    plain = np.median(seconds["cosine"])
    for name, values in seconds.items():
        print(json.dumps({"study": study.name, "arm": name, "seconds_per_1000_images": [round(v, 3) for v in values],
                          "ratio_to_cosine": round(float(np.median(values) / plain), 3)}))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
