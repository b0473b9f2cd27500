"""A split in pieces, each read, embedded and written by itself: a shard each, or blocks of items."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from distillscope.config.parts import Dataset
from distillscope.data.remote import shards_at
from distillscope.data.source import Source, stratified
from distillscope.data.splits import named_split
from distillscope.data.webdataset import shards_of
from distillscope.errors import UserError
from distillscope.files.folders import state_of
from distillscope.files.remote import RemoteFile, is_url

MOST_ROWS = 65_536
"""Items of a block."""


@dataclass(frozen=True)
class Pieces:
    """``load(i)`` gives piece i of ``count``, not yet looked at; ``items`` of all, where that is known before they are read.

    ``mark`` names what was listed: another one means other images, or in another order. ``states(i)`` are of the files that
    piece i is read from, None for what is not known without reading it.
    """

    title: str
    count: int
    load: Callable[[int], Source]
    items: int | None
    mark: str
    states: Callable[[int], list[str | None]]

    def stored(self, number: int) -> str:
        """Another one means that files of that piece have changed; "" where that cannot be known."""
        found = self.states(number)
        return "" if not found or None in found else _mark([str(state) for state in found])

    def part(self, index: int, number: int) -> range:
        """Which of them part ``index`` of ``number`` has, from 0: neighbours, as many as another has or one more."""
        return range(index * self.count // number, (index + 1) * self.count // number)


def pieces_of(data: Dataset, split: str, limit: int | None = None, count: int = 1) -> Pieces:
    """The split in at least ``count`` pieces where it has as many items.

    Shards of a WebDataset, and parquet files at a URL, are pieces as they are; a ``limit`` is drawn from the whole.
    """
    shards = _shards(data, split) if limit is None else None
    if shards is not None:
        return Pieces(f"{data.title}/{split}", len(shards), lambda i: _of_shard(data, split, str(shards[i])), None,
                      _mark([shard.name for shard in shards]), lambda i: [_state(shards[i])])
    source = named_split(data.name, data.settings, split)
    if limit is not None and limit < len(source):
        source = source.take(stratified(source, limit, "limit"))
    number = min(len(source), max(count, -(-len(source) // MOST_ROWS)))
    edges = [i * len(source) // number for i in range(number + 1)]
    state = source.file_state
    return Pieces(f"{source.name}/{source.split}", number, lambda i: source.take(np.arange(edges[i], edges[i + 1])),
                  len(source), _mark(source.ids.tolist()),
                  lambda i: [] if state is None else [state(item) for item in range(edges[i], edges[i + 1])])


def _shards(data: Dataset, split: str) -> Sequence[Path | RemoteFile] | None:
    """The shards that the split consists of, in their order; None where it is to be listed item by item."""
    if data.name == "remote":
        return shards_at(str(data.settings["path"]), split)
    found = shards_of(data.settings, split) if data.name == "webdataset" else None
    return None if found is None else [*map(Path, found)]


def _state(shard: Path | RemoteFile) -> str | None:
    return state_of(shard) if isinstance(shard, Path) else shard.state


def _of_shard(data: Dataset, split: str, shard: str) -> Source:
    """One shard; its classes by their names, since each shard numbers its own."""
    if not is_url(shard) and not Path(shard).expanduser().is_file():
        raise UserError(shard, "a shard that stays while this runs", "none there any more",
                        "Put it back and repeat the command: what was finished is kept.")
    source = named_split(data.name, {**data.settings, "path": shard}, split)
    if source.labels is None or source.class_names is None:
        return source
    return replace(source, labels=np.array(source.class_names)[source.labels], class_names=None)


def _mark(names: Sequence[Any]) -> str:
    return hashlib.blake2b("\n".join(names).encode(), digest_size=8).hexdigest()


def part_of(shard: str) -> tuple[int, int]:
    """Which part of how many "i/n" names, the first as 0.

    >>> part_of("1/4"), part_of("4/4")
    ((0, 4), (3, 4))
    """
    index, _, number = shard.partition("/")
    if not (index.isdecimal() and number.isdecimal() and 1 <= int(index) <= int(number)):
        raise UserError("--shard", "i/n, the i-th of n parts, from 1/n to n/n", f"'{shard}'", "For instance --shard 3/8.")
    return int(index) - 1, int(number)
