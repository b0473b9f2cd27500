"""Folders and files that may not be read or written, and links that lead out: what root's rights would hide."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from torture import child, small
from torture.record import Options

Begin = Callable[[], None]


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
    run, cache = small.truth("run", work), small.truth("run", work).parent / "cache"

    def trial(title: str, arrange: Callable[[Path], object], arguments: Callable[[Path], tuple], codes: tuple = (2,),
              at: str = "cache") -> tuple[str, Callable]:
        def attempt(folder: Path) -> str | None:
            (folder / "shut").mkdir()
            arrange(folder)
            os.chmod(folder / "shut", 0o555)
            try:
                return child.outcome(closed_to_us(child.command(*arguments(folder), cache=folder / at, report=True)),
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
        shutil.copy(small.embeddings(work)[0], f / "secret.npy")
        os.chmod(f / "secret.npy", 0)

    nothing, of_run = (lambda f: None), copy(run, "run", "a-w")
    yield trial("`report` of a run that may not be written", of_run, lambda f: ("report", f / "run"))
    yield trial("`run --resume` of one", of_run, lambda f: (*small.arguments("run", work, f / "run"), "--resume"))
    yield trial("`claims` of one", of_run, lambda f: ("claims", f / "run"), (0, 2))
    yield trial("`recommend` of one", of_run, lambda f: ("recommend", f / "run"), (0, 2))
    yield trial("`run --out` below a closed folder", nothing, lambda f: small.arguments("run", work, f / "shut" / "x"))
    yield trial("`distill --out` there", nothing, lambda f: small.arguments("distill", work, f / "shut" / "x"))
    yield trial("`audit --out` there", nothing, lambda f: small.audit_arguments(work, "--out", f / "shut" / "x"))
    yield trial("`audit --json` there", nothing, lambda f: small.audit_arguments(work, "--json", f / "shut" / "x.json"))
    yield trial("`compare --out` there", copy(run, "run", "a+r"),
                lambda f: ("compare", f / "run", run, "--out", f / "shut" / "x"))
    yield trial("`recommend --yaml` there", nothing, lambda f: ("recommend", run, "--yaml", f / "shut" / "n.yaml"))
    yield trial("`run` with another user's cache, closed", foreign, lambda f: small.arguments("run", work, f / "out"))
    yield trial("`cache list` of it", foreign, lambda f: ("cache", "list"), (0, 2))
    yield trial("`cache prune --all` of it", foreign, lambda f: ("cache", "prune", "--all"), (0, 2))
    yield trial("`run` with a cache that may be read alone", copy(cache, "cache", "a-w"),
                lambda f: small.arguments("run", work, f / "out"), (0, 2))
    yield trial("`cache prune --all` of it", copy(cache, "cache", "a-w"), lambda f: ("cache", "prune", "--all"))
    yield trial("`run` with a new cache below a closed folder", nothing, lambda f: small.arguments("run", work, f / "out"),
                at="shut/cache")
    yield trial("`audit` of a file that may not be read", secret,
                lambda f: ("audit", "--teacher", f / "secret.npy", "--student", small.embeddings(work)[1]))
    for name in ("study.yaml", "trials/*/results.csv", "trials/*/complete.json", "trials", "provenance.json"):
        yield trial(f"`report` where {name} may not be read", hidden(name), lambda f: ("report", f / "run"), (0, 2))


def links(work: Path, options: Options) -> Iterator[tuple[str, Callable]]:
    run = small.truth("run", work)

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
            small.remove(folder / "run" / name)
            (folder / "run" / name).unlink(missing_ok=True)
            (folder / "run" / name).symlink_to(elsewhere / to)
            return child.outcome(small.begun("report", work, folder / "run", folder / "cache"),
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
        return (child.outcome(child.command("cache", "list", cache=folder / "cache"), folder / "log")
                or child.outcome(child.command("cache", "prune", "--all", cache=folder / "cache"), folder / "log")
                or untouched(elsewhere))

    yield "`cache list` and `cache prune --all` with links in the cache", pruned
    for name in ("../../away", "/elsewhere", "..", "", "."):
        yield f"`cache prune '{name}'`", lambda folder, name=name: (away(folder),
                                                                    shutil.copytree(run.parent / "cache",
                                                                                    folder / "cache"))[2:] or child.outcome(
            child.command("cache", "prune", name, cache=folder / "cache"), folder / "log", (2,))
