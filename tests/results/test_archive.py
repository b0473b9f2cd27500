"""A run packed into a few files reads like the run; a damaged run or archive is named and passed over."""

from __future__ import annotations

import random
import shutil
import zipfile

import pandas as pd
import pytest
from typer.testing import CliRunner

from builders.synthetic_run import CELLS, CONTENTS, VALUES, keep_pictures, make_run, mutated, with_cell, with_key, with_setting
from distillscope.cli import app
from distillscope.compare.runs import compare_runs
from distillscope.config.load import load_preset
from distillscope.errors import UserError
from distillscope.files.folders import PACKED, is_archive
from distillscope.files.writing import checksum
from distillscope.inputs.embeddings import read_embeddings
from distillscope.report.claims import claims_of, decide_claims, known_sources, markdown, write_claims
from distillscope.report.figures.keepsakes import damaged, kept_of, why_absent
from distillscope.report.serve import Watch
from distillscope.report.tables import build_table, to_csv
from distillscope.results import run_files
from distillscope.results.archive import read_archive, unpack, write_archive
from distillscope.results.keepsakes_file import read_keepsakes
from distillscope.results.models import settings_of
from distillscope.results.run import read_run
from distillscope.results.run_files import COLUMNS
from distillscope.results.rundir import open_run
from distillscope.results.summary import Summary
from distillscope.students.load import load_student

HOSTILE = ("NA", "a,b", "=x", 'q"\n|', "小 ü", "nan")
MEMBERS = ("results.csv", "trials.csv", "training.csv", "curves.json", "provenance.json")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = make_run(tmp_path_factory.mktemp("packed") / "run", students=("S", "L"), seeds=(1, 2), arms=("cosine", "noise"),
                      target="pca512", draws=1, epochs=2, dim=12, incomplete=[("noise", "L", 2)])
    write_claims(decide_claims([folder]), folder)
    return folder


@pytest.fixture(scope="module")
def archive(run):
    write_archive(run, run.parent / "archive")
    return run.parent / "archive"


@pytest.fixture
def copy(archive, tmp_path):
    return shutil.copytree(archive, tmp_path / "archive")


def repack(archive, name, change):
    """One file in the zip changed; gone where ``change`` gives None."""
    with zipfile.ZipFile(archive / PACKED) as packed:
        members = {n: packed.read(n) for n in packed.namelist()}
    members[name] = change(members[name])
    with zipfile.ZipFile(archive / PACKED, "w") as packed:
        for n, content in members.items():
            if content is not None:
                packed.writestr(n, content)


def assert_equal_runs(one, other):
    pd.testing.assert_frame_equal(one.all_results, other.all_results, check_exact=True)
    pd.testing.assert_frame_equal(one.training, other.training, check_exact=True)
    assert (one.trials, one.references, one.problems, one.study, one.provenance) == \
        (other.trials, other.references, other.problems, other.study, other.provenance)


def table(run):
    return to_csv(build_table(run, settings_of(run), Summary.of(run)))


def test_tables_claims_and_comparison_are_those_of_the_run(run, archive):
    before, after = read_run(run), read_run(archive)
    assert_equal_runs(before, after)
    assert before.missing == after.missing == ["cifar10--clip-vit-b32--noise--L--seed2"]
    assert table(before) == table(after)
    assert markdown(claims_of(before)) == markdown(claims_of(after))
    for pair in compare_runs([run, archive]).pairs:
        assert pair.differences and all(d.value == 0 or d.left_out for d in pair.differences)


@pytest.mark.parametrize("names", [{"students": HOSTILE, "arms": ("cosine",)}, {"students": ("S",), "arms": HOSTILE}],
                         ids=["students", "arms"])
def test_hostile_names_survive(tmp_path, names):
    made = make_run(tmp_path / "run", seeds=(1,), draws=1, epochs=1, dim=4, **names)
    write_archive(made, tmp_path / "archive")
    assert_equal_runs(read_run(made), read_run(tmp_path / "archive"))
    assert set(HOSTILE) <= {*read_run(tmp_path / "archive").results["student"], *read_run(tmp_path / "archive").results["arm"]}


def test_the_same_run_gives_the_same_bytes(run, archive, tmp_path):
    again = write_archive(run, tmp_path / "again")
    assert {p.name: checksum(p) for p in again} == {p.name: checksum(archive / p.name) for p in again}
    assert {p.name for p in archive.iterdir()} == {"study.yaml", PACKED, "claims.json"}
    with zipfile.ZipFile(archive / PACKED) as packed:
        assert packed.namelist() == list(MEMBERS)
    assert again[-1].name == PACKED and is_archive(archive) and not is_archive(run)


def test_the_other_runs_of_its_claims_are_found_from_where_it_stands(run, tmp_path):
    other = make_run(tmp_path / "other", students=("S",), seeds=(1,), arms=("extra",), draws=1, epochs=1, dim=4)
    first = shutil.copytree(run, tmp_path / "deep" / "first")
    write_claims(decide_claims([first, other]), first)
    write_archive(first, tmp_path / "archive")
    assert known_sources(tmp_path / "archive") == known_sources(first) == [other.resolve()]


def spoiled(content, damage):
    return {"missing": None, "empty": b"", "half": content[:len(content) // 2], "other": b"\x00\xff[[["}[damage]


@pytest.mark.parametrize("name", [PACKED, *MEMBERS])
@pytest.mark.parametrize("damage", ["missing", "empty", "half", "other"])
def test_a_damaged_archive_is_one_line_that_names_the_file(copy, name, damage):
    if name != PACKED:
        repack(copy, name, lambda content: spoiled(content, damage))
        if damage == "missing" and name in ("training.csv", "curves.json", "provenance.json"):  # then it is one without them
            read_run(copy)
            return
    elif damage == "missing":  # then it is none
        return
    else:
        (copy / PACKED).write_bytes(spoiled((copy / PACKED).read_bytes(), damage))
    said = str(read(copy) if name != "provenance.json" else read(copy).problems[0])
    assert name in said and ("distillscope archive RUN DIR" in said or name == "provenance.json")


def test_no_byte_of_the_zip_is_a_traceback(copy):
    content, rng = (copy / PACKED).read_bytes(), random.Random(PACKED)
    for _ in range(100):
        (copy / PACKED).write_bytes(mutated(content, rng))
        read(copy)


@pytest.mark.parametrize("folder", ["trials/../../x", "elsewhere/x", "trials/", "trials/a/b"])
def test_a_folder_outside_the_archive_is_refused(copy, folder):
    repack(copy, "trials.csv", lambda content: content + f"{folder},d,t,n,a,S,1,1,{{}}\n".encode())
    with pytest.raises(UserError, match="which no run has"):
        read_run(copy)


def test_trials_of_one_table_alone_are_refused(copy):
    repack(copy, "trials.csv", lambda content: b"".join(content.splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match=r"of the same trials.*distillscope archive RUN DIR"):
        read_run(copy)


def test_what_needs_weights_or_embeddings_is_refused_in_one_line(archive):
    for action in (lambda: open_run(load_preset("quickstart"), archive, resume=True),
                   lambda: load_student(archive / "trials" / "x"),
                   lambda: read_embeddings(archive), lambda: read_embeddings(archive / "references" / "x")):
        with pytest.raises(UserError, match="holds no weights and no embeddings. Name the run that it was packed from"):
            action()
    with pytest.raises(UserError, match="Leave --serve out"):
        Watch(archive)


def test_an_archives_page_does_not_send_to_resume_for_its_pictures(run, archive):
    assert "packed from" in why_absent(read_run(archive)) and "--resume" in why_absent(read_run(run))


def test_a_dry_run_refuses_what_the_run_refuses(archive):
    for more in (["--dry-run"], ["--resume"]):
        done = CliRunner().invoke(app, ["run", "quickstart", "--out", str(archive), *more])
        assert isinstance(done.exception, UserError) and "an archive" in str(done.exception)


def test_what_cannot_be_packed_is_refused(run, archive, tmp_path):
    with pytest.raises(UserError, match="a new or empty folder"):
        write_archive(run, archive)
    with pytest.raises(UserError, match="an archive already"):
        write_archive(archive, tmp_path / "new")
    with pytest.raises(UserError, match="study.yaml"):
        write_archive(tmp_path / "nothing", tmp_path / "new")
    damaged = shutil.copytree(run, tmp_path / "damaged")
    next(damaged.glob("trials/*/results.csv")).write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"a complete trial that can be read"):
        write_archive(damaged, tmp_path / "new")
    for complete in damaged.glob("*/*/complete.json"):
        complete.unlink()
    with pytest.raises(UserError, match="none finished"):
        write_archive(damaged, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_an_archive_unpacks_to_the_run_it_was(run, archive, tmp_path):
    for records in read_archive(archive).values():
        for name, record in records:
            unpack(record, tmp_path / record.kind / name)
    shutil.copy(archive / "study.yaml", tmp_path)
    with zipfile.ZipFile(archive / PACKED) as packed:
        packed.extract("provenance.json", tmp_path)
    assert_equal_runs(read_run(tmp_path), read_run(run))


def test_half_an_archive_is_in_nobodys_way(run, tmp_path, monkeypatch):
    def interrupted(packed):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("distillscope.results.archive._zip", interrupted)
        write_archive(run, tmp_path / "packed")
    assert not list((tmp_path / "packed").iterdir()) and write_archive(run, tmp_path / "packed")


def test_the_command_says_how_small_it_became(run, tmp_path):
    done = CliRunner().invoke(app, ["archive", str(run), str(tmp_path / "small")])
    assert done.exit_code == 0 and "3 files" in done.output and is_archive(tmp_path / "small"), done.output


TRIAL = "trials/*/"
RUN_FILES = {"study.yaml": "study.yaml", "provenance.json": "provenance.json", "complete.json": f"{TRIAL}complete.json",
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


def read_study(path):
    return run_files.as_study(run_files.read_written(path), path)


READERS = {"study.yaml": read_study, "provenance.json": run_files.read_provenance,
           "complete.json": run_files.read_complete,
           "results.csv": run_files.read_results, "curves.json": run_files.read_curves, "metrics.jsonl": run_files.read_epochs,
           "keepsakes.json": lambda path: read_keepsakes(path.parents[1])}


@pytest.mark.parametrize("name", RUN_FILES)
def test_no_content_of_a_file_is_a_traceback(changed, name):
    rng = random.Random(name)
    for change in [*(lambda b, c=c: c for c in CONTENTS.values()), *[lambda b: mutated(b, rng)] * 50]:
        path, restore = changed(RUN_FILES[name], change)
        try:
            READERS[name](sorted(path.glob(RUN_FILES[name]))[0])
        except (UserError, ValueError) as error:  # results.csv: ValueError, which names what is wrong
            assert isinstance(error, UserError) or name == "results.csv"
        restore()


@pytest.mark.parametrize("column", COLUMNS)
def test_no_cell_of_results_is_a_traceback(changed, column):
    for value in CELLS:
        path, restore = changed(RUN_FILES["results.csv"], with_cell(column, value))
        try:
            run_files.read_results(sorted(path.glob(RUN_FILES["results.csv"]))[0])
            assert column not in ("seed", "draw", "n") or value in ("", "-1")
        except ValueError as error:
            assert repr(column) in str(error)
        restore()


def test_what_is_read_can_be_shown(changed):
    """Numbers that are not finite, empty names of conditions: the table is made all the same."""
    for column, value in (("value", "inf"), ("value", "nan"), ("condition", ""), ("condition", "noise=x"), ("unit", ""),
                          ("n", "")):
        path, restore = changed(RUN_FILES["results.csv"], with_cell(column, value))
        run = read(path)
        to_csv(build_table(run, settings_of(run), Summary.of(run)))
        restore()


def test_no_value_of_a_setting_is_a_traceback(changed):
    for key, texts in VALUES.items():
        for text in texts:
            path, restore = changed("study.yaml", with_setting(key, text))
            try:
                read_study(path / "study.yaml")
                assert text != "5" or key not in ("arms", "students", "noise", "published", "training")
            except UserError as error:
                assert f"study.yaml {key}" in str(error)
            restore()


@pytest.mark.parametrize("name", ["complete.json", "results.csv", "curves.json"])
def test_a_damaged_trial_is_named_and_left_out(changed, name):
    path, _ = changed(RUN_FILES[name], lambda content: b"[]")
    run = read(path)
    assert len(run.trials) == 1
    assert [p for p in run.problems if p.startswith("trials/") and name.partition(".")[0] in p + "results"
            and "Delete it and run with --resume" in p]


def test_damaged_provenance_and_log_lines_are_said(changed):
    path, _ = changed("provenance.json", lambda content: content[:-20])
    changed(RUN_FILES["metrics.jsonl"], lambda content: content[:-20] + b'\n[1]\n{"epoch": "x"}\n')
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
    path, _ = changed(RUN_FILES["keepsakes.json"], with_key("neighbours", [[10**6]] * 6))
    run = read(path)
    assert kept_of(run, settings_of(run)) == []
    assert any("cannot be shown (expected numbers of the" in p for p in damaged(run))


@pytest.mark.parametrize("name", ["study.yaml", "provenance.json", "complete.json", "results.csv"])
def test_a_folder_where_a_file_should_be(changed, name):
    path, _ = changed("study.yaml", lambda content: content)
    file = sorted(path.glob(RUN_FILES[name]))[0]
    file.unlink()
    file.mkdir()
    found = read(path)
    assert "folder" in (str(found) if isinstance(found, UserError) else " ".join(found.problems))


def test_trials_that_are_a_file(changed):
    path, _ = changed("study.yaml", lambda content: content)
    shutil.rmtree(path / "trials")
    (path / "trials").write_text("x")
    assert "trials: expected a folder that can be read" in str(read(path))
