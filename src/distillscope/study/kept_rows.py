"""Arrays in the cache with a checksum beside each: used where they are sound, else named and made again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from distillscope import progress
from distillscope.files.writing import checksum, write_atomic, write_text


def keep_rows(path: Path, make: Callable[[], np.ndarray], cheap: Callable[[], bool] = lambda: True) -> None:
    """Targets (n, d) float32 in ``path``, written with their checksum unless they are there and sound.

    Older ones without a checksum are compared with what they would be made as, where that is ``cheap``; else they are taken
    if they are finite.
    """
    if path.is_file():
        if mark_of(path).is_file():
            why = None if is_sound(path) else "checksum differs"
        else:
            why = _fault(path, make if cheap() else None)
        if why is None:
            if not mark_of(path).is_file():
                write_text(mark_of(path), checksum(path))
            return
        progress.say(f"cache {path}: damaged ({why}); made again")
    mark_of(path).unlink(missing_ok=True)
    rows = make()
    write_atomic(path, lambda p: np.save(p, np.ascontiguousarray(rows, dtype=np.float32), allow_pickle=False))
    write_text(mark_of(path), checksum(path))


def mark_of(path: Path) -> Path:
    """Where a file's checksum stands; written after it."""
    return path.with_name(f"{path.name}.checksum")


def is_sound(path: Path) -> bool:
    try:
        return mark_of(path).read_text(encoding="utf-8").strip() == checksum(path)
    except (FileNotFoundError, ValueError):
        return False


def _fault(path: Path, make: Callable[[], np.ndarray] | None) -> str | None:
    """What is wrong with targets that were written before checksums were."""
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        return str(error).splitlines()[0][:120]
    if make is None:
        return None if rows.ndim == 2 and rows.dtype == np.float32 and np.isfinite(rows).all() else "not finite float32 rows"
    wanted = make()
    if rows.shape != wanted.shape or rows.dtype != np.float32:
        return f"{rows.dtype} of shape {rows.shape}"
    # Made on other threads or another machine the last digits differ.
    size = float(np.sqrt(np.square(wanted).mean()))
    return None if np.allclose(rows, wanted, rtol=1e-3, atol=1e-3 * size) else "other values"
