"""Writing files so that a reader never sees half of one, and never outside the folder that is being filled."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from distillscope.errors import UserError

RUN_MARKS = (("study.yaml", "provenance.json"), ("study.yaml", "run.zip"), ("audit.json",), ("compare.json",))
"""Files by which a folder is known to be one that this package fills; below it no link is followed."""
_TEMPORARY = re.compile(r"^\..+\.(?:(?P<machine>[0-9a-f]{6})-)?(?P<pid>\d+)\.tmp(\.[^.]*)?$")
_DAY = 86_400.0


def write_atomic(path: Path, write: Callable[[Path], Any]) -> Path:
    """Let ``write`` make a temporary file beside ``path``, flush it, then rename it: all of it or nothing.

    A link at ``path`` is replaced; a link on the way there, below the run's own folder, is refused.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem[:100]}.{_machine()}-{os.getpid()}.tmp{path.suffix}")
    try:
        make_folder(path.parent)
        temporary.unlink(missing_ok=True)
        write(temporary)
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except Exception as error:
        if isinstance(error, UserError):
            raise
        if _is_full(error, path.parent):
            raise UserError(str(path), *FULL) from None
        if _is_too_large(error, temporary):
            raise UserError(str(path), *SAID[errno.EFBIG]) from None
        said = said_of(error, str(path)) if isinstance(error, OSError) else None
        if said is not None:
            raise said from None
        if isinstance(error, FileNotFoundError) and error.filename == str(temporary) and path.parent.is_dir():
            raise UserError(str(path), "a folder that takes files", "one that takes none", "Name another.") from None
        if getattr(error, "errno", None) is None and not path.parent.is_dir():  # pandas does not say so in the system's words
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return path


def make_folder(folder: Path) -> Path:
    """The folder, made where it is absent. A link on the way to it, below a run's own folder, leads out of the run: refused."""
    folder = Path(folder)
    for at in (folder, *folder.parents):
        if at.is_symlink() and any(_is_ours(above) for above in at.parents):
            raise UserError(str(at), "a folder", f"a link to {os.readlink(at)}",
                            "Remove the link: nothing is written through it.")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _is_ours(folder: Path) -> bool:
    return any(all((folder / name).is_file() for name in marks) for marks in RUN_MARKS)


FULL = ("room on the disk", "a full disk",
        "Free some space and repeat (`run`, `distill` and `embed`: with --resume); what was finished is kept.")
_NO_RIGHT = ("the right to use it", "permission denied",
             "Change its permissions or owner, or choose another place (of the cache: DISTILLSCOPE_CACHE).")
SAID = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EACCES: _NO_RIGHT,
    errno.EPERM: _NO_RIGHT,
    errno.EROFS: ("a disk that can be written", "one that is read-only",
                  "Choose another place (of the cache: DISTILLSCOPE_CACHE)."),
    errno.EFBIG: ("room for the file", "the limit on a file's size", "Raise the limit (ulimit -f), or choose another disk."),
    errno.ENOTDIR: ("a folder to write to", "a file on the way there", "Choose another place."),
    errno.EEXIST: ("a folder to write to", "a file on the way there", "Choose another place."),
    errno.EISDIR: ("a file", "a folder of that name", "Move the folder away, or choose another place."),
    errno.ENAMETOOLONG: ("a name that the file system takes", "one that is too long", "Choose a shorter one."),
    errno.ELOOP: ("a file or folder", "links that lead in a circle", "Remove the links."),
    errno.EMFILE: ("files that can be opened", "too many open at once", "Raise the limit (ulimit -n)."),
    errno.EIO: ("a disk that can be read and written", "an input/output error", "See what the system's log says of the disk."),
    errno.ESTALE: ("a folder that stays", "one that a server took away",
                   "Repeat when it is back (`run`, `distill` and `embed`: with --resume)."),
    errno.ENOLCK: ("a file system with locks", "one without", "Choose another place (of the cache: DISTILLSCOPE_CACHE)."),
    errno.EOPNOTSUPP: ("a file system with locks", "one without", "Choose another place (of the cache: DISTILLSCOPE_CACHE)."),
}
"""The system's error number -> (what was expected, what there was, what to do), where the machine is at fault."""


def said_of(error: OSError, where: str | None = None) -> UserError | None:
    """The one line for an error of the system; None where it would be a bug of the program."""
    if error.errno not in SAID:
        return None
    return UserError(str(error.filename or where or "disk"), *SAID[error.errno])


@contextlib.contextmanager
def said_if_deleted(*folders: Path) -> Iterator[None]:
    """A file that is not there any more, below one of these folders, is somebody's doing and said so; elsewhere it is a bug."""
    there = [f for f in folders if f.is_dir()]
    try:
        yield
    except FileNotFoundError as error:
        name = Path(str(error.filename or "")).absolute()
        gone = next((f for f in folders if (f in there and not f.is_dir()) or name.is_relative_to(f.absolute())), None)
        if gone is None:
            raise
        raise UserError(str(error.filename or gone), "a file that stays while this runs", "deleted",
                        f"Repeat with --resume, and leave {gone} alone meanwhile.") from None


def _is_full(error: Exception, folder: Path) -> bool:
    """torch, safetensors and NumPy do not pass the system's error number on: then the room left tells."""
    number = getattr(error, "errno", None)
    if number is not None:
        return number in (errno.ENOSPC, errno.EDQUOT)
    return "No space left" in str(error) or (folder.is_dir() and shutil.disk_usage(folder).free < 2**20)


def _is_too_large(error: Exception, written: Path) -> bool:
    """Nor do they say that a file ran into the limit on its size (ulimit -f): then what was written ends there."""
    if getattr(error, "errno", None) is not None or not written.is_file():
        return False
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return False
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return limit != resource.RLIM_INFINITY and written.stat().st_size >= limit


def leftovers(folder: Path, alone: bool = False) -> list[Path]:
    """Temporary files below ``folder`` that a kill in the middle of a write left behind: their process is gone.

    Who holds the folder's lock is ``alone``: nobody else writes there, so all of them are.
    """
    return [p for p in folder.rglob(".*.tmp*") if (m := _TEMPORARY.match(p.name)) and p.is_file() and (alone or _is_over(p, m))]


def _is_over(path: Path, match: re.Match) -> bool:
    """Whether the process that the name tells of is gone; of another machine's only the file's age says so."""
    if match["machine"] == _machine():
        return not is_alive(int(match["pid"]))
    try:
        return time.time() - path.stat().st_mtime > _DAY
    except OSError:
        return False


def sweep(folder: Path, alone: bool = False) -> int:
    """Remove the `leftovers`; how many there were."""
    found = leftovers(folder, alone)
    for path in found:
        with contextlib.suppress(OSError):
            path.unlink()
    return len(found)


def is_alive(pid: int) -> bool:
    """Whether a process of this machine runs; taken for granted where the system cannot be asked."""
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _machine() -> str:
    """A short mark of this machine: a process's number says nothing on another that shares the disk."""
    return hashlib.blake2b(platform.node().encode(), digest_size=3).hexdigest()


def checksum(path: Path) -> str:
    """Of a file's bytes: blake2b, 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_text(path: Path, text: str) -> Path:
    """``text`` in UTF-8, atomically."""
    return write_atomic(path, lambda p: p.write_text(text, encoding="utf-8"))


def finite(value: Any) -> Any:
    """Plain values as JSON has them: NaN and infinity become null, and tuples lists.

    >>> finite({"low": float("nan"), "values": (1.0, float("inf"))})
    {'low': None, 'values': [1.0, None]}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    return [finite(v) for v in value] if isinstance(value, (list, tuple)) else value


def write_json(path: Path, value: Any) -> Path:
    """``value`` as indented JSON, atomically; NaN is refused, since JSON has none."""
    return write_text(path, json.dumps(value, indent=2, allow_nan=False, default=str) + "\n")
