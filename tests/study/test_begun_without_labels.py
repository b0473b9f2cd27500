"""A run that was begun when no labels were found goes on without them, though they would be found now."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml

from builders import refused
from builders.image_sets import write_parquet
from builders.tiny import tiny_study
from distillscope.config.parts import REQUEST
from distillscope.config.study import Study
from distillscope.results.merge import merge_runs
from distillscope.study.plan import plan_study
from distillscope.study.run import run_study
from distillscope.study.student import distill_one

CHANGES = {"validation": 10, "limit": 50, "training": {"epochs": 1, "batch_size": 16}}


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """(folder of the images, run): what an earlier version left of a set whose labels stand in a column `class`."""
    folder = tmp_path_factory.mktemp("begun")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTILLSCOPE_CACHE", str(folder / "cache"))
        pets = write_parquet(folder / "pets", "class")
        run_study(study_of(pets, seeds=[1], label="none"), folder / "run", jobs=1, report=False)
    config = folder / "run" / "study.yaml"
    values = yaml.safe_load(config.read_text())
    del values["data"][0]["label"]
    config.write_text(yaml.safe_dump(values))
    return pets, folder / "run"


def study_of(pets, seeds=(1, 2), **settings) -> Study:
    return tiny_study(data=[{"name": str(pets), **settings}], seeds=list(seeds), **CHANGES)


@pytest.mark.parametrize("asked", [{}, {"label": "none"}])
def test_it_goes_on_without_labels_and_says_so(begun, tmp_path, capsys, asked):
    pets, older = begun
    run = shutil.copytree(older, tmp_path / "run")
    study = study_of(pets, **asked)
    assert plan_study(study, run, jobs=1, resume=True).finished == 1
    found = run_study(study, run, jobs=1, resume=True, report=False)
    said = capsys.readouterr().err
    assert (f"{run}: pets without labels, as when the run started (label: none)" in said) == (not asked)
    assert len(found.trials) == 2 and not any("accuracy" in measure for measure in found.results.measure)
    assert found.study.data[0].settings["label"] == "none"
    run_study(study_of(pets), run, jobs=1, resume=True, report=False)  # and again, however it is asked


def test_without_a_result_that_says_so_another_label_is_another_study(begun, tmp_path):
    pets, older = begun
    run = shutil.copytree(older, tmp_path / "run")
    shutil.rmtree(run / "references")
    with refused(where="run data", expected="as when it started"):
        run_study(study_of(pets, label="none"), run, jobs=1, resume=True, report=False)


def test_it_is_joined_with_one_that_went_on_and_not_with_one_that_read_labels(begun, tmp_path):
    pets, older = begun
    other = tmp_path / "other"
    run_study(study_of(pets, seeds=[2], label="none"), other, jobs=1, report=False)
    joined = merge_runs([older, other], tmp_path / "joined")
    assert yaml.safe_load((joined / "study.yaml").read_text())["data"][0]["label"] == "none"
    labelled = shutil.copytree(other, tmp_path / "labelled")
    for path in labelled.glob("references/*/complete.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "skipped": []}))
    with refused(where="labelled labels of pets", expected="none as in", got="some"):
        merge_runs([older, labelled], tmp_path / "both")


def test_a_student_that_was_begun_so_goes_on_too(begun, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(tmp_path / "cache"))
    pets, _ = begun
    out = tmp_path / "student"
    distill_one(study_of(pets, seeds=[1], label="none"), out)
    request = yaml.safe_load((out / REQUEST).read_text())
    del request["settings"]["data"][0]["label"]
    (out / REQUEST).write_text(yaml.safe_dump(request))
    distill_one(study_of(pets, seeds=[1]), out, resume=True)
    assert f"{out}: pets without labels, as when it started (label: none)" in capsys.readouterr().err
    request["fingerprint"]["train images"] = "of other images"
    (out / REQUEST).write_text(yaml.safe_dump(request))
    with refused(where="train image", expected="as when it started"):
        distill_one(study_of(pets, seeds=[1]), out, resume=True)
