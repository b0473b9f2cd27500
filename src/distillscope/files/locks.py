"""Locks on folders: one writer at a time, whatever was killed.

A lock is the system's own and ends with its process. Where the file system has none, a file says who writes, and that
is said once.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from distillscope import progress
from distillscope.errors import UserError

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
ORPHAN_SECONDS = 60.0
"""How long a run waits for the workers of a killed one, which end by themselves within a fraction of that."""
QUIET_SECONDS = 5.0
"""How long one waits for a single file's lock without a word."""
_told: set[Path] = set()


def acquire(path: Path, timeout: float = -1) -> BaseFileLock:
    """The lock at ``path``, taken; raises `filelock.Timeout` after ``timeout`` seconds (-1: never)."""
    if path.is_symlink():
        raise UserError(str(path), "a lock's own file", f"a link to {os.readlink(path)}", "Remove the link.")
    path.parent.mkdir(parents=True, exist_ok=True)
    marker = path.with_name(f"{path.name}.held")  # the other left its own file behind when it failed
    for kind in (FileLock, SoftFileLock):
        lock = kind(path) if kind is FileLock else kind(marker)
        try:
            lock.acquire(timeout=timeout)
        except (OSError, NotImplementedError) as error:
            if isinstance(error, Timeout) or kind is SoftFileLock or getattr(error, "errno", errno.ENOSYS) not in NO_LOCKS:
                raise
            if path.parent not in _told:
                _told.add(path.parent)
                progress.say(f"{path.parent}: this file system has no locks; a file marks who writes. "
                             f"If a kill on another machine left it behind, remove {marker}")
        else:
            return lock
    raise AssertionError("unreachable")


class RunLock:
    """What a process holds while it writes a run: ``.lock``, which no other run can take. No worker of a dead run is left then.

    Workers share ``.workers``, each for its life. A new run takes that one alone for a moment: as long as it cannot, workers
    of a run whose own process was killed still write.
    """

    def __init__(self, run: Path) -> None:
        try:
            self.lock = acquire(run / ".lock", timeout=0)
        except Timeout:
            raise UserError(f"--out {run}", "a run that no process is working on", "one that is still running",
                            "Wait for it or end it, then add --resume; `distillscope report DIR --serve` watches it.") from None
        try:
            _wait_for_workers(run)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        self.lock.release()


def _wait_for_workers(run: Path) -> None:
    began, told = time.monotonic(), False
    while (shared := _flock(run / ".workers", exclusive=True)) is False:
        if time.monotonic() - began > ORPHAN_SECONDS:
            raise UserError(f"--out {run}", "a run that no process is working on", "workers of a killed run that do not end",
                            "End them (ps shows python processes of multiprocessing.spawn), then add --resume.")
        if not told:
            told = True
            progress.say(f"{run}: workers of a killed run are ending; waiting")
        time.sleep(0.2)
    if shared is not None:
        os.close(shared)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Within it no other process holds the lock at ``path``, which may be on another machine; without locks it does nothing."""
    began, told = time.monotonic(), False
    while (held := _flock(path, exclusive=True)) is False:
        if not told and time.monotonic() - began > QUIET_SECONDS:
            told = True
            progress.say(f"{path.parent}: a process that was given up is still at work there; waiting for its end")
        time.sleep(0.2)
    try:
        yield
    finally:
        if held is not None:
            os.close(held)


def join_as_worker(run: Path) -> Any:
    """A worker's share of its run's lock, for as long as the process lives; None where the system has none to share."""
    shared = _flock(run / ".workers", exclusive=False)
    while shared is False:  # for the moment in which the run looks whether it is alone
        time.sleep(0.05)
        shared = _flock(run / ".workers", exclusive=False)
    return shared


def _flock(path: Path, exclusive: bool) -> int | bool | None:
    """An open descriptor that holds the lock; False where another holds it; None where there are no such locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0), 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UserError(str(path), "a lock's own file", "a link", "Remove the link.") from None
        raise
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        if error.errno in NO_LOCKS:
            return None
        raise
    return descriptor
