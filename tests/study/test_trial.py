"""One trial: what it writes, and in which order."""

from __future__ import annotations

import pytest

from builders.tiny import scratch, tiny_study
from distillscope.distill.streams import KeyedStreams, NotebookStreams
from distillscope.results.run_files import trials_of
from distillscope.results.rundir import is_complete
from distillscope.study.prepared import load_data, prepare_targets
from distillscope.study.trial import fresh_student, make_health, make_streams, run_trial
from distillscope.teachers.rows import load_teacher


@pytest.fixture
def ready(monkeypatch):
    """A study with its data and its teacher's targets."""
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(scratch() / "cache"))

    def make(**changes):
        study = tiny_study(**changes)
        splits = load_data(study, study.data[0])
        encoder = load_teacher(study.teacher[0], "cpu", None)
        return study, splits, prepare_targets(study, encoder, splits, study.target, list(study.arms))

    return make


def test_a_trial_counts_its_training_images_and_keeps_its_targets_transform(ready, tmp_path):
    study, splits, prepared = ready(
        target={"name": "pca", "dim": 16}, probes={"paper": True, "tuned": True, "cs": [0.1, 1.0]}
    )
    counted = []
    run_trial(study, trials_of(study)[0], splits, prepared, tmp_path, advance=counted.append)
    assert sum(counted) == 2 * 160
    assert is_complete(tmp_path)
    assert (tmp_path / "target.safetensors").is_file()
    assert "probe.student.accuracy" in (tmp_path / "results.csv").read_text()


def test_an_arm_changes_its_students_network_and_nothing_else(ready, tmp_path):
    import torch

    from distillscope import load_student
    arms = [{"name": "cosine"}, {"name": "blur", "student": {"blur_pool": True}}]
    study, splits, prepared = ready(arms=arms, training={"epochs": 1, "batch_size": 32})
    plain, blur = (fresh_student(study, a, study.student_of(a, "S"), 1, prepared, "cpu", "float32")[0] for a in study.arms)
    assert all(torch.equal(x, y) for x, y in zip(plain.module.parameters(), blur.module.parameters(), strict=True))
    assert str(plain.module) != str(blur.module)
    run_trial(study, next(t for t in trials_of(study) if t.arm == "blur"), splits, prepared, tmp_path)
    assert str(load_student(tmp_path).module) == str(blur.module)


@pytest.mark.parametrize(("settings", "message"), [
    ({"blur_poool": True}, "Did you mean 'blur_pool'"), ({"name": "timm"}, "Another network is another student"),
])
def test_a_wrong_setting_of_an_arms_network_is_one_line(settings, message):
    from distillscope.errors import UserError

    with pytest.raises(UserError, match=message):
        tiny_study(arms=[{"name": "blur", "student": settings}])


def test_a_trial_that_fails_while_measuring_is_not_complete(ready, tmp_path, monkeypatch):
    import distillscope.study.trial as module

    study, splits, prepared = ready()

    def broken(*args, **kwargs):
        raise RuntimeError("no")

    monkeypatch.setattr(module, "evaluate", broken)
    with pytest.raises(RuntimeError):
        run_trial(study, trials_of(study)[0], splits, prepared, tmp_path)
    assert not is_complete(tmp_path)
    monkeypatch.undo()
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(scratch() / "cache"))
    before = (tmp_path / "weights.safetensors").read_bytes()
    run_trial(study, trials_of(study)[0], splits, prepared, tmp_path)  # goes on from the last checkpoint
    assert (tmp_path / "weights.safetensors").read_bytes() == before


def test_tuned_probes_without_validation_are_left_out_and_said(ready, tmp_path):
    study, splits, prepared = ready(validation=0, probes={"paper": True, "tuned": True})
    run_trial(study, trials_of(study)[0], splits, prepared, tmp_path)
    assert "no validation part; set validation=1000" in (tmp_path / "complete.json").read_text()


def test_health_is_measured_on_what_is_held_out(ready):
    _, splits, prepared = ready()
    health = make_health(splits, prepared)
    assert health.split == "validation"
    assert not set(health.held_out.ids) & set(splits.train.ids)
    assert not set(health.held_out.ids) & set(health.gallery.ids)


def test_a_study_chooses_its_streams(ready):
    study, _, prepared = ready(streams="notebook")
    dim = prepared.rows("train").shape[1]
    assert isinstance(make_streams(study, study.arms[0], study.students[0], 1, dim), NotebookStreams)
    keyed = study.model_copy(update={"streams": "keyed"})
    assert type(make_streams(keyed, study.arms[0], study.students[0], 1, dim)) is KeyedStreams
