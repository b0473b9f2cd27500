"""The audit on the command line: files in, table, JSON, page and a gate out."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from typer.testing import CliRunner

from builders import refused
from builders.tiny import finished_run, scratch
from distillscope import audit, cli, progress
from distillscope.audits.run import publish
from distillscope.errors import UserError


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


def test_items_from_elsewhere_are_files_or_for_models_another_data_set(files, tmp_path):
    other = np.load(files / "teacher.npy")[:80] - 4
    np.save(tmp_path / "t.npy", other), np.save(tmp_path / "s.npy", other)
    more = "--ood-teacher", tmp_path / "t.npy", "--ood-student", tmp_path / "s.npy", "--only", "ood", "--full"
    found = invoke(*sides(files), *more, "--out", tmp_path / "page", "--require", "ood.teacher.auroc>=0.6")
    assert "AUROC, from elsewhere" in found.output and "ood teacher" in found.output
    assert "Items from elsewhere" in (tmp_path / "page" / "report.html").read_text()
    invoke(*sides(files), *more, "--require", "low(ood.auroc_difference)>=0.5", code=1)
    student = next((finished_run() / "trials").iterdir())
    invoke("--teacher", student, "--student", student, "--data", "digits", "--limit", 60, "--ood", "digits", "--ood-split",
           "train", "--only", "ood", "--json", tmp_path / "models.json")
    written = json.loads((tmp_path / "models.json").read_text())
    assert written["measures"]["ood.student.auroc"]["n"] == 60 and written["inputs"]["ood_teacher"]["said"]
    assert written["measures"]["ood.auroc_difference"]["value"] == 0


@pytest.mark.parametrize(("more", "where"), [
    (["--ood", "digits"], "--ood"), (["--ood-split", "train"], "--ood-split"),
    (["--ood-teacher", "teacher.npy"], "--ood-student"), (["--ood", "digits", "--ood-teacher", "teacher.npy"], "--ood"),
    (["--ood-teacher", "efficientnet_lite0", "--ood-student", "student.npy"], "--ood-teacher")])
def test_items_from_elsewhere_that_do_not_fit_are_one_line(files, monkeypatch, more, where):
    monkeypatch.chdir(files)
    with refused(where=where):
        invoke(*sides(files), *more)


def test_two_files_give_a_table_and_json_equal_to_the_function(files, tmp_path):
    invoke(*sides(files), "--labels", files / "labels.npy", "--json", tmp_path / "found.json")
    written = json.loads((tmp_path / "found.json").read_text())
    own = audit(np.load(files / "teacher.npy"), np.load(files / "student.npy"), np.load(files / "labels.npy"))
    assert set(written["measures"]) == set(own.measured)
    for key, value in own.measured.items():
        assert written["measures"][key]["value"] == pytest.approx(value.value, rel=1e-9, abs=1e-12), key
    assert {"value", "low", "high", "n", "definition"} <= set(written["measures"]["student.effective_rank"])
    assert {"x", "y", "low", "high", "unit"} <= set(written["curves"]["alignment.student_on_teacher"])


IMPORTED = """
import sys
from distillscope.cli import app
app(["audit", "--teacher", sys.argv[1], "--student", sys.argv[2], "--json"], standalone_mode=False)
for name in ("torch", "pandas", "pyarrow", "sklearn", "scipy.stats", "scipy.optimize", "matplotlib", "plotly", "jinja2", "PIL"):
    assert name not in sys.modules, name
"""


def test_two_files_import_only_what_measures_them(files):
    """What they need not took a second of processor time, more than measuring a thousand items."""
    done = subprocess.run([sys.executable, "-c", IMPORTED, str(files / "teacher.npy"), str(files / "student.npy")],
                          capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == 0, done.stderr[-2000:]


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


def test_ctrl_c_at_any_write_leaves_whole_files_and_the_command_may_be_repeated(files, tmp_path, monkeypatch):
    found = audit(*(np.load(files / f"{side}.npy") for side in ("teacher", "student")), groups={"spectrum"}, intervals=False)
    whole, out, sync = tmp_path / "whole", tmp_path / "out", os.fsync

    def written(folder):
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    publish(found, whole, "t", "s", "command")
    for number in range(len(written(whole)) + 1):
        left = iter(range(number))

        def interrupted(handle, left=left):
            if next(left, None) is None:  # the bytes are there, under another name
                raise KeyboardInterrupt
            sync(handle)

        monkeypatch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt) if number < len(written(whole)) else contextlib.nullcontext():
            publish(found, out, "t", "s", "command")
        there, page = written(out), "report.html"  # which says when it was made
        assert len(there) == number and there.items() - {page: there.get(page)}.items() <= written(whole).items()


def test_training_files_fit_the_probes(files, tmp_path):
    result = invoke(*sides(files), "--labels", files / "labels.npy", "--train-teacher", files / "teacher.npy",
                    "--train-student",
                    files / "student.npy", "--train-labels", files / "labels.npy", "--only", "probe", "--no-intervals",
                    "--json", tmp_path / "found.json")
    assert "probe" in result.output
    with refused(where="--train-student"):
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
    with refused(where="--teacher", expected="--data"):
        invoke("--teacher", "efficientnet_lite0", "--student", student)
    invoke("--teacher", student, "--student", student, "--data", "digits", "--limit", 60, "--no-intervals", "--only",
           "alignment",
           "--json", tmp_path / "found.json")
    assert json.loads((tmp_path / "found.json").read_text())["measures"]["alignment.mean_cosine"]["value"] == pytest.approx(1)


def test_bad_input_is_one_line_and_exit_code_2(files, tmp_path, monkeypatch, capfd):
    np.save(tmp_path / "short.npy", np.zeros((5, 2), np.float32))
    monkeypatch.setattr(sys, "argv", ["distillscope", "audit", "--teacher", str(files / "teacher.npy"), "--student",
                                      str(tmp_path / "short.npy")])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    err = capfd.readouterr().err
    assert stopped.value.code == 2 and err.count("\n") == 1 and "Traceback" not in err
    assert "expected 400 rows like the teacher" in err and "got 5" in err


def test_what_an_earlier_audit_wrote_is_replaced(files, tmp_path):
    outs = {"--json": tmp_path / "found.json", "--markdown": tmp_path / "summary.md"}
    for path in outs.values():
        path.touch()
    for _ in range(2):
        invoke(*sides(files), "--only", "alignment", *(word for option in outs.items() for word in option))
    assert json.loads(outs["--json"].read_text())["measures"] and outs["--markdown"].read_text().startswith("## ")


@pytest.mark.parametrize(("words", "where"), [
    (["--data", "digits"], "--data"), (["--limit", "5"], "--limit"), (["--precision", "float16"], "--precision"),
    (["--device", "cuda"], "--device"), (["--workers", "2"], "--workers"), (["--corrupt", "skip"], "--corrupt"),
    (["--split", "train"], "--split"), (["--train-split", "train"], "--train-split"),
    (["--require", "alignment"], "--require"), (["--out", __file__], "--out"),
    (["--json", __file__], f"--json {__file__}"), (["--markdown", __file__], f"--markdown {__file__}")])
def test_options_that_would_be_ignored_or_cannot_be_used_are_said_before_any_work(files, monkeypatch, words, where):
    monkeypatch.setattr("distillscope.audits.run.read_embeddings", None)
    with refused(where=where):
        invoke("--teacher", files / "teacher.npy", "--student", files / "student.npy", *words)


def test_selftest_command_passes():
    result = CliRunner().invoke(cli.app, ["selftest"], catch_exceptions=False)
    assert result.exit_code == 0 and "FAIL" not in result.output and "as expected" in result.output


# -- how the inputs were read ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """The same pair with file names, in two orders, beside columns that are no dimensions; its labels in a third order."""
    import pandas as pd

    folder, rng = tmp_path_factory.mktemp("tables"), np.random.default_rng(0)
    labels = np.arange(200) % 4
    teacher = (3 * np.eye(4, 12)[labels] + rng.normal(size=(200, 12))).astype(np.float32)
    student = (teacher @ rng.normal(size=(12, 6))).astype(np.float32)
    names = np.array([f"img/{i:03d}.jpg" for i in range(200)])
    for name, z, order in (("t", teacher, np.arange(200)), ("s", student, rng.permutation(200))):
        frame = pd.DataFrame(z[order]).add_prefix("e").assign(file_name=names[order], score=rng.normal(size=200))
        frame.to_csv(folder / f"{name}.csv", index=False)
        np.save(folder / f"{name}.npy", z)
    order = rng.permutation(200)
    pd.DataFrame({"ImageId": names[order], "species": labels[order]})[6:].to_csv(folder / "y.csv", index=False)
    np.save(folder / "y.npy", np.where(np.isin(np.arange(200), order[:6]), -1, labels))
    return folder


def table_args(folder):
    return ("--teacher", folder / "t.csv", "--student", folder / "s.csv", "--labels", folder / "y.csv", "--no-intervals",
            "--only", "knn")


def test_how_inputs_were_read_is_said_and_stands_in_the_json(tables, tmp_path):
    result = invoke(*table_args(tables), "--json", tmp_path / "found.json", "--out", tmp_path / "out")
    unused = "ids from 'file_name'; no labels. Not used: score (float64)."
    lines = [f"read: teacher t.csv: 200 rows of 12 from columns e0..e11; {unused}",
             f"read: student s.csv: 200 rows of 6 from columns e0..e5; {unused}",
             "read: aligned by id: all 200 items are in both, in another order.",
             "read: labels y.csv: 194 labels from 'species', by 'ImageId'; 6 items have none."]
    assert all(line in result.output for line in lines)
    inputs = json.loads((tmp_path / "found.json").read_text())["inputs"]
    assert inputs["teacher"] | {"embedding": "columns e0..e11", "ids": "file_name", "rows": 200, "matched": 200, "unmatched": 0,
                                "unused": ["score (float64)"]} == inputs["teacher"]
    assert inputs["labels"] | {"ids": "ImageId", "labels": "species", "unlabelled": 6, "repeated": 0} == inputs["labels"]
    assert inputs["pairing"]["by"] == "id" and inputs["pairing"]["dropped_student"] == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "200 rows of 12 from columns e0..e11" in page and "6 items have none" in page


def test_an_audit_of_any_encoding_gives_equal_numbers(tables, tmp_path):
    only = "--no-intervals", "--only", "knn"
    invoke(*table_args(tables)[:6], *only, "--json", tmp_path / "a.json")
    plain = "--teacher", tables / "t.npy", "--student", tables / "s.npy", "--labels", tables / "y.npy"
    result = invoke(*plain, *only, "--json", tmp_path / "b.json")
    assert "note: neither side has ids: row i of both is taken to be the same item." in result.output
    first, second = (json.loads((tmp_path / f"{n}.json").read_text())["measures"] for n in "ab")
    assert {k: (v["value"], v["n"]) for k, v in first.items()} == {k: (v["value"], v["n"]) for k, v in second.items()}


def test_ids_and_labels_of_files_of_their_own(tables, tmp_path):
    given = ("--teacher", tables / "t.npy", "--student", f"{tables / 's.csv'}:e@file_name",
             "--teacher-ids", f"{tables / 't.csv'}:file_name")
    result = invoke(*given, "--labels", f"{tables / 'y.csv'}:species@ImageId", "--no-intervals", "--only", "knn")
    assert "ids from 't.csv:file_name'" in result.output and "6 items have none" in result.output
    both = invoke("--teacher", tables / "t.npy", "--student", tables / "s.npy", "--ids", tables / "t.csv", "--labels",
                  tables / "y.csv",
                  "--no-intervals", "--only", "knn")
    assert "paired by id: all 200 items are in both." in both.output and "by 'ImageId'" in both.output


def test_labels_in_an_order_that_the_embeddings_own_deny_are_refused(tables, tmp_path):
    labels = np.arange(200) % 4
    np.savez(tmp_path / "t.npz", embeddings=np.load(tables / "t.npy"), labels=labels)
    for given, denied in ((np.random.default_rng(0).permutation(labels), True), (labels // 2, False), (labels + 7, False)):
        np.save(tmp_path / "y.npy", given)
        args = ("--teacher", tmp_path / "t.npz", "--student", tables / "s.npy", "--labels", tmp_path / "y.npy",
                "--no-intervals", "--only", "knn")
        if denied:
            with pytest.raises(UserError,
                               match="labels in the order of the teacher's rows, got others than the embeddings' own for"):
                invoke(*args)
        else:
            invoke(*args)


def test_every_option_that_a_reader_names_is_one_of_the_command():
    import re
    from pathlib import Path

    import typer

    import distillscope.audits.run

    known = {o for p in typer.main.get_command(cli.app).commands["audit"].params for o in p.opts}
    source = Path(distillscope.audits.run.__file__).parent
    for file in [*(source.parent / "inputs").glob("*.py"), source / "run.py", source / "shown.py"]:
        text = re.sub(r"`distillscope [^`]*`", "", file.read_text())  # of another command, which it names
        named = set(re.findall(r"--[a-z]+(?:-[a-z]+)*", text)) - {"--student"}
        assert named <= known, f"{file.name}: {named - known}"


def test_a_bar_is_shown_only_where_it_takes_longer(monkeypatch, capsys):
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.0)
    for seconds, shown in ((60.0, False), (0.0, True)):
        with progress.late_task("audit", 10, "measures", seconds) as advance:
            advance(1)
            advance(2)
        assert ("audit: 3/10 measures" in capsys.readouterr().err) is shown


def test_a_bar_is_shown_though_nothing_advances(monkeypatch):
    begun = threading.Event()

    @contextlib.contextmanager
    def task(*said):
        begun.set()
        yield lambda count: None

    monkeypatch.setattr(progress, "task", task)
    with progress.late_task("audit", 10, "measures", 0.01):
        assert begun.wait(10)
