"""What was found when files were decoded, by a hash of their bytes: a file seen once is not decoded again for its name.

One folder for each way to decode, ``$DISTILLSCOPE_CACHE/known_images/KEY``, whose records are never changed. A file of them is
called after its checksum, so that a damaged one is known by its name; it is left out, and its images are decoded again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distillscope import progress
from distillscope.data.decode import DONE, Decoding, decoder_version
from distillscope.errors import UserError
from distillscope.files.folders import cache_root
from distillscope.files.writing import sweep, write_atomic, write_json

RECORD = np.dtype([("encoded", "V16"), ("content", "V16"), ("nbytes", "<i8"), ("done", "u1")])
"""Hash of the file's bytes; of the decoded image its `content_hash`, its size and what was done (bits, ordered as ``DONE``)."""
MOST_FILES = 8
"""With more of them, all are joined into one."""


def encoded_hash(encoded: bytes) -> bytes:
    """16 bytes that name a file's content."""
    return hashlib.blake2b(encoded, digest_size=16).digest()


def record_of(encoded: bytes, content: bytes, nbytes: int, done: Mapping[str, int]) -> tuple[bytes, bytes, int, int]:
    """What is kept of one image, as ``RECORD`` has it."""
    return encoded, content, nbytes, sum(1 << bit for bit, key in enumerate(DONE) if done.get(key))


class KnownImages:
    """The records of one way to decode; ``root`` is the cache."""

    def __init__(self, decoding: Decoding, root: Path | None = None) -> None:
        self.described: dict[str, Any] = {**decoding.describe(), "decoder": decoder_version()}
        key = hashlib.blake2b(json.dumps(self.described, sort_keys=True).encode(), digest_size=6).hexdigest()
        self.folder = (root or cache_root()) / "known_images" / key
        self.records = self._load()

    def find(self, encoded: bytes) -> tuple[bytes, int, dict[str, int]] | None:
        """Of a file's hash: the image's name, its bytes and what decoding did; None where it was never decoded."""
        at = int(np.searchsorted(self._heads, np.uint64(int.from_bytes(encoded[:8], "big"))))
        while at < len(self.records) and self.records["encoded"][at].tobytes()[:8] == encoded[:8]:
            record = self.records[at]
            if record["encoded"].tobytes() == encoded:
                done = {key: 1 for bit, key in enumerate(DONE) if int(record["done"]) >> bit & 1}
                return record["content"].tobytes(), int(record["nbytes"]), done
            at += 1
        return None

    def add(self, records: Sequence[tuple[bytes, bytes, int, int]]) -> None:
        """Keep more records; two processes may do so at once. Where the cache cannot be written, that is said and no more."""
        if not records:
            return
        try:
            self._add(np.array(records, RECORD))
        except (UserError, PermissionError) as error:
            progress.say(f"{error} (what was found of images is not kept: they are decoded again next time)")

    def _add(self, records: np.ndarray) -> None:
        sweep(self.folder)
        if not (self.folder / "entry.json").is_file():
            write_json(self.folder / "entry.json", self.described)
        self._write(records)
        if len(found := self._files()) > MOST_FILES:
            joined = self._write(self._load())
            for path in (p for p in found if p != joined):
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()

    def _write(self, records: np.ndarray) -> Path:
        content = np.unique(np.ascontiguousarray(records).view(f"V{RECORD.itemsize}")).tobytes()
        name = hashlib.blake2b(content, digest_size=16).hexdigest()
        return write_atomic(self.folder / f"{name}.records", lambda p: p.write_bytes(content))

    def _files(self) -> list[Path]:
        return sorted(p for p in self.folder.glob("*.records") if not p.name.startswith("."))

    def _load(self) -> np.ndarray:
        """All records (n,), in the order of the files' hashes."""
        parts = [np.empty(0, RECORD)]
        for path in self._files():
            with contextlib.suppress(FileNotFoundError):  # joined by another process meanwhile
                content = path.read_bytes()
                if hashlib.blake2b(content, digest_size=16).hexdigest() == path.stem and len(content) % RECORD.itemsize == 0:
                    parts.append(np.frombuffer(content, RECORD))
                else:
                    progress.say(f"cache {path}: damaged (checksum differs); its images are decoded again")
        whole = np.concatenate(parts)
        heads = np.frombuffer(whole["encoded"].tobytes(), ">u8")[::2]  # of 16 bytes the first 8
        order = np.argsort(heads, kind="stable")
        self._heads = heads[order].astype(np.uint64)
        return whole[order]
