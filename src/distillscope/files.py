"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distillscope.errors import UserError


def write_atomic(path: Path, write: Callable[[Path], None]) -> Path:
    """Let ``write`` make a temporary file beside ``path``, flush it, then rename it: all of it or nothing."""
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except Exception as error:
        if _is_full(error, path.parent):
            raise UserError(str(path), "room on the disk", "a full disk",
                            "Free some space and repeat with --resume; what was finished is kept.") from None
        if isinstance(error, PermissionError):
            raise UserError(str(path), "a folder that can be written", "permission denied",
                            "Choose another --out or DISTILLSCOPE_CACHE.") from None
        if isinstance(error, (NotADirectoryError, FileExistsError)):
            raise UserError(str(path), "a folder to write to", "a file on the way there", "Choose another --out.") from None
        raise
    finally:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            temporary.unlink()
    return path


def _is_full(error: Exception, folder: Path) -> bool:
    """torch, safetensors and NumPy do not pass the system's error number on: then the room left tells."""
    if isinstance(error, UserError):
        return False
    if getattr(error, "errno", None) is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "No space left" in str(error) or (folder.is_dir() and shutil.disk_usage(folder).free < 2**20)


def write_text(path: Path, text: str) -> Path:
    """``text`` in UTF-8, atomically."""
    return write_atomic(path, lambda p: p.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> Path:
    """``value`` as indented JSON, atomically; NaN is refused, since JSON has none."""
    return write_text(path, json.dumps(value, indent=2, allow_nan=False, default=str) + "\n")
