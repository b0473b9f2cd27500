"""Nearest rows and ranks of own items by cosine: products in float32, and again in float64 where float32 cannot tell.

A product of two unit rows of d values errs in float32 by at most (d + 4) u, u = 2^-24 (Higham 2002, section 3.1), so
similarities that are farther apart than twice that are in their right order. What is closer (some 1 % of the pairs that matter)
is measured again in float64, pair by pair; where that is much of a block (embeddings of nearly one direction), the block is.
Results are those of float64 brute force: similarities within `tolerances.TIE` of one another are equal, and go by position.

Blocks are computed by as many threads as BLAS would take, each block by one: no result depends on their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property

import numpy as np

from distillscope.measure import tolerances
from distillscope.measure.threads import over_blocks

BLOCK_PAIRS = 2**22  # similarities in one block: 16 MiB in float32, so that what is done to them finds them in cache
SLACK = 8  # more than asked for, to see which similarities are too close to the last
FOLDED = 4  # of so many times the wanted entries, some are sorted
DENSE = 200  # a block is computed in float64 where one of so many pairs needs it
CHUNK = 4096  # pairs whose rows are held at a time


class Directions:
    """Unit rows (n, d), in float32 for products and in float64 for what these cannot tell apart.

    ``take`` gives the float64 rows of an index or a slice; none is held beyond the call, but where whole blocks need them.
    """

    def __init__(self, take: Callable[[np.ndarray | slice], np.ndarray], count: int, dim: int) -> None:
        self.take, self.count, self.dim = take, count, dim

    @classmethod
    def of(cls, rows: np.ndarray) -> Directions:
        """Unit ``rows`` (n, d) that are held anyway."""
        return cls(rows.__getitem__, *rows.shape)

    @cached_property
    def single(self) -> np.ndarray:
        """Rounded to float32."""
        found = np.empty((self.count, self.dim), np.float32)

        def fill(start: int) -> None:
            found[start : start + CHUNK] = self.take(slice(start, min(start + CHUNK, self.count)))

        over_blocks(fill, ((start,) for start in range(0, self.count, CHUNK)))
        return found

    @cached_property
    def double(self) -> np.ndarray:
        return self.take(slice(0, self.count))

    def dots(self, index: np.ndarray, other: Directions, other_index: np.ndarray) -> np.ndarray:
        """Float64 products (m,) of the rows of ``index`` with the rows of ``other_index`` of the other, pair by pair."""
        found = np.empty(len(index))
        for start in range(0, len(index), CHUNK):
            part = slice(start, start + CHUNK)
            found[part] = np.einsum("ij,ij->i", self.take(index[part]), other.take(other_index[part]))
        return found


def most_error(dtype: type[np.floating], dim: int) -> float:
    """The most by which a product of two unit rows (dim,) errs that were rounded to ``dtype`` and multiplied in it."""
    return (dim + 4) * float(np.finfo(dtype).eps) / 2


def block_queries(gallery: int) -> int:
    """How many queries to compare with ``gallery`` rows at a time."""
    return max(1, min(1024, BLOCK_PAIRS // gallery))


# -- the nearest -----------------------------------------------------------------------------------------------------------


def nearest_rows(gallery: Directions, queries: Directions, wanted: Mapping[int, int], k: int,
                 exclude_self: bool = False) -> dict[int, np.ndarray]:
    """For each of ``wanted`` (rows of a gallery -> queries): positions (queries, k) of the most similar of these first rows.

    ``wanted={n: m}`` is one search; ``{n: m, 4096: 4096}`` finds the nearest among the first 4,096 rows from the same products.
    """
    found = {size: np.empty((count, min(k, size - exclude_self)), np.intp) for size, count in wanted.items()}
    bounds = sorted({0, *wanted.values()})

    def search(start: int, stop: int) -> None:
        sizes = [size for size, count in wanted.items() if count >= stop]
        own = start if exclude_self else None
        scores = queries.single[start:stop] @ gallery.single[: max(sizes)].T
        for size in sizes:
            found[size][start:stop] = _top(scores[:, :size], found[size].shape[1], gallery, queries, start, own)

    def blocks() -> Iterable[tuple[int, int]]:
        for first, last in zip(bounds, bounds[1:], strict=False):
            step = block_queries(max(size for size, count in wanted.items() if count >= last))
            yield from ((start, min(start + step, last)) for start in range(first, last, step))

    _ = gallery.single, queries.single  # before threads ask for them
    over_blocks(search, blocks())
    return found


def _top(scores: np.ndarray, k: int, gallery: Directions, queries: Directions, start: int, own: int | None) -> np.ndarray:
    """Positions (m, k) of the largest of each row of float32 ``scores`` (m, n), in the order of float64."""
    rows = np.arange(len(scores))
    if own is not None:
        own_scores = scores[rows, own + rows]
        scores[rows, own + rows] = -np.inf
    chosen = _largest(scores, k + SLACK)
    values = np.take_along_axis(scores, chosen, axis=1)
    if own is not None:
        scores[rows, own + rows] = own_scores  # the next gallery is cut from the same scores
    close = values[:, :-1] - values[:, 1:] <= 2 * most_error(np.float32, gallery.dim) + tolerances.TIE
    unsure = np.flatnonzero(close[:, k - 1 :].all(axis=1)) if chosen.shape[1] < scores.shape[1] else np.empty(0, np.intp)
    near = np.setdiff1d(np.flatnonzero(close[:, :k].any(axis=1)), unsure)
    if len(near):
        group = _groups(~close[near])
        several = np.zeros(group.shape, bool)
        several[:, :-1] = close[near]
        several[:, 1:] |= close[near]
        row, place = np.nonzero(several)
        exact = values[near].astype(np.float64)
        exact[row, place] = queries.dots(start + near[row], gallery, chosen[near[row], place])
        chosen[near] = np.take_along_axis(chosen[near], _order(chosen[near], exact, group), axis=1)
    found = chosen[:, :k]
    if len(unsure):  # more are too close than were looked at
        index, least = start + unsure, values[unsure, k - 1].astype(np.float64)
        again = _top_of_close(scores[unsure], least, k, gallery, queries, index, own is not None)
        found[unsure] = _top_in_double(gallery, queries, index, scores.shape[1], k, own is not None) if again is None else again
    return found


def _top_of_close(scores: np.ndarray, least: np.ndarray, k: int, gallery: Directions, queries: Directions, index: np.ndarray,
                  exclude_self: bool) -> np.ndarray | None:
    """The same for the queries of ``index``, of what float32 does not place below ``least`` (m,), the k-th; none if much."""
    if exclude_self:
        scores[np.arange(len(index)), index] = -np.inf
    lowest = least - (2 * most_error(np.float32, gallery.dim) + 1000 * tolerances.TIE)
    row, column = np.nonzero(scores >= np.nextafter(lowest.astype(np.float32), np.float32(-np.inf))[:, None])
    if len(row) > max(CHUNK, scores.size // DENSE):
        return None
    chosen, exact = _padded(row, column, queries.dots(index[row], gallery, column), len(index))
    return np.take_along_axis(chosen, _order(chosen, exact), axis=1)[:, :k]


def _padded(row: np.ndarray, column: np.ndarray, values: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns (m, j) and values (m, j) of entries by ``row``, ascending; where a row has fewer, -inf after them."""
    sizes = np.bincount(row, minlength=rows)
    place = np.arange(len(row)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    chosen, padded = np.zeros((rows, sizes.max()), np.intp), np.full((rows, sizes.max()), -np.inf, values.dtype)
    chosen[row, place], padded[row, place] = column, values
    return chosen, padded


def _top_in_double(gallery: Directions, queries: Directions, index: np.ndarray, size: int, k: int,
                   exclude_self: bool) -> np.ndarray:
    """The same for the queries of ``index``, from products in float64."""
    scores = queries.take(index) @ gallery.double[:size].T
    if exclude_self:
        scores[np.arange(len(index)), index] = -np.inf
    return top_positions(scores, k)


def top_positions(scores: np.ndarray, k: int) -> np.ndarray:
    """Positions (m, k) of the k largest of each row of ``scores`` (m, n), largest first; those within a tie go by position.

    >>> top_positions(np.array([[0.5, 1.0, 1.0 - 1e-14]]), 2).tolist()
    [[1, 2]]
    """
    chosen = _largest(scores, k + SLACK)
    values = np.take_along_axis(scores, chosen, axis=1)
    found = np.take_along_axis(chosen, _order(chosen, values), axis=1)[:, :k]
    if chosen.shape[1] < scores.shape[1]:
        close = values[:, k - 1 : -1] - values[:, k:] <= tolerances.TIE
        for row in np.flatnonzero(close.all(axis=1)):  # more ties than were looked at
            tied = np.flatnonzero(scores[row] >= values[row, -1] - 1000 * tolerances.TIE)
            found[row] = tied[_order(tied[None], scores[row, tied][None])[0, :k]]
    return found


def _largest(scores: np.ndarray, count: int) -> np.ndarray:
    """Positions (m, min(count, n)) of the largest of each row of ``scores`` (m, n), largest first."""
    size = scores.shape[1]
    if size > FOLDED * count and (found := _largest_folded(scores, count)) is not None:
        return found
    chosen = (np.argpartition(scores, size - count, axis=1)[:, size - count :] if count < size
              else np.broadcast_to(np.arange(size), scores.shape))
    order = np.argsort(-np.take_along_axis(scores, chosen, axis=1), axis=1)
    return np.take_along_axis(chosen, order, axis=1)


def _largest_folded(scores: np.ndarray, count: int) -> np.ndarray | None:
    """The same in half of the time; none where many tie.

    Rows are folded in half, the larger of two entries kept, until a few times ``count`` are left. The count-th of these is no
    more than the count-th of the row, and few entries of the row are above it: these are sorted.
    """
    folded = scores
    while folded.shape[1] > 2 * FOLDED * count:
        half = folded.shape[1] // 2
        folded = np.maximum(folded[:, :half], folded[:, half : 2 * half])
    last = folded.shape[1] - count
    row, column = np.divmod(np.flatnonzero(scores >= np.partition(folded, last, axis=1)[:, last, None]), scores.shape[1])
    if np.bincount(row, minlength=len(scores)).max() > FOLDED * count:
        return None
    chosen, values = _padded(row, column, scores[row, column], len(scores))
    return np.take_along_axis(chosen, np.argsort(-values, axis=1)[:, :count], axis=1)


def _order(positions: np.ndarray, values: np.ndarray, group: np.ndarray | None = None) -> np.ndarray:
    """Order (m, j) of each row: by ``group`` where there is one, by value, the largest first, and within a tie by position."""
    first = np.lexsort((-values, group)) if group is not None else np.argsort(-values, axis=1, kind="stable")
    values, positions = np.take_along_axis(values, first, axis=1), np.take_along_axis(positions, first, axis=1)
    with np.errstate(invalid="ignore"):  # -inf twice
        apart = values[:, :-1] - values[:, 1:] > tolerances.TIE
    if group is not None:
        apart |= group[:, :-1] != group[:, 1:]  # ascending already, and the same for any order within
    return np.take_along_axis(first, np.lexsort((positions, _groups(apart))), axis=1)


def _groups(apart: np.ndarray) -> np.ndarray:
    """Number (m, j + 1) of the group of each place, from whether it is ``apart`` (m, j) from the next."""
    found = np.zeros((len(apart), apart.shape[1] + 1), np.intp)
    np.cumsum(apart, axis=1, out=found[:, 1:])
    return found


# -- the own item ----------------------------------------------------------------------------------------------------------


def own_ranks(gallery: np.ndarray, queries: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Rank (m,), from 1, of each query's own item in the gallery by inner product of unit rows.

    ``gallery`` (n, d), ``queries`` (m, d), ``own`` (m,) positions of the right answers. Rows of the gallery in the very
    direction of the right one are the right one: no query can distinguish them, and finding either is a hit. Other ties count
    against the query, so that a query that is equally near to different items finds none.

    >>> own_ranks(np.eye(2), np.array([[1.0, 0.0], [0.6, 0.8]]), np.array([0, 0])).tolist()
    [1, 2]
    >>> own_ranks(np.ones((2, 1)), np.ones((2, 1)), np.array([0, 1])).tolist()
    [1, 1]
    """
    groups = np.zeros(len(gallery), np.intp)
    return 1 + ahead_of_own(Directions.of(gallery), Directions.of(queries), own, groups, 1)[:, 0]


def ahead_of_own(gallery: Directions, queries: Directions, own: np.ndarray, groups: np.ndarray, num_groups: int) -> np.ndarray:
    """How many rows (m, g) of the gallery come before each query's own item, by the gallery's groups (n,)."""
    index = Index(gallery, groups, num_groups)
    right = queries.dots(np.arange(queries.count), gallery, own)
    ahead = np.empty((queries.count, num_groups), np.int64)

    def rank(start: int, stop: int) -> None:
        ahead[start:stop] = index.ahead(queries, slice(start, stop), own[start:stop], right[start:stop])

    _ = queries.single
    size = block_queries(gallery.count)
    over_blocks(rank, ((start, min(start + size, queries.count)) for start in range(0, queries.count, size)))
    return ahead


class Index:
    """A gallery in the order of its groups, so that what comes before is counted in slices of it."""

    def __init__(self, gallery: Directions, groups: np.ndarray, num_groups: int) -> None:
        self.gallery, self.groups = gallery, groups
        self.order = np.argsort(groups, kind="stable")
        self.edges = np.searchsorted(groups[self.order], np.arange(num_groups + 1)).tolist()
        self.place = np.empty(gallery.count, np.intp)
        self.place[self.order] = np.arange(gallery.count)
        self.single = gallery.single[self.order]

    @cached_property
    def double(self) -> np.ndarray:
        return self.gallery.double[self.order]

    def ahead(self, queries: Directions, where: slice, own: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Rows (m, g) before the ``own`` items (m,) of the queries of a slice, whose similarities are ``right`` (m,)."""
        scores = queries.single[where] @ self.single.T
        counts, unsure = self._counted(scores, own, right)
        if int(unsure.sum()) > scores.size // DENSE:
            scores = queries.take(where) @ self.double.T
            counts, unsure = self._counted(scores, own, right)
        row = np.flatnonzero(unsure)
        inside, column = np.nonzero(self._between(scores[row], right[row]))
        row, found = row[inside], self.order[column]
        exact = queries.dots(where.start + row, self.gallery, found) if scores.dtype == np.float32 else scores[row, column]
        before = exact >= right[row] - tolerances.TIE
        tied = np.flatnonzero(before & (exact <= right[row] + tolerances.TIE))
        before[tied] = self.gallery.dots(found[tied], self.gallery, own[row[tied]]) < 1 - tolerances.TIE
        np.subtract.at(counts, (row, self.groups[found]), ~before)
        return counts

    def _counted(self, scores: np.ndarray, own: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows (m, g) that are not surely behind the own ones, and how many (m,) of them are not surely before."""
        scores[np.arange(len(scores)), self.place[own]] = -np.inf
        low, high = self._bounds(scores, right)
        maybe = scores >= low
        counts = np.stack([_num_true(maybe[:, a:b]) for a, b in zip(self.edges, self.edges[1:], strict=False)], axis=1)
        return counts, counts.sum(axis=1) - _num_true(scores >= high)

    def _between(self, scores: np.ndarray, right: np.ndarray) -> np.ndarray:
        low, high = self._bounds(scores, right)
        return (scores >= low) & (scores < high)

    def _bounds(self, scores: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Between these (m, 1) a similarity may be that of the own item, or tied with it."""
        reach = most_error(scores.dtype.type, self.gallery.dim) + tolerances.TIE
        low, high = ((right + sign * reach).astype(scores.dtype)[:, None] for sign in (-1, 1))
        return np.nextafter(low, scores.dtype.type(-np.inf)), np.nextafter(high, scores.dtype.type(np.inf))


def _num_true(found: np.ndarray) -> np.ndarray:
    """How many (m,) of each row of ``found`` (m, n) are true: sums of bytes are seven times as fast as those of booleans."""
    return found.view(np.uint8).sum(axis=1, dtype=np.uint32).astype(np.int64)


# -- the nearest by distance -----------------------------------------------------------------------------------------------


def nearest_by_distance(z: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions (n, k') and Euclidean distances (n, k') of the k' = min(k, n - 1) nearest other rows of ``z`` (n, d).

    Found through inner products, then measured again from the differences, since |a|^2 + |b|^2 - 2 ab loses the digits
    of small distances.
    """
    k = min(k, len(z) - 1)
    if k < 1:
        return np.empty((len(z), 0), np.intp), np.empty((len(z), 0))
    lengths = np.linalg.norm(z, axis=1)
    scale = float(lengths.max()) or 1.0  # float32 could not hold the squares of all that float64 can
    single, energy = (z / scale).astype(np.float32), np.square(lengths / scale)
    reach = 2 * most_error(np.float32, z.shape[1] + 2) * (2 * lengths / scale + 1)
    positions, distances = np.empty((len(z), k), np.intp), np.empty((len(z), k))

    def search(start: int, stop: int) -> None:
        rows = np.arange(stop - start)
        closeness = 2 * (single[start:stop] @ single.T) - energy.astype(np.float32)
        closeness[rows, start + rows] = -np.inf
        chosen = _largest(closeness, k + SLACK)
        values = np.take_along_axis(closeness, chosen, axis=1)
        close = values[:, k - 1 : -1] - values[:, k:] <= reach[start:stop, None]
        for row in np.flatnonzero(close.all(axis=1)) if chosen.shape[1] < len(z) else ():  # too near to tell in float32
            again = 2 * (z @ z[start + row]) - np.square(lengths)
            again[start + row] = -np.inf
            chosen[row] = _largest(again[None], chosen.shape[1])[0]
        apart = z[chosen]
        apart -= z[start:stop, None, :]
        measured = np.sqrt(np.einsum("ijk,ijk->ij", apart, apart))
        measured[chosen == start + rows[:, None]] = np.inf
        order = np.lexsort((chosen, measured))[:, :k]
        positions[start:stop] = np.take_along_axis(chosen, order, axis=1)
        distances[start:stop] = np.take_along_axis(measured, order, axis=1)

    size = max(1, 2**21 // ((k + SLACK) * z.shape[1]))
    over_blocks(search, ((start, min(start + size, len(z))) for start in range(0, len(z), size)))
    return positions, distances
