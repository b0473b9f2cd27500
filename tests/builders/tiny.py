"""A study that runs in seconds: a random teacher from a local file, a few digits, the smallest student."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from distillscope.config.load import study_from
from distillscope.config.study import Study
from distillscope.results.rundir import COLUMNS

TEACHER = "test_resnet"


@functools.cache
def scratch() -> Path:
    """A folder that lives as long as the test session, for what many tests only read."""
    folder = Path(tempfile.mkdtemp(prefix="distillscope-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def teacher_weights() -> Path:
    """Random weights of timm's smallest ResNet, as the local file that a user would name."""
    import timm
    import torch
    from safetensors.torch import save_file

    path = scratch() / "teacher.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_file(timm.create_model(TEACHER, pretrained=False).state_dict(), path)
    return path


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
    from distillscope.study.run import run_study

    run = scratch() / "finished"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTILLSCOPE_CACHE", str(scratch() / "cache"))
        run_study(
            tiny_study(arms=[{"name": "cosine"}, {"name": "augmented", "view": "crop_flip", "seeds": [1]}]), run, jobs=1
        )
    return run


def sorted_rows(results: pd.DataFrame) -> pd.DataFrame:
    """A run's rows in one order, without the clock: it differs between any two runs, and nothing else may."""
    keys = [c for c in COLUMNS if c not in ("value", "n", "unit")]
    return results.query("measure != 'train.seconds'").sort_values(keys).reset_index(drop=True)
