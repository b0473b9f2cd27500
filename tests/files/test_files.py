"""Whole files or none, nothing through links out of a run, the system's refusals in one line; locks; names of folders."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import threading
import time
import unicodedata
from collections import namedtuple
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from builders import refused
from builders.tiny import tiny_study
from distillscope.config.load import load_preset, preset_names
from distillscope.errors import UserError
from distillscope.files import locks
from distillscope.files.folders import RESERVED, folder_name, old_folder_name, same_on_some_systems
from distillscope.files.locks import RunLock, acquire, alone, join_as_worker
from distillscope.files.writing import leftovers, said_if_deleted, said_of, sweep, write_atomic, write_text
from distillscope.results.run_files import Trial, trials_of
from distillscope.results.rundir import check_names, clear_run, default_run, open_run, reference_folder, trial_folder


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("study.yaml", "provenance.json"):
        (folder / name).write_text("")
    return folder


def test_a_linked_folder_of_a_run_is_not_written_through(run, tmp_path):
    away = tmp_path / "away"
    away.mkdir()
    (run / "tables").symlink_to(away)
    (run / "trials").symlink_to(away)
    for path in (run / "tables" / "table.csv", run / "trials" / "x" / "results.csv"):
        with refused(got=("a link to", "away")):
            write_text(path, "ours")
    assert not list(away.iterdir())


def test_a_linked_file_is_replaced_and_a_linked_way_to_the_run_is_taken(run, tmp_path):
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    (run / "report.html").symlink_to(mine)
    (tmp_path / "way").symlink_to(run)
    write_text(tmp_path / "way" / "report.html", "ours")
    write_text(tmp_path / "way" / "tables" / "table.csv", "ours")
    assert mine.read_text() == "mine" and (run / "report.html").read_text() == "ours"
    assert (run / "tables" / "table.csv").is_file()


def test_what_a_kill_left_is_swept_and_what_lives_is_not(tmp_path):
    def killed(path):
        pid = os.fork()
        if not pid:
            path.write_text("half")
            os.kill(os.getpid(), 9)
        os.waitpid(pid, 0)
        raise RuntimeError(pid)

    with pytest.raises(RuntimeError) as told:
        write_text(tmp_path / "own.txt", "x") and killed(tmp_path / "x")
    dead = int(str(told.value))
    from distillscope.files.writing import _machine

    gone, own, other = (tmp_path / f".a.{m}-{p}.tmp.npy"
                        for m, p in ((_machine(), dead), (_machine(), os.getpid()), ("0" * 6, dead)))
    for path in (gone, own, other, tmp_path / f".a.{dead}.tmp.npy", tmp_path / ".notes.tmp"):
        path.write_text("half")
    assert sweep(tmp_path) == 1 and not gone.exists() and own.exists() and other.exists()
    assert {p.name for p in leftovers(tmp_path, alone=True)} == {own.name, other.name,
                                                                 f".a.{dead}.tmp.npy"}  # who holds the lock


def test_a_long_name_can_still_be_written(tmp_path):
    assert write_text(tmp_path / f"{'x' * 240}.json", "{}").is_file()
    with refused(got="one that is too long"):
        write_text(tmp_path / f"{'x' * 300}.json", "{}")


@pytest.mark.parametrize(("number", "word"),
                         [(errno.EACCES, "permission denied"), (errno.EROFS, "read-only"), (errno.ENOSPC, "a full disk"),
                                              (errno.ELOOP, "links that lead in a circle"),
                                              (errno.EMFILE, "too many open at once"),
                                              (errno.EIO, "an input/output error"), (errno.EOPNOTSUPP, "one without"),
                                              (errno.EFBIG, "limit on a file's size")])
def test_what_the_system_refuses_is_one_line(number, word, monkeypatch, capsys):
    import distillscope.cli as cli

    assert word in str(said_of(OSError(number, "no", "/some/file")))

    def refused():
        raise OSError(number, "no", "/some/file")

    monkeypatch.setattr(cli, "app", refused)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    err = capsys.readouterr().err
    assert ended.value.code == 2 and err.startswith("distillscope: /some/file: expected ") and err.count("\n") == 1


def test_a_bug_keeps_its_traceback():
    assert said_of(FileNotFoundError(errno.ENOENT, "no", "x")) is None


def test_what_somebody_deletes_meanwhile_is_said(tmp_path):
    with refused(where="gone.npy", got="deleted"), said_if_deleted(tmp_path):
        (tmp_path / "gone.npy").read_bytes()
    with pytest.raises(FileNotFoundError), said_if_deleted(tmp_path):
        open("/nonexistent/elsewhere")  # noqa: SIM115

    def written(place):
        shutil.rmtree(place.parent)
        pd.DataFrame({"a": [1]}).to_csv(place)  # pandas raises an OSError without a number

    with refused(where="trial/results.csv", got="deleted", advice="--resume"), said_if_deleted(tmp_path):
        write_atomic(tmp_path / "trial" / "results.csv", written)


def test_a_file_that_may_not_grow_is_one_line_where_libraries_hide_the_systems_error(tmp_path):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with refused(where="rows.npy", got="the limit on a file's size"):
            write_atomic(tmp_path / "rows.npy", lambda p: np.save(p, np.zeros(10_000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_a_value_of_megabytes_does_not_fill_the_terminal():
    assert len(str(UserError("x", "a name", "y" * 10**6))) < 500


def test_an_interrupt_before_a_command_has_begun_is_one_line(monkeypatch, capsys):
    import distillscope.cli as cli

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", interrupted)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 130 and capsys.readouterr().err == "distillscope: interrupted\n"


pytest.importorskip("fcntl")


def test_a_run_is_held_by_one_process_at_a_time(tmp_path):
    held = RunLock(tmp_path)
    with refused(got="one that is still running"):
        RunLock(tmp_path)
    held.release()
    RunLock(tmp_path).release()


def test_a_run_waits_for_the_workers_of_a_killed_one_and_then_refuses(tmp_path, monkeypatch, capsys):
    orphan = join_as_worker(tmp_path)
    monkeypatch.setattr(locks, "ORPHAN_SECONDS", 0.3)
    with refused(got="workers of a killed run that do not end"):
        RunLock(tmp_path)
    assert "workers of a killed run are ending; waiting" in capsys.readouterr().err
    monkeypatch.setattr(locks, "ORPHAN_SECONDS", 30)
    threading.Timer(0.5, os.close, [orphan]).start()
    held = RunLock(tmp_path)
    workers = [join_as_worker(tmp_path) for _ in range(2)]  # its own share it among them
    for worker in workers:
        os.close(worker)
    held.release()


def test_a_trial_waits_for_a_process_that_was_given_up_and_is_still_at_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(locks, "QUIET_SECONDS", 0.1)
    entered: list[str] = []

    def enter() -> None:
        with alone(tmp_path / ".lock"):
            entered.append("second")

    waiting = threading.Thread(target=enter)
    with alone(tmp_path / ".lock"):
        waiting.start()
        time.sleep(0.5)
        entered.append("first")
    waiting.join()
    assert entered == ["first", "second"]
    assert "a process that was given up is still at work there" in capsys.readouterr().err


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
@pytest.mark.filterwarnings("ignore:flock not supported")
def test_without_locks_a_file_says_who_writes(tmp_path, monkeypatch, capsys, number):
    import fcntl

    def no(*args):
        raise OSError(number, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no)
    monkeypatch.setattr(locks, "_told", set())
    held = RunLock(tmp_path)
    with refused(got="one that is still running"):
        RunLock(tmp_path)
    assert join_as_worker(tmp_path) is None
    held.release()
    RunLock(tmp_path).release()
    if number != errno.ENOSYS:  # that one filelock tells by itself
        assert capsys.readouterr().err.count("this file system has no locks") == 1


def test_a_linked_lock_is_not_followed(tmp_path):
    (tmp_path / "mine").write_text("mine")
    for name in (".lock", ".workers"):
        (tmp_path / name).symlink_to(tmp_path / "mine")
        with refused(advice="Remove the link"):
            RunLock(tmp_path)
        (tmp_path / name).unlink()
    assert (tmp_path / "mine").read_text() == "mine"
    acquire(tmp_path / "a" / ".lock").release()


HARD = ["小", "大", "x 1", "x_1", "cosine ", "cosine_", ".", "..", "...", ".x", "x.", "a/b", "a\\b", "/etc/passwd", "../../x",
        "con", "NUL.txt", "com1",
        "a\x00b", "a\nb", "x" * 300, "x" * 301, "é", "ё", "🙂", "~", "-", "--", "a--b", "b--c", "c", "a", "", " ", "a:b",
        "a*b", "‮abc"]


def test_names_that_look_alike_to_a_file_system_have_folders_of_their_own():
    names = [folder_name(name) for name in HARD]
    assert len({same_on_some_systems(name) for name in names}) == len(HARD)
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9_.+~-]{1,200}", name) and name[0] != "." and name[-1] != "."
        assert name.split(".")[0].lower() not in RESERVED


@given(st.lists(st.lists(st.text(max_size=5) | st.text("a-_. ", max_size=6), min_size=2, max_size=2), min_size=2, max_size=2,
                unique_by=tuple))
def test_other_parts_give_another_folder(two):
    one, other = two
    alike = [unicodedata.normalize("NFC", p) for p in one] == [unicodedata.normalize("NFC", p) for p in other]
    assert (folder_name(*one) == folder_name(*other)) == alike


def test_plain_names_keep_the_folders_that_they_had():
    parts = ("digits", "efficientnet_lite0", "cosine", "S", "seed1")
    assert folder_name(*parts) == old_folder_name(*parts) == "digits--efficientnet_lite0--cosine--S--seed1"
    for name in preset_names():
        study = load_preset(name)
        check_names(study)
        for trial in trials_of(study):
            assert ":" in trial.id or trial.id == old_folder_name(*trial.parts)


def students(*labels):
    return [{"name": "paper_cnn", "label": label, "image_size": 16} for label in labels]


@pytest.mark.parametrize(("changes", "message"), [
    ({"students": students("S", "s")}, "students: expected each student under a name of its own, .* got 'S' and 's'"),
    ({"students": students("é", "e\u0301")}, "students: expected each student"),
    ({"students": students("a\x1b[2Jb")}, r"students 'a\\x1b\[2Jb': expected a name of visible characters"),
    ({"students": students(" ")}, "expected a name of visible characters"),
    ({"students": students("teacher")}, "a label other than the teacher's own rows have"),
    ({"arms": [{"name": "A"}, {"name": "a"}]}, "arms: expected each arm under a name of its own"),
    ({"arms": [{"name": "a"}, {"name": "a+bn"}], "remedies": ["bn"]},
     r"no arm named as a remedied one is \(ARM\+REMEDY\), got 'a\+bn'"),
    ({"data": ["digits", {"name": "digits", "alias": "Digits"}]}, r"data: .* Rename one \(alias"),
    ({"data": ["digits", "digits"]}, "data: expected each data set under a name of its own"),
])
def test_names_that_would_be_mixed_up_are_refused_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        open_run(tiny_study(**changes), tmp_path / "run", resume=False)
    assert not (tmp_path / "run").exists()


def test_a_studys_name_never_leads_out_of_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("../../x", "..", "/tmp/x", "a/b", "小"):
        assert default_run(name).parent.as_posix() == "runs" and default_run(name).name not in ("", ".", "..")
    assert default_run("mine").as_posix() == "runs/mine"
    (tmp_path / "runs" / "my study").mkdir(parents=True)
    (tmp_path / "runs" / "my study" / "study.yaml").write_text("name: my study\n")
    assert default_run("my study").as_posix() == "runs/my study"  # begun before names were made into folders


def older(run, trial, done=True, named=None):
    """The trial's folder as it was before names got marks of their own."""
    folder = run / "trials" / old_folder_name(*trial.parts)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "checkpoint.pt").write_text("")
    if done:
        (folder / "complete.json").write_text(json.dumps({"trial": asdict(named or trial)}))
    return folder


def test_an_older_run_is_read_and_gone_on_with_where_its_folders_are_unambiguous(tmp_path):
    study = tiny_study(students=students("x 1"), seeds=[1, 2])
    finished, begun = trials_of(study)
    was = older(tmp_path, finished), older(tmp_path, begun, done=False)
    assert trial_folder(tmp_path, finished) == was[0]
    clear_run(study, tmp_path)
    assert trial_folder(tmp_path, finished) == was[0] and (trial_folder(tmp_path, begun) / "checkpoint.pt").is_file()
    assert not was[1].exists()
    reference = tmp_path / "references" / old_folder_name("a b", "t", "none")
    reference.mkdir(parents=True)
    (reference / "complete.json").write_text(json.dumps({"dataset": "a b", "teacher": "t", "target": "none"}))
    assert reference_folder(tmp_path, "a b", "t", "none") == reference != reference_folder(tmp_path, "a_c", "t", "none")


def test_a_folder_that_several_trials_wrote_into_is_set_aside(tmp_path, capsys):
    study = tiny_study(students=students("小", "大"), seeds=[1])
    one, other = trials_of(study)
    folder = older(tmp_path, one, named=other)
    assert trial_folder(tmp_path, one) != folder
    clear_run(study, tmp_path)
    assert not folder.exists() and (tmp_path / "set-aside" / folder.name / "checkpoint.pt").is_file()
    assert len({trial_folder(tmp_path, t) for t in (one, other)}) == 2
    assert "2 trials shared it" in " ".join(capsys.readouterr().err.split())


def test_a_plain_name_is_not_given_what_another_wrote_under_it(tmp_path):
    study = tiny_study(arms=[{"name": "cosine "}, {"name": "cosine_"}], seeds=[1])
    first, plain = trials_of(study)
    folder = older(tmp_path, first)
    assert folder.name == plain.id
    clear_run(study, tmp_path)
    assert not trial_folder(tmp_path, plain).exists()


def test_data_sets_of_one_kind_are_told_apart_when_a_run_grows(tmp_path):
    sets = [{"name": "parquet", "path": f"/{name}", "alias": name} for name in ("a", "b", "c")]
    study = tiny_study(data=sets[:2])
    open_run(study, tmp_path / "run", resume=False)
    open_run(tiny_study(data=sets), tmp_path / "run", resume=True)
    assert len(yaml.safe_load((tmp_path / "run" / "study.yaml").read_text())["data"]) == 3


def test_a_trials_name_reads_as_its_parts():
    assert Trial("digits", "t", "cosine", "S", 1).id == "digits--t--cosine--S--seed1"


@pytest.mark.parametrize("error", [RuntimeError("[enforce fail at inline_container.cc:672]"),
                                   OSError("2000000 requested and 262112 written")])
def test_a_full_disk_is_known_where_libraries_hide_the_systems_error(tmp_path, monkeypatch, error):
    """torch.save and numpy.save on a tmpfs of 1 MiB raised these."""
    def write(path):
        path.write_text("half")
        raise error

    usage = namedtuple("usage", "total used free")
    with pytest.raises(type(error)):
        write_atomic(tmp_path / "x", write)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**20, 2**20, 0))
    with pytest.raises(UserError, match="expected room on the disk, got a full disk"):
        write_atomic(tmp_path / "x", write)
    assert list(tmp_path.iterdir()) == []
