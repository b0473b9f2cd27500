"""The cache: each (image, view) goes through a teacher once, ever.

One folder for each (weights, preprocessing, precision, view or noise with its seed), in clip-retrieval's layout::

    $DISTILLSCOPE_CACHE/embeddings/efficientnet_lite0-1f2e3d4c5b6a/
      entry.json                   what was hashed into the name
      img_emb/img_emb_0.npy        (n, d) float32, memory-mapped
      metadata/metadata_0.parquet  image_path (the item's id), image_hash, key; checksums of the .npy and the keys. Written last

A row is found by the content of its image (and, under a view or noise, its id, since the draw depends on it), so a
larger part of the same data, or a copy of it elsewhere, embeds only what is new. Rows are written every half minute
and joined into few large shards at the end: a killed run loses at most that half minute. What is damaged is named and made
again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import BaseFileLock, Timeout

from distillscope import group, progress
from distillscope.data.preprocess import coarse_for
from distillscope.data.source import Source, as_rows, read_batches
from distillscope.devices import kept_memory
from distillscope.errors import UserError
from distillscope.files import locks
from distillscope.files.folders import ROWS, cache_root, room
from distillscope.files.writing import checksum, sweep, write_atomic, write_json

if TYPE_CHECKING:  # an Encoder keeps its rows here, so its file imports this one
    from distillscope.teachers.encoder import Encoder, Perturbation

FLUSH_SECONDS = 30.0
SHARD_ROWS = 65_536
MOST_SMALL = 16
"""With more small files than that, `filling` joins them."""


def entry_path(encoder: Encoder, perturbation: Perturbation | None, root: Path | None = None) -> tuple[Path, dict[str, Any]]:
    """The folder of an entry, and what its name was hashed from."""
    described = {**encoder.describe(), "perturbation": perturbation.describe() if perturbation else None}
    if encoder.rescales(perturbation):  # older entries hold other strengths
        described["noise"] = "in pixels"
    key = hashlib.blake2b(json.dumps(described, sort_keys=True, default=str).encode(), digest_size=6).hexdigest()
    slug = re.sub(r"[^A-Za-z0-9_.-]+", "_", encoder.name)[-60:]
    return (root or cache_root()) / "embeddings" / f"{slug}-{key}", described


@dataclass
class Shard:
    """One pair of files; ``keys`` (n, 16) uint8 names the rows."""

    embeddings: Path
    metadata: Path
    keys: np.ndarray

    def rows(self) -> np.ndarray:
        """(n, d) float32, memory-mapped."""
        return np.load(self.embeddings, mmap_mode="r", allow_pickle=False)


class Entry:
    """The rows that one encoder gave under one perturbation; or, with a ``shape``, arrays of that shape.

    ``kind`` is what the folder and the files of rows are called, ``most_rows`` how many of them a file holds about.
    """

    def __init__(self, path: Path, described: dict[str, Any], *, kind: str = "img_emb", shape: tuple[int, ...] | None = None,
                 most_rows: int = SHARD_ROWS) -> None:
        self.path, self.described, self.kind, self.most_rows = path, described, kind, most_rows
        self.shape = (described["dim"],) if shape is None else shape
        self.shards: list[Shard] = []
        self._sorted: tuple[np.ndarray, ...] | None = None
        self._verified: set[Path] = set()
        self._read_before: dict[Path, tuple[tuple[int, int], np.ndarray]] = {}

    def load(self, verify: bool = True) -> Entry:
        """Read the index of every complete shard; one whose checksum is off is named, removed and made again.

        Without ``verify`` the rows themselves are not read: for a process whose parent has done so.
        """
        self.shards, self._sorted = [], None
        for metadata in self._indices():
            embeddings = self._rows_of(metadata)
            try:
                self.shards.append(self._read(metadata, embeddings, verify))
            except PermissionError:
                raise
            except (OSError, ValueError, KeyError, TypeError, EOFError, pa.ArrowException) as error:
                progress.say(f"cache {embeddings}: damaged ({str(error).splitlines()[0][:120]}); its rows are made again")
                metadata.unlink(missing_ok=True)
                embeddings.unlink(missing_ok=True)
        return self

    def _indices(self) -> list[Path]:
        found = [(number, m) for m in self.path.glob("metadata/metadata_*.parquet") if (number := _number(m)) is not None]
        return [metadata for _, metadata in sorted(found)]

    def _rows_of(self, metadata: Path) -> Path:
        return self.path / self.kind / f"{self.kind}_{_number(metadata)}.npy"

    def _read(self, metadata: Path, embeddings: Path, verify: bool) -> Shard:
        """One shard, whose index and rows must be those that were written together; an index is read once."""
        status = metadata.stat()
        mark, keys = self._read_before.get(metadata, (None, None))
        if keys is None or mark != (status.st_ino, status.st_mtime_ns):
            cells = pq.read_table(metadata, columns=["key"])["key"].to_pylist()
            keys = np.frombuffer(b"".join(cells), dtype=np.uint8).reshape(-1, 16)
            self._read_before[metadata] = (status.st_ino, status.st_mtime_ns), keys
            self._verified.discard(metadata)
        if verify and metadata not in self._verified:
            marks = pq.read_schema(metadata).metadata or {}
            if checksum(embeddings) != marks.get(b"checksum", b"").decode():
                raise ValueError("checksum differs")
            if marks.get(b"index", _mark(keys)) != _mark(keys):  # older ones have none
                raise ValueError("the index's checksum differs")
            self._verified.add(metadata)
        shard = Shard(embeddings, metadata, keys)
        if shard.rows().shape != (len(keys), *self.shape):
            raise ValueError(f"an index of {len(keys)} rows beside an array of shape {shard.rows().shape}")
        return shard

    def sweep(self) -> None:
        """Remove what a kill left: temporary files, and embeddings whose index was never written. For who holds the lock."""
        sweep(self.path, alone=True)
        known = {self._rows_of(m) for m in self._indices()}
        for path in self.path.glob(f"{self.kind}/{self.kind}_*.npy"):
            if path not in known:
                path.unlink(missing_ok=True)

    def find(self, keys: np.ndarray) -> np.ndarray:
        """For each of ``keys`` (m, 16): its row over all shards, or -1."""
        if not self.shards:
            return np.full(len(keys), -1)
        if self._sorted is None:
            have = np.concatenate([s.keys for s in self.shards])
            heads = np.ascontiguousarray(have[:, :8]).view(np.uint64).ravel()
            order = np.argsort(heads, kind="stable")
            self._sorted = have, heads[order], order
        have, heads, order = self._sorted
        wanted = np.ascontiguousarray(keys[:, :8]).view(np.uint64).ravel()
        at = order[np.minimum(np.searchsorted(heads, wanted), len(order) - 1)]
        return np.where((have[at] == keys).all(axis=1), at, -1)

    def holds(self, name: bytes) -> bool:
        """Whether there is a row of that key."""
        return bool(self.find(as_rows([name]))[0] >= 0)

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """(m, d) float32 for row numbers as `find` gives them; a row that is gone, as in a cache being deleted, is refused."""
        starts = self.starts(rows)
        out, maps = room((len(rows), self.described["dim"])), [s.rows() for s in self.shards]
        for first in range(0, len(rows), ROWS):
            block = rows[first : first + ROWS]
            of_shard = np.searchsorted(starts, block, side="right") - 1
            for shard in np.unique(of_shard):
                here = np.flatnonzero(of_shard == shard)
                out[first + here] = maps[shard][block[here] - starts[shard]]
        return out

    def starts(self, rows: np.ndarray) -> np.ndarray:
        """The row number that each shard begins with, and how many there are in all; ``rows`` must be among them."""
        starts = np.cumsum([0] + [len(s.keys) for s in self.shards])
        if gone := int(((rows < 0) | (rows >= starts[-1])).sum()):
            raise UserError(str(self.path), "rows that stay while this runs",
                            f"{gone} of {len(rows)} deleted or damaged meanwhile",
                            "Repeat the command, and leave the cache alone.")
        return starts

    def append(self, rows: np.ndarray, ids: Sequence[str], hashes: Sequence[bytes], keys: np.ndarray) -> None:
        """Write one shard: the embeddings first, then the metadata, whose existence makes them count."""
        if not (self.path / "entry.json").exists():
            write_json(self.path / "entry.json", self.described)
        (self.path / "metadata").mkdir(exist_ok=True)
        (self.path / self.kind).mkdir(exist_ok=True)
        there = self.path.glob(f"{self.kind}/{self.kind}_*.npy")
        number = max([-1, *(n for p in there if (n := _number(p)) is not None)]) + 1
        while True:  # claim the number, for several processes may write one entry
            embeddings = self.path / self.kind / f"{self.kind}_{number}.npy"
            try:
                os.close(os.open(embeddings, os.O_CREAT | os.O_EXCL))
                break
            except FileExistsError:
                number += 1
        write_atomic(embeddings, lambda p: np.save(p, rows, allow_pickle=False))
        table = pa.table({"image_path": list(ids), "image_hash": [h.hex() for h in hashes], "key": [k.tobytes() for k in keys]})
        table = table.replace_schema_metadata({"checksum": checksum(embeddings), "index": _mark(keys)})
        metadata = self.path / "metadata" / f"metadata_{number}.parquet"
        write_atomic(metadata, lambda p: pq.write_table(table, p))
        self._verified.add(metadata)

    def join(self) -> None:
        """Join small neighbouring shards into few large ones."""
        self.load()
        small = [s for s in self.shards if len(s.keys) < self.most_rows // 2]
        while len(small) > 1:
            group, rows = [], 0
            while small and (rows < self.most_rows):
                rows += len(small[0].keys)
                group.append(small.pop(0))
            tables = [pq.read_table(s.metadata) for s in group]
            joined = pa.concat_tables([t.replace_schema_metadata(None) for t in tables])
            keys = np.concatenate([s.keys for s in group])
            names = np.ascontiguousarray(keys).view("V16").ravel()
            first = np.sort(np.unique(names, return_index=True)[1])  # a kill may leave a row twice
            joined = joined.take(first)
            self.append(np.concatenate([s.rows() for s in group])[first], joined["image_path"].to_pylist(),
                        [bytes.fromhex(h) for h in joined["image_hash"].to_pylist()], keys[first])
            for shard in group:
                shard.metadata.unlink()
                shard.embeddings.unlink()
        self.load()


def row_keys(source: Source, perturbed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Content hash of each image, and the key of its row: (n, 16) uint8 both."""
    hashes = source.names()
    if not perturbed:
        return hashes, hashes
    named = zip(hashes, source.ids, strict=True)
    return hashes, as_rows(hashlib.blake2b(h.tobytes() + i.encode(), digest_size=16).digest() for h, i in named)


def missing_rows(encoder: Encoder, source: Source, perturbation: Perturbation | None = None, root: Path | None = None) -> int:
    """How many images of ``source`` the cache does not hold yet (for a plan; nothing is embedded)."""
    path, described = entry_path(encoder, perturbation, root)
    if not path.exists():
        return len(source)
    keys = row_keys(source, perturbation is not None)[1]
    return int((Entry(path, described).load().find(keys) < 0).sum())


def embed(encoder: Encoder, source: Source, perturbation: Perturbation | None = None, *, root: Path | None = None,
          workers: int = 0, label: str | None = None) -> np.ndarray:
    """Embeddings (n, dim) float32 of every item of ``source``, in its order, from the cache where it has them.

    Two processes that want the same entry: the second waits, then finds it; those of one launcher embed a part each.
    Interrupted, what was done is kept.
    """
    path, described = entry_path(encoder, perturbation, root)
    hashes, keys = row_keys(source, perturbation is not None)
    entry = Entry(path, described)

    def make(absent: np.ndarray) -> None:
        if coarse := coarse_for(encoder.preprocess, source.decoding):
            progress.say(f"teacher {encoder.name}: {coarse}")
        _embed_absent(encoder, source, perturbation, entry, absent, hashes, keys, workers, label)

    try:
        with completed(entry, keys, make) as rows:
            return entry.gather(rows)
    except PermissionError:  # somebody else's cache: what it has may be read
        rows = entry.load().find(keys) if path.is_dir() else np.array([-1])
        if (rows < 0).any():
            raise
        return entry.gather(rows)


@contextlib.contextmanager
def completed(entry: Entry, keys: np.ndarray, make: Callable[[np.ndarray], None], verify: bool = True) -> Iterator[np.ndarray]:
    """The row of each of ``keys`` (m, 16), as `Entry.find` gives it, while nobody else changes the entry.

    What it lacks is made first: ``make`` gets the absent items' places in ``keys``, each key once. Of the processes of a
    launcher the first holds the lock and says what is absent, and all make their share (`group.share`) of it. ``verify`` as of
    `Entry.load`.
    """
    locks_held: list[BaseFileLock] = []

    def lacking() -> np.ndarray:
        if entry.path not in _together:
            locks_held.append(locked(entry.path))
            entry.sweep()
        absent = np.flatnonzero(entry.load(verify).find(keys) < 0)
        # Two items with the same key (the same image twice) need one row.
        return np.sort(absent[np.unique(keys[absent].view("V16").ravel(), return_index=True)[1]]) if len(absent) else absent

    try:
        absent = group.agreed(lacking)
        if len(absent):
            make(absent)
            group.wait()
            group.agreed(entry.join if entry.path not in _together else entry.load)
        if group.rank():
            entry.load(verify=False)  # the first process has verified it
        yield entry.find(keys)
        group.wait()
    finally:
        for lock in locks_held:
            lock.release()


@kept_memory()
def _embed_absent(encoder, source, perturbation, entry, absent, hashes, keys, workers, label) -> None:
    batches = [absent[i : i + encoder.batch_size] for i in range(0, len(absent), encoder.batch_size)]
    done = iter(group.whole(batches))
    pending: list[tuple[np.ndarray, np.ndarray]] = []
    last = time.monotonic()

    def flush() -> None:
        nonlocal last
        if pending:
            where = np.concatenate([i for i, _ in pending])
            rows = np.concatenate([z for _, z in pending])
            pending.clear()
            entry.append(rows, source.ids[where].tolist(), [h.tobytes() for h in hashes[where]], keys[where])
        last = time.monotonic()

    with progress.task(label or f"teacher {source.name}/{source.split}", len(absent)) as advance:
        try:
            for indices, images in read_batches(source, group.share(batches), workers):
                pending.append((indices, encoder.encode(images, source.ids[indices], perturbation)))
                advance(next(done))
                if time.monotonic() - last > FLUSH_SECONDS or sum(len(i) for i, _ in pending) >= entry.most_rows:
                    flush()
        finally:
            flush()


@contextlib.contextmanager
def filling(entry: Entry) -> Iterator[bool]:
    """The entry, read and held by this process alone; whether it may be written: somebody else's cache may only be read."""
    if entry.path in _together:
        entry.load()
        yield True
        return
    try:
        lock = locked(entry.path)
    except PermissionError:
        entry.load()
        yield False
        return
    try:
        entry.sweep()
        entry.load()
        yield True
        if sum(len(s.keys) < entry.most_rows // 2 for s in entry.shards) > MOST_SMALL:
            entry.join()
    finally:
        lock.release()


_together: set[Path] = set()
"""Entries that the processes of a launcher hold together: each reads and appends, none sweeps or joins."""


@contextlib.contextmanager
def held_together(entry: Entry) -> Iterator[None]:
    """Within it each process of the launcher fills the entry by itself (`group.apart`), while nobody else may."""
    locks_held: list[BaseFileLock] = []

    def hold() -> None:
        locks_held.append(locked(entry.path))
        entry.sweep()

    try:
        group.agreed(hold)
    except PermissionError:  # somebody else's cache: each finds so
        yield
        return
    _together.add(entry.path)
    try:
        yield
        group.wait()
        group.agreed(entry.join)
    finally:
        _together.discard(entry.path)
        for lock in locks_held:
            lock.release()


def locked(path: Path) -> BaseFileLock:
    """The entry's lock, taken; a process that has to wait says so."""
    try:
        return locks.acquire(path / ".lock", timeout=1)
    except Timeout:
        progress.say(f"cache {path.name}: another process is filling it; waiting")
        return locks.acquire(path / ".lock")


def _number(path: Path) -> int | None:
    tail = path.stem.rsplit("_", 1)[-1]
    return int(tail) if tail.isascii() and tail.isdigit() else None


def _mark(keys: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(keys).tobytes(), digest_size=16).hexdigest().encode()
