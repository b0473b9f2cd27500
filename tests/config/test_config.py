"""`--set` has one grammar in `run` and `distill`, an arm's training is merged over the study's; recipes, a piece of a study's
YAML, are changed by options, and what was changed and assumed is said.
"""

from __future__ import annotations

import hashlib
import json

import pytest
import yaml

from builders import refused
from builders.planted import study_with
from builders.tiny import TEACHER, tiny_study, tiny_values
from distillscope.config.load import apply_override, load_preset, preset_names, study_from
from distillscope.config.recipe import DEFAULT_RECIPE, FIRST_RECIPE, one_student, read_recipe, recipe_names
from distillscope.config.study import Arm, Study, Training
from distillscope.errors import UserError
from distillscope.files.writing import write_text
from distillscope.registry import KINDS
from distillscope.results.arms import arms_of
from distillscope.results.run_files import as_study, read_written
from distillscope.results.rundir import as_begun, check_folder, load_config, open_run


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


PRESETS = {"cifar10": "cad766e740f8c3f0", "claims": "50fc7158df767c1b", "claims-quick": "a3335d736959c08a",
           "paper": "9e37db89d6f429c2", "paper-claims": "a0b60adb2acf6c9d",
           "paper-expansion": "887b7220ffa356e3", "quickstart": "1d077e0e06bb47ba"}
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
    values = load_preset(name).dump()
    assert values["noise"].pop("per_seed") == ("claims" in name)  # added on 2026-11-27
    dumped = json.dumps(values, sort_keys=True).encode()
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


OFF = {"average": 0.99, "accumulate": 2, "recompute": True}
"""Settings of a study that an arm may switch off."""


def switched_off(*keys):
    """A study with all of them on, and an arm with some of them off."""
    return tiny_study(training={"epochs": 2, "batch_size": 32, **OFF},
                      arms=[{"name": "all"}, {"name": "plain", "training": dict.fromkeys(keys)}])


def older(study):
    """Its values as versions wrote them that left every null out."""
    return study.model_dump(mode="json", exclude_none=True)


@pytest.mark.parametrize("keys", [*([k] for k in OFF), list(OFF)], ids=str)
def test_what_an_arm_switches_off_is_off_when_it_is_read_again(keys, tmp_path):
    study = switched_off(*keys)
    assert study_from(yaml.safe_load(yaml.safe_dump(study.dump()))) == study
    open_run(study, tmp_path / "new", False)
    open_run(study, tmp_path / "new", True)  # not refused
    assert load_preset(str(tmp_path / "new" / "study.yaml")) == study
    assert arms_of(as_study(load_config(tmp_path / "new"), tmp_path)) == arms_of(study)


def test_an_older_run_is_read_and_goes_on_with_what_its_arms_had_switched_off(tmp_path):
    study, run = switched_off("average"), tmp_path / "old"
    values = older(study)
    assert "average" not in values["arms"][1]["training"] and study_from(values) != study  # as a file of a user: the study's
    write_text(run / "study.yaml", yaml.safe_dump(values))
    write_text(run / "provenance.json", "{}")
    assert as_study(read_written(run / "study.yaml"), run) == study == load_preset(str(run / "study.yaml"))
    assert as_begun(study, run) == study
    open_run(study, run, True)  # not refused
    with refused(where="arms", expected="as when it started"):
        check_folder(switched_off("recompute"), run, True)


def test_what_an_arm_takes_out_of_its_students_network_is_out_when_it_is_read_again():
    students = [{"name": f"timm/{TEACHER}", "label": "S", "settings": {"drop_path_rate": 0.1}}]
    study = tiny_study(students=students, arms=[{"name": "drop"}, {"name": "plain", "student": {"settings": None}}])
    assert study_from(study.dump()) == study
    assert [study.student_of(arm, "S").settings.get("settings") for arm in study_from(study.dump()).arms] == [
        {"drop_path_rate": 0.1}, None]


def test_nulls_that_change_nothing_are_not_written():
    plain = tiny_study(arms=[{"name": "a", "training": {"epochs": 3}}], noise={"sigmas": [0.1]})
    said = tiny_study(arms=[{"name": "a", "view": None, "target": None, "projector": None,
                             "training": {"epochs": 3, "average": None}}], noise={"sigmas": [0.1], "decides": None})
    assert said.dump() == plain.dump() == older(plain)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_null_says_of_a_parts_setting_is_what_leaving_it_out_says(kind):
    """So that nothing is lost where nulls are not written."""
    settings = [(name, p) for name in KINDS[kind] for p in KINDS[kind].settings(name).values() if p.default is not p.empty]
    assert [(name, str(p)) for name, p in settings if "None" in str(p.annotation) and p.default is not None] == []


def test_another_training_than_it_was_begun_with_is_still_refused(tmp_path):
    run = begun(tmp_path / "run", {"epochs": 6})
    now = tiny_study(arms=[{"name": "cosine"}, {"name": "longer", "training": {"epochs": 7}}])
    assert as_begun(now, run) == now
    with pytest.raises(UserError, match="as when it started"):
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


def one(student="paper_cnn", **changes):
    return one_student("mine", "efficientnet_lite0", "digits", student, **changes)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_a_checked_study_that_needs_no_labels(name):
    from distillscope import registry

    study, recipe = one(recipe=name), read_recipe(name)
    assert study.arms[0].name == recipe.name == name == study.description
    assert (study.training_of(study.arms[0]), study.target_of(study.arms[0])) == (recipe.arm.training, recipe.arm.target)
    assert not {"labels", "logits"} & {n for o in study.arms[0].objective for n in registry.objectives.needs(o.name)}
    assert 20 < len(recipe.description) < 300


def test_the_papers_recipe_is_to_the_letter_and_what_a_study_does_by_itself():
    study = one(recipe=FIRST_RECIPE)
    assert study.training == Training() == Training(epochs=5, batch_size=64, optimizer="adam", learning_rate=1e-3)
    assert (study.seeds, study.students[0].image_size, study.arms[0].objective_name) == ((42,), 32, "cosine")
    assert study.arms[0].view is None and study.target.name == "none"


def test_options_come_before_the_recipe_and_are_said():
    study = one(objective="mse", dim=64, overrides=["training.epochs=2", "view.sigma=0.1"])
    assert study.arms[0].view.settings == {"sigma": 0.1} and study.arms[0].objective_name == "mse"
    assert study.training == read_recipe(DEFAULT_RECIPE).arm.training.model_copy(update={"epochs": 2})
    assert study.target.model_dump() == {"name": "pca", "dim": 64}
    assert study.description.startswith(
        f"{DEFAULT_RECIPE}, but for its objective, view, target, training.epochs; 64 dimensions:")
    assert one().arms[0].view.settings == read_recipe(DEFAULT_RECIPE).arm.view.settings, "read again, the recipe is as it was"


def test_dim_is_the_targets_own_setting_where_it_has_one():
    assert one(dim=8, overrides=["target=whiten", "target.exponent=0.5"]).target.settings == {"exponent": 0.5, "dim": 8}
    with refused(where="--dim", got="the target centre"):
        one(dim=8, overrides=["target=centre"])


@pytest.mark.parametrize(("overrides", "size", "mean"), [
    ([], 176, 0.485), (["student.image_size=64"], 64, 0.485), (["student.mean=[0.5, 0.5, 0.5]"], 176, 0.5),
])
def test_a_timm_student_sees_what_it_was_made_for_unless_told(overrides, size, mean):
    study = one("timm/resnet10t", overrides=[*overrides, "student.label=tiny"])
    seen = study.students[0]
    assert (seen.name, seen.label, seen.image_size, seen.mean[0], seen.std[0]) == ("timm", "tiny", size, mean, 0.229)
    said = {"image_size": "176 px", "mean": "mean", "std": "std"}
    own = [word for key, word in said.items() if not any(f"student.{key}=" in o for o in overrides)]
    assert f"tiny sees its own {', '.join(own)}, since nothing else was said" in study.description


def test_a_file_is_a_recipe(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"objective": ["mse"], "training": {"epochs": 1}, "target": {"name": "pca", "dim": 4}}))
    study = one(recipe=str(file))
    assert (study.arms[0].name, study.arms[0].objective_name, study.target.settings) == ("mine", "mse", {"dim": 4})
    assert study.training == Training(epochs=1)


def test_the_student_may_be_named_by_an_override_alone():
    assert one(overrides=["students=timm/resnet10t"]).students[0].image_size == 176


@pytest.mark.parametrize(("written", "message"), [
    ("objective: cosine\nstudents: [paper_cnn]", r"students: expected what a recipe says: objective.*--student"),
    ("objectiv: cosine", r"objectiv: expected a known key of a recipe, got 'objectiv'\. Did you mean 'objective'"),
    ("training: {epoch: 3}", r"training\.epoch: expected a known key, got 'epoch'\. Did you mean 'epochs'"),
    ("training: {epochs: 0}", r"training\.epochs: expected"),
    ("objective: cosin", r"arms\.r\.objective\.name: expected a known objective, got 'cosin'\. Did you mean 'cosine'"),
    ("objective: infonce_views", r"arms\.r\.objective: expected a view"),
    ("view_target: clean", r"arms\.r\.view: expected a view"),
    ("name: [1]", r"name: expected text, got \[1\]"),
    ("- cosine", r"expected a mapping \(key: value lines\), got list\. Start from a recipe: `distillscope list recipes`"),
])
def test_a_bad_recipe_is_one_line(written, message, tmp_path):
    (tmp_path / "r.yaml").write_text(written)
    with pytest.raises(UserError, match=message) as error:
        one(recipe=str(tmp_path / "r.yaml"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("changes", "message"), [
    ({"recipe": "robst"}, r"--recipe: expected a known recipe or YAML file, got 'robst'\. Did you mean 'robust'"),
    ({"recipe": "none.yaml"}, r"--recipe: expected a recipe's name or a YAML file that exists"),
    ({"overrides": ["trainin.epochs=3"]}, r"expected a known key, got 'trainin'\. Did you mean 'training'"),
    ({"overrides": ["view.sgma=3"]}, r"view\.sgma.*Did you mean 'sigma'"),
    ({"dim": 0}, r"target\.dim"),
    ({"recipe": "paper", "objective": "infonce_views"}, r"expected a view, since infonce_views"),
    ({"overrides": ["student.image_size=abc"]}, r"students\.0\.image_size: expected a whole number, got 'abc'"),
    ({"overrides": ["students=5"]}, r"students: expected a list, got 5"),
    ({"overrides": ["students=[]"]}, r"expected at least one, got none"),
    ({"overrides": ["target=5"], "dim": 8}, r"target: expected a mapping, got 5"),
    ({"overrides": ["seeds=[1, 2]"]}, r"distill seeds: expected one, got 2"),
    ({"overrides": ["data=[digits, cifar10]"]}, r"distill data: expected one, got 2"),
    ({"overrides": ["remedies=[bn]"]}, r"distill remedies: expected none.*got bn"),
])
def test_bad_options_are_one_line(changes, message):
    with pytest.raises(UserError, match=message):
        one(**changes)
