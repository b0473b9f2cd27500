"""Reading rows in blocks, and an order of the rows that depends on their content alone.

Subsamples, folds, batches and jackknife groups are cut from that order, so that no result depends on the order in which
rows were stored; and a data set sorted by class does not make batches of one class.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from distillscope.draws import keyed_rng

BLOCK_VALUES = 2**22  # values in one float64 block: 32 MiB, past which larger blocks were not faster


class Stored:
    """Embeddings (n, d) left where they are: parts that follow one another, and perhaps a choice of their rows.

    ``parts`` (n_i, d) are arrays, memory-mapped or not; uint16 ones hold the bits of bfloat16, which NumPy lacks.
    ``stored[rows]``, with a slice or row numbers, reads these rows alone; ``chosen`` are the row numbers that count.

    >>> stored = Stored([np.zeros((2, 3)), np.ones((2, 3))]).take([3, 0])
    >>> stored.shape, stored[1:].tolist()
    ((2, 3), [[0.0, 0.0, 0.0]])
    """

    ndim = 2

    def __init__(self, parts: Sequence[np.ndarray], chosen: np.ndarray | None = None) -> None:
        self.parts, self.chosen = tuple(parts), chosen
        self.starts = np.cumsum([0, *(len(p) for p in self.parts)])
        self.dtype = np.result_type(*(np.float32 if p.dtype == np.uint16 else p.dtype for p in self.parts))
        self.shape = (int(self.starts[-1]) if chosen is None else len(chosen), self.parts[0].shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, index: np.ndarray) -> Stored:
        """The rows of ``index``, not read yet."""
        index = np.asarray(index)
        return Stored(self.parts, index if self.chosen is None else self.chosen[index])

    def __getitem__(self, index: slice | np.ndarray) -> np.ndarray:
        places = list(zip(self.parts, self.starts, strict=False))
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if self.chosen is None and step == 1:
                pieces = [_values(part[max(start - at, 0) : stop - at])
                          for part, at in places if at < stop and at + len(part) > start]
                return pieces[0] if len(pieces) == 1 else np.concatenate([np.empty((0, self.shape[1]), self.dtype), *pieces])
            index = np.arange(start, stop, step)
        index = np.asarray(index)
        numbers = index if self.chosen is None else self.chosen[index]
        if len(places) == 1:
            return _values(self.parts[0][numbers])
        out = np.empty((len(numbers), self.shape[1]), self.dtype)
        for part, at in places:
            here = np.flatnonzero((numbers >= at) & (numbers < at + len(part)))
            out[here] = _values(part[numbers[here] - at])
        return out

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)


def _values(part: np.ndarray) -> np.ndarray:
    """Floats, where ``part`` may hold the bits of bfloat16: the upper half of a float32's."""
    return (part.astype(np.uint32) << np.uint32(16)).view(np.float32) if part.dtype == np.uint16 else part


class Rows:
    """Embeddings (n, d) of any float dtype, in memory, memory-mapped or stored in parts, read as float64 blocks.

    ``normalize="l2"`` scales each row to unit norm as it is read.
    """

    def __init__(self, z: np.ndarray | Stored, normalize: str | None = None) -> None:
        self.z, self.normalize = z, normalize

    @property
    def count(self) -> int:
        return self.z.shape[0]

    @property
    def dim(self) -> int:
        return self.z.shape[1]

    def block_rows(self) -> int:
        """Rows in a block."""
        return max(64, min(8192, BLOCK_VALUES // self.dim))

    def take(self, index: np.ndarray | slice) -> np.ndarray:
        """The rows of ``index`` in float64, normalised where asked."""
        block = np.asarray(self.z[index], np.float64)
        return unit(block) if self.normalize == "l2" else block

    def blocks(self, size: int | None = None) -> Iterator[tuple[slice, np.ndarray]]:
        """Consecutive blocks and where they are."""
        size = size or self.block_rows()
        for start in range(0, self.count, size):
            where = slice(start, min(start + size, self.count))
            yield where, self.take(where)


def unit(z: np.ndarray) -> np.ndarray:
    """``z`` with rows of unit norm; a row of zeros stays zero."""
    norm = np.linalg.norm(z, axis=1, keepdims=True)
    return z / np.where(norm > 0, norm, 1)


def row_keys(z: np.ndarray, seed: int = 0) -> np.ndarray:
    """A 64-bit hash of each row of ``z`` (n, d): multilinear hashing of the float64 bits with odd random constants.

    The same values in float16 and in float64 have the same key.
    """
    bits = np.ascontiguousarray(z, np.float64) + 0.0  # + 0.0: minus zero and zero are one value
    constants = keyed_rng(seed, "rows", z.shape[1]).integers(0, 2**64, size=z.shape[1], dtype=np.uint64) | np.uint64(1)
    words = bits.view(np.uint64)
    words ^= words >> np.uint64(29)  # the low half of a float16's float64 bits is all zeros
    return words @ constants


def content_order(keys: np.ndarray) -> np.ndarray:
    """Positions of the rows in the order of their keys; rows with one key keep their order."""
    mixed = keys * np.uint64(0x9E3779B97F4A7C15)  # spreads keys of nearly equal rows
    return np.argsort(mixed ^ (mixed >> np.uint64(32)), kind="stable")


@dataclass(frozen=True)
class Scan:
    """One pass over the rows: their content keys, and what is wrong with them."""

    keys: np.ndarray
    bad_values: int
    first_bad_row: int
    zero_rows: int
    first_zero_row: int


def scan(rows: Rows, seed: int = 0) -> Scan:
    """Keys of all rows, the count of values that are NaN or infinite, and of rows that are all zeros."""
    keys = np.empty(rows.count, np.uint64)
    bad = np.zeros(rows.count, np.int64)
    zero = np.zeros(rows.count, bool)
    plain = Rows(rows.z)  # as stored: normalising is no part of the content
    for where, block in plain.blocks(max(16, 2**18 // rows.dim)):  # small blocks stay in cache, which doubles the speed
        keys[where] = row_keys(block, seed)
        energy = np.einsum("ij,ij->i", block, block)
        if not np.isfinite(energy).all():
            bad[where] = (~np.isfinite(block)).sum(axis=1)
        if not energy.all():
            zero[where] = ~block.any(axis=1)
    return Scan(keys, int(bad.sum()), int(np.argmax(bad > 0)), int(zero.sum()), int(np.argmax(zero)))
