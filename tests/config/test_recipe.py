"""Recipes: a piece of a study's YAML, changed by options; what was changed and assumed is said."""

from __future__ import annotations

import pytest
import yaml

from builders import refused
from distillscope.config.recipe import DEFAULT_RECIPE, FIRST_RECIPE, one_student, read_recipe, recipe_names
from distillscope.config.study import Training
from distillscope.errors import UserError


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
