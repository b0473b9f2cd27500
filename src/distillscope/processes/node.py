"""What a process of a cluster does on its node: it is looked over and prepared once, then does one task after another.

It imports torch with what it is given to do, not before. Twice a second it says what it has done, and hears whether to stop.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import signal
import threading
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import distillscope
from distillscope import progress
from distillscope.errors import UserError
from distillscope.files.writing import said_of
from distillscope.processes.interrupts import SIGNALS
from distillscope.processes.workers import interrupt_main, pickled
from distillscope.provenance import hardware

TELL_SECONDS = 0.5
SEE_SECONDS = 15.0
"""How long a file written on one node may take to be seen on another."""
PACKAGES = ("torch", "torchvision", "timm", "numpy", "scipy", "scikit-learn", "accelerate", "pillow")
"""What numbers depend on."""


def versions() -> dict[str, str]:
    """This package, by its sources, and those that numbers depend on, without what only says how they were built."""
    found = {"distillscope": f"{distillscope.__version__} ({sources()})"}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package).partition("+")[0]
        except metadata.PackageNotFoundError:
            found[package] = "none"
    return found


def sources() -> str:
    """A digest of this package's modules: two checkouts of one version may differ."""
    digest, root = hashlib.blake2b(digest_size=4), Path(distillscope.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def look(wanted: dict[str, str], seen: dict[Path, str]) -> None:
    """Whether this node can do the same as the one where the command was given; what it lacks is raised."""
    found = versions()
    for package, version in wanted.items():
        if found.get(package) != version:
            raise UserError(package, f"{version}, as where the command was given", str(found.get(package)),
                            "Install the same on every node.")
    for path, content in seen.items():
        if not _is_seen(path, content):
            raise UserError(str(path.parent), "the folder of that name that the other nodes write to",
                            "another one" if path.parent.is_dir() else "none",
                            "Name one that all nodes share (--out; of the cache: DISTILLSCOPE_CACHE).")


def _is_seen(path: Path, content: str) -> bool:
    until = time.monotonic() + (SEE_SECONDS if path.parent.is_dir() else 0)
    while True:
        try:
            return path.read_text(encoding="utf-8") == content
        except OSError:
            if time.monotonic() > until:
                return False
            time.sleep(0.2)


_process: dict[str, Any] = {}


def prepare(wanted: dict[str, str], seen: dict[Path, str], folder: str, given: bytes, teller: Any) -> str:
    """Before the first task; returns what hardware this is.

    ``given`` are ``start``, called now with its arguments, and ``work``, called for each task with what counts and its own.
    """
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    look(wanted, seen)
    if Path(folder).is_dir():  # relative names mean what they meant where the command was given
        os.chdir(folder)
    line = _Line(teller)
    progress.listen(line.messages.append)
    start, arguments, work_on = pickle.loads(given)
    start(*arguments)
    _process.update(work=work_on, line=line)
    line.start()
    return hardware()


def work(attempt: str, arguments: bytes) -> tuple[Any, int, list[str]]:
    """One task: what it returns, how much it counted in all, and what it said last."""
    line = _process["line"]
    line.begin(attempt)
    try:
        found = _process["work"](line.count, *pickle.loads(arguments))
    finally:
        line.busy = False
    return found, line.done, line.taken()


def failed(node: str, error: BaseException) -> bytes:
    """What went wrong, pickled; bad input and what the node's system refuses with the node's name."""
    said = said_of(error) if isinstance(error, OSError) else error
    if isinstance(said, UserError):
        return pickled(UserError(f"node {node}, {said.where}", said.expected, said.got, said.todo))
    return pickled(error)


class _Line(threading.Thread):
    """Tells the command, through an actor on its node, what is done and said here; ends the task when told to."""

    def __init__(self, teller: Any) -> None:
        super().__init__(daemon=True)
        self.teller, self.attempt = teller, ""
        self.messages: list[str] = []
        self.done, self.busy = 0, False

    def begin(self, attempt: str) -> None:
        self.attempt, self.done, self.busy = attempt, 0, True

    def count(self, count: int) -> None:
        self.done += count

    def taken(self) -> list[str]:
        """What was said and not told yet."""
        said = self.messages[:]
        del self.messages[: len(said)]
        return said

    def run(self) -> None:
        import ray

        while True:
            time.sleep(TELL_SECONDS)
            if not self.busy:
                continue
            try:
                stop = ray.get(self.teller.tell.remote(self.attempt, self.done, self.taken()))
            except Exception:  # whoever gave the work is gone
                stop = True
            if stop and self.busy:
                interrupt_main()
                return
