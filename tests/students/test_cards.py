"""Whose figures a card shows: an audit of an exported file, of another teacher, or of a file that was made again."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builders import refused
from builders.tiny import small_files, small_student
from distillscope import load_artefact, load_student
from distillscope.measure.results import Audit, Stage, Value
from distillscope.students.card import model_card
from distillscope.students.export.load import name_of_weights


@pytest.fixture(scope="module")
def student():
    return load_student(small_student(), "cpu")


def audited(student, teacher="efficientnet_lite0", of="student", stage=None):
    inputs = {"teacher": {"file": teacher, "weights": "a" * 32, "ids": "digits/test"},
              "student": {"file": of, "weights": name_of_weights(student), "ids": "digits/test"}}
    cosine = Value(0.5, 0.4, 0.6, 80, "", "cosine")
    return Audit({"alignment.mean_cosine": cosine}, inputs=inputs, stages=[stage] if stage else [])


@pytest.mark.parametrize("of", ["s.int8.onnx", "made/s.xml"])
def test_figures_of_a_file_are_not_the_students(student, tmp_path, of):
    """A file's metadata hold the student's hash, so the hash alone does not say which of both was embedded."""
    with refused(expected="the student's own weights", got=of.rpartition("/")[2], advice="--artefact"):
        student.save_pretrained(tmp_path / "card", audit=audited(student, of=of))
    assert not (tmp_path / "card").exists()
    student.save_pretrained(tmp_path / "card", audit=audited(student))


def test_the_audits_teacher_is_named_and_another_one_is_said(student):
    student.described = {**student.described, "teacher": "efficientnet_lite0"}
    own = model_card(student, "here", audit=audited(student))
    assert "against efficientnet_lite0." in own and "is called" not in own and "(95 % interval" in own
    for spec, title in (("timm/resnet18", "resnet18"), ("made/t.onnx", "t.onnx"), ("hf-hub:ann/large@v2", "large@v2")):
        other = model_card(student, "here", audit=audited(student, spec))
        assert f"against {title}" in other and f"The audit's teacher is called {title}" in other
        assert f"(teacher {title}," in other


def test_a_file_that_was_made_again_is_not_the_one_that_was_audited(student, tmp_path):
    """Two int8 files of one student, calibrated on other images, are of one size."""
    path = small_files() / "s.onnx"
    artefact = load_artefact(path, student)
    values = {"mean_cosine": Value(0.5, None, None, 80, "", "cosine"),
              "size_bytes": Value(artefact.size_bytes, None, None, 1, "", "bytes")}
    with refused(where="s.onnx", expected="this file", got="another of its name"):
        student.save_pretrained(tmp_path / "card", artefacts=[path],
                                audit=audited(student, stage=Stage("artefact", "s.onnx", values, content="b" * 32)))
    for content in ("", artefact.weights_hash):  # audits from before it was kept hold none
        stage = Stage("artefact", "s.onnx", values, content=content)
        student.save_pretrained(tmp_path / "card", artefacts=[path], audit=audited(student, stage=stage))


KINDS = {"photo": ("RGB", "JPEG"), "grey": ("L", "JPEG"), "print": ("CMYK", "JPEG"), "see-through": ("RGBA", "PNG"),
         "palette": ("P", "PNG"), "half": ("LA", "PNG")}


@pytest.mark.parametrize("kind", KINDS)
def test_the_cards_and_the_documents_code_see_an_image_as_the_student_does(student, tmp_path, monkeypatch, kind):
    """Turned by EXIF, grey, in a palette, from print, and with what is transparent on white: to the pixel."""
    mode, form = KINDS[kind]
    x, y = np.meshgrid(np.arange(53), np.arange(38))
    image = Image.fromarray(np.stack([4 * x, 5 * y, 2 * (x + y), 3 * x + y], axis=-1).astype(np.uint8), "RGBA")
    image = image.convert(mode) if mode in ("RGBA", "LA") else image.convert("RGB").convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "photo.jpg", form, exif=exif)
    shutil.copy(small_files() / "s.onnx", tmp_path / "student.onnx")
    shutil.copy(small_files() / "s.onnx", tmp_path / "s.onnx")
    monkeypatch.chdir(tmp_path)
    own = load_artefact("s.onnx", student).encode(["photo.jpg"])
    page = (Path(__file__).parents[2] / "docs" / "ship.md").read_text()
    for text in (page, model_card(student, "here", artefacts=[load_artefact("s.onnx", student)])):
        held = {}
        exec(next(b for b in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "onnxruntime" in b), held)
        assert np.linalg.norm(held["embeddings"] - own) < 1e-2 * np.linalg.norm(own)
        Image.fromarray(np.full((20, 30), 40_000, np.uint16)).save("photo.png")
        deep = next(b for b in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "onnxruntime" in b)
        with pytest.raises(AssertionError, match="16 bits"):
            exec(deep.replace("photo.jpg", "photo.png"), {})
