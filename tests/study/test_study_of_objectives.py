"""Objectives, targets and projectors through a study: what runs, and what is refused before anything is embedded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from builders.tiny import scratch, tiny_study
from distillscope.errors import UserError
from distillscope.study.prepared import load_data
from distillscope.study.run import run_study
from distillscope.targets.transforms import load_target


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(("changes", "message"), [
    ({"objective": {"name": "infonce", "queue": 5000}},
     r"arms\.a\.objective \(infonce\) queue: expected at most 128, the 160 training"),
    ({"objective": "crd"}, r"\(crd\) memory: expected at most 128.*got 1024\. Set a smaller memory"),
    ({"objective": "infonce_views"}, r"arms\.a\.objective: expected a view"),
    ({"projector": {"name": "linear", "dim": 3}},
     r"arms\.a\.objective \(cosine\): expected as many dimensions as the target's"),
    ({"projector": {"name": "mpl"}}, r"arms\.a\.projector\.name: expected a known projector, got 'mpl'\. Did you mean 'mlp'"),
    ({"objective": {"name": "cosine", "weight": 0}}, r"arms\.a\.objective: expected weights that sum to more than 0, got 0"),
    ({"target": {"name": "whiten", "exponent": 2}}, r"arms\.a\.target\.exponent: expected float, got 2"),
    ({"target": {"name": "pca", "dim": 99999}}, r"target\.dim: expected 1 to the teacher's"),
])
def test_what_cannot_be_is_one_line_before_any_embedding(changes, message, cache, tmp_path):
    with pytest.raises(UserError, match=message) as error:
        run_study(tiny_study(arms=[{"name": "a", **changes}]), tmp_path / "run", jobs=1)
    assert "\n" not in str(error.value)
    assert not list(cache.glob("**/*.npy"))


def test_labels_that_are_not_there_are_said_before_any_embedding(cache, tmp_path, monkeypatch):
    def bare(study, data):
        splits = load_data(study, data)
        return replace(splits, train=replace(splits.train, labels=None))

    monkeypatch.setattr("distillscope.study.run.load_data", bare)
    with pytest.raises(UserError,
                       match=r"arms\.a\.objective \(cross_entropy\): expected data with labels, got digits/train without"):
        run_study(tiny_study(arms=[{"name": "a", "objective": "cross_entropy"}]), tmp_path / "run", jobs=1)
    assert not list(cache.glob("**/*.npy"))


def test_a_study_of_targets_keeps_each_with_its_student(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(scratch() / "cache"))
    arms = [
        {"name": "white", "objective": "mse", "target": {"name": "whiten", "exponent": 0.5, "dim": 6}},
        {"name": "random", "objective": "smooth_l1", "target": "random", "projector": "mlp"},
        {"name": "labels", "objective": "cross_entropy"},
        {"name": "mixed",
         "objective": [{"name": "infonce", "queue": 100}, {"name": "relational_angle"}, {"name": "koleo", "weight": 0.1}]},
    ]
    study = tiny_study(arms=arms, seeds=[1], training={"epochs": 1, "batch_size": 32}, noise={"sigmas": []})
    run = run_study(study, tmp_path / "run", jobs=1, report=False)
    assert set(run.results.query("student == 'S'").arm) == {a["name"] for a in arms}
    names = {}
    for folder in (tmp_path / "run" / "trials").iterdir():
        target = load_target(folder / "target.safetensors")
        names[next(a["name"] for a in arms if a["name"] in folder.name)] = target.name
        rows = np.load(folder / "embeddings_test" / "img_emb" / "img_emb_0.npy")
        if target.mean is not None:
            assert rows.shape[1] == target(np.zeros((1, len(target.mean)), np.float32)).shape[1]
    assert names == {"white": "whiten0.5_6", "random": names["random"], "labels": "none", "mixed": "none"}
    assert names["random"].startswith("random")
