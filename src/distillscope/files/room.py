"""Room for arrays with a row an image: in memory while they are small, on disk where a million images would fill it."""

from __future__ import annotations

import os
import tempfile
from math import prod

import numpy as np

from distillscope.files.folders import cache_root

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
