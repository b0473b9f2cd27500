"""Arms are what their config says, in whatever spelling, and never their names."""

from __future__ import annotations

import pytest

from builders.planted import study_with
from builders.tiny import tiny_values
from distillscope.config.load import load_preset, parse_study, preset_names, study_from
from distillscope.results.arms import arms_of, distinct


def only(**arm):
    study = study_with(arms=[{"name": "a", **arm}], training={"epochs": 5}, target={"name": "pca", "dim": 8})
    (found,) = arms_of(study).values()
    return found


@pytest.mark.parametrize("objective",
                         ["cosine", ["cosine"], {"name": "cosine"}, [{"name": "cosine", "weight": 1.0, "projected": True}],
                                       ["cosine", {"name": "mse", "weight": 0}]])
def test_spellings_of_one_loss_are_one(objective):
    assert only(objective=objective).key == only().key


def test_a_part_of_another_setting_is_another_arm():
    plain = only()
    for other, keys in ((only(objective="mse"), {"terms"}), (only(objective={"name": "cosine", "weight": 2}), {"terms"}),
                        (only(target={"name": "pca", "dim": 4}), {"target"}), (only(view="crop_flip"), {"view"}),
                        (only(training={"epochs": 6}), {"training"}), (only(projector="linear"), {"rest"}),
                        (only(objective="mse", view="noise"), {"terms", "view"})):
        assert plain.differs(other) == keys and plain.key != other.key
    assert plain.differs(only(name="b", students=["S"], seeds=[1])) == set()


def test_what_a_view_shows_belongs_to_the_view():
    assert only(view="noise", view_target="same").differs(only(view={"name": "noise"})) == set()
    assert only(view="noise", view_target="clean").differs(only(view="noise")) == {"view"}
    assert only(view="noise", view_bank=2).differs(only(view="noise")) == {"view"}
    assert only(view={"name": "noise", "sigma": 0.3}).view_name == "noise"
    assert only(view_target="clean").view is None  # without a view it says nothing


def test_what_is_off_is_as_if_it_were_not_written():
    assert only(projector=None, student={}).key == only().key


def test_the_order_of_terms_is_no_difference():
    queued = {"name": "infonce", "queue": 8}
    assert only(objective=["mse", queued]).terms == only(objective=[queued, "mse"]).terms
    assert only(objective=["cosine", "infonce"]).families == {"cosine", "contrastive"}
    assert only(objective="of my own").families == {"other"}
    assert only(objective=["mse", {"name": "cosine", "weight": 0.5}]).objective == "0.5 cosine + mse"


def test_epochs_alone():
    plain = only()
    assert plain.only_epochs_differ(only(training={"epochs": 20}))
    assert not plain.only_epochs_differ(only(training={"epochs": 20, "batch_size": 8}))
    assert not plain.only_epochs_differ(only(training={"epochs": 20}, objective="mse"))
    assert not plain.only_epochs_differ(plain)


def test_a_remedy_makes_another_arm_of_each():
    study = study_with(arms=[{"name": "a"}, {"name": "b", "objective": "mse"}],
                       remedies=[{"name": "bn", "label": "norms"}, "bn"])
    found = arms_of(study)
    assert list(found) == ["a", "a+norms", "a+bn", "b", "b+norms", "b+bn"]
    assert found["a+norms"].remedied == "bn" and found["a"].remedied is None
    assert found["a+norms"].differs(found["a"]) == {"rest"}
    assert found["a+norms"].key == found["a+bn"].key  # a label is a name
    assert [a.name for a in distinct(found.values())] == ["a", "a+norms", "b", "b+norms"]


def test_a_study_without_arms_trains_cosine():
    assert [a.objective for a in arms_of(study_with()).values()] == ["cosine"]


@pytest.mark.parametrize("name", preset_names())
def test_presets_as_written_and_as_dumped_hold_the_same_arms(name):
    """A default that a later version writes into study.yaml must not make another arm of an old one."""
    study = load_preset(name)
    found = arms_of(parse_study(study.dump()))
    plain = [a for a in found.values() if a.rest == "{}" and a.view is None and [t.name for t in a.terms] == ["cosine"]]
    assert plain and plain[0].default_target and plain[0].default_training


def test_a_dumped_arm_is_the_one_that_was_written():
    values = tiny_values(arms=[{"name": "a"}, {"name": "b", "view": "noise", "view_target": "clean"}])
    dumped, written = arms_of(parse_study(study_from(values).dump())), arms_of(parse_study(values))
    assert dumped["b"].differs(dumped["a"]) == written["b"].differs(written["a"]) == {"view"}
