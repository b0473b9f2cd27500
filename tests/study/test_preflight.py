"""What a run refuses before work, its plan and `distill` refuse too, with the same line: one bad input for each check."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from builders import refused
from builders.tiny import finished_run, scratch, tiny_study
from builders.training import make_source
from distillscope.config.parts import Part
from distillscope.config.resolve import with_noise
from distillscope.devices import choose_device
from distillscope.errors import UserError
from distillscope.files.writing import write_json
from distillscope.processes.engine import Engine
from distillscope.registry import remedies, stresses, students, views
from distillscope.results.rundir import drop_if_unused, open_run
from distillscope.stress.subject import rehearse
from distillscope.study.plan import plan_study
from distillscope.study.preflight import CHECKS, Work, batches, recomputing
from distillscope.study.prepared import embedded_views, load_data, noise_conditions
from distillscope.study.run import run_study
from distillscope.study.student import distill_one
from distillscope.teachers.inventory import list_entries

CALLS = {"device": {"device": "nowhere"}, "tracker": {"track": "nowhere"}, "jobs": {"jobs": 0},
         "engine": {"engine": Engine("slurm")}, "shard": {"shard": "3/2"},
         "same_items": {"resume": True}}
"""Check -> the arguments that it is refused or asked with."""

STUDIES = {
    "networks": {"students": [{"name": "paper_cnn", "width": 0, "image_size": 16}]},
    "optimizers": {"students": [{"name": "flat", "image_size": 16}], "training": {"batch_size": 16, "optimizer": "muon"}},
    "batches": {"training": {"batch_size": 32, "accumulate": 3}},
    "recomputing": {"training": {"batch_size": 16, "recompute": True}},
    "names": {"students": [{"name": "paper_cnn", "label": label, "image_size": 16} for label in "sS"]},
    "train_images": {"training": {"batch_size": 500}},
    "objectives": {"arms": [{"name": "a", "objective": ["cosine", {"name": "crd", "memory": 100_000}]}]},
    "views": {"arms": [{"name": "a", "view": "narrow"}]},
    "test_images": {"limit_test": 9},
    "stresses": {"stresses": [{"name": "band_noise", "bands": [[0.9, 0.1]]}]},
    "dimensions": {"arms": [{"name": "a", "target": {"name": "pca", "dim": 5000}}]},
    "heads": {"teacher": {"name": "embeddings", "path": "embeddings"}, "arms": [{"name": "a", "objective": "soft_labels"}]},
    "targets": {"arms": [{"name": "a", "objective": "mse", "target": {"name": "top_k", "k": 5000}}]},
    "target_names": {"arms": [{"name": name, "objective": "mse", "target": {"name": "random", "dim": 8, "frequency": frequency}}
                              for name, frequency in (("a", 10.0), ("b", 10.0000001))]},
    "ready_rows": {"teacher": {"name": "embeddings", "path": "embeddings"}, "arms": [{"name": "a", "view": "crop_flip"}]},
}
"""Check -> what is wrong in the study."""

PLACES = ("launcher", "parts", "folder")
"""Checks of what is neither a setting nor an argument: see `bad_input`."""


@pytest.fixture(autouse=True)
def narrow(monkeypatch, tmp_path):
    """A view that takes no image, a student without convolutions, and a cache of its own."""

    def refuse(image, rng):
        raise UserError("view", "images of 64 px", f"{image.shape[-1]}", "Use larger images.")

    def flat(embedding_dim, image_size):
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * image_size**2, embedding_dim))

    monkeypatch.setitem(views._parts, "narrow", refuse)
    monkeypatch.setitem(students._parts, "flat", flat)
    monkeypatch.setitem(students._facts, "flat", students.facts("paper_cnn"))
    monkeypatch.setitem(views._facts, "narrow", views.facts("crop_flip"))
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def bad_input(name, run, monkeypatch):
    """The study that the check of this name refuses."""
    if name in ("ready_rows", "heads"):
        (run.parent / "embeddings").mkdir()
        np.save(run.parent / "embeddings" / "train.npy", np.zeros((3, 8), np.float32))
    study = tiny_study(validation=20, **STUDIES.get(name, {}))
    if name == "launcher":
        monkeypatch.setenv("WORLD_SIZE", "2")
    if name == "folder":
        write_json(run / "something.json", {})
    if name == "same_items":
        open_run(study, run, resume=False)
        write_json(run / "references" / "x" / "complete.json",
                   {"dataset": "digits", "teacher": study.teacher[0].title, "fingerprint": {"train images": "other"}})
    return study.model_copy(update={"target": Part(name="pca", dims=3)}) if name == "parts" else study


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.name)
def test_what_a_run_refuses_the_plan_and_distill_refuse_with_the_same_line(check, tmp_path, monkeypatch):
    assert check.name in {*CALLS, *STUDIES, *PLACES}
    run, call = tmp_path / "run", CALLS.get(check.name, {})
    study = bad_input(check.name, run, monkeypatch)
    single = {k: v for k, v in call.items() if k in ("device", "track")}
    works = [lambda: plan_study(study, run, **call), lambda: run_study(study, run, report=False, **call)]
    works += [lambda: distill_one(study, tmp_path / "student", **single)] if check.distill else []
    said = []
    for work in works:
        with pytest.raises(UserError) as error:
            work()
        assert check.name in [entry.name for entry in error.traceback]
        said.append(str(error.value))
    assert len(set(said)) == 1
    assert run.exists() == (check.name in ("folder", "same_items"))  # what was there before; a refusal leaves nothing behind
    assert not (tmp_path / "cache" / "targets").exists()


@pytest.mark.parametrize(("batch", "parts", "where", "got"), [
    (32, 1, "training.batch_size", "32"), (48, 5, "training.accumulate", "5"), (48, 16, "training.accumulate", "16")])
def test_batches_that_three_processes_cannot_part_are_refused(monkeypatch, batch, parts, where, got):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with refused(where=where, expected="3 processes", got=got):
        batches(Work(tiny_study(training={"batch_size": batch, "accumulate": parts})))
    batches(Work(tiny_study(training={"batch_size": 48, "accumulate": 8})))


def test_what_batch_norms_see_of_a_batch_in_parts_is_said_in_one_line(capsys):
    recomputing(Work(tiny_study(training={"batch_size": 32, "accumulate": 2})))
    said = capsys.readouterr().err
    assert said.startswith("student S: its batch norms see the 16 images of a part, not the 32 of a batch")
    assert said.count("\n") == 1
    recomputing(Work(tiny_study(training={"batch_size": 32})))
    assert not capsys.readouterr().err


def test_processes_of_a_launcher_have_no_gpu_of_their_choice(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with refused(where="--device", expected="auto, cpu or cuda", got="cuda:1"):
        choose_device("cuda:1")


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("there", [False, True])
def test_a_run_that_is_refused_before_work_can_be_given_again_without_resume(there, resume, tmp_path):
    run = tmp_path / "run"
    if there:
        run.mkdir()
    for _ in range(2):
        with pytest.raises(UserError, match="data digits/test: expected at least 10 images"):
            run_study(tiny_study(**STUDIES["test_images"]), run, report=False, resume=resume)
        assert run.is_dir() == there and not list(tmp_path.glob("run/*"))


def test_a_run_that_is_refused_later_keeps_what_it_was_begun_with(tmp_path):
    open_run(tiny_study(), tmp_path / "run", resume=False)
    (tmp_path / "run" / "trials").mkdir()
    drop_if_unused(tmp_path / "run", folder=True)
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"study.yaml", "trials"}


def test_the_checks_go_from_what_is_cheap_to_what_must_be_read():
    order = ["study", "data", "encoder", "teacher"]
    assert [c.stage for c in CHECKS] == sorted((c.stage for c in CHECKS), key=order.index)


ARMS = [{"name": "cosine"}, {"name": "augmented", "view": "crop_flip", "seeds": [1]}]


def test_a_plan_on_an_empty_cache_counts_every_image_and_view_once(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(tmp_path / "cache"))
    plan = plan_study(tiny_study(arms=ARMS), tmp_path / "run", "cpu", jobs=1)
    assert (plan.trials, plan.finished) == (3, 0)
    assert (plan.teacher_forwards, plan.teacher_cached) == (200 + 60 + 60 + 2 * 160, 0)
    assert plan.student_train == 3 * 2 * 160
    assert plan.student_eval == 3 * (2 * 60 + 200)
    assert plan.seconds > 0
    assert not (tmp_path / "run").exists()
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_a_plan_of_a_finished_run_has_nothing_to_do(monkeypatch):
    run = finished_run()
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(scratch() / "cache"))
    plan = plan_study(tiny_study(arms=ARMS), run, "cpu", jobs=1, resume=True)
    assert (plan.trials, plan.finished, plan.teacher_forwards, plan.student_train) == (3, 3, 0, 0)
    assert plan.teacher_cached == 640
    assert dict(plan.rows())["trials"] == "3 (3 finished already)"


@pytest.mark.parametrize("seconds, text", [(30, "30 s"), (600, "10 min")])
def test_times_read_well(seconds, text):
    from distillscope.study.plan import Plan

    assert dict(Plan(tiny_study(), 1, 0, 0, 0, 0, 0, seconds, 0, 0).rows())["estimated time"] == text


def test_a_plan_counts_what_training_at_a_large_input_takes():
    """At least each convolution's output and its normalised form, at most three times as much."""
    from distillscope.study.plan import _student_cost

    spec = tiny_study(students=[{"name": "paper_cnn", "label": "L", "width": 2, "image_size": 64}]).students[0]
    source = make_source(16)
    one, two = (_student_cost(spec, 64, source, torch.device("cpu"), batch, 1)[2] for batch in (8, 16))
    maps = 8 * 64 * 64 * (32 + 64 / 4 + 128 / 16) * 4 / 2**20
    assert 2 * maps < two - one < 6 * maps


def test_a_plan_times_each_arms_own_batch_and_network(tmp_path, monkeypatch):
    timed = []
    monkeypatch.setattr("distillscope.study.plan._student_cost",
                        lambda spec, dim, source, device, batch, jobs: timed.append((batch, spec.settings)) or (0.0, 0.0, 0.0))
    arms = [{"name": "cosine"}, {"name": "small", "training": {"epochs": 1, "batch_size": 8}},
            {"name": "blur", "student": {"blur_pool": True}}]
    plan_study(tiny_study(arms=arms), tmp_path / "run", "cpu", jobs=1)
    assert [batch for batch, _ in timed] == [32, 8, 32] and [s.get("blur_pool", False)
                                                             for _, s in timed] == [False, False, True]


DECLARED = {"sigmas": [0.1], "draws": 1, "where": "input", "unit": "pixel", "clip": False, "std": [0.5, 0.5, 0.5]}
PARTS = {"stresses": [{"name": "top_k", "ks": [4], "sigmas": [0.1]}, {"name": "noise_probe", "sigmas": [0.1]},
                      {"name": "band_noise", "sigmas": [0.1], "bands": [[0, 1]]}, {"name": "gradient"}],
         "remedies": ["bn", {"name": "bn", "label": "own", "where": "source"}, "posthoc"],
         "arms": [{"name": "cosine"}, {"name": "noisy", "view": "noise"}, {"name": "crop", "view": "crop_flip"}]}


def conditions(study):
    splits = load_data(study, study.data[0])
    return rehearse(study.stresses, splits.train, splits.test, study.noise.seed)[1].conditions


def test_stresses_without_settings_of_their_own_take_those_of_the_study():
    found = conditions(with_noise(tiny_study(noise=DECLARED, **PARTS)))
    assert {"top_k=4/0.1", "noise_probe=0.1", "band=0-1/0.1@input"} <= set(found)
    for name, said in found.items():
        assert (said["where"], said["clipped"], said["sigma_pixel"],
                said["sigma_normalised"]) == ("model input", False, 0.1, 0.2), name


def test_remedies_and_views_too_and_what_is_said_wins():
    study = with_noise(tiny_study(noise=DECLARED, **PARTS))
    declared = {"where": "input", "unit": "pixel", "clip": False, "std": (0.5, 0.5, 0.5)}
    assert [r.settings for r in study.remedies] == [declared, {**declared, "where": "source"}, {}]
    assert [a.view and a.view.settings for a in study.arms] == [None, declared, {}]
    assert remedies.check("bn", study.remedies[0].settings) == declared
    assert [s.settings for s in study.stresses][3] == {}
    assert with_noise(study) == study


def test_with_the_default_noise_nothing_changes():
    plain = tiny_study(**PARTS)
    filled = with_noise(plain)
    assert conditions(plain) == conditions(filled)
    assert noise_conditions(plain) == noise_conditions(filled)
    splits = load_data(plain, plain.data[0])
    shown = [[(len(items), None if p is None else p.describe())
              for items, p in rehearse(s.stresses, splits.train, splits.test, 0)[0]]
             for s in (plain, filled)]
    assert shown[0] == shown[1]
    assert [name for name, *_ in embedded_views(plain, plain.arms)] == [name
                                                                        for name, *_ in embedded_views(filled, filled.arms)]


def test_every_stress_of_noise_declares_it_whole():
    for name in stresses:
        taken = {"where", "unit", "clip", "std"} & set(stresses.settings(name))
        assert taken in (set(), {"where", "unit", "clip", "std"}), name


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_run_and_plan_do_what_is_declared_and_say_so(cache, untimed):
    study = tiny_study(seeds=[1], limit=100, limit_test=40, noise={**DECLARED, "sigmas": [0.2]},
                       training={"epochs": 1, "batch_size": 32},
                       stresses=[{"name": "top_k", "ks": [4], "sigmas": [0.2], "whitened": False}],
                       remedies=[{"name": "bn", "items": 32}])
    run = run_study(study, cache / "run", jobs=1, report=False)
    record = json.loads((run.path / "provenance.json").read_text())["conditions"]
    assert record["top_k=4/0.2"] == record["noise=0.2"]
    remedied = json.loads(next(run.path.glob("trials/*/remedies/bn/student.json")).read_text())["remedy"]
    assert (remedied["where"], remedied["unit"], remedied["clip"]) == ("input", "pixel", False)
    assert "where" not in (run.path / "study.yaml").read_text().partition("stresses:")[2]
    assert plan_study(study, cache / "other", "cpu", jobs=1).teacher_forwards == 0
    assert len([e for e in list_entries() if "noise" in str(e["perturbation"])]) == 1  # top_k sees the noise of the sweep
