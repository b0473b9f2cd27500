"""Whose figures a card shows: an audit of an exported file, of another teacher, or of a file that was made again."""

from __future__ import annotations

import pytest

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
