"""Many cases in one process, each under watch: its time, its memory, what it writes, what it runs, what it raises."""

from __future__ import annotations

import json
import os
import resource
import select
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torture.child import end_with_parent

CPU_SECONDS, CLOCK_SECONDS = 6, 60
"""A case that computes, or takes by the clock, longer than this hangs."""
MEMORY = 3 * 2**30
"""Bytes that a case may map beyond what its process has."""
LINE = 2500
"""Letters of the longest line that is taken for one."""
RUNS = {"os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "subprocess.Popen", "pty.spawn",
        "socket.connect",
        "os.startfile", "webbrowser.open"}
CHANGES = {"os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown",
           "shutil.rmtree",
           "shutil.move"}
PASSED_OVER = ("/dev/null", "/proc/self/", "/dev/shm/")


class Hang(BaseException):
    pass


@dataclass
class Watch:
    """What a case does to the system, seen by Python's audit events. ``bait`` may not even be read."""

    inside: Path
    bait: Path | None = None
    on: bool = False
    seen: str | None = None

    def __call__(self, event: str, arguments: tuple) -> None:
        if not self.on or self.seen:
            return
        if event == "open":
            path, mode, flags = arguments
            writes = any(c in mode for c in "wax+") if isinstance(mode, str) else bool((flags or 0) & (os.O_WRONLY | os.O_RDWR
                                                                                                       | os.O_CREAT))
            if isinstance(path, int):
                return
            if writes and self._outside(path):
                self.seen = f"opens {os.fsdecode(path)} to write"
            elif self.bait and os.path.realpath(os.fsdecode(path)) == str(self.bait):
                self.seen = f"reads {self.bait.name}, which only the input names"
        elif event in RUNS:
            self.seen = f"calls {event}{str(arguments)[:80]}"
        elif event in CHANGES and any(isinstance(a, (str, bytes, os.PathLike)) and self._outside(a) for a in arguments[:2]):
            self.seen = f"calls {event}{str(arguments)[:120]}"

    def _outside(self, path: object) -> bool:
        full = os.path.realpath(os.path.join(os.getcwd(), os.fsdecode(path)))
        return not full.startswith((str(self.inside), *PASSED_OVER))


def attempt(function: Callable[[], str | None], watch: Watch) -> tuple[str, str | None]:
    """(kind, fault): "read" and "refused" are no faults; ``function`` returns what is silently wrong, or None."""
    from distillscope.errors import UserError
    from distillscope.files.writing import said_of

    watch.seen, watch.on = None, True
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS), signal.setitimer(signal.ITIMER_REAL, CLOCK_SECONDS)
    try:
        try:
            wrong = function()
            kind, fault = ("wrong", wrong) if wrong else ("read", None)
        except UserError as error:
            line = str(error)
            long = "\n" in line or len(line) > LINE
            kind, fault = "refused", None
            if long:
                kind, fault = "no line", f"an error of {len(line)} letters, {len(line.splitlines())} lines: {line[:100]}"
        except Hang:
            kind, fault = "hang", f"more than {CPU_SECONDS} s of computing"
        except BaseException as error:
            line = isinstance(error, OSError) and said_of(error)  # the command line says these so
            kind, fault = ("refused", None) if line else ("traceback",
                                                          f"{type(error).__name__} at {_place(error)}: {str(error)[:160]}")
    except Hang:
        kind, fault = "hang", f"more than {CPU_SECONDS} s of computing"
    signal.setitimer(signal.ITIMER_PROF, 0), signal.setitimer(signal.ITIMER_REAL, 0)
    watch.on = False
    return ("outside", watch.seen) if watch.seen else (kind, fault)


def _place(error: BaseException) -> str:
    """Where in the program a traceback passed last."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "/distillscope/" in f.filename] or frames
    return f"{own[-1].filename.rpartition('distillscope/')[2]}:{own[-1].lineno}"


def prepare(folder: Path, log: Path) -> Watch:
    """This process, from now on: quiet, limited and watched. ``folder`` is all that its cases may write to."""
    opened = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(opened, 1), os.dup2(opened, 2)
    (folder / "empty").mkdir(parents=True, exist_ok=True)
    os.chdir(folder / "empty")
    sys.dont_write_bytecode = True
    warnings.simplefilter("ignore")
    os.environ.update(TMPDIR=str(folder), MPLCONFIGDIR=str(folder / "mpl"), HF_HOME=str(folder / "hf"),
                      HF_DATASETS_CACHE=str(folder / "hf"),
                      HF_HUB_OFFLINE="1", DISTILLSCOPE_CACHE=str(folder / "cache"))
    import tempfile

    import datasets

    tempfile.tempdir, datasets.config.HF_DATASETS_CACHE = str(folder), folder / "hf"

    def alarm(*_: object) -> None:
        raise Hang

    signal.signal(signal.SIGPROF, alarm), signal.signal(signal.SIGALRM, alarm)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    watch = Watch(folder.resolve(), (folder.parent / "bait.txt").resolve())
    sys.addaudithook(watch)
    return watch


def supervise(numbers: list[int], make: Callable[[int, Path], tuple[str, Callable[[], str | None]]], folder: Path,
              tell: Callable[[int, str, str, str | None], None], over: Callable[[], bool]) -> None:
    """``make``(number, folder) gives (title, function) of a case; ``tell``(number, title, kind, fault) hears what came of it.

    The cases run in a forked process; one that dies or hangs in it is a fault of its own, and the next process goes on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder.parent / "bait.txt").write_text("7\n")
    left = list(numbers)
    while left and not over():
        ours, theirs = os.pipe()
        if not (pid := os.fork()):
            os.close(ours)
            code = 1
            try:
                end_with_parent()
                _all(left, make, folder, theirs, over)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        os.close(theirs)
        at, said = _listen(ours, pid, left, tell)
        status = os.waitpid(pid, 0)[1]
        os.close(ours)
        if at is not None:
            killed = os.WIFSIGNALED(status) and os.WTERMSIG(status)
            kind = "hang" if killed == signal.SIGKILL else "died"
            tell(at, said, kind, "hangs where no signal reaches it, or was killed" if kind == "hang"
                 else f"the process died, status {status}")
            left = [n for n in left if n != at]
        elif left and not over():
            raise RuntimeError(f"the process of the cases ended with {status}: see {folder.parent / 'fuzz.log'}")


def _all(numbers: list[int], make: Callable, folder: Path, pipe: int, over: Callable[[], bool]) -> None:
    watch = prepare(folder, folder.parent / "fuzz.log")
    for number in numbers:
        if over():
            break
        here = folder / "case"
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir()
        title, function = make(number, here)
        os.write(pipe, (json.dumps([number, title[:160]]) + "\n").encode())
        kind, fault = attempt(function, watch)
        os.write(pipe, (json.dumps([number, title[:160], kind, fault]) + "\n").encode())


def _listen(pipe: int, pid: int, left: list[int], tell: Callable) -> tuple[int | None, str]:
    """What the process says, until it ends; the case that it was at when it died, if it was at one."""
    at, said, rest, last = None, "", b"", time.monotonic()
    while True:
        if select.select([pipe], [], [], 1)[0]:
            more, last = os.read(pipe, 65536), time.monotonic()
            if not more:
                return at, said
            *lines, rest = (rest + more).split(b"\n")
            for line in lines:
                number, said, *outcome = json.loads(line)
                at = None if outcome else number
                if outcome:
                    tell(number, said, *outcome)
                    left.remove(number)
        elif time.monotonic() - last > 2 * CLOCK_SECONDS:
            os.kill(pid, signal.SIGKILL)
