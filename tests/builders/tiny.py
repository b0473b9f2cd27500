"""A study that runs in seconds: a random teacher from a local file, a few digits, the smallest student; and audited pairs."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from sklearn.datasets import load_digits

from builders import SCRATCH
from builders.browser import undrawn
from distillscope.config.load import study_from
from distillscope.config.study import Study
from distillscope.measure.audit import audit
from distillscope.measure.pool import Settings
from distillscope.measure.results import Audit
from distillscope.results.rows import COLUMNS

TEACHER = "test_resnet"


@functools.cache
def scratch() -> Path:
    """A folder that lives as long as the test session, for what many tests only read."""
    if SCRATCH in os.environ:
        return Path(os.environ[SCRATCH])
    folder = Path(tempfile.mkdtemp(prefix="distillscope-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def once(path: Path, make: Callable[[Path], object]) -> Path:
    """What ``make`` wrote to ``path``: the first process that asks makes it, the others wait and read."""
    with FileLock(f"{path}.lock"):
        if not path.exists():
            unfinished = path.with_name(f"{path.name}.unfinished")
            make(unfinished)
            unfinished.rename(path)
    return path


@functools.cache
def teacher_weights() -> Path:
    """Random weights of timm's smallest ResNet, as the local file that a user would name."""
    return once(scratch() / "teacher.safetensors", _save_weights)


def _save_weights(path: Path) -> None:
    import timm
    import torch
    from safetensors.torch import save_file

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_file(timm.create_model(TEACHER, pretrained=False).state_dict(), path)


def tiny_values(**changes: Any) -> dict[str, Any]:
    """The study's YAML as plain values."""
    values = {
        "name": "tiny",
        "data": ["digits"],
        "teacher": [{"name": "timm", "model": TEACHER, "weights": str(teacher_weights())}],
        "students": [{"name": "paper_cnn", "label": "S", "width": 1, "image_size": 16}],
        "arms": [{"name": "cosine", "objective": "cosine"}],
        "seeds": [1, 2],
        "training": {"epochs": 2, "batch_size": 32},
        "validation": 40,
        "limit": 200,
        "limit_test": 60,
        "noise": {"sigmas": [0.1], "draws": 1},
    }
    return {**values, **changes}


def tiny_study(**changes: Any) -> Study:
    return study_from(tiny_values(**changes))


@functools.cache
def finished_run() -> Path:
    """One finished run of the tiny study, with two seeds and a view's arm; to be read, never written to."""
    return once(scratch() / "finished", _run_study)


def _run_study(run: Path) -> None:
    from distillscope.study.run import run_study

    arms = [{"name": "cosine"}, {"name": "augmented", "view": "crop_flip", "seeds": [1]}]
    with pytest.MonkeyPatch.context() as patch, undrawn():
        patch.setenv("DISTILLSCOPE_CACHE", str(scratch() / "cache"))
        run_study(tiny_study(arms=arms), run, jobs=1)


def sorted_rows(results: pd.DataFrame) -> pd.DataFrame:
    """A run's rows in one order, without the clock: it differs between any two runs, and nothing else may."""
    keys = [c for c in COLUMNS if c not in ("value", "n", "unit")]
    return results.query("measure != 'train.seconds'").sort_values(keys).reset_index(drop=True)


FEW = Settings(null_draws=9)


@functools.cache
def pixels(num_items: int = 500) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Teacher (n, 64), a student (n, 64) that keeps 8 of its components with noise, and labels."""
    digits = load_digits()
    teacher, labels = digits.data[:num_items] / 16, digits.target[:num_items]
    mean = teacher.mean(axis=0)
    components = np.linalg.svd(teacher - mean, full_matrices=False)[2][:8]
    noise = np.random.default_rng(0).normal(size=teacher.shape)
    return teacher, mean + (teacher - mean) @ components.T @ components + 0.05 * noise, labels


@functools.cache
def labelled() -> Audit:
    return audit(*pixels(), settings=FEW)


@functools.cache
def of_two_dimensions() -> Audit:
    """No labels, and the student has 20 dimensions."""
    teacher, student, _ = pixels()
    return audit(teacher, student[:, :20], settings=FEW)


SMALL_DIM, SMALL_SIZE = 8, 16


def save_small_student(folder: Path, seed: int = 0, **preprocess: Any) -> None:
    """A student of digits, of random weights and statistics, as a folder."""
    import torch

    from distillscope.data.preprocess import Preprocess
    from distillscope.students.load import build_student, save_student

    folder.mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        seen = Preprocess(SMALL_SIZE, **preprocess)
        student = build_student("paper_cnn", {"width": 1}, SMALL_DIM, seen, "S", torch.device("cpu"))
        for module in student.module.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.05, 0.2)
    save_student(student, folder, {"teacher": "efficientnet_lite0", "dataset": "digits"})


def small_student() -> Path:
    """The folder of a `save_small_student`."""
    return once(scratch() / "export-student", save_small_student)


def small_files() -> Path:
    """A folder with files that were exported from it as in use: s.onnx, s.batch1.onnx; raw.onnx in float16."""
    student = small_student()

    def make(folder: Path) -> None:
        from distillscope.students.export.write import export_student

        folder.mkdir()
        export_student(student, folder / "s.onnx")
        export_student(student, folder / "raw.onnx", precision="float16", input="raw", licence="CC0-1.0")

    return once(scratch() / "exported", make)
