"""Images as a student sees them, resized once and kept on disk beside the embeddings, memory-mapped.

For sets that memory does not hold, or whose sizes differ: later epochs and trials read these and decode nothing. An entry of
the cache for each size and way to resize, its rows found by the names of the stored images: a larger part of a set makes only
what is new, a killed run goes on, what is damaged is named and made again. A pixel here is the one that the student would see
anyway, so nothing of a result depends on it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision

from distillscope import group, progress
from distillscope.config.study import Arm
from distillscope.data.preprocess import Preprocess
from distillscope.data.source import Source, as_rows, in_workers
from distillscope.data.splits import Splits
from distillscope.errors import UserError
from distillscope.files.folders import KEEP_GIB, cache_root
from distillscope.processes.workers import is_worker
from distillscope.teachers.cache import SHARD_ROWS, Entry, completed, filling, row_keys

SHARD_BYTES = 2**27
FLUSH_SECONDS = 30.0
AT_ONCE = 16
"""Images that a worker resizes before it answers."""


_entries: dict[Path, Entry] = {}
"""Those that this process has opened: what was verified once is not read again for every trial."""


def entry_of(preprocess: Preprocess) -> Entry:
    """Where images are kept as this preprocessing shows them."""
    size = preprocess.size
    described = {"kind": "images", "size": size, "interpolation": preprocess.interpolation,
                 "resized_by": f"torchvision {torchvision.__version__.partition('+')[0]}"}
    if preprocess.resize_mode != "shortest":
        described |= {"resize_mode": preprocess.resize_mode, "border": preprocess.border}
    key = hashlib.blake2b(json.dumps(described, sort_keys=True).encode(), digest_size=6).hexdigest()
    path = cache_root() / "images" / f"{size}px-{key}"
    return _entries.setdefault(path, Entry(path, described, kind="images", shape=(size, size, 3),
                                           most_rows=min(SHARD_ROWS, max(2, SHARD_BYTES // (3 * size * size)))))


def is_worth_it(source: Source, preprocess: Preprocess, arm: Arm) -> bool:
    """Whether the student's images could be kept, and reading them would save work: memory holds no array of them, and no view
    wants the image as it is stored."""
    return not sees_stored(arm) and source.pixels is None and preprocess.crop_fraction == 1


def sees_stored(arm: Arm) -> bool:
    """Whether the arm's view is of the image as it is stored."""
    return arm.view is not None and arm.view.settings.get("where", "source") != "input"


def refusal(source: Source, preprocess: Preprocess, most_gib: float) -> str:
    """Why the images of ``source`` are not kept, in words; "" where they are."""
    gib = len(source) * 3 * preprocess.size**2 / 2**30
    said = f"{len(source):,} images at {preprocess.size} px would take {gib:.2f} GiB"
    if gib > most_gib:
        return f"{said}, more than --keep-images {most_gib:g}"
    root = next(p for p in (cache_root(), *cache_root().absolute().parents) if p.is_dir())
    free = shutil.disk_usage(root).free / 2**30
    return f"{said}, and {free:.2f} GiB are free in {cache_root()}" if gib > 0.9 * free else ""


def planned(preprocess: Preprocess, splits: Splits, arm: Arm, most_gib: float) -> str:
    """What `seen_by` would do, in words; nothing is written."""
    source = splits.whole_train
    if not is_worth_it(source, preprocess, arm):
        return "none, since memory holds the images" if source.in_memory else "none, since each view is of the image as stored"
    if why := refusal(source, preprocess, most_gib):
        return f"none ({why}): decoded again in each epoch"
    entry = entry_of(preprocess)
    found = int((entry.load(verify=False).find(row_keys(source, perturbed=False)[1]) >= 0).sum())
    gib = len(source) * 3 * preprocess.size**2 / 2**30
    return f"{len(source):,} at {preprocess.size} px, {gib:.2f} GiB in {entry.path}, {found:,} there already"


def seen_by(preprocess: Preprocess, splits: Splits, arm: Arm, most_gib: float = KEEP_GIB) -> Splits:
    """The splits with train and validation as the student sees them, kept on disk; as they are where that is not worth it.

    Where the limit or the disk does not allow it a line says so, and images are decoded again in each epoch.
    """
    if not is_worth_it(splits.whole_train, preprocess, arm):
        return splits
    if why := group.agreed(lambda: refusal(splits.whole_train, preprocess, most_gib)):
        if most_gib > 0 and not is_worker():
            progress.say(f"{splits.title}: {why}: decoded again in each epoch")
        return splits
    try:
        train = stored(splits.train, preprocess, splits.title)
        validation = None if splits.validation is None else stored(splits.validation, preprocess, splits.title)
    except PermissionError as error:  # somebody else's cache
        progress.say(f"{splits.title}: no images are kept at {preprocess.size} px ({error.strerror} in {error.filename}): "
                     "decoded again in each epoch")
        return splits
    return replace(splits, train=train, validation=validation)


def keeper_for(source: Source, preprocess: Preprocess, arm: Arm, most_gib: float) -> ImageKeeper | None:
    """What keeps the images of ``source``, not yet looked at, at the student's size; None where `seen_by` would keep none."""
    worth = not source.in_memory and is_worth_it(source, preprocess, arm) and group.world() == 1
    return ImageKeeper(preprocess) if worth and not refusal(source, preprocess, most_gib) else None


class ImageKeeper:
    """A `Keeper` of images at a student's size: what it takes is written every half minute and whenever a file is full.

    A cache that may not be written keeps nothing; `seen_by` says so.
    """

    def __init__(self, model: Preprocess) -> None:
        self.model, self.entry = model, entry_of(model)
        self.entry.load(verify=False)
        self._taken: list[tuple[str, bytes, np.ndarray]] = []
        self._last = time.monotonic()

    def holds(self, name: bytes) -> bool:
        return self.entry.holds(name)

    def take(self, item: str, name: bytes, shown: np.ndarray) -> None:
        self._taken.append((item, name, shown))
        if len(self._taken) >= self.entry.most_rows or time.monotonic() - self._last > FLUSH_SECONDS:
            self.close()

    def close(self) -> None:
        if self._taken:
            with filling(self.entry) as may_write:
                first = {name: i for i, (_, name, _) in reversed(list(enumerate(self._taken))) if not self.entry.holds(name)}
                chosen = [self._taken[i] for i in sorted(first.values())]
                if may_write and chosen:
                    ids, names, images = zip(*chosen, strict=True)
                    self.entry.append(np.stack(images).transpose(0, 2, 3, 1), ids, names, as_rows(names))
        self._taken, self._last = [], time.monotonic()


def stored(source: Source, preprocess: Preprocess, title: str) -> Source:
    """The source with its images as ``preprocess`` shows them, (size, size, 3) uint8 each, read from the disk."""
    entry, keys = entry_of(preprocess), row_keys(source, perturbed=False)[1]

    def make(absent: np.ndarray) -> None:
        _fill(entry, source, preprocess, absent, keys, f"images {title}/{source.split} at {preprocess.size} px")

    with completed(entry, keys, make, verify=not is_worker()) as rows:
        fetch = _Rows([s.embeddings for s in entry.shards], entry.starts(rows), rows)
    return replace(source, fetch=fetch, look=None, encoded=None, kept=None, workers=0)


@dataclass
class _Rows:
    """Item i of rows that lie in several memory-mapped files."""

    paths: list[Path]
    starts: np.ndarray
    rows: np.ndarray

    def __post_init__(self) -> None:
        self.maps = [np.load(path, mmap_mode="r", allow_pickle=False) for path in self.paths]

    def __call__(self, index: int) -> np.ndarray:
        row = self.rows[index]
        shard = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.maps[shard][row - self.starts[shard]]


class _Resized(torch.utils.data.Dataset):
    def __init__(self, source: Source, preprocess: Preprocess) -> None:
        self.source, self.preprocess = source, preprocess

    def __len__(self) -> int:
        return len(self.source)

    def __getitems__(self, indices: list[int]) -> np.ndarray | UserError:
        """(b, size, size, 3) uint8."""
        try:
            return self.preprocess.shown(self.source.read(indices)).permute(0, 2, 3, 1).contiguous().numpy()
        except UserError as error:
            return error


def _fill(entry: Entry, source: Source, preprocess: Preprocess, absent: np.ndarray, keys: np.ndarray, label: str) -> None:
    """Resize what is absent, in the source's workers, and keep it every half minute and whenever a file is full."""
    batches = [absent[i : i + AT_ONCE] for i in range(0, len(absent), AT_ONCE)]
    own, done = group.share(batches), iter(group.whole(batches))
    pending: list[tuple[np.ndarray, np.ndarray]] = []
    last = time.monotonic()

    def flush() -> None:
        if pending:
            where, pixels = (np.concatenate(part) for part in zip(*pending, strict=True))
            pending.clear()
            entry.append(pixels, source.ids[where].tolist(), [k.tobytes() for k in keys[where]], keys[where])

    with progress.task(label, len(absent)) as advance:
        try:
            for where, pixels in zip(own, _made(_Resized(source, preprocess), own, source.workers), strict=True):
                pending.append((where, pixels))
                advance(next(done))
                if time.monotonic() - last > FLUSH_SECONDS or sum(len(w) for w, _ in pending) >= entry.most_rows:
                    flush()
                    last = time.monotonic()
        finally:
            flush()


def _made(items: _Resized, batches: list[np.ndarray], workers: int) -> Iterator[Any]:
    for pixels in in_workers(items, batches, workers) if workers else (items.__getitems__(b.tolist()) for b in batches):
        if isinstance(pixels, UserError):
            raise pixels
        yield pixels
