"""Runs made apart and joined are the run made at once."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from builders.refusals import refused
from builders.tiny import finished_run, scratch, sorted_rows, tiny_study, tiny_values
from distillscope import load_study
from distillscope.config.load import study_from
from distillscope.results.merge import merge_runs
from distillscope.results.same_study import unlike
from distillscope.study.run import run_study


@pytest.fixture(autouse=True)
def shared_cache(monkeypatch):
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(scratch() / "cache"))


def test_two_seeds_made_apart_equal_both_made_at_once(tmp_path):
    for seed in (1, 2):
        run_study(tiny_study(seeds=[seed]), tmp_path / str(seed), jobs=1, report=False)
    assert merge_runs([tmp_path / "1", tmp_path / "2"], tmp_path / "both") == tmp_path / "both"
    at_once = sorted_rows(load_study(finished_run()).results.query("arm != 'augmented'"))
    joined = sorted_rows(load_study(tmp_path / "both").results)
    assert list(joined.columns) == list(at_once.columns)
    same = [c for c in at_once.columns if c != "value"]
    assert joined[same].astype(str).equals(at_once[same].astype(str))
    assert np.array_equal(joined.value, at_once.value)
    assert load_study(tmp_path / "both").study.seeds == (1, 2)


def test_other_studies_and_single_runs_are_refused(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    shutil.copytree(finished_run(), first)
    shutil.copytree(finished_run(), second)
    from distillscope.files.writing import write_text

    values = tiny_values(training={"epochs": 3, "batch_size": 32}, arms=[{"name": "cosine"}])
    import yaml

    write_text(second / "study.yaml", yaml.safe_dump(study_from(values).dump()))
    with refused(where="b training"):
        merge_runs([first, second], tmp_path / "out")
    with refused(where="merge", got="1"):
        merge_runs([first], tmp_path / "out")
    with refused(expected="study.yaml"):
        merge_runs([first, tmp_path / "nothing"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_name_for_two_things_is_refused(tmp_path):
    import yaml

    first, second = tmp_path / "a", tmp_path / "b"
    for folder, width in ((first, 1), (second, 2)):
        folder.mkdir()
        students = [{"name": "paper_cnn", "label": "S", "width": width, "image_size": 16}]
        (folder / "study.yaml").write_text(yaml.safe_dump(tiny_study(students=students).dump()))
    with refused(where="b students 'S'", expected="1", got="width: 2"):
        merge_runs([first, second], tmp_path / "out")


def test_an_unfinished_trial_is_left_out_and_said(tmp_path, capsys):
    first, second = tmp_path / "a", tmp_path / "b"
    shutil.copytree(finished_run(), first)
    shutil.copytree(finished_run(), second)
    for folder in (first, second):
        next(folder.glob("trials/*augmented*/complete.json")).unlink()
    merge_runs([first, second], tmp_path / "out")
    assert "augmented--S--seed1: not finished, left out" in "".join(capsys.readouterr().err.splitlines())
    assert len(list((tmp_path / "out" / "trials").iterdir())) == 2


@pytest.mark.parametrize("damage", ["{", "[]", '{"command": 5, "seconds"'])
def test_a_damaged_provenance_is_named(tmp_path, damage):
    run = shutil.copytree(finished_run(), tmp_path / "run")
    (run / "provenance.json").write_text(damage)
    with refused(where="provenance.json"):
        merge_runs([run, finished_run()], tmp_path / "out")


def test_an_axis_of_a_damaged_study_that_is_no_list_does_not_grow():
    assert not list(unlike({"teacher": ["t"]}, {"teacher": ["t", "u"]}))
    for first, second in ((1e-320, ["t"]), (["t"], {"t": 1})):
        assert [u.key for u in unlike({"teacher": first}, {"teacher": second})] == ["teacher"]
