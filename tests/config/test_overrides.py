"""`--set` has one grammar in `run` and `distill`; an arm's training is merged over the study's."""

from __future__ import annotations

import hashlib
import json

import pytest
import yaml

from builders.planted import study_with
from builders.tiny import tiny_study, tiny_values
from distillscope.config.load import apply_override, load_preset, preset_names, study_from
from distillscope.config.study import Arm, Study, Training
from distillscope.errors import UserError
from distillscope.files.writing import write_text
from distillscope.results.arms import arms_of
from distillscope.results.rundir import as_begun, load_config, open_run


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


PRESETS = {"cifar10": "cad766e740f8c3f0", "claims": "d917fa0ba515d2a8", "claims-quick": "3ff09e9bca89db80",
           "paper": "9e37db89d6f429c2", "paper-expansion": "887b7220ffa356e3", "quickstart": "1d077e0e06bb47ba"}
"""Digest of each preset's resolved settings, as when an arm's block still replaced the study's.

A new key of a study changes all of them.
"""


def only_arm(study):
    return study.training_of(study.arms[-1])


def test_what_an_arm_leaves_out_is_the_studys():
    study = tiny_study(training={"epochs": 2, "batch_size": 32, "learning_rate": 0.01},
                       arms=[{"name": "plain"}, {"name": "longer", "training": {"epochs": 6}}])
    assert study.training_of(study.arms[0]) is study.training
    assert only_arm(study) == Training(epochs=6, batch_size=32, learning_rate=0.01)
    assert Study.model_validate(study.dump()) == study


@pytest.mark.parametrize("own", [None, {}])
def test_an_empty_block_changes_nothing(own):
    assert only_arm(tiny_study(arms=[{"name": "a", "training": own}])) == Training(epochs=2, batch_size=32)


def test_a_model_is_taken_whole_and_an_override_is_merged():
    study = tiny_study(arms=[Arm(name="a", training=Training(epochs=3))])
    assert only_arm(study) == Training(epochs=3)
    values = tiny_values()
    apply_override(values, "arms.cosine.training.epochs=7")
    assert only_arm(study_from(values)) == Training(epochs=7, batch_size=32)


def test_a_misspelt_setting_is_one_line_with_its_place():
    with pytest.raises(UserError) as error:
        tiny_study(arms=[{"name": "a", "training": {"epoch": 3}}])
    assert (error.value.where, error.value.got) == ("study arms.0.training.epoch",
                                                    "'epoch'") and "Did you mean 'epochs'?" in error.value.todo


def test_readers_of_a_config_as_written_merge_it_too():
    arm = arms_of(study_with(training={"epochs": 5, "batch_size": 32}, arms=[{"name": "a", "training": {"epochs": 9}}]))["a"]
    assert (json.loads(arm.training)["epochs"], json.loads(arm.training)["batch_size"]) == (9, 32)


@pytest.mark.parametrize("name", preset_names())
def test_presets_without_their_repetitions_are_what_they_were(name):
    dumped = json.dumps(load_preset(name).dump(), sort_keys=True).encode()
    assert hashlib.blake2b(dumped, digest_size=8).hexdigest() == PRESETS[name]


def begun(folder, training):
    """A run whose arm `longer` was begun with this training, written out as every run's is."""
    values = tiny_study(arms=[{"name": "cosine"}, {"name": "longer", "training": training}]).dump()
    write_text(folder / "study.yaml", yaml.safe_dump(values))
    return folder


def test_a_run_begun_when_an_arms_training_replaced_the_studys_goes_on_so(tmp_path, capsys):
    run = begun(tmp_path / "run",
                {"epochs": 6, "batch_size": 64})  # written as {epochs: 6}: the batch was the program's default
    now = tiny_study(arms=[{"name": "cosine"}, {"name": "longer", "training": {"epochs": 6}}])
    assert only_arm(now).batch_size == 32
    going_on = as_begun(now, run)
    assert only_arm(going_on) == Training(epochs=6, batch_size=64) and "batch_size 64" in capsys.readouterr().err
    open_run(going_on, run, True)  # not refused
    assert load_config(run)["arms"][1]["training"]["batch_size"] == 64


def test_another_training_than_it_was_begun_with_is_still_refused(tmp_path):
    run = begun(tmp_path / "run", {"epochs": 6})
    now = tiny_study(arms=[{"name": "cosine"}, {"name": "longer", "training": {"epochs": 7}}])
    assert as_begun(now, run) == now
    with pytest.raises(UserError, match="as when it was begun"):
        open_run(as_begun(now, run), run, True)


def test_a_resumed_run_keeps_its_hidden_layer_and_a_new_one_has_the_papers(tmp_path, capsys):
    study = tiny_study()
    open_run(study, tmp_path / "new", False)
    assert load_config(tmp_path / "new")["students"][0]["hidden"] == 512
    assert as_begun(study, tmp_path / "new") == study == as_begun(study, tmp_path / "none")
    older = study.dump()
    del older["students"][0]["hidden"]
    write_text(tmp_path / "old" / "study.yaml", yaml.safe_dump(older))
    assert load_config(tmp_path / "old")["students"][0]["hidden"] == "target"
    going_on = as_begun(study, tmp_path / "old")
    assert going_on.students[0].settings["hidden"] == "target" and "hidden layer of S" in capsys.readouterr().err
    open_run(going_on, tmp_path / "old", True)  # not refused
    assert load_config(tmp_path / "old")["students"][0]["hidden"] == "target"
