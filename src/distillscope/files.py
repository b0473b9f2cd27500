"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import contextlib
import errno
import json
import os
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
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(str(path), "room on the disk", "a full disk",
                            "Free some space and repeat with --resume; what was finished is kept.") from None
        if isinstance(error, PermissionError):
            raise UserError(str(path), "a folder that can be written", "permission denied",
                            "Choose another --out or DISTILLSCOPE_CACHE.") from None
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
    return path


def write_text(path: Path, text: str) -> Path:
    """``text`` in UTF-8, atomically."""
    return write_atomic(path, lambda p: p.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> Path:
    """``value`` as indented JSON, atomically; NaN is refused, since JSON has none."""
    return write_text(path, json.dumps(value, indent=2, allow_nan=False, default=str) + "\n")
