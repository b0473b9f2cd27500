"""What the archives do not hold, as lines of JSON: OMP_NUM_THREADS=1 python measured.py time STUDY.yaml [IMAGES [ROUNDS]], and
python measured.py recall RUN.
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
from distillscope.measure.functional import recall_at_k
from distillscope.study.prepared import load_data, view_of
from distillscope.study.trial import fresh_student
from distillscope.training.loop import TrainingSet, distill


def processor_time(path: str, images: str = "1280", rounds: str = "3") -> None:
    """Seconds of each arm's training: in turn in one process, each for one epoch of as many images, from the same weights.

    The seconds are those of the process, not of the clock on the wall, which other work lengthens. Targets are random: what a
    step costs does not depend on them.
    """
    torch.set_num_threads(1)
    study = load_preset(path)
    train = load_data(study, study.data[0]).train
    train = train.take(np.arange(min(int(images), len(train))))
    targets = np.random.default_rng(0).normal(size=(len(train), study.target.settings["dim"])).astype(np.float32)
    prepared = SimpleNamespace(rows=lambda name: targets)
    seconds: dict[str, list[float]] = {arm.name: [] for arm in study.arms}
    for turn in range(int(rounds) + 1):  # the first warms up
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
        print(json.dumps({"measured": "processor time", "study": study.name, "arm": name,
                          "seconds_per_1000_images": [round(v, 3) for v in values],
                          "ratio_to_cosine": round(float(np.median(values) / plain), 3)}))


def rows(folder: Path) -> np.ndarray:
    return np.load(next((folder / "embeddings_test" / "img_emb").glob("*.npy"))).astype(np.float32)


def recall(path: str) -> None:
    """Recall at 1 of each student of a run as it is in the teacher's own space (no map).

    From the test embeddings that a run keeps and an archive does not, in float16; the teacher's under the study's target.
    """
    run = Path(path)
    teacher = rows(next(p for p in (run / "references").iterdir() if not p.name.endswith("--none")))
    for folder in sorted((run / "trials").iterdir()):
        trial = json.loads((folder / "complete.json").read_text())["trial"]
        print(json.dumps({"measured": "recall", "run": run.name, "arm": trial["arm"], "seed": trial["seed"],
                          "recall_at_1": recall_at_k(teacher, rows(folder), 1)}))


if __name__ == "__main__":
    {"time": processor_time, "recall": recall}[sys.argv[1]](*sys.argv[2:])
