"""Processes that are begun, hit and waited for: forked from one that has torch loaded, which saves seconds for each."""

from __future__ import annotations

import atexit
import ctypes
import multiprocessing.context
import multiprocessing.util
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

ENDS_WITHIN = 60.0
"""Seconds in which a command must have ended after a signal that it may handle."""


def load_libraries() -> None:
    """What every command needs, loaded once in this process; one thread, since a forked child has no others."""
    import accelerate  # noqa: F401
    import datasets  # noqa: F401
    import sklearn.linear_model
    import sklearn.manifold  # noqa: F401
    import timm  # noqa: F401
    import torch

    import distillscope.cli
    import distillscope.cli.root
    import distillscope.report.write
    import distillscope.study.run
    import distillscope.study.student  # noqa: F401

    torch.set_num_threads(1)


def end_with_parent() -> None:
    """This process is killed when the one that forked it ends, however that ends (Linux)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def begin(function: Callable[[], object], log: Path) -> int:
    """``function`` in a forked process with a session of its own, as a fresh interpreter would run it; its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        end_with_parent()
        os.setsid()
        atexit._clear()  # what the parent wanted done at its own end
        atexit.register(multiprocessing.util._exit_function)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        opened = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(opened, 1), os.dup2(opened, 2), os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout, sys.stderr = (open(n, "w", encoding="utf-8", closefd=False) for n in (1, 2))  # noqa: SIM115
        try:
            function()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush(), sys.stderr.flush()
    finally:
        os._exit(code)


def command(*arguments: object, cache: Path, report: bool = False, spawn: bool = False) -> Callable[[], None]:
    """A function that is `distillscope ARGUMENTS` with that cache.

    Without ``report`` a run ends with its last trial. Unless ``spawn``, its workers are forked too: processes of their
    own all the same, which do not spend their first seconds on importing torch.
    """
    def call() -> None:
        import distillscope.cli
        import distillscope.report

        os.environ.update(DISTILLSCOPE_CACHE=str(cache), COLUMNS="200")
        sys.argv = ["distillscope", *map(str, arguments)]
        if not report:
            distillscope.report.write.write_report = lambda run: Path(run) / "report.html"
        if not spawn:
            contexts = multiprocessing.context._concrete_contexts
            contexts["spawn"] = contexts["fork"]
        distillscope.cli.main()

    return call


def wait(pid: int, seconds: float = 600.0) -> int | None:
    """The exit status (negative: the signal that ended it), or None where it has not ended in that time."""
    until = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            return None
        time.sleep(0.005)


def run(function: Callable[[], object], log: Path, seconds: float = 300.0) -> int | None:
    """Begin and wait; one that hangs is killed with all that it began, and gives None."""
    pid = begin(function, log)
    code = wait(pid, seconds)
    if code is None:
        kill_session(pid)
        wait(pid, 10)
    return code


def session(leader: int) -> list[int]:
    """Living processes of a session, its leader included."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] not in "ZX":
            found.append(int(folder.name))
    return found


def workers(leader: int) -> list[int]:
    """The processes that ``leader`` began, the one that has computed longest first."""
    found = []
    for pid in session(leader):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == leader:
            found.append((int(fields[11]), pid))
    return [pid for _, pid in sorted(found, reverse=True)]


def send(number: signal.Signals, pids: Sequence[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def kill_session(leader: int) -> None:
    send(signal.SIGKILL, session(leader))


def left_alive(leader: int, seconds: float = 20.0) -> list[int]:
    """Who of a session still lives after so long."""
    until = time.monotonic() + seconds
    while (alive := session(leader)) and time.monotonic() < until:
        time.sleep(0.05)
    return alive


def outcome(function: Callable[[], object], log: Path, codes: tuple[int, ...] = (0, 2), seconds: float = 300) -> str | None:
    """Run it: one of these codes, a line and no traceback; else what was otherwise."""
    before = log.stat().st_size if log.exists() else 0
    code = run(function, log, seconds)
    said = log.read_bytes()[before:].decode("utf-8", "replace") if log.exists() else ""
    last = (said.strip().splitlines() or ["nothing said"])[-1][:250]
    if "Traceback" in said or code not in codes or (code == 2 and "distillscope: " not in said):
        return f"ends with {code}{' and a traceback' * ('Traceback' in said)}: {last}"
    return None
