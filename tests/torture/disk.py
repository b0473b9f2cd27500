"""Full disks, files that may not grow, closed or vanishing folders, no locks, links: a line, and then right numbers."""

from __future__ import annotations

import ctypes
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

from torture import Case, Options, commands

WHAT = {
    "disk-full": "`run`, `distill`, `report` and `audit` on a disk that fills up, gone on with where there is room again",
    "disk-limit": "the same where no file may grow beyond a limit",
    "disk-closed": "runs, caches, inputs and outputs that may not be read or written",
    "disk-locks": "a file system without locks, a clock that goes back",
    "disk-deleted": "the cache or the run directory deleted, or the cache pruned, while `run` goes on",
    "disk-links": "links in a run and in a cache that lead out of it",
}
Begin = Callable[[], None]


def cases(options: Options) -> Iterator[Case]:
    work = options.work
    for part, made in (("disk-full", _full), ("disk-limit", _limits), ("disk-closed", closed),
                       ("disk-locks", _locks), ("disk-deleted", _deleted), ("disk-links", links)):
        for number, (title, attempt) in enumerate(made(work, options)):
            if options.wants(part, number):
                yield Case(part, number, title, partial(_in_folder, work / "disk" / f"{part}-{number}", attempt))


def _in_folder(folder: Path, attempt: Callable[[Path], str | None]) -> str | None:
    commands.remove(folder)
    folder.mkdir(parents=True)
    fault = attempt(folder)
    if not fault:
        commands.remove(folder)
    return fault


def _full(work: Path, options: Options) -> Iterator[tuple[str, Callable]]:
    for what, kib in (("run", 100), ("run", 500), ("run", 900), ("run", 1500), ("distill", 150), ("distill", 400)):
        yield f"`{what}` on a disk of {kib} KiB", partial(_on_small_disk, work, what, kib)
    yield "`report` on a full disk", partial(_report_on_small_disk, work)
    yield "`audit --out` on a full disk", lambda folder: _mounted(folder, 64, lambda disk: commands.outcome(
        commands.command(*commands.audit_arguments(work, "--out", disk / "audit"), cache=folder / "cache", report=True),
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
    right = commands.truth(what, work)

    def attempt(disk: Path) -> str | None:
        call = partial(commands.begun, what, work, disk / "out", disk / "cache")
        if fault := commands.outcome(call(resume=False), folder / "log"):
            return fault
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        return commands.outcome(call(resume=True), folder / "log",
                             (0,)) or commands.differences(right, disk / "out") or commands.leftovers(disk)

    return _mounted(folder, kib, attempt)


def _report_on_small_disk(work: Path, folder: Path) -> str | None:
    def attempt(disk: Path) -> str | None:
        shutil.copytree(commands.truth("run", work), disk / "run")
        used = shutil.disk_usage(disk).used // 1024
        subprocess.run(["mount", "-o", f"remount,size={used + 300}k", str(disk)], check=True)
        return commands.outcome(commands.begun("report", work, disk / "run", folder / "cache"), folder / "log", (2,))

    return _mounted(folder, 100_000, attempt)


def _limits(work: Path, options: Options) -> Iterator[tuple[str, Callable]]:
    def limited(function: Begin, size: int) -> Begin:
        def call() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
            function()

        return call

    for what, size in (("run", 5_000), ("run", 60_000), ("distill", 60_000)):
        yield f"`{what}`, files of at most {size:,} bytes", lambda folder, what=what, size=size: commands.outcome(
            limited(commands.begun(what, work, folder / "out", folder / "cache"), size), folder / "log")
    yield "`audit --out`, files of at most 100,000 bytes", lambda folder: commands.outcome(
        limited(commands.command(*commands.audit_arguments(work, "--out", folder / "out"), cache=folder / "cache", report=True),
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
                yield title, lambda folder, what=what, number=number: commands.outcome(
                    without(commands.begun(what, work, folder / "out", folder / "cache"), number), folder / "log")
    yield "`run` under a clock that goes back an hour at each look", lambda folder: commands.outcome(
        backwards(commands.begun("run", work, folder / "out", folder / "cache")), folder / "log",
        (0,)) or commands.differences(commands.truth("run", work), folder / "out")


def _deleted(work: Path, options: Options) -> Iterator[tuple[str, Callable]]:
    for i in range(max(2, options.rounds // 10)):
        for what in ("cache", "out", "pruned cache"):
            jobs = 1 + i % 2
            yield f"{what}, {jobs} at once", partial(_vanishes, work, what, jobs,
                                                     random.Random(f"{options.seed} deleted {i} {what}"))


def _vanishes(work: Path, what: str, jobs: int, rng: random.Random, folder: Path) -> str | None:
    right = commands.truth("run", work)
    out, cache, log = folder / "out", folder / "cache", folder / "log"
    pid = commands.begin(commands.begun("run", work, out, cache, jobs=jobs), log)
    code = commands.wait(pid, rng.uniform(0.1, 0.9) * float((right.parent / "seconds").read_text()))
    if what == "pruned cache":
        found = commands.outcome(commands.command("cache", "prune", "--all", cache=cache), folder / "prune.log")
    else:
        found = None
        commands.remove(folder / what)
    code = commands.wait(pid, 300) if code is None else code
    said = log.read_text(errors="replace") if log.exists() else ""
    if code is None:
        commands.kill_session(pid)
        commands.wait(pid, 10)
        return "hangs"
    if "Traceback" in said or code not in (0, 2):
        return f"ends with {code}{' and a traceback' * ('Traceback' in said)}: {said.strip().splitlines()[-1][:250]}"
    if code == 0 and out.exists() and what != "out" and (wrong := commands.differences(right, out)):
        return f"ends well, yet {wrong}"
    if what == "out":  # what came after the deletion may be a part: it can be refused, then it goes to a new place
        commands.remove(out)
    return found or commands.outcome(commands.begun("run", work, out, cache, jobs=1, resume=out.exists()), log,
                                  (0,)) or commands.differences(right, out)


def closed_to_us(function: Begin) -> Begin:
    """As root without its right to pass over permissions; any other user has none."""
    def call() -> None:
        if os.geteuid() == 0:
            header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.capset(header, sets):
                raise OSError(ctypes.get_errno(), "capset")
        function()

    return call


def closed(work: Path, options: Options) -> Iterator[tuple[str, Callable]]:
    run, cache = commands.truth("run", work), commands.truth("run", work).parent / "cache"

    def trial(title: str, arrange: Callable[[Path], object], arguments: Callable[[Path], tuple], codes: tuple = (2,),
              at: str = "cache") -> tuple[str, Callable]:
        def attempt(folder: Path) -> str | None:
            (folder / "shut").mkdir()
            arrange(folder)
            os.chmod(folder / "shut", 0o555)
            try:
                return commands.outcome(closed_to_us(commands.command(*arguments(folder), cache=folder / at, report=True)),
                                     folder / "log", codes)
            finally:
                subprocess.run(["chmod", "-R", "u+rwX", str(folder)], check=False)

        return title, attempt

    def copy(source: Path, name: str, change: str) -> Callable[[Path], object]:
        return lambda f: (shutil.copytree(source, f / name), subprocess.run(["chmod", "-R", change, str(f / name)], check=True))

    def foreign(f: Path) -> None:
        shutil.copytree(cache, f / "cache")
        if os.geteuid() == 0:
            os.chown(f / "cache", 65534, 65534)
        os.chmod(f / "cache", 0o700 if os.geteuid() == 0 else 0)

    def hidden(name: str) -> Callable[[Path], object]:
        return lambda f: (shutil.copytree(run, f / "run"), os.chmod(next((f / "run").glob(name)), 0))

    def secret(f: Path) -> None:
        shutil.copy(commands.embeddings(work)[0], f / "secret.npy")
        os.chmod(f / "secret.npy", 0)

    nothing, of_run = (lambda f: None), copy(run, "run", "a-w")
    yield trial("`report` of a run that may not be written", of_run, lambda f: ("report", f / "run"))
    yield trial("`run --resume` of one", of_run, lambda f: (*commands.arguments("run", work, f / "run"), "--resume"))
    yield trial("`claims` of one", of_run, lambda f: ("claims", f / "run"), (0, 2))
    yield trial("`recommend` of one", of_run, lambda f: ("recommend", f / "run"), (0, 2))
    yield trial("`run --out` below a closed folder", nothing, lambda f: commands.arguments("run", work, f / "shut" / "x"))
    yield trial("`distill --out` there", nothing, lambda f: commands.arguments("distill", work, f / "shut" / "x"))
    yield trial("`audit --out` there", nothing, lambda f: commands.audit_arguments(work, "--out", f / "shut" / "x"))
    yield trial("`audit --json` there", nothing, lambda f: commands.audit_arguments(work, "--json", f / "shut" / "x.json"))
    yield trial("`compare --out` there", copy(run, "run", "a+r"),
                lambda f: ("compare", f / "run", run, "--out", f / "shut" / "x"))
    yield trial("`recommend --yaml` there", nothing, lambda f: ("recommend", run, "--yaml", f / "shut" / "n.yaml"))
    yield trial("`run` with another user's cache, closed", foreign, lambda f: commands.arguments("run", work, f / "out"))
    yield trial("`cache list` of it", foreign, lambda f: ("cache", "list"), (0, 2))
    yield trial("`cache prune --all` of it", foreign, lambda f: ("cache", "prune", "--all"), (0, 2))
    yield trial("`run` with a cache that may be read alone", copy(cache, "cache", "a-w"),
                lambda f: commands.arguments("run", work, f / "out"), (0, 2))
    yield trial("`cache prune --all` of it", copy(cache, "cache", "a-w"), lambda f: ("cache", "prune", "--all"))
    yield trial("`run` with a new cache below a closed folder", nothing, lambda f: commands.arguments("run", work, f / "out"),
                at="shut/cache")
    yield trial("`audit` of a file that may not be read", secret,
                lambda f: ("audit", "--teacher", f / "secret.npy", "--student", commands.embeddings(work)[1]))
    for name in ("study.yaml", "trials/*/results.csv", "trials/*/complete.json", "trials", "provenance.json"):
        yield trial(f"`report` where {name} may not be read", hidden(name), lambda f: ("report", f / "run"), (0, 2))


def links(work: Path, options: Options) -> Iterator[tuple[str, Callable]]:
    run = commands.truth("run", work)

    def away(folder: Path) -> Path:
        path = folder / "away"
        path.mkdir()
        for name in ("table.csv", "report.html", "mine.txt", "results.csv"):
            (path / name).write_text("mine")
        return path

    def untouched(path: Path) -> str | None:
        odd = [p.name for p in path.iterdir() if p.read_text(errors="replace") != "mine"]
        return f"written through the link: {', '.join(odd)}" if odd or len(list(path.iterdir())) != 4 else None

    def linked(name: str, to: str) -> Callable[[Path], str | None]:
        def attempt(folder: Path) -> str | None:
            elsewhere = away(folder)
            shutil.copytree(run, folder / "run")
            commands.remove(folder / "run" / name)
            (folder / "run" / name).unlink(missing_ok=True)
            (folder / "run" / name).symlink_to(elsewhere / to)
            return commands.outcome(commands.begun("report", work, folder / "run", folder / "cache"),
                                 folder / "log") or untouched(elsewhere)

        return attempt

    for name, to in (("tables", "."), ("figures", "."), ("report.html", "report.html"), ("results.csv", "results.csv")):
        yield f"`report` where {name} is a link", linked(name, to)

    def pruned(folder: Path) -> str | None:
        elsewhere = away(folder)
        shutil.copytree(run.parent / "cache", folder / "cache")
        for inside in ("embeddings", "targets"):
            (folder / "cache" / inside / "out").symlink_to(elsewhere)
            next(p for p in (folder / "cache" / inside).iterdir() if not p.is_symlink()).joinpath("deep").symlink_to(elsewhere)
        return (commands.outcome(commands.command("cache", "list", cache=folder / "cache"), folder / "log")
                or commands.outcome(commands.command("cache", "prune", "--all", cache=folder / "cache"), folder / "log")
                or untouched(elsewhere))

    yield "`cache list` and `cache prune --all` with links in the cache", pruned
    for name in ("../../away", "/elsewhere", "..", "", "."):
        yield f"`cache prune '{name}'`", lambda folder, name=name: (away(folder),
                                                                    shutil.copytree(run.parent / "cache",
                                                                                    folder / "cache"))[2:] or commands.outcome(
            commands.command("cache", "prune", name, cache=folder / "cache"), folder / "log", (2,))
