"""The audit on the command line: files in, table, JSON, page and a gate out."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from distillscope import audit, cli
from distillscope.errors import UserError
from tiny import finished_run, scratch


@pytest.fixture(autouse=True)
def shared_cache(monkeypatch):
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(scratch() / "cache"))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A teacher, a student that keeps its first eight directions, and labels that these directions tell."""
    folder, rng = tmp_path_factory.mktemp("audit"), np.random.default_rng(0)
    labels = np.arange(400) % 4
    teacher = 3 * np.eye(4, 24)[labels] + rng.normal(size=(400, 24))
    student = teacher * (np.arange(24) < 8)
    np.save(folder / "teacher.npy", teacher.astype(np.float32))
    np.save(folder / "student.npy", student.astype(np.float16))
    np.save(folder / "labels.npy", labels)
    return folder


def invoke(*args, code=0):
    result = CliRunner().invoke(cli.app, ["audit", *map(str, args)], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def sides(files):
    return "--teacher", files / "teacher.npy", "--student", files / "student.npy"


def test_two_files_give_a_table_and_json_equal_to_the_function(files, tmp_path):
    invoke(*sides(files), "--labels", files / "labels.npy", "--json", tmp_path / "found.json")
    written = json.loads((tmp_path / "found.json").read_text())
    own = audit(np.load(files / "teacher.npy"), np.load(files / "student.npy"), np.load(files / "labels.npy"))
    assert set(written["measures"]) == set(own.values)
    for key, value in own.values.items():
        assert written["measures"][key]["value"] == pytest.approx(value.value, rel=1e-9, abs=1e-12), key
    assert {"value", "low", "high", "n", "definition"} <= set(written["measures"]["student.effective_rank"])
    assert {"x", "y", "low", "high", "unit"} <= set(written["curves"]["alignment.student_on_teacher"])


def test_a_missed_bound_exits_with_1_and_says_which(files):
    bounds = ["--require", "probe.retention>=0.5", "--require", "student.effective_rank>=20"]
    result = invoke(*sides(files), "--labels", files / "labels.npy", "--no-intervals", *bounds, code=1)
    assert "student.effective_rank = " in result.stderr and "misses >= 20" in result.stderr
    assert "probe.retention" not in result.stderr
    invoke(*sides(files), "--labels", files / "labels.npy", "--no-intervals", *bounds[:2])


def test_a_bound_on_an_unknown_measure_is_an_error_before_the_table(files):
    with pytest.raises(UserError, match="effective_rank"):
        invoke(*sides(files), "--require", "student.efective_rank>=1")


def test_out_holds_page_values_and_figures_and_may_be_written_again(files, tmp_path):
    out = tmp_path / "out"
    for _ in range(2):
        invoke(*sides(files), "--no-intervals", "--only", "spectrum", "--out", out)
    page = (out / "report.html").read_text()
    assert "Content-Security-Policy" in page and "teacher.npy" in page
    assert json.loads((out / "audit.json").read_text())["measures"]
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("x")
    with pytest.raises(UserError, match="one with other files"):
        invoke(*sides(files), "--no-intervals", "--only", "spectrum", "--out", other)


def test_training_files_fit_the_probes(files, tmp_path):
    result = invoke(*sides(files), "--labels", files / "labels.npy", "--train-teacher", files / "teacher.npy", "--train-student",
                    files / "student.npy", "--train-labels", files / "labels.npy", "--only", "probe", "--no-intervals",
                    "--json", tmp_path / "found.json")
    assert "probe" in result.output
    with pytest.raises(UserError, match="--train-student: expected both"):
        invoke(*sides(files), "--labels", files / "labels.npy", "--train-teacher", files / "teacher.npy")


def test_a_run_s_own_embeddings_are_audited_by_id(tmp_path):
    run = finished_run()
    teacher = next((run / "references").iterdir())
    student = next((run / "trials").iterdir())
    invoke("--teacher", teacher, "--student", student, "--normalize", "l2", "--no-intervals", "--json", tmp_path / "found.json")
    written = json.loads((tmp_path / "found.json").read_text())["measures"]
    assert "probe.student.accuracy" in written  # the labels came with the embeddings


def test_models_are_given_images(tmp_path):
    run = finished_run()
    student = next((run / "trials").iterdir())
    with pytest.raises(UserError, match="--teacher: expected --data with the images"):
        invoke("--teacher", "efficientnet_lite0", "--student", student)
    invoke("--teacher", student, "--student", student, "--data", "digits", "--limit", 60, "--no-intervals", "--only", "alignment",
           "--json", tmp_path / "found.json")
    assert json.loads((tmp_path / "found.json").read_text())["measures"]["alignment.mean_cosine"]["value"] == pytest.approx(1)


def test_bad_input_is_one_line_and_exit_code_2(files, tmp_path):
    np.save(tmp_path / "short.npy", np.zeros((5, 2), np.float32))
    done = subprocess.run([sys.executable, "-m", "distillscope.cli", "audit", "--teacher", str(files / "teacher.npy"), "--student",
                           str(tmp_path / "short.npy")], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert "expected 400 rows like the teacher" in done.stderr and "got 5" in done.stderr


def test_selftest_command_passes():
    result = CliRunner().invoke(cli.app, ["selftest"], catch_exceptions=False)
    assert result.exit_code == 0 and "FAIL" not in result.output and "as expected" in result.output
