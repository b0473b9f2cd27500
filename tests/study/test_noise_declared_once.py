"""Noise is declared once: what a study's `noise:` says of where, unit, clip and std holds for stresses, remedies and views."""

from __future__ import annotations

import json

import pytest

from builders.tiny import tiny_study
from distillscope.config.resolve import with_noise
from distillscope.registry import remedies, stresses
from distillscope.stress.run import rehearse
from distillscope.study.plan import plan_study
from distillscope.study.prepared import embedded_views, load_data, noise_conditions
from distillscope.study.run import run_study
from distillscope.teachers.inventory import list_entries

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


def test_run_and_plan_do_what_is_declared_and_say_so(cache):
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
