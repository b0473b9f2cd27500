"""Folders: names made from those of a study's parts, no two ever alike; what tells an archive from a run; the cache's own."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from math import prod
from pathlib import Path

import numpy as np

from distillscope.errors import UserError

KEEP_GIB = 50.0
"""How much of the disk the images of a set may take at most, unless another limit is asked for."""
LONGEST = 200
"""Bytes of a folder's name; file systems take 255, and some that encrypt fewer."""
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(10))}
"""Names that Windows keeps for devices, whatever follows their first dot."""


def folder_name(*parts: str) -> str:
    """One folder's name for these parts: the parts themselves where they are plain, else what is left of them and a hash.

    Plain are letters without accents, digits and ``_.+-``, where the name can be read back into its parts and every file
    system takes it. Parts that differ in more than upper and lower case get names that do too.

    >>> folder_name("digits", "S", "seed1"), folder_name("x 1"), folder_name("..")
    ('digits--S--seed1', 'x_1~ecd3bfadc6', '_..~0964becc63')
    >>> folder_name("a--b", "c") != folder_name("a", "b--c")
    True
    """
    parts = tuple(composed(part) for part in parts)
    name = old_folder_name(*parts)
    if all(parts) and name == "--".join(parts) and _splits_back(parts) and _is_allowed(name) and len(name) <= LONGEST:
        return name
    mark = hashlib.blake2b(json.dumps(parts).encode(), digest_size=5).hexdigest()
    return f"{'' if _is_allowed(name) else '_'}{name[: LONGEST - 12]}~{mark}"


def old_folder_name(*parts: str) -> str:
    """The name as runs had it before `folder_name`: several names could give one folder."""
    return "--".join(re.sub(r"[^A-Za-z0-9_.+-]+", "_", part) for part in parts)


def composed(name: str) -> str:
    """The name with its accents composed (NFC): macOS and Linux type the same one in two ways."""
    return unicodedata.normalize("NFC", name)


def same_on_some_systems(name: str) -> str:
    """What a file system may take for the same name: without case, with accents composed.

    >>> same_on_some_systems("S") == same_on_some_systems("s")
    True
    """
    return composed(composed(name).casefold())


def is_printable(name: str) -> bool:
    """Whether a name has something to see, and no control characters, which tables and terminals would act upon.

    >>> is_printable("小 1"), is_printable(" "), is_printable("a\\x00b")
    (True, False, False)
    """
    return bool(name.strip()) and not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in name)


def _splits_back(parts: tuple[str, ...]) -> bool:
    return len(parts) == 1 or not any("--" in part or part.startswith("-") or part.endswith("-") for part in parts)


def _is_allowed(name: str) -> bool:
    return not name.startswith(".") and not name.endswith(".") and name.split(".")[0].casefold() not in RESERVED


def cache_root() -> Path:
    """Where embeddings, targets and what is known of images are kept: $DISTILLSCOPE_CACHE, else ~/.cache/distillscope."""
    return Path(os.environ.get("DISTILLSCOPE_CACHE") or Path.home() / ".cache" / "distillscope").expanduser()


def state_of(file: Path) -> str | None:
    """Bytes of a file and the time of its last change: another state, another content. None where there is no file."""
    try:
        found = file.stat()
    except OSError:
        return None
    return f"{found.st_size}:{found.st_mtime_ns}"


def expect_all(names: Sequence[str], where: str, todo: str) -> None:
    """An error where files are numbered x-00000-of-00004 and are not as many as that."""
    totals = {tuple(re.findall(r"-of-0*([1-9]\d*)", name)) for name in names}
    total, = totals if len(totals) == 1 else [()]
    if len(total) == 1 and int(total[0]) != len(names):
        raise UserError(where, f"{total[0]} parts, as {min(names)} says", str(len(names)), todo)


def gaps_said(names: Sequence[str]) -> str:
    """A note where files are numbered and some numbers between the first and the last are missing: parts may be lost.

    Names must differ in one number alone. Where more are missing than are there, it counts nothing, and nothing is said.

    >>> gaps_said(["train-00.tar", "train-01.tar", "train-04.tar"])
    'no file has number 2, 3 between train-00.tar and train-04.tar'
    """
    rows = sorted(([int(n[-18:]) for n in re.findall(r"\d+", name)], name) for name in names)
    differ = [i for i, column in enumerate(zip(*(row for row, _ in rows), strict=False)) if len(set(column)) > 1]
    if len(differ) != 1 or len({re.sub(r"\d+", "0", name) for name in names}) > 1:
        return ""
    numbers = [row[differ[0]] for row, _ in rows]
    lost = numbers[-1] - numbers[0] + 1 - len(set(numbers))
    if not 0 < lost <= len(names):
        return ""
    missing = [n for low, high in pairwise(numbers) for n in range(low + 1, high)]
    more = f" and {lost - 4:,} more" if lost > 4 else ""
    return f"no file has number {', '.join(map(str, missing[:4]))}{more} between {rows[0][1]} and {rows[-1][1]}"


def is_filled(folder: Path) -> bool:
    """Whether a folder holds anything but hidden files."""
    return folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir())


def check_fresh(where: str, folder: Path, todo: str = "Name another.", *, going_on: bool = False, mark: str = "",
                whose: str = "") -> Path:
    """``folder``, if it may be filled: new, empty, gone on with, or ``whose`` it is where the file ``mark`` is in it."""
    expected = f"a new or empty folder{f', or {whose}' if mark else ''}"
    if folder.exists() and not folder.is_dir():
        raise UserError(where, expected, "a file", "Name another.")
    if is_filled(folder) and not going_on and not (mark and (folder / mark).is_file()):
        raise UserError(where, expected, "one with other files" if mark else "one with files", todo)
    return folder


def check_absent(where: str, file: Path) -> Path:
    """``file``, if nothing is there: what its owner may have changed since is not written over."""
    if file.exists():
        raise UserError(where, "a new file", f"{file.name}, which is there", "Name another, or remove it.")
    return file


def check_replaceable(where: str, file: Path, starts: tuple[str, ...], kind: str) -> Path:
    """``file``, if it may be written over: new, empty, or of the ``kind`` that is written, which begins as ``starts`` say."""
    if not file.exists():
        return file
    if file.is_file():
        with open(file, "rb") as handle:
            begins = handle.read(1024).lstrip().decode("utf-8", "replace")
        if not begins or begins.startswith(starts):
            return file
    got = "a folder" if file.is_dir() else f"{file.name}, another kind of file" if file.is_file() else f"{file.name}, no file"
    raise UserError(where, f"a new file, or {kind} to replace", got, "Name another.")


PACKED = "run.zip"
"""Of an archive: written last, so that the archive is complete where this is there."""


def is_archive(path: Path) -> bool:
    """Whether a folder is an archive that was written to its end."""
    return (path / PACKED).is_file() and not (path / "trials").is_dir()


def refuse_archive(path: Path, where: str) -> None:
    """A `UserError` where ``path`` is an archive, or would be in one, and what a whole run holds is needed."""
    if any(map(is_archive, (path, *path.parents))):
        raise UserError(where, "a whole run directory", "an archive, which holds no weights and no embeddings",
                        "Name the run that it was packed from.")


IN_MEMORY_BYTES = 2**28
"""A larger array lies on disk."""
ROWS = 8192
"""Rows to fill in at once, so that no second array of the whole size is ever made."""


def room(shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
    """An array to be filled: a larger one in a file of the cache without a name, which is gone with the array.

    The system writes its pages there when memory runs short. It is in memory after all where the disk has no room for it.

    >>> room((2, 3)).shape, room((2, 3)).dtype.name
    ((2, 3), 'float32')
    """
    size = prod(shape) * np.dtype(dtype).itemsize
    if size > IN_MEMORY_BYTES:
        try:
            cache_root().mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=cache_root()) as file:
                os.posix_fallocate(file.fileno(), 0, size)  # else a full disk would be a bus error when a page is written
                return np.memmap(file, dtype, "r+", shape=shape).view(np.ndarray)
        except (OSError, AttributeError):  # no room, no right, no such call on this system
            pass
    return np.empty(shape, dtype)


def seen_from(beside: Path, place: Path) -> str:
    """``place`` as a path relative to the folder ``beside``; on another drive of Windows as it is.

    >>> seen_from(Path("/runs/a"), Path("/runs")), seen_from(Path("/runs"), Path("/runs"))
    ('..', '.')
    """
    try:
        return os.path.relpath(place, beside.resolve())
    except ValueError:
        return str(place)
