"""Whole files or none, nothing through links out of a run, nothing left behind, the system's refusals in one line; locks."""

from __future__ import annotations

import errno
import os
import threading

import numpy as np
import pytest

from builders.refusals import refused
from distillscope.errors import UserError
from distillscope.files import locks
from distillscope.files.locks import RunLock, acquire, join_as_worker
from distillscope.files.writing import leftovers, said_if_deleted, said_of, sweep, write_atomic, write_text


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
    with refused(got="one that is going on"):
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


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
@pytest.mark.filterwarnings("ignore:flock not supported")
def test_without_locks_a_file_says_who_writes(tmp_path, monkeypatch, capsys, number):
    import fcntl

    def no(*args):
        raise OSError(number, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no)
    monkeypatch.setattr(locks, "_told", set())
    held = RunLock(tmp_path)
    with refused(got="one that is going on"):
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
