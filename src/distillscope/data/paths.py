"""Which files are images, which are passed over, and how a file's bytes are read."""

from __future__ import annotations

import functools
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from distillscope.data.decode import BrokenImage, known_formats

MAX_FILE_BYTES = 2**30
"""A larger file is no photo: it is named as broken before it is read."""

_ALWAYS = {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".ppm",
           ".pgm", ".pbm", ".pnm"}
_WHERE_PILLOW_CAN = {".avif", ".heic", ".heif", ".jp2", ".j2k", ".jpx", ".qoi"}
_NO_NEWS = {"thumbs.db", "desktop.ini", "icon\r"}
_FOREIGN_FOLDERS = {"__macosx", "@eadir", "$recycle.bin"}


@functools.cache
def suffixes() -> frozenset[str]:
    """What an image's name ends in, in any case: one set for every source. .avif, .heic, .jp2 where Pillow can read them."""
    from PIL import Image

    known_formats()  # registers what it finds
    return frozenset(_ALWAYS | (_WHERE_PILLOW_CAN & Image.registered_extensions().keys()))


def is_image(name: str) -> bool:
    """Whether a file of that name is taken for an image.

    >>> is_image("a/IMG_1.JPG"), is_image("a/notes.txt")
    (True, False)
    """
    return PurePosixPath(name).suffix.lower() in suffixes()


def passed_over(inner: str | Path) -> bool:
    """Whether a path *inside* a data set is no part of it: hidden, or left there by a system.

    >>> [passed_over(p) for p in ("cat/1.png", "./cat/1.png", ".ipynb_checkpoints/1.png", "cat/._1.png", "__MACOSX/cat/1.png")]
    [False, False, True, True, True]
    """
    parts = [p for p in PurePosixPath(str(inner).replace(os.sep, "/")).parts if p not in (".", "..", "/")]
    hidden = any(p.startswith(".") or p.lower() in _FOREIGN_FOLDERS for p in parts)
    return hidden or (bool(parts) and parts[-1].lower() in _NO_NEWS)


def folders_in(folder: Path) -> list[Path]:
    """The folders right inside, by name, without those that are passed over."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and not passed_over(p.name))


def files_in(folder: Path) -> Iterator[Path]:
    """Every file below ``folder``, linked folders too (each folder once, so that a circle of links ends)."""
    seen: set[tuple[int, int]] = set()
    for here, inner, names in os.walk(folder, followlinks=True):
        status = os.stat(here)
        if (status.st_dev, status.st_ino) in seen:
            inner.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        inner[:] = sorted(name for name in inner if not passed_over(name))
        yield from (Path(here) / name for name in sorted(names) if not passed_over(name))


def other_kinds(files: Iterable[Path]) -> str:
    """What lies among images and is none, for a note: "5 files of other kinds passed over (.heic 3, .txt 2)"; "" if nothing."""
    counts = Counter(f.suffix.lower() or "no suffix" for f in files)
    listed = ", ".join(f"{suffix} {count:,}" for suffix, count in counts.most_common(4))
    more = f", {len(counts) - 4} more" if len(counts) > 4 else ""
    total = counts.total()
    return f"{total:,} file{'s' if total > 1 else ''} of other kinds passed over ({listed}{more})" if total else ""


def read_file(path: Path, inside: Path | None = None) -> bytes:
    """The bytes of a regular file of at most ``MAX_FILE_BYTES``; no device, no pipe, and with ``inside`` nothing elsewhere.

    Raises ``BrokenImage``, which says what is there instead.
    """
    try:
        if inside is not None and not path.resolve().is_relative_to(inside.resolve()):
            raise BrokenImage(f"a path outside {inside}: {path}")
        try:
            status = path.stat()
        except FileNotFoundError:
            link = f"a link to nothing ({os.readlink(path)})" if path.is_symlink() else ""
            raise BrokenImage(link or f"no such file: {path}") from None
        if not stat.S_ISREG(status.st_mode):
            raise BrokenImage(f"no regular file: {path}")
        if status.st_size > MAX_FILE_BYTES:
            raise BrokenImage(f"{status.st_size:,} bytes, more than the {MAX_FILE_BYTES:,} that are read")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise error if isinstance(error, BrokenImage) else BrokenImage(f"{type(error).__name__}: {error}") from None
