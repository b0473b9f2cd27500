"""Sources embedded one after another, in one pass: each image is read, decoded, named and embedded once.

Worker processes read, decode and resize what the cache does not hold; this process embeds it. What the cache holds is read from
it, and an image whose file was seen before is not even decoded for its name.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from distillscope import group
from distillscope.data.looking import KnownFiles, Looks, Seen, known_files, load_in_memory, looked_at, note_of, whole_ones
from distillscope.data.preprocess import Preprocess
from distillscope.data.source import Source, as_rows
from distillscope.devices import kept_memory
from distillscope.files.folders import room
from distillscope.teachers.cache import FLUSH_SECONDS, Entry, entry_path, filling
from distillscope.teachers.encoder import Encoder, TeacherRows


@dataclass
class OnePass:
    """``embed(source)`` gives the rows of its whole images, and the source of those.

    With an ``entry`` of the cache, rows are taken from it and kept there. ``corrupt`` is "skip" to leave out what cannot be
    decoded. A model that takes images as they are stored, one that is no network, and images in memory are scanned
    first. ``notes`` is what was assumed, done and left out, over all sources.
    """

    encoder: TeacherRows
    entry: Entry | None = None
    workers: int = 0
    corrupt: str = "error"
    done: Counter[str] = field(default_factory=Counter)
    left_out: list[str] = field(default_factory=list)
    notes: str = ""
    known: KnownFiles | None = None

    @kept_memory()
    def embed(self, source: Source, advance: Callable[[int], None] = lambda count: None) -> tuple[np.ndarray, Source]:
        """(m, dim) float32 and its m items; ``advance`` is called with the number of images just done."""
        network = self.encoder.network
        if network is None or network.sees is None or source.in_memory:
            items = load_in_memory(source, self.corrupt, self.workers)
            rows = self.encoder.rows(items, workers=self.workers)
            advance(len(source))
            self.notes = items.note
            return rows, items
        with nullcontext(False) if self.entry is None else filling(self.entry) as keeps:
            one = _Pass(network, source, self.entry, keeps)
            if self.known and self.known.decoding == source.decoding:  # of a later source only what is new is read
                self.known.refresh()
            else:
                self.known = known_files(source)
            rows, items = one.run(Looks(source, [one], streams=True, known=self.known), self.workers, self.corrupt, advance)
        self.done.update(one.done)
        self.left_out += one.bad
        self.notes = note_of(source, self.done, self.left_out)
        return rows, items


class RowKeeper:
    """A `Keeper` of an encoder's rows for images that are scanned: they are embedded as they are decoded.

    What it takes is written every half minute and whenever a file is full; a cache that may not be written keeps nothing.
    """

    def __init__(self, network: Encoder) -> None:
        assert network.sees is not None
        self.network, self.model = network, network.sees
        self.entry = Entry(*entry_path(network, None))
        with filling(self.entry):
            self.holds(bytes(16))  # its names are sorted here once, not in every worker
        self._waiting: dict[bytes, tuple[str, np.ndarray]] = {}
        self._made: dict[bytes, tuple[str, np.ndarray]] = {}
        self._last = time.monotonic()

    def holds(self, name: bytes) -> bool:
        return self.entry.holds(name)

    def take(self, item: str, name: bytes, shown: np.ndarray) -> None:
        if name not in self._made:
            self._waiting.setdefault(name, (item, shown))
        if len(self._waiting) >= self.network.batch_size:
            self._encode()
        if len(self._made) >= self.entry.most_rows or time.monotonic() - self._last > FLUSH_SECONDS:
            self.close()

    def close(self) -> None:
        """Embed what waits for a batch, and write all that is new."""
        self._encode()
        if self._made:
            with filling(self.entry) as may_write:
                new = [name for name in self._made if not self.entry.holds(name)]
                if may_write and new:
                    ids, rows = zip(*(self._made[name] for name in new), strict=True)
                    self.entry.append(np.stack(rows), ids, new, as_rows(new))
        self._made.clear()
        self._last = time.monotonic()

    def _encode(self) -> None:
        if self._waiting:
            items, shown = zip(*self._waiting.values(), strict=True)
            rows = self.network.encode_seen(torch.from_numpy(np.stack(shown)), items)
            self._made.update(zip(self._waiting, zip(items, rows, strict=True), strict=True))
            self._waiting.clear()


def row_keeper(teacher: TeacherRows, source: Source) -> RowKeeper | None:
    """What embeds images of ``source`` while they are scanned; None where memory holds them, or no network sees them."""
    network = teacher.network
    worth = network is not None and network.sees is not None and not source.in_memory and group.world() == 1
    return RowKeeper(network) if worth and network else None


@dataclass
class _Pass:
    """One source on its way: the names of its images in their order, and the rows that are there."""

    network: Encoder
    source: Source
    entry: Entry | None
    keeps: bool
    done: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)
    good: list[int] = field(default_factory=list)
    names: list[bytes] = field(default_factory=list)
    waiting: list[tuple[int, np.ndarray]] = field(default_factory=list)
    first: dict[bytes, int] = field(default_factory=dict)
    unkept: list[int] = field(default_factory=list)
    kept_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.rows = room((len(self.source), self.network.dim))

    def run(self, looks: Looks, workers: int, corrupt: str, advance: Callable[[int], None]) -> tuple[np.ndarray, Source]:
        self.holds(bytes(16))  # the entry's names are sorted here once, not in every worker
        try:
            for seen in looks.remembered(looked_at(looks, workers)):
                if seen.broken:
                    self.bad.append(f"{self.source.ids[seen.index]} ({seen.broken})")
                else:
                    self.done.update(seen.done)
                    self._take(seen)
                advance(1)
            self._encode()
        finally:
            self._keep()
        items = replace(whole_ones(self.source, self.good, self.bad, corrupt), hashes=as_rows(self.names))
        self._fill_in()
        return self.rows[: len(items)], items

    @property
    def model(self) -> Preprocess:
        """How its workers show it images."""
        assert self.network.sees is not None
        return self.network.sees

    def holds(self, name: bytes) -> bool:
        """Whether the cache has the row of that image."""
        return self.entry is not None and self.entry.holds(name)

    def _take(self, seen: Seen) -> None:
        """The next image; it is embedded where its like was not before."""
        place = len(self.good)
        self.good.append(seen.index)
        self.names.append(seen.content)
        for shown in seen.shown:
            if shown is not None and seen.content not in self.first:
                self.first[seen.content] = place
                self.waiting.append((place, shown))
        if len(self.waiting) >= self.network.batch_size:
            self._encode()

    def _encode(self) -> None:
        if not self.waiting:
            return
        places = [place for place, _ in self.waiting]
        shown = torch.from_numpy(np.stack([shown for _, shown in self.waiting]))
        self.rows[places] = self.network.encode_seen(shown, self.source.ids[[self.good[p] for p in places]])
        self.unkept += places
        self.waiting.clear()
        full = self.entry is not None and len(self.unkept) >= self.entry.most_rows
        if full or time.monotonic() - self.kept_at > FLUSH_SECONDS:
            self._keep()

    def _keep(self) -> None:
        if self.entry and self.keeps and self.unkept:
            names = [self.names[p] for p in self.unkept]
            ids = self.source.ids[[self.good[p] for p in self.unkept]].tolist()
            self.entry.append(self.rows[self.unkept], ids, names, as_rows(names))
        self.unkept.clear()
        self.kept_at = time.monotonic()

    def _fill_in(self) -> None:
        """The rows of images that are twice there, and of those that the cache held."""
        place = np.array([self.first.get(name, -1) for name in self.names])
        again = np.flatnonzero((place >= 0) & (place != np.arange(len(place))))
        self.rows[again] = self.rows[place[again]]
        held = np.flatnonzero(place < 0)
        if self.entry and len(held):
            self.rows[held] = self.entry.gather(self.entry.find(as_rows(self.names[p] for p in held)))
