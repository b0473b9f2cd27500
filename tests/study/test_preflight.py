"""What a run refuses before work, its plan and `distill` refuse too, with the same line: one bad input for each check."""

from __future__ import annotations

import numpy as np
import pytest

from builders.tiny import tiny_study
from distillscope.config.parts import Part
from distillscope.errors import UserError
from distillscope.files.writing import write_json
from distillscope.registry import views
from distillscope.results.rundir import open_run
from distillscope.study.plan import plan_study
from distillscope.study.preflight import CHECKS
from distillscope.study.run import run_study
from distillscope.study.student import distill_one

CALLS = {"device": {"device": "nowhere"}, "tracker": {"track": "nowhere"}, "jobs": {"jobs": 0}, "same_items": {"resume": True}}
"""Check -> the arguments that it is refused or asked with."""

STUDIES = {
    "networks": {"students": [{"name": "paper_cnn", "width": 0, "image_size": 16}]},
    "names": {"students": [{"name": "paper_cnn", "label": label, "image_size": 16} for label in "sS"]},
    "train_images": {"training": {"batch_size": 500}},
    "objectives": {"arms": [{"name": "a", "objective": ["cosine", {"name": "crd", "memory": 100_000}]}]},
    "views": {"arms": [{"name": "a", "view": "narrow"}]},
    "test_images": {"limit_test": 9},
    "stresses": {"stresses": [{"name": "band_noise", "bands": [[0.9, 0.1]]}]},
    "dimensions": {"arms": [{"name": "a", "target": {"name": "pca", "dim": 5000}}]},
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
    """A view that takes no image, and a cache of its own."""

    def refuse(image, rng):
        raise UserError("view", "images of 64 px", f"{image.shape[-1]}", "Use larger images.")

    monkeypatch.setitem(views._parts, "narrow", refuse)
    monkeypatch.setitem(views._facts, "narrow", views.facts("crop_flip"))
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def bad_input(name, run, monkeypatch):
    """The study that the check of this name refuses."""
    if name == "ready_rows":
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
    assert not (tmp_path / "cache" / "targets").exists()


def test_the_checks_go_from_what_is_cheap_to_what_must_be_read():
    order = ["study", "data", "teacher"]
    assert [c.stage for c in CHECKS] == sorted((c.stage for c in CHECKS), key=order.index)
