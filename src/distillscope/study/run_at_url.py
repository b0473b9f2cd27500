"""A run whose directory is at a URL: it is made in a local folder, and what is finished is copied there as it comes.

A store knows no locks, no renaming and no appending, on which a run directory rests; whole files it keeps. So the run lies in
the cache, and whatever counts is copied, ``complete.json`` of each trial last. On any machine the same command with
``--resume`` fetches what is finished and does the rest. Nothing keeps two commands from one URL: both would do all that is
missing.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

from distillscope import progress
from distillscope.errors import UserError
from distillscope.files.folders import cache_root, is_filled
from distillscope.files.remote import RemoteFile, listed, put
from distillscope.files.writing import write_atomic
from distillscope.results.run_files import COMPLETE
from distillscope.results.rundir import load_config
from distillscope.results.same_study import unlike

EVERY_SECONDS = 5.0
CONFIG = "study.yaml"
PARTS = ("trials", "references")
LOCAL = ("checkpoint.pt",)
"""What a trial that is not finished goes on from: on this machine alone."""


def _take(path: Path, file: RemoteFile) -> None:
    content = file.read()
    write_atomic(path, lambda p: p.write_bytes(content))


def _mark(path: Path) -> tuple[int, int]:
    """Changes with the file."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size


class RunAtUrl:
    """The directory at ``url``, and ``folder``, where it is made on this machine."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        name = hashlib.blake2b(self.url.encode(), digest_size=8).hexdigest()
        self.folder = cache_root() / "runs" / f"{self.url.rpartition('/')[2]}-{name}"
        self._there: dict[str, tuple[int, int]] = {}

    @contextlib.contextmanager
    def followed(self, resume: bool) -> Iterator[Path]:
        """The local folder, with what is finished at the URL; what is finished meanwhile goes there, at the end all of it."""
        self.fetch(resume)
        over = threading.Event()

        def follow() -> None:
            while not over.wait(EVERY_SECONDS):
                try:
                    self._put_finished()
                except UserError as error:  # if it lasts, it ends the command after the run
                    progress.say(f"{error} The run goes on in {self.folder}.")
                    return

        follower = threading.Thread(target=follow, daemon=True)
        follower.start()
        try:
            yield self.folder
        finally:
            over.set()
            follower.join()
            self._put_finished()
            self._put_rest()

    def fetch(self, resume: bool) -> Path:
        """The local folder with what is finished at the URL: of each such trial its files, and the run's own."""
        there = listed(self.url, may_be_absent=True)
        if not resume and (there or is_filled(self.folder)):
            got = "one with files" if there else f"one whose files are gone, but not those in {self.folder}"
            raise UserError(f"--out {self.url}", "a new or empty place", got, "Add --resume to continue it, or name another.")
        if there and CONFIG not in there:
            raise UserError(f"--out {self.url}", f"a run (with {CONFIG})", "other files", "Name another.")
        if there:
            self._check_same(there[CONFIG])
        done = tuple(name.removesuffix(COMPLETE) for name in there if name.endswith(f"/{COMPLETE}"))
        begun = tuple(part for part in done if not (self.folder / part / COMPLETE).is_file())  # finished elsewhere
        for name in sorted(there, key=lambda name: name.endswith(COMPLETE)):
            path = self.folder / name
            if "/" not in name or name.startswith(done):
                if not path.is_file() or name.startswith(begun):
                    _take(path, there[name])
                if there[name].size == path.stat().st_size:
                    self._there[name] = _mark(path)
        return self.folder

    def _check_same(self, config: RemoteFile) -> None:
        """What is there and what was begun here must be one study."""
        if not (self.folder / CONFIG).is_file():
            return
        other = self.folder / ".at-url"
        _take(other / CONFIG, config)
        for found in unlike(load_config(other), load_config(self.folder)):
            raise UserError(f"--out {self.url}", f"the run that was begun in {self.folder}",
                            f"another one ({found.key} differs)", "Remove that folder, or name another --out.")

    def _put_finished(self) -> None:
        for part in PARTS:
            for mark in sorted((self.folder / part).glob(f"*/{COMPLETE}")):
                files = [p for p in sorted(mark.parent.rglob("*")) if p.is_file() and not p.name.startswith(".")]
                self._put([*(p for p in files if p != mark and p.name not in LOCAL), mark])
        self._put([p for p in (self.folder / CONFIG, self.folder / "provenance.json") if p.is_file()])

    def _put_rest(self) -> None:
        """Page, tables and figures."""
        self._put([p for p in sorted(self.folder.rglob("*")) if p.is_file() and p.relative_to(self.folder).parts[0] not in PARTS
                   and not any(part.startswith(".") for part in p.relative_to(self.folder).parts)])

    def _put(self, files: list[Path]) -> None:
        """Those that are new or have changed."""
        for path in files:
            name = path.relative_to(self.folder).as_posix()
            if self._there.get(name) != (mark := _mark(path)):
                put(path, f"{self.url}/{name}")
                self._there[name] = mark
