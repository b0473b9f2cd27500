"""Reading rows in blocks: where they lie, in float64, to scale, at unit norm; and their moments, merged without loss.

A float32 Gram matrix loses every singular value below about 3e-4 of the largest, and an uncentred sum of products loses
the variance of a cloud that lies far from the origin. Here every block is centred on its own mean in float64 before the
product, and blocks are merged by the exact update of Chan, Golub and LeVeque (1979). Means are taken as distances from a
first row or mean, so that equal rows have a scatter of exactly zero and no rounding noise that reads like a spectrum.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

STRIP = 64  # rows of a scatter that are summed at a time
BLOCK_VALUES = 2**22  # values in one float64 block: 32 MiB, past which larger blocks were not faster
SMALLEST_NORM, LARGEST_NORM = 1e-150, 1e150  # between these the squares of a row's values are exact to the last digit


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

    ``normalize="l2"`` scales each row to unit norm as it is read. ``exponent`` multiplies every value by a power of two
    first, which is exact: squares of what is stored may overflow or vanish, those of what is read do not.

    >>> Rows(np.full((2, 3), 1e200), exponent=-664).take([0]).round(3).tolist()
    [[1.306, 1.306, 1.306]]
    """

    def __init__(self, z: np.ndarray | Stored, normalize: str | None = None, exponent: int = 0) -> None:
        self.z, self.normalize, self.exponent = z, normalize, exponent

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
        """The rows of ``index`` in float64, scaled and normalised where asked."""
        block = np.asarray(self.z[index], np.float64)
        block = np.ldexp(block, self.exponent) if self.exponent else block
        return unit(block) if self.normalize == "l2" else block

    def chosen(self, index: np.ndarray) -> Rows:
        """The rows of ``index`` alone, not read yet."""
        return Rows((self.z if isinstance(self.z, Stored) else Stored([self.z])).take(index), self.normalize, self.exponent)

    def parts(self, size: int | None = None) -> Iterator[tuple[slice]]:
        """Where consecutive blocks are, not read yet."""
        size = size or self.block_rows()
        return ((slice(start, min(start + size, self.count)),) for start in range(0, self.count, size))

    def blocks(self, size: int | None = None) -> Iterator[tuple[slice, np.ndarray]]:
        """Consecutive blocks and where they are."""
        return ((where, self.take(where)) for where, in self.parts(size))


def span(rows: Rows, num_groups: int) -> int:
    """Rows to cut into groups at a time: about d rows a group at the least, since each adds a d x d product to its sum."""
    return max(rows.block_rows(), num_groups * rows.dim)


def by_group(groups: np.ndarray, num_groups: int) -> list[np.ndarray]:
    """Positions of each group's entries in ``groups`` (n,), from one sort: masks took as long as half of the product."""
    return np.split(np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups, minlength=num_groups))[:-1])


def unit(z: np.ndarray) -> np.ndarray:
    """``z`` with rows of unit norm; a row of zeros stays zero.

    >>> unit(np.array([[3.0, 4.0], [0.0, 1e-200], [1e300, 0.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 1.0], [1.0, 0.0], [0.0, 0.0]]
    """
    with np.errstate(over="ignore"):
        norm = np.sqrt(np.einsum("ij,ij->i", z, z))[:, None]
    plain = (norm > SMALLEST_NORM) & (norm < LARGEST_NORM)
    if plain.all():
        return z / norm
    scaled = np.where(plain, z, 0.0)  # squares of the other rows overflow or vanish: each is brought to order one first
    for row in np.flatnonzero(~plain):
        scaled[row] = np.ldexp(z[row], -np.frexp(np.abs(z[row]).max())[1])
    norm = np.linalg.norm(scaled, axis=1, keepdims=True)
    return scaled / np.where(norm > 0, norm, 1)


@dataclass(frozen=True)
class Frame:
    """Coordinates of rows: as they are, or where there are no more rows than dimensions, in the span of their differences.

    There a row is ``origin`` (d,) + ``basis`` (d, r) @ its coordinates, with orthonormal columns and r = n - 1: scatters keep
    their spectrum, and cost n instead of d. Equal rows stay equal to the last digit.

    >>> rows = Rows(np.array([[1.0, 2, 3], [1, 2, 5]]))
    >>> frame = Frame.of(rows)
    >>> np.abs(frame.inside(rows.take([0, 1]))).tolist(), frame.outside(frame.inside(rows.take([1]))).tolist()
    ([[0.0], [2.0]], [[1.0, 2.0, 5.0]])
    """

    origin: np.ndarray | None = None
    basis: np.ndarray | None = None

    @classmethod
    def of(cls, rows: Rows) -> Frame:
        """The frame in which ``rows`` have fewest coordinates."""
        if rows.count > rows.dim:
            return cls()
        z = rows.take(slice(None))
        return cls(z[0], np.linalg.qr((z[1:] - z[0]).T)[0])

    def inside(self, z: np.ndarray) -> np.ndarray:
        """Coordinates (n, r) of rows ``z`` (n, d); what lies outside the span is dropped."""
        return z if self.basis is None else (z - self.origin) @ self.basis

    def outside(self, coordinates: np.ndarray) -> np.ndarray:
        """The rows (..., d) at ``coordinates`` (..., r)."""
        return coordinates if self.basis is None else self.origin + coordinates @ self.basis.T

    def diagonal(self, scatter: np.ndarray) -> np.ndarray:
        """What a ``scatter`` (r, r) of coordinates has in each dimension (d,) of the rows."""
        return np.diag(scatter) if self.basis is None else ((self.basis @ scatter) * self.basis).sum(axis=1)

    def turned(self, directions: np.ndarray) -> np.ndarray:
        """Directions (r, k) of the coordinates as those of the rows, (d, k)."""
        return directions if self.basis is None else self.basis @ directions

    def along(self, directions: np.ndarray) -> np.ndarray:
        """What of the rows' ``directions`` (d, k) lies in the span, in coordinates: (r, k)."""
        return directions if self.basis is None else self.basis.T @ directions


@dataclass(frozen=True)
class Moments:
    """``count`` rows, their mean (d,), and their centred scatter sum (x - mean)(x - mean)^T (d, d), in float64.

    For a pair of row-aligned arrays ``mean`` and ``other_mean`` differ and ``scatter`` is the cross scatter (d, d').

    >>> x = np.arange(12.0).reshape(6, 2) ** 2
    >>> both = merged([moments(x[:2]), moments(x[2:])])
    >>> bool(np.allclose(both.scatter, moments(x).scatter)), both.count
    (True, 6)
    """

    count: int
    mean: np.ndarray
    other_mean: np.ndarray
    scatter: np.ndarray


def moments(x: np.ndarray, y: np.ndarray | None = None) -> Moments:
    """Moments of the rows of ``x`` (n, d), or the cross moments of ``x`` (n, d) and ``y`` (n, d')."""
    mean, centred = _centred(np.asarray(x, np.float64))
    if y is None:
        return Moments(len(x), mean, mean, centred.T @ centred)
    other_mean, other = _centred(np.asarray(y, np.float64))
    return Moments(len(x), mean, other_mean, centred.T @ other)


def _centred(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean (d,) of ``x`` (n, d), and ``x`` less its mean."""
    from_first = x - x[0]
    step = from_first.mean(axis=0)
    from_first -= step
    return x[0] + step, from_first


def merged(parts: Iterable[Moments]) -> Moments:
    """Moments of all the rows of ``parts`` together."""
    parts = [p for p in parts if p.count]
    count = sum(p.count for p in parts)
    mean = parts[0].mean + sum(p.count * (p.mean - parts[0].mean) for p in parts) / count
    other_mean = parts[0].other_mean + sum(p.count * (p.other_mean - parts[0].other_mean) for p in parts) / count
    scatter = np.zeros_like(parts[0].scatter)
    weights = np.sqrt([p.count for p in parts])[:, None]
    scatter += (weights * [p.mean - mean for p in parts]).T @ (weights * [p.other_mean - other_mean for p in parts])
    for start in range(0, len(scatter), STRIP):  # each sum stays in cache until it is whole
        strip = slice(start, start + STRIP)
        for part in parts:
            scatter[strip] += part.scatter[strip]
    return Moments(count, mean, other_mean, scatter)


def energy(parts: Iterable[Moments]) -> float:
    """The trace of `merged` parts' scatter, without that."""
    parts = [p for p in parts if p.count]
    count = sum(p.count for p in parts)
    mean = parts[0].mean + sum(p.count * (p.mean - parts[0].mean) for p in parts) / count
    return float(sum(np.trace(p.scatter) + p.count * np.square(p.mean - mean).sum() for p in parts))


class Accumulator:
    """Moments of a stream of blocks, in constant memory; it goes on from ``before``, whose memory it reuses."""

    def __init__(self, before: Moments | None = None) -> None:
        self._total = before

    def add(self, x: np.ndarray, y: np.ndarray | None = None) -> None:
        """Merge one block of rows, which may be empty."""
        if len(x):
            block = moments(x, y)
            self._total = block if self._total is None else _add_into(self._total, block)

    def result(self) -> Moments:
        """What was accumulated, of at least one row."""
        if self._total is None:
            raise ValueError("moments of no rows")
        return self._total


def _add_into(total: Moments, block: Moments) -> Moments:
    """``total`` and ``block`` merged, reusing the memory of total's scatter: a stream must not allocate d x d per block."""
    count = total.count + block.count
    step, other_step = block.mean - total.mean, block.other_mean - total.other_mean
    scatter = total.scatter
    scatter += block.scatter
    scatter += np.outer(step * (total.count * block.count / count), other_step)
    share = block.count / count
    return Moments(count, total.mean + share * step, total.other_mean + share * other_step, scatter)
