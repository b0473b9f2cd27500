"""A student used on anything: images of every kind in, rows out; a step of a scikit-learn pipeline."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from builders import refused
from distillscope.data.preprocess import Preprocess
from distillscope.students.load import build_student

DIM, SIZE = 8, 16


@pytest.fixture(scope="module")
def student():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = build_student("paper_cnn", {"width": 1}, DIM, Preprocess(SIZE), "S", torch.device("cpu"))
    made.module.eval()
    return made


@pytest.fixture
def folder(tmp_path):
    """Five images, one a folder deeper, and a text."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 20, 30, 3), dtype=np.uint8)
    (tmp_path / "b").mkdir()
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / ("b" if i == 4 else "") / f"{i}.png")
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path, pixels


def test_every_kind_of_image_gives_the_same_rows(student, folder):
    path, pixels = folder
    paths = [path / f"{i}.png" for i in range(4)] + [path / "b" / "4.png"]
    wanted = student.encode(pixels)
    opened = [Image.open(p) for p in paths]
    for given in (pixels, torch.from_numpy(pixels).permute(0, 3, 1, 2), paths, list(map(str, paths)), opened,
                  pd.Series(map(str, paths)), pd.DataFrame({"p": paths})["p"], path, str(path)):
        found = student.embed(given, batch_size=2)
        assert found.shape == (5, DIM) and found.dtype == np.float32
        assert np.allclose(found, wanted, atol=1e-4)
    floats = student.embed(pixels / np.float32(255))  # resized without rounding to whole levels
    assert np.allclose(floats, wanted, atol=0.01)
    for one in (paths[0], pixels[0], opened[0]):
        assert np.allclose(student.embed(one), wanted[:1], atol=1e-4)
    assert student.embed([]).shape == (0, DIM)


def test_a_student_is_a_step_of_a_pipeline(student, folder):
    _, pixels = folder
    labels = [0, 1, 0, 1, 0]
    pipeline = make_pipeline(student, LogisticRegression()).fit(pixels, labels)
    assert pipeline.predict(pixels).shape == (5,) and clone(student) is student
    assert pipeline[:-1].get_feature_names_out().tolist() == [f"embedding_{i}" for i in range(DIM)]
    assert clone(pipeline).fit(list(pixels), labels).score(list(pixels), labels) >= 0.6


def test_what_is_no_image_is_refused_by_its_name(student, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    with refused(where="a.png"):
        student.embed([tmp_path / "a.png"])
    (tmp_path / "a.png").unlink()
    with refused(where=str(tmp_path), got="none"):
        student.embed(tmp_path)
