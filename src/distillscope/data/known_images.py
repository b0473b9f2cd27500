"""What is known of images' files: the name of each decoded image by a hash of its file's bytes, kept in the cache.

Each way to decode has a folder, ``$DISTILLSCOPE_CACHE/known_images/KEY``, whose records never change. A file of them is called
after its checksum, so that a damaged one is known by its name; it is left out, and its images are decoded again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distillscope import progress
from distillscope.data.decode import DONE, Decoding, decoder_version
from distillscope.errors import UserError
from distillscope.files.folders import cache_root
from distillscope.files.writing import sweep, write_atomic, write_json

RECORD = np.dtype([("encoded", "V16"), ("content", "V16"), ("nbytes", "<u4"), ("more", "<u4"), ("done", "u1")])
"""Hash of the file's bytes; of the decoded image its `image_name`, its size and what was done: bits, ordered as ``DONE``, the
first eight in ``done`` and the others in ``more`` above its lowest. That one is set since there are others: in an older record,
where the two fields were one, it is not known whether they apply."""
MOST_FILES = 8
"""With more of them, all are joined into one."""


KeptRecord = tuple[bytes, bytes, int, int, int]


def record_of(encoded: bytes, content: bytes, nbytes: int, done: Mapping[str, int]) -> KeptRecord:
    """What is kept of one image, as ``RECORD`` has it."""
    bits = sum(1 << bit for bit, key in enumerate(DONE) if done.get(key))
    return encoded, content, nbytes, (bits >> 8) << 1 | 1, bits & 255


def done_of(record: Any) -> tuple[dict[str, int], bool]:
    """What was done to the image of a record, and whether the record says all of it."""
    bits = int(record["done"]) | int(record["more"]) >> 1 << 8
    return {key: 1 for bit, key in enumerate(DONE) if bits >> bit & 1}, bool(record["more"] & 1)


class Known(NamedTuple):
    """What a record says of an image: its name, its bytes, what decoding did, and whether that is all (see ``RECORD``)."""

    content: bytes
    nbytes: int
    done: dict[str, int]
    whole: bool


class KnownImages:
    """The records of one way to decode; ``root`` is the cache."""

    def __init__(self, decoding: Decoding, root: Path | None = None) -> None:
        self.described: dict[str, Any] = {**decoding.describe(), "decoder": decoder_version()}
        key = hashlib.blake2b(json.dumps(self.described, sort_keys=True).encode(), digest_size=6).hexdigest()
        self.folder = (root or cache_root()) / "known_images" / key
        self._read: set[Path] = set()
        self.records = self._load()

    def refresh(self) -> None:
        """Take in what was added since; only new files are read, as long as none were joined."""
        if (there := set(self._files())) != self._read:
            self.records = self._load(self.records if self._read <= there else None)

    def find(self, encoded: bytes) -> Known | None:
        """Of a file's hash: what is known of the image; None where it was never decoded."""
        at = int(np.searchsorted(self._heads, np.uint64(int.from_bytes(encoded[:8], "big"))))
        while at < len(self.records) and self.records["encoded"][at].tobytes()[:8] == encoded[:8]:
            record = self.records[at]
            if record["encoded"].tobytes() == encoded:
                return Known(record["content"].tobytes(), int(record["nbytes"]), *done_of(record))
            at += 1
        return None

    def add(self, records: Sequence[KeptRecord]) -> None:
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
            self.records = self._load()
            joined = self._write(self.records)
            for path in (p for p in found if p != joined):
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()

    def _write(self, records: np.ndarray) -> Path:
        content = np.unique(np.ascontiguousarray(records).view(f"V{RECORD.itemsize}")).tobytes()
        name = hashlib.blake2b(content, digest_size=16).hexdigest()
        return write_atomic(self.folder / f"{name}.records", lambda p: p.write_bytes(content))

    def _files(self) -> list[Path]:
        return sorted(p for p in self.folder.glob("*.records") if not p.name.startswith("."))

    def _load(self, held: np.ndarray | None = None) -> np.ndarray:
        """All records (n,), in the order of the files' hashes; ``held`` are those of the files that were read before."""
        parts = [np.empty(0, RECORD) if held is None else held]
        files = self._files()
        for path in files if held is None else (f for f in files if f not in self._read):
            with contextlib.suppress(FileNotFoundError):  # joined by another process meanwhile
                content = path.read_bytes()
                if hashlib.blake2b(content, digest_size=16).hexdigest() == path.stem and len(content) % RECORD.itemsize == 0:
                    parts.append(np.frombuffer(content, RECORD))
                else:
                    progress.say(f"cache {path}: damaged (checksum differs); its images are decoded again")
        whole, self._read = np.concatenate(parts), set(files)
        heads = np.frombuffer(whole["encoded"].tobytes(), ">u8")[::2]  # of 16 bytes the first 8
        order = np.argsort(heads, kind="stable")
        self._heads = heads[order].astype(np.uint64)
        return whole[order]
