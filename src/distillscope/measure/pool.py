"""What measures of one side are made from, each computed once and only when a measure asks for it.

``Side`` belongs to one set of embeddings, ``pair.Pair`` to a row-aligned teacher and student. A measure names attributes
of these in its signature. ``without(group)`` gives the same pool with a tenth of the items left out, rebuilt from group
moments without touching the rows again: that is what the jackknife runs on.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from distillscope.measure.moments import Accumulator, Moments, merged
from distillscope.measure.quantity import NotMeasured
from distillscope.measure.rows import Rows, content_order, row_keys, unit


@dataclass(frozen=True)
class Settings:
    """Sizes and settings that measures share. ``groups`` are the jackknife's; ``max_items`` caps what needs all pairs."""

    seed: int = 0
    groups: int = 10
    max_items: int = 4096
    infonce_batch: int = 1024
    infonce_temperature: float = 0.1
    infonce_items: int = 16384
    neighbours: int = 10
    gallery_items: int = 50_000
    retrieval_pairs: int = 100_000_000
    null_items: int = 4096
    null_draws: int = 39
    rsa_items: int = 1024


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
    for where, block in plain.blocks():
        keys[where] = row_keys(block, seed)
        bad[where] = (~np.isfinite(block)).sum(axis=1)
        zero[where] = ~block.any(axis=1)
    return Scan(keys, int(bad.sum()), int(np.argmax(bad > 0)), int(zero.sum()), int(np.argmax(zero)))


class Side:
    """One side's embeddings (n, d) and everything derived from them alone.

    >>> side = Side(Rows(np.random.default_rng(0).normal(size=(100, 4))))
    >>> side.count, side.dim, side.eigenvalues.shape
    (100, 4, (4,))
    """

    def __init__(self, rows: Rows, settings: Settings | None = None, order: np.ndarray | None = None) -> None:
        self.rows, self.settings = rows, settings or Settings()
        self.order = content_order(scan(rows, self.settings.seed).keys) if order is None else order
        self.kept = tuple(range(min(self.settings.groups, rows.count)))
        self._whole = self

    def without(self, group: int) -> Side:
        """This side with one group of items left out."""
        part = object.__new__(Side)
        part.rows, part.settings, part.order, part._whole = self.rows, self.settings, self.order, self._whole
        part.kept = tuple(g for g in self.kept if g != group)
        return part

    # -- items -------------------------------------------------------------------------------------------------------

    @cached_property
    def group_of(self) -> np.ndarray:
        """Group (n,) of each row: neighbours in content order go to different groups."""
        if self is not self._whole:
            return self._whole.group_of
        group = np.empty(self.rows.count, np.uint8)
        group[self.order] = np.arange(self.rows.count) % len(self.kept)
        return group

    @cached_property
    def kept_order(self) -> np.ndarray:
        """Row numbers in content order, without the groups left out."""
        if self is self._whole:
            return self.order
        return self.order[np.isin(self.group_of[self.order], self.kept)]

    @cached_property
    def count(self) -> int:
        return self.moments.count

    @property
    def dim(self) -> int:
        return self.rows.dim

    @cached_property
    def sample(self) -> np.ndarray:
        """Row numbers of the subsample on which pairs of items are compared."""
        chosen = self.order[: self.settings.max_items]
        return chosen[np.isin(self.group_of[chosen], self.kept)]

    @cached_property
    def sample_rows(self) -> np.ndarray:
        """Embeddings (m, d) of the sample, float64."""
        return self.rows.take(self.sample)

    @cached_property
    def sample_count(self) -> int:
        return len(self.sample)

    # -- moments and spectrum ----------------------------------------------------------------------------------------

    @cached_property
    def group_moments(self) -> list[Moments]:
        """Moments of each group, from one pass over the rows."""
        if self is not self._whole:
            return self._whole.group_moments
        parts = [Accumulator() for _ in self.kept]
        for where, block in self.rows.blocks():
            groups = self.group_of[where]
            for group, part in enumerate(parts):
                part.add(block[groups == group])
        return [part.result() for part in parts]

    def moments_of(self, groups: tuple[int, ...]) -> Moments:
        """Moments of the items of ``groups`` together."""
        return merged(self.group_moments[g] for g in groups)

    @cached_property
    def moments(self) -> Moments:
        return self.moments_of(self.kept)

    @cached_property
    def mean(self) -> np.ndarray:
        return self.moments.mean

    @cached_property
    def eigh(self) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues (d,) of the centred scatter, descending, and eigenvectors (d, d) as columns."""
        values, vectors = np.linalg.eigh(self.moments.scatter)
        return values[::-1].clip(min=0), vectors[:, ::-1]

    @cached_property
    def eigenvalues(self) -> np.ndarray:
        """Squared singular values of the centred embeddings, descending."""
        return self.eigh[0] if "eigh" in self.__dict__ else descending_eigenvalues(self.moments.scatter)

    @property
    def components(self) -> np.ndarray:
        """Principal directions (d, d) as columns: right singular vectors of the centred embeddings."""
        return self.eigh[1]

    @cached_property
    def uncentred_eigenvalues(self) -> np.ndarray:
        """Squared singular values of the embeddings as they are."""
        return descending_eigenvalues(self.moments.scatter + self.count * np.outer(self.mean, self.mean))

    @cached_property
    def _halves(self) -> list[Moments]:
        """Two disjoint halves of the items; an odd number of groups leaves halves of unequal size."""
        return [self.moments_of(self.kept[0::2]), self.moments_of(self.kept[1::2])]

    @cached_property
    def half_eigenvalues(self) -> list[np.ndarray]:
        return [descending_eigenvalues(half.scatter) for half in self._halves]

    @cached_property
    def half_counts(self) -> list[int]:
        return [half.count for half in self._halves]

    @cached_property
    def _nested(self) -> list[Moments]:
        sizes = sorted({max(1, round(len(self.kept) * share)) for share in (0.1, 0.2)})
        return [m for m in (self.moments_of(self.kept[:size]) for size in sizes) if m.count > 2]

    @cached_property
    def nested_eigenvalues(self) -> list[np.ndarray]:
        """Spectra of a tenth, a fifth, a half and all of the items, each from rows drawn without replacement."""
        small = [descending_eigenvalues(m.scatter) for m in self._nested]
        return [*small, self.half_eigenvalues[0], self.eigenvalues]

    @cached_property
    def nested_counts(self) -> list[int]:
        return [*(m.count for m in self._nested), self.half_counts[0], self.count]

    # -- pairs of items of the sample --------------------------------------------------------------------------------

    @cached_property
    def unit_sample(self) -> np.ndarray:
        """Unit rows (m, d) of the sample; an all-zero row has no direction."""
        return self.unit_rows(self.sample)

    def unit_rows(self, index: np.ndarray | slice) -> np.ndarray:
        """Unit rows (m, d) of the embeddings at ``index``."""
        z = self.rows.take(index)
        if not z.any(axis=1).all():
            raise NotMeasured("a row is all zeros, so it has no direction")
        return unit(z)


def descending_eigenvalues(scatter: np.ndarray) -> np.ndarray:
    """Eigenvalues of a symmetric positive matrix, descending; rounding below zero is zero."""
    return np.linalg.eigvalsh(scatter)[::-1].clip(min=0)


def energy_along(directions: np.ndarray, scatter: np.ndarray) -> np.ndarray:
    """v^T scatter v for each column v of ``directions`` (d, k)."""
    return (directions * (scatter @ directions)).sum(axis=0).clip(min=0)
