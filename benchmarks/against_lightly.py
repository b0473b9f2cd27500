"""One student by `distill` and by LightlyTrain: the same teacher, images, epochs and student; speed, and an outside probe.

    python benchmarks/against_lightly.py --root DIR [--images 5000] [--epochs 5] [--size 64] [--out DIR]

In an environment of its own where `lightly-train` is installed too (pip; it is no dependency of anything here, and nothing is
taken from it). Each side runs as it does by default (ours: recipe `robust`; theirs: method "distillation", batch 128), in a
process of its own with one thread, in float32, on the CPU, without workers: CIFAR-10 as PNG files, EfficientNet-Lite0 with
ImageNet weights as the teacher, MobileNetV4-small from scratch as the student. LightlyTrain shows its teacher each augmented
view at the student's size; ours sees each image once, at 224 px. Processor seconds are of all that comes after the imports.
The probe is scikit-learn's logistic regression (C 1, standardised features) on the student's pooled features, and for ours
also on its embeddings, fitted on the images that it was distilled from and tried on 2,000 others; also of a network that was
not trained.
DIR keeps what each side made: a side that is finished is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import publish

from distillscope.data.preprocess import Preprocess
from distillscope.data.splits import load_split
from distillscope.files.writing import write_json

STUDENT, TEST_IMAGES = "mobilenetv4_conv_small", 2000
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def write_images(folder: Path, count: int) -> None:
    """``count`` train images as PNG files in one folder without classes."""
    from PIL import Image

    (folder / "train").mkdir(parents=True, exist_ok=True)
    source = load_split("cifar10", {}, "train", limit=count)
    for i in range(count):
        path = folder / "train" / f"{i:05d}.png"
        if not path.is_file():
            Image.fromarray(source.image(i)).save(path)


def ours(root: Path, epochs: int, size: int) -> tuple[torch.nn.Module, Preprocess]:
    from distillscope.config.recipe import one_student
    from distillscope.students.load import load_student
    from distillscope.study.student import distill_one

    study = one_student("s", {"name": "efficientnet_lite0"}, str(root / "images"), f"timm/{STUDENT}",
                        overrides=[f"training.epochs={epochs}", f"student.image_size={size}"])
    distill_one(study, root / "ours", device="cpu", resume=(root / "ours").exists())
    student = load_student(root / "ours", "cpu")
    return student.module, student.preprocess


class Teacher(torch.nn.Module):
    """A timm network as LightlyTrain asks for one of its own kind: its wrapper of timm's gives EfficientNet's last features
    but one, 320 of them, and says that they are 1,280."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def feature_dim(self) -> int:
        return self.model.num_features

    def forward_features(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"features": self.model.forward_features(x)}

    def forward_pool(self, x: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"pooled_features": torch.nn.functional.adaptive_avg_pool2d(x["features"], 1)}

    def get_model(self) -> torch.nn.Module:
        return self.model


def theirs(root: Path, epochs: int, size: int) -> tuple[torch.nn.Module, Preprocess]:
    import lightly_train
    import timm

    from distillscope.registry import teachers

    teacher = Teacher(teachers.call("efficientnet_lite0", {}).module)
    lightly_train.pretrain(
        out=str(root / "theirs"), data=str(root / "images" / "train"), model=timm.create_model(STUDENT, num_classes=0),
        method="distillation", method_args={"teacher": teacher}, epochs=epochs, num_workers=0, accelerator="cpu", devices=1,
        precision="32-true", transform_args={"image_size": (size, size)}, seed=1, overwrite=True)
    module = timm.create_model(STUDENT, num_classes=0)
    module.load_state_dict(torch.load(root / "theirs" / "exported_models" / "exported_last.pt", weights_only=True))
    return module.eval(), Preprocess(size, *IMAGENET)


def features(module: Callable[[torch.Tensor], torch.Tensor], sees: Preprocess, split: str, count: int) -> np.ndarray:
    source = load_split("cifar10", {}, split, limit=count)
    with torch.inference_mode():
        return np.concatenate([module(sees(source.read(range(i, min(i + 64, count))))).flatten(1).numpy()
                               for i in range(0, count, 64)])


def probe(module: Callable[[torch.Tensor], torch.Tensor], sees: Preprocess, count: int) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    labels = [load_split("cifar10", {}, split, limit=n).labels for split, n in (("train", count), ("test", TEST_IMAGES))]
    rows = [features(module, sees, split, n) for split, n in (("train", count), ("test", TEST_IMAGES))]
    fitted = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=500)).fit(rows[0], labels[0])
    return round(float(fitted.score(rows[1], labels[1])), 4)


def one_side(side: str, root: Path, count: int, epochs: int, size: int) -> None:
    """What one side took, and what its student is worth, to ``root``/SIDE.json."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    began = sum(os.times()[:4])
    module, sees = (ours if side == "ours" else theirs)(root, epochs, size)
    took = sum(os.times()[:4]) - began
    seen = epochs * (count - min(1000, count // 10) if side == "ours" else count)  # ours holds some out
    found: dict[str, Any] = {"processor_seconds": round(took, 1), "images a processor second": round(seen / took, 1),
                             "probe": probe(next(module.children()) if side == "ours" else module, sees, count)}
    if side == "ours":
        found["probe of its embeddings"] = probe(module, sees, count)
    write_json(root / f"{side}.json", found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--side", choices=["ours", "theirs"], help="(a process of its own)")
    asked = parser.parse_args()
    asked.root.mkdir(parents=True, exist_ok=True)
    if asked.side:
        one_side(asked.side, asked.root, asked.images, asked.epochs, asked.size)
        return
    write_images(asked.root / "images", asked.images)
    os.environ["DISTILLSCOPE_CACHE"] = str(asked.root / "cache")
    record: dict[str, Any] = {"images": asked.images, "epochs": asked.epochs, "pixels": asked.size, "test images": TEST_IMAGES,
                              "lightly-train": metadata.version("lightly-train")}
    for side in ("ours", "theirs"):
        if not (asked.root / f"{side}.json").is_file():
            call = [sys.executable, __file__, "--side", side, "--root", str(asked.root), "--images", str(asked.images)]
            subprocess.run([*call, "--epochs", str(asked.epochs), "--size", str(asked.size)], check=True)
        record[side] = json.loads((asked.root / f"{side}.json").read_text())
    import timm

    torch.manual_seed(1)
    untrained = timm.create_model(STUDENT, num_classes=0).eval()
    record["untrained, probe"] = probe(untrained, Preprocess(asked.size, *IMAGENET), asked.images)
    publish("against_lightly", asked.out, record)


if __name__ == "__main__":
    main()
