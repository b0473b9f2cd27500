"""Full disks, files that may not grow, closed or vanishing folders, no locks, links: a line, and then right numbers."""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from torture import child, permissions, small
from torture.record import Case, Options, Record, try_all

WHAT = {
    "disk-full": "`run`, `distill`, `report` and `audit` on a disk that fills up, gone on with where there is room again",
    "disk-limit": "the same where no file may grow beyond a limit",
    "disk-closed": "runs, caches, inputs and outputs that may not be read or written",
    "disk-locks": "a file system without locks, a clock that goes back",
    "disk-deleted": "the cache or the run directory deleted, or the cache pruned, while `run` goes on",
    "disk-links": "links in a run and in a cache that lead out of it",
}
Begin = Callable[[], None]


def attack(options: Options, record: Record) -> None:
    try_all(cases(options), record, options)


def cases(options: Options) -> Iterator[Case]:
    work = options.work
    for part, made in (("disk-full", _full), ("disk-limit", _limits), ("disk-closed", permissions.closed),
                       ("disk-locks", _locks), ("disk-deleted", _deleted), ("disk-links", permissions.links)):
        for number, (title, attempt) in enumerate(made(work, options)):
            if options.wants(part, number):
                yield Case(part, number, title, partial(_in_folder, work / "disk" / f"{part}-{number}", attempt))


def _in_folder(folder: Path, attempt: Callable[[Path], str | None]) -> str | None:
    small.remove(folder)
    folder.mkdir(parents=True)
    fault = attempt(folder)
    if not fault:
        small.remove(folder)
    return fault


def _full(work: Path, options: Options) -> Iterator[tuple[str, Callable]]:
    for what, kib in (("run", 100), ("run", 500), ("run", 900), ("run", 1500), ("distill", 150), ("distill", 400)):
        yield f"`{what}` on a disk of {kib} KiB", partial(_on_small_disk, work, what, kib)
    yield "`report` on a full disk", partial(_report_on_small_disk, work)
    yield "`audit --out` on a full disk", lambda folder: _mounted(folder, 64, lambda disk: child.outcome(
        child.command(*small.audit_arguments(work, "--out", disk / "audit"), cache=folder / "cache", report=True),
        folder / "log", (2,)))


def _mounted(folder: Path, kib: int, attempt: Callable[[Path], str | None]) -> str | None:
    """``attempt`` on a disk of that size; where this user may not mount one, nothing is tried and said so in the title."""
    disk = folder / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "none", str(disk)], capture_output=True).returncode:
        return None  # `disk-limit` stands in for it
    try:
        return attempt(disk)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def _on_small_disk(work: Path, what: str, kib: int, folder: Path) -> str | None:
    right = small.truth(what, work)

    def attempt(disk: Path) -> str | None:
        call = partial(small.begun, what, work, disk / "out", disk / "cache")
        if fault := child.outcome(call(resume=False), folder / "log"):
            return fault
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        return child.outcome(call(resume=True), folder / "log",
                             (0,)) or small.differences(right, disk / "out") or small.leftovers(disk)

    return _mounted(folder, kib, attempt)


def _report_on_small_disk(work: Path, folder: Path) -> str | None:
    def attempt(disk: Path) -> str | None:
        shutil.copytree(small.truth("run", work), disk / "run")
        used = shutil.disk_usage(disk).used // 1024
        subprocess.run(["mount", "-o", f"remount,size={used + 300}k", str(disk)], check=True)
        return child.outcome(small.begun("report", work, disk / "run", folder / "cache"), folder / "log", (2,))

    return _mounted(folder, 100_000, attempt)


def _limits(work: Path, options: Options) -> Iterator[tuple[str, Callable]]:
    def limited(function: Begin, size: int) -> Begin:
        def call() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
            function()

        return call

    for what, size in (("run", 5_000), ("run", 60_000), ("distill", 60_000)):
        yield f"`{what}`, files of at most {size:,} bytes", lambda folder, what=what, size=size: child.outcome(
            limited(small.begun(what, work, folder / "out", folder / "cache"), size), folder / "log")
    yield "`audit --out`, files of at most 100,000 bytes", lambda folder: child.outcome(
        limited(child.command(*small.audit_arguments(work, "--out", folder / "out"), cache=folder / "cache", report=True),
                100_000), folder / "log", (2,))


def _locks(work: Path, options: Options) -> Iterator[tuple[str, Callable]]:
    def without(function: Begin, number: int) -> Begin:
        def call() -> None:
            import fcntl

            def refuse(*_: object) -> None:
                raise OSError(number, os.strerror(number))

            fcntl.flock = fcntl.lockf = refuse
            function()

        return call

    def backwards(function: Begin) -> Begin:
        def call() -> None:
            real, asked = time.time, [0]

            def back() -> float:
                asked[0] += 1
                return real() - 3600 * asked[0]

            time.time = back
            function()

        return call

    for what in ("run", "distill", "embed"):
        for number in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            if what != "embed":
                title = f"`{what}` where flock gives {errno.errorcode[number]}"
                yield title, lambda folder, what=what, number=number: child.outcome(
                    without(small.begun(what, work, folder / "out", folder / "cache"), number), folder / "log")
    yield "`run` under a clock that goes back an hour at each look", lambda folder: child.outcome(
        backwards(small.begun("run", work, folder / "out", folder / "cache")), folder / "log",
        (0,)) or small.differences(small.truth("run", work), folder / "out")


def _deleted(work: Path, options: Options) -> Iterator[tuple[str, Callable]]:
    for i in range(max(2, options.rounds // 10)):
        for what in ("cache", "out", "pruned cache"):
            jobs = 1 + i % 2
            yield f"{what}, {jobs} at once", partial(_vanishes, work, what, jobs,
                                                     random.Random(f"{options.seed} deleted {i} {what}"))


def _vanishes(work: Path, what: str, jobs: int, rng: random.Random, folder: Path) -> str | None:
    right = small.truth("run", work)
    out, cache, log = folder / "out", folder / "cache", folder / "log"
    pid = child.begin(small.begun("run", work, out, cache, jobs=jobs), log)
    code = child.wait(pid, rng.uniform(0.1, 0.9) * float((right.parent / "seconds").read_text()))
    if what == "pruned cache":
        found = child.outcome(child.command("cache", "prune", "--all", cache=cache), folder / "prune.log")
    else:
        found = None
        small.remove(folder / what)
    code = child.wait(pid, 300) if code is None else code
    said = log.read_text(errors="replace") if log.exists() else ""
    if code is None:
        child.kill_session(pid)
        child.wait(pid, 10)
        return "hangs"
    if "Traceback" in said or code not in (0, 2):
        return f"ends with {code}{' and a traceback' * ('Traceback' in said)}: {said.strip().splitlines()[-1][:250]}"
    if code == 0 and out.exists() and what != "out" and (wrong := small.differences(right, out)):
        return f"ends well, yet {wrong}"
    if what == "out":  # what came after the deletion may be a part: it can be refused, then it goes to a new place
        small.remove(out)
    return found or child.outcome(small.begun("run", work, out, cache, jobs=1, resume=out.exists()), log,
                                  (0,)) or small.differences(right, out)
