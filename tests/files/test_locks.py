"""One writer a run, whatever was killed, also where the file system has no locks."""

from __future__ import annotations

import errno
import os
import threading

import pytest

from builders.refusals import refused
from distillscope.files import locks
from distillscope.files.locks import RunLock, acquire, join_as_worker

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
