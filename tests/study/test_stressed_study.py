"""Stresses and remedies in a study: the same conditions for teacher and students, and the report that takes them."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from builders import refused
from builders.browser import undrawn
from builders.tiny import scratch, tiny_study
from distillscope import load_study
from distillscope.results.robustness import against_teacher
from distillscope.study.plan import plan_study
from distillscope.study.run import run_study
from distillscope.teachers.inventory import list_entries

STRESSES = [
    {"name": "band_noise", "bands": [[0, 0.5], [0.5, 1]], "sigmas": [0.2], "items": 30},
    {"name": "corruptions", "names": ["contrast", "fog"], "severities": [1, 5], "items": 30},
    {"name": "fourier", "norm": 1, "step": 4, "items": 20},
    {"name": "gradient", "items": 16},
    {"name": "latency", "repeats": 3},
    {"name": "noise_probe", "sigmas": [0.2], "train_items": 60, "items": 30},
]


def stressed_study(**changes):
    values = {"seeds": [1], "noise": {"sigmas": [], "draws": 1}, "stresses": STRESSES,
              "remedies": [{"name": "bn", "sigma": 0.3}],
              "arms": [{"name": "noisy", "view": {"name": "noise", "sigma": 0.3}, "view_target": "clean"}]}
    return tiny_study(**{**values, **changes})


@pytest.fixture(scope="module")
def run():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTILLSCOPE_CACHE", str(scratch() / "cache"))
        with undrawn():
            return run_study(stressed_study(), scratch() / "stressed", jobs=1)


def conditions(rows: pd.DataFrame) -> set[str]:
    return set(rows[rows["measure"].str.startswith("paper.probe") & rows["measure"].str.endswith("accuracy")]["condition"])


def test_teacher_student_and_remedied_student_meet_the_same_conditions(run):
    results = run.results
    teacher, student = results[results["student"] == "teacher"], results[results["arm"] == "noisy"]
    assert conditions(teacher) == conditions(student) == conditions(results[results["arm"] == "noisy+bn"])
    assert {"band=0-0.5/0.2", "band=none", "corruption=fog/5", "corruption=none", "clean"} <= conditions(teacher)
    shared = results[results["condition"].str.match("band|corruption")]
    assert (shared["n"] == 30).all()
    for measure in ("gradient.student.frequency", "capacity.latency_ms", "noise_probe.paper.student.accuracy",
                    "paper.probe.student.corruption_error", "paper.probe.student.fourier_error"):
        assert measure in set(student["measure"]), measure
    assert not results.duplicated(["split", "student", "arm", "seed", "target", "measure", "condition", "draw"]).any()


def test_curves_maps_and_the_remedied_weights_are_kept(run):
    trial, = (run.path / "trials").iterdir()
    assert "stress.gradient.student" in json.loads((trial / "curves.json").read_text())
    assert (trial / "stress" / "fourier.paper.probe.npy").is_file()
    assert (trial / "remedies" / "bn" / "stress" / "fourier.paper.probe.npy").is_file()
    from distillscope.students.load import load_student

    assert load_student(trial / "remedies" / "bn").dim == load_student(trial).dim
    reference, = (run.path / "references").iterdir()
    assert "stress.gradient.teacher" in json.loads((reference / "curves.json").read_text())
    assert any("students only" in why for why in json.loads((reference / "complete.json").read_text())["skipped"])


def test_units_stand_in_the_provenance_and_the_report_is_written(run):
    record = json.loads((run.path / "provenance.json").read_text())["conditions"]
    assert record["band=0-0.5/0.2"]["sigma_normalised"] == 0.2 and record["band=0-0.5/0.2"]["sigma_255"] > 0
    assert "noisy+bn" in (run.path / "report.html").read_text()


def test_retention_against_the_teacher(run):
    table = against_teacher(run.results)
    assert set(table["arm"]) == {"noisy", "noisy+bn"}
    assert {"corruption=fog/5", "band=0.5-1/0.2", "corruption=mean"} <= set(table["condition"])


def test_the_plan_knows_of_every_image_and_finds_it_cached(run, monkeypatch):
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(scratch() / "cache"))
    plan = plan_study(run.study, scratch() / "nowhere", jobs=1)
    # 200 train and 60 test; two bands; four corruptions; noise probe's test and train; the clean parts once more each.
    assert plan.teacher_forwards == 0
    assert plan.teacher_cached == 260 + 2 * 30 + 4 * 30 + (30 + 60) + (30 + 30 + 30 + 60)
    assert {"noise", "corruption", "band noise"} <= {(e["perturbation"] or {}).get("kind") for e in list_entries()}


def test_what_stresses_need_is_said_before_the_teacher_runs(tmp_path):
    for split, count in (("train", 60), ("test", 20)):
        (tmp_path / "bare" / split).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(np.random.default_rng(i).integers(0, 256, (12, 12, 3),
                                                              dtype=np.uint8)).save(tmp_path / "bare" / split / f"{i}.png")
    with refused(where="stresses.band_noise", got="none"):
        run_study(stressed_study(data=[str(tmp_path / "bare")], validation=10), tmp_path / "a", jobs=1)
    with refused(where="corruptions.severities", got="6"):
        run_study(stressed_study(stresses=[{"name": "corruptions", "severities": [6]}]), tmp_path / "b", jobs=1)
    assert not list((tmp_path / "b").glob("references/*"))


def test_ready_made_embeddings_are_not_stressed(tmp_path, monkeypatch):
    from distillscope.study.prepared import load_data

    study = stressed_study(stresses=[{"name": "gradient", "items": 10}], remedies=[], arms=[{"name": "cosine"}],
                           training={"epochs": 1})
    splits = load_data(study, study.data[0])
    folder = tmp_path / "ready"
    folder.mkdir()
    for source in (splits.whole_train, splits.test):
        np.save(folder / f"{source.split}.npy", np.random.default_rng(0).normal(size=(len(source), 12)).astype(np.float32))
        (folder / f"{source.split}_ids.txt").write_text("\n".join(source.ids))
    study = study.model_copy(update={"teacher": (type(study.teacher[0])(name="embeddings", path=str(folder)),)})
    done = run_study(study, tmp_path / "run", jobs=1, report=False)
    reference, = (done.path / "references").glob("*/complete.json")
    assert "stresses: ready-made embeddings cannot be made of changed images" in reference.read_text()
    assert "gradient.student.energy" in set(load_study(done.path).results["measure"])
