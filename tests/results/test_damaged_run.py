"""Damaged and hostile files of a run: a damaged trial is named and left out, anything else is one line. Never a traceback."""

from __future__ import annotations

import random
import shutil

import pytest

from builders.synthetic_run import CELLS, CONTENTS, VALUES, keep_pictures, make_run, mutated, with_cell, with_key, with_setting
from distillscope.errors import UserError
from distillscope.report.figures.keepsakes import damaged, kept_of
from distillscope.report.tables import build_table, to_csv
from distillscope.results import run_files
from distillscope.results.keepsakes_file import read_keepsakes
from distillscope.results.models import settings_of
from distillscope.results.run import read_run
from distillscope.results.run_files import COLUMNS
from distillscope.results.summary import Summary

TRIAL = "trials/*/"
FILES = {"study.yaml": "study.yaml", "provenance.json": "provenance.json", "complete.json": f"{TRIAL}complete.json",
         "results.csv": f"{TRIAL}results.csv", "curves.json": f"{TRIAL}curves.json", "metrics.jsonl": f"{TRIAL}metrics.jsonl",
         "keepsakes.json": "references/*/keepsakes/keepsakes.json"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("whole") / "run", students=("S",), seeds=(1, 2), draws=1, epochs=2, dim=12)
    return keep_pictures(run, count=20)


@pytest.fixture
def changed(whole, tmp_path):
    """Changes the first file of a pattern in a copy of the run; gives it back to be read."""
    shutil.copytree(whole, tmp_path / "run")

    def change(pattern, function):
        path = sorted((tmp_path / "run").glob(pattern))[0]
        before = path.read_bytes()
        path.write_bytes(function(before))
        return tmp_path / "run", lambda: path.write_bytes(before)

    return change


def read(path):
    """What was read of a run, or the one line that refuses it."""
    try:
        run = read_run(path)
    except UserError as error:
        assert "\n" not in str(error) and str(path) in str(error)
        return error
    return run


READERS = {"study.yaml": run_files.read_study, "provenance.json": run_files.read_provenance,
           "complete.json": run_files.read_complete,
           "results.csv": run_files.read_results, "curves.json": run_files.read_curves, "metrics.jsonl": run_files.read_epochs,
           "keepsakes.json": lambda path: read_keepsakes(path.parents[1])}


@pytest.mark.parametrize("name", FILES)
def test_no_content_of_a_file_is_a_traceback(changed, name):
    rng = random.Random(name)
    for change in [*(lambda b, c=c: c for c in CONTENTS.values()), *[lambda b: mutated(b, rng)] * 50]:
        path, restore = changed(FILES[name], change)
        try:
            READERS[name](sorted(path.glob(FILES[name]))[0])
        except (UserError, ValueError) as error:  # results.csv: ValueError, which names what is wrong
            assert isinstance(error, UserError) or name == "results.csv"
        restore()


@pytest.mark.parametrize("column", COLUMNS)
def test_no_cell_of_results_is_a_traceback(changed, column):
    for value in CELLS:
        path, restore = changed(FILES["results.csv"], with_cell(column, value))
        try:
            run_files.read_results(sorted(path.glob(FILES["results.csv"]))[0])
            assert column not in ("seed", "draw", "n") or value in ("", "-1")
        except ValueError as error:
            assert repr(column) in str(error)
        restore()


def test_what_is_read_can_be_shown(changed):
    """Numbers that are not finite, empty names of conditions: the table is made all the same."""
    for column, value in (("value", "inf"), ("value", "nan"), ("condition", ""), ("condition", "noise=x"), ("unit", ""),
                          ("n", "")):
        path, restore = changed(FILES["results.csv"], with_cell(column, value))
        run = read(path)
        to_csv(build_table(run, settings_of(run), Summary.of(run)))
        restore()


def test_no_value_of_a_setting_is_a_traceback(changed):
    for key, texts in VALUES.items():
        for text in texts:
            path, restore = changed("study.yaml", with_setting(key, text))
            try:
                run_files.read_study(path / "study.yaml")
                assert text != "5" or key not in ("arms", "students", "noise", "published", "training")
            except UserError as error:
                assert f"study.yaml {key}" in str(error)
            restore()


@pytest.mark.parametrize("name", ["complete.json", "results.csv", "curves.json"])
def test_a_damaged_trial_is_named_and_left_out(changed, name):
    path, _ = changed(FILES[name], lambda content: b"[]")
    run = read(path)
    assert len(run.trials) == 1
    assert [p for p in run.problems if p.startswith("trials/") and name.partition(".")[0] in p + "results"
            and "Delete it and run with --resume" in p]


def test_damaged_provenance_and_log_lines_are_said(changed):
    path, _ = changed("provenance.json", lambda content: content[:-20])
    changed(FILES["metrics.jsonl"], lambda content: content[:-20] + b'\n[1]\n{"epoch": "x"}\n')
    run = read(path)
    assert run.provenance == {} and len(run.trials) == 2
    assert any(p.startswith("provenance.json: ") for p in run.problems)
    assert any("3 lines of metrics.jsonl cannot be read" in p for p in run.problems)


def test_a_copied_trial_counts_once(changed):
    path, _ = changed("study.yaml", lambda content: content)
    first = sorted(path.glob("trials/*"))[0]
    shutil.copytree(first, path / "trials" / "zz-copy")
    run = read(path)
    assert len(run.trials) == 2 and any("is of the same trial as" in p for p in run.problems)


def test_keepsakes_that_point_beyond_what_is_there_are_named(changed):
    path, _ = changed(FILES["keepsakes.json"], with_key("neighbours", [[10**6]] * 6))
    run = read(path)
    assert kept_of(run, settings_of(run)) == []
    assert any("cannot be shown (expected numbers of the" in p for p in damaged(run))


@pytest.mark.parametrize("name", ["study.yaml", "provenance.json", "complete.json", "results.csv"])
def test_a_folder_where_a_file_should_be(changed, name):
    path, _ = changed("study.yaml", lambda content: content)
    file = sorted(path.glob(FILES[name]))[0]
    file.unlink()
    file.mkdir()
    found = read(path)
    assert "folder" in (str(found) if isinstance(found, UserError) else " ".join(found.problems))


def test_trials_that_are_a_file(changed):
    path, _ = changed("study.yaml", lambda content: content)
    shutil.rmtree(path / "trials")
    (path / "trials").write_text("x")
    assert "trials: expected a folder that can be read" in str(read(path))
