"""What one pass over the rows tells: which repeat another, in what order to take them, their scale and their precision.

Subsamples, folds, batches and jackknife groups are cut from an order that depends on the rows' content alone, so that no
result depends on the order in which rows were stored; and a data set sorted by class does not make batches of one class.
Rows that repeat one another exactly are one item: they count once, and are never split over two folds.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from distillscope.draws import keyed_rng
from distillscope.measure.rows import Rows
from distillscope.measure.threads import over_blocks

MOST_EXPONENT = 100  # squares of squares of values up to 2^100 are far from the ends of float64, and so are sums of them


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
class Items:
    """Which rows are one item, in the order of their content.

    ``order`` (n,) are row numbers; rows that repeat one another follow one another in it. ``number`` (n,) is each row's item,
    counted along that order; ``first`` and ``keys`` are each item's first row and its key.

    >>> items = Items.of(row_keys(np.array([[1.0], [2.0], [1.0]])))
    >>> items.count, bool(items.number[0] == items.number[2]), len(items.first)
    (2, True, 2)
    """

    order: np.ndarray
    number: np.ndarray
    first: np.ndarray
    keys: np.ndarray

    @classmethod
    def of(cls, keys: np.ndarray) -> Items:
        """The items behind row keys (n,)."""
        order = content_order(keys)
        begins = np.ones(len(order), bool)
        begins[1:] = keys[order[1:]] != keys[order[:-1]]
        number = np.empty(len(order), np.intp)
        number[order] = np.cumsum(begins) - 1
        return cls(order, number, order[begins], keys[order[begins]])

    @property
    def count(self) -> int:
        return len(self.first)

    @property
    def repeated(self) -> bool:
        return self.count < len(self.order)

    def groups(self, num_groups: int) -> np.ndarray:
        """Group (n,) of each row: items that follow one another go to different groups, and an item is never split.

        Where rows repeat, the next item goes to the group with the fewest rows, which is the next group where none does.
        """
        if not self.repeated:
            return (self.number % num_groups).astype(np.uint8)
        group = np.empty(self.count, np.uint8)
        waiting = [(0, g) for g in range(num_groups)]
        for item, size in enumerate(np.bincount(self.number).tolist()):
            rows, chosen = waiting[0]
            group[item] = chosen
            heapq.heapreplace(waiting, (rows + size, chosen))
        return group[self.number]


@dataclass(frozen=True)
class Scan:
    """One pass over the rows: their content keys, what is wrong with them, their scale and their precision.

    ``exponent`` is what the values are multiplied by, as a power of two, before anything is squared: 0 but for values whose
    squares would overflow or vanish. ``precision`` is the coarsest of bfloat16, float16, float32 and float64 that holds every
    value: what they were rounded to, whatever they are stored in now.
    """

    keys: np.ndarray
    bad_values: int
    first_bad_row: int
    zero_rows: int
    first_zero_row: int
    exponent: int
    precision: str


def scan(rows: Rows, seed: int = 0) -> Scan:
    """What one pass over all rows, as they are stored, tells."""
    keys = np.empty(rows.count, np.uint64)
    bad = np.zeros(rows.count, np.int64)
    zero = np.zeros(rows.count, bool)
    fitting, stored = set(HOLDS), str(rows.z.dtype)
    plain = Rows(rows.z)  # as stored: scaling and normalising are no part of the content
    size = max(16, 2**18 // rows.dim)  # small blocks stay in cache, which doubles the speed
    largest = np.zeros(-(-rows.count // size))

    def look(where: slice) -> None:
        block = plain.take(where)
        keys[where] = row_keys(block, seed)
        finite = np.isfinite(block)
        if not finite.all():
            bad[where] = (~finite).sum(axis=1)
            return
        most = np.abs(block).max(axis=1, initial=0.0)
        largest[where.start // size] = most.max(initial=0.0)
        zero[where] = most == 0
        for name in [name for name in HOLDS if name in fitting and name != stored and not HOLDS[name](block)]:
            fitting.discard(name)

    over_blocks(look, plain.parts(size))
    exponent = int(np.frexp(largest.max(initial=0.0))[1])
    return Scan(keys, int(bad.sum()), int(np.argmax(bad > 0)), int(zero.sum()), int(np.argmax(zero)),
                -exponent if abs(exponent) > MOST_EXPONENT else 0, next((name for name in HOLDS if name in fitting), "float64"))


def _is_bfloat16(block: np.ndarray) -> bool:
    with np.errstate(over="ignore"):
        single = np.ascontiguousarray(block, np.float32)
    return not (single.view(np.uint32) & np.uint32(0xFFFF)).any() and bool((single == block).all())


def _is(dtype: type[np.floating]) -> Callable[[np.ndarray], bool]:
    def holds(block: np.ndarray) -> bool:
        with np.errstate(over="ignore"):
            return bool((block.astype(dtype) == block).all())

    return holds


HOLDS: dict[str, Callable[[np.ndarray], bool]] = {
    "bfloat16": _is_bfloat16, "float16": _is(np.float16), "float32": _is(np.float32)}
"""The coarser precisions, coarsest first, and whether one holds all values of a block as they are."""
