"""Opening files that may be gzipped, without being filled by one that unpacks to more than embeddings do."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import IO, Any

from distillscope.errors import UserError

MOST_TIMES = 200
ALWAYS = 2**26
"""Bytes that may come out of any file."""


def opened(path: Path, where: str) -> IO[bytes]:
    """The bytes of a file; those of a .gz unpacked, up to 200 times as many as it has, or 64 MiB."""
    if path.suffix.lower() != ".gz":
        return open(path, "rb")
    return io.BufferedReader(_Bounded(path, where), 2**20)


class _Bounded(io.RawIOBase):
    def __init__(self, path: Path, where: str) -> None:
        self.inner, self.where = gzip.open(path, "rb"), where  # noqa: SIM115 - closed by `close`
        self.left = max(ALWAYS, MOST_TIMES * path.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self.inner.readinto(buffer)
        self.left -= count
        if self.left < 0:
            raise UserError(self.where, "a table that was packed",
                            f"one that unpacks to over {MOST_TIMES} times its size", "Unpack it by hand.")
        return count

    def close(self) -> None:
        self.inner.close()
        super().close()
