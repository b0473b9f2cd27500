"""`--set` has one grammar in `run` and `distill`."""

from __future__ import annotations

import pytest

from builders.tiny import tiny_values
from distillscope.config.load import DEFAULTS, apply_override, one_student, study_from
from distillscope.errors import UserError


def changed(*overrides, **changes):
    values = tiny_values(**changes)
    for override in overrides:
        apply_override(values, override)
    return study_from(values)


@pytest.mark.parametrize("path", ["student", "students", "student.S", "students.S", "students.0"])
def test_one_student_needs_no_name(path):
    assert changed(f"{path}.width=2").students[0].settings["width"] == 2


@pytest.mark.parametrize("path", ["objective", "arm.objective", "arms.cosine.objective", "arms.0.objective"])
def test_one_objective_needs_no_arm(path):
    assert changed(f"{path}.weight=3").arms[0].objective[0].weight == 3


def test_a_name_alone_takes_settings_of_its_own():
    assert changed("data.train_split=test").data[0].train_split == "test"
    assert changed("objective=mse").arms[0].objective_name == "mse"
    assert changed("arm.training.epochs=9").arms[0].training.epochs == 9


def test_of_several_one_must_be_named():
    with pytest.raises(UserError) as error:
        changed("student.width=2", students=[{"name": "paper_cnn", "label": x, "image_size": 16} for x in "SM"])
    assert error.value.where == "--set student.width" and "Known: M, S" in error.value.todo


def test_distill_is_a_study_of_one_with_a_studys_defaults():
    study = one_student("mine", "efficientnet_lite0", "digits")
    assert (study.training.epochs, study.training.batch_size, study.training.learning_rate) == (5, 64, 1e-3)
    assert (study.seeds, study.students[0].image_size, study.arms[0].objective_name) == ((42,), 32, "cosine")
    assert set(DEFAULTS) == {"objective", "epochs", "batch_size", "lr", "seed", "image_size"}
    timm = one_student("mine", "efficientnet_lite0", "digits", "timm/resnet10t", overrides=["student.label=tiny"])
    assert (timm.students[0].name, timm.students[0].label) == ("timm", "tiny")
