"""What measures of one side are made from, each computed once and only when a measure asks for it.

``Side`` belongs to one set of embeddings, ``pair.Pair`` to a row-aligned teacher and student. A measure names attributes
of these in its signature. ``without(group)`` gives the same pool with a tenth of the items left out, rebuilt from group
moments without touching the rows again: that is what the jackknife runs on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from distillscope.measure import tolerances
from distillscope.measure.alignment import TOP
from distillscope.measure.neighbours import first_kept
from distillscope.measure.results import NotMeasured
from distillscope.measure.rows import Accumulator, Frame, Moments, Rows, by_group, energy, merged, span, unit
from distillscope.measure.scan import Items, row_keys, scan
from distillscope.measure.search import Directions, nearest_by_distance, nearest_rows
from distillscope.measure.similarity import Sorted, kept_pairs
from distillscope.measure.spectrum import algebraic_rank, descending_eigenvalues, kernel_sums, padded, rounding_energy
from distillscope.measure.threads import over_blocks

T = TypeVar("T")
SPARE = 20  # neighbours kept in reserve, so that leaving a tenth of the items out needs no new search
FEW_SPARE = 10  # the same where two are asked for


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
    probe_items: int = 50_000


def of_whole(method: Callable[[Any], T]) -> cached_property[T]:
    """A cached property that is the whole pool's, whatever is left out: dear to make; its readers cut it to what is kept."""

    @functools.wraps(method)
    def found(pool: Any) -> T:
        return method(pool) if pool is pool._whole else getattr(pool._whole, method.__name__)

    return cached_property(found)


class Side:
    """One side's embeddings (n, d) and everything derived from them alone.

    >>> side = Side(Rows(np.random.default_rng(0).normal(size=(100, 4))))
    >>> side.count, side.dim, side.eigenvalues.shape
    (100, 4, (4,))
    """

    def __init__(self, rows: Rows, settings: Settings | None = None, items: Items | None = None,
                 precision: str | None = None) -> None:
        self.rows, self.settings = rows, settings or Settings()
        if items is None or precision is None:
            found = scan(rows, self.settings.seed)
            items, precision = items or Items.of(found.keys), precision or found.precision
        self.items, self.order, self.precision = items, items.order, precision
        self.kept = tuple(range(min(self.settings.groups, items.count)))
        self._tables: dict[int, np.ndarray] = {}
        self._spectra: dict[tuple[int, ...], np.ndarray] = {}
        self._expected: dict[int, int] = {}
        self._directions: dict[int, Directions] = {}
        self._whole = self

    def without(self, group: int) -> Side:
        """This side with one group of items left out."""
        part = object.__new__(Side)
        part.rows, part.settings, part._whole = self.rows, self.settings, self._whole
        part.items, part.order, part.precision = self.items, self.order, self.precision
        part.kept = tuple(g for g in self.kept if g != group)
        return part

    # -- items -------------------------------------------------------------------------------------------------------

    @of_whole
    def group_of(self) -> np.ndarray:
        """Group (n,) of each row: items that follow one another in content order go to different groups."""
        return self.items.groups(len(self.kept))

    @cached_property
    def count(self) -> int:
        return self.moments.count

    @property
    def item_count(self) -> int:
        """Items among the rows: those that repeat one another count once."""
        return self.items_in(self.kept)

    def items_in(self, groups: tuple[int, ...]) -> int:
        """Items of ``groups``."""
        return int(np.isin(self.group_of[self.items.first], groups).sum())

    @property
    def dim(self) -> int:
        return self.rows.dim

    @property
    def exponent(self) -> int:
        """The power of two that the rows were multiplied by."""
        return 0 if self.rows.normalize else self.rows.exponent

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

    # -- moments and spectrum, in the coordinates of ``frame`` ---------------------------------------------------------

    @of_whole
    def frame(self) -> Frame:
        return Frame.of(self.rows)

    def coordinates(self, index: np.ndarray | slice) -> np.ndarray:
        """The rows of ``index`` in float64, in coordinates (m, r)."""
        return self.frame.inside(self.rows.take(index))

    @of_whole
    def group_moments(self) -> list[Moments]:
        """Moments of each group, from one pass over the rows."""
        parts = [Accumulator() for _ in self.kept]
        size = span(self.rows, len(parts))
        for start in range(0, self.rows.count, size):
            over_blocks(lambda part, index, start=start: part.add(self.coordinates(start + index)),
                        zip(parts, by_group(self.group_of[start : start + size], len(parts)), strict=True))
        return [part.result() for part in parts]

    def moments_of(self, groups: tuple[int, ...]) -> Moments:
        """Moments of the items of ``groups`` together."""
        return merged(self.group_moments[g] for g in groups)

    def energy_of(self, groups: tuple[int, ...]) -> float:
        """Sum of squared distances of the items of ``groups`` from their mean."""
        return energy(self.group_moments[g] for g in groups)

    @cached_property
    def moments(self) -> Moments:
        return self.moments_of(self.kept)

    @cached_property
    def mean(self) -> np.ndarray:
        """Mean (d,) of the rows."""
        return self.frame.outside(self.moments.mean)

    @cached_property
    def eigenvalues(self) -> np.ndarray:
        """Squared singular values (d,) of the centred embeddings, descending."""
        return padded(descending_eigenvalues(self.scatter), self.dim)

    @of_whole
    def resolved_rank(self) -> int:
        """How many leading components stand out of what rounding to this side's precision adds; of the whole, always."""
        energy = self.frame.diagonal(self.scatter) + self.count * np.square(self.mean)
        scale = 0.0 if self.rows.normalize else 2.0**self.rows.exponent
        noise = rounding_energy(energy, self.count, self.precision, scale)
        noise = noise * tolerances.ROUNDED * (1 + np.sqrt(self.dim / self.count)) ** 2
        told = algebraic_rank(self.eigenvalues)
        if self.eigenvalues[told - 1] > noise.max():
            return told
        lost = self.eigenvalues[:told] <= (np.square(self.components[:, :told]) * noise[:, None]).sum(axis=0)
        return int(np.argmax(lost)) if lost.any() else told

    @cached_property
    def axes(self) -> np.ndarray:
        """Principal directions (r, r) in coordinates."""
        return np.linalg.eigh(self.scatter)[1][:, ::-1]

    @cached_property
    def leading(self) -> np.ndarray:
        """The first k = 20 of the components, (d, k), or all; of a part of the items without the others, in half the time."""
        size = len(self.scatter)
        if self is self._whole or size <= TOP:
            return self.components[:, :TOP]
        from scipy.linalg import eigh

        return self.frame.turned(eigh(self.scatter, subset_by_index=(size - TOP, size - 1), driver="evr")[1][:, ::-1])

    @cached_property
    def components(self) -> np.ndarray:
        """Principal directions (d, r) as columns: right singular vectors of the centred embeddings."""
        return self.frame.turned(self.axes)

    @cached_property
    def uncentred_eigenvalues(self) -> np.ndarray:
        """Squared singular values (d,) of the embeddings as they are."""
        mean, scatter = self.frame.along(self.mean), self.scatter
        if len(mean) < self.dim:  # what the mean has outside the span of the rows' differences is one coordinate more
            mean = np.append(mean, np.linalg.norm(self.mean - self.frame.turned(mean)))
            scatter = np.pad(scatter, (0, 1))
        return padded(descending_eigenvalues(scatter + self.count * np.outer(mean, mean)), self.dim)

    def count_of(self, groups: tuple[int, ...]) -> int:
        """Rows of ``groups``."""
        return sum(self.group_moments[g].count for g in groups)

    def _eigenvalues_of(self, groups: tuple[int, ...]) -> np.ndarray:
        """Spectrum (r,) of the items of ``groups``, once for all that leave a group out: half of their halves coincide."""
        if groups not in self._whole._spectra:
            self._whole._spectra[groups] = descending_eigenvalues(self.moments_of(groups).scatter)
        return self._whole._spectra[groups]

    @property
    def _halves(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Two disjoint halves of the items; an odd number of groups leaves halves of unequal size."""
        if len(self.kept) < 2:
            raise NotMeasured("all rows are one item, which has no halves")
        return self.kept[0::2], self.kept[1::2]

    @property
    def half_eigenvalues(self) -> list[np.ndarray]:
        return [self._eigenvalues_of(half) for half in self._halves]

    @property
    def half_counts(self) -> list[int]:
        return [*map(self.count_of, self._halves)]

    @property
    def _nested(self) -> list[tuple[int, ...]]:
        sizes = sorted({max(1, round(len(self.kept) * share)) for share in (0.1, 0.2)})
        return [*(part for size in sizes if self.count_of(part := self.kept[:size]) > 2), self._halves[0]]

    @property
    def nested_eigenvalues(self) -> list[np.ndarray]:
        """Spectra of a tenth, a fifth, a half and all of the items, each from rows drawn without replacement."""
        return [*map(self._eigenvalues_of, self._nested), self.eigenvalues]

    @property
    def nested_counts(self) -> list[int]:
        return [*map(self.count_of, self._nested), self.count]

    @property
    def scatter(self) -> np.ndarray:
        """Centred scatter (r, r)."""
        return self.moments.scatter

    @cached_property
    def centred_energy(self) -> np.ndarray:
        """Squared distance (n,) of each row from the mean of all, in row order.

        With a group left out the mean hardly moves, and these only make a correction of order 1/n, so they stay.
        """
        if self is not self._whole:
            return self._whole.centred_energy[np.isin(self.group_of, self.kept)]
        energy, mean = np.empty(self.rows.count), self.mean

        def measure(where: slice) -> None:
            centred = self.rows.take(where) - mean
            energy[where] = np.einsum("ij,ij->i", centred, centred)

        over_blocks(measure, self.rows.parts())
        return energy

    # -- pairs of items of the sample --------------------------------------------------------------------------------

    @of_whole
    def _distinct(self) -> np.ndarray:
        """Positions in the sample of the rows that repeat no earlier one; of the whole, whatever is left out."""
        return np.sort(np.unique(row_keys(self.sample_rows, self.settings.seed), return_index=True)[1])

    @cached_property
    def _kept_distinct(self) -> np.ndarray:
        """Which of the distinct rows are in kept groups."""
        return np.isin(self.group_of[self._whole.sample[self._distinct]], self.kept)

    @cached_property
    def distinct_count(self) -> int:
        return int(self._kept_distinct.sum())

    @of_whole
    def _distance_table(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions among the distinct rows, and distances, of each distinct row's nearest ones."""
        return nearest_by_distance(self.sample_rows[self._distinct] - self.mean, 2 + FEW_SPARE)

    @cached_property
    def two_nearest(self) -> np.ndarray:
        """Distances (m, 2) of each distinct sampled row to its first and second neighbour."""
        positions, distances = self._distance_table
        if self is self._whole:
            return distances[:, :2] if distances.shape[1] > 1 else np.empty((0, 2))
        first = first_kept(positions, self._kept_distinct, 2)
        return np.take_along_axis(distances, first, axis=1)[self._kept_distinct]

    def directions(self, count: int) -> Directions:
        """The first ``count`` rows in content order, of unit norm."""
        if self is not self._whole:
            return self._whole.directions(count)
        if count not in self._directions:
            self._directions[count] = Directions(lambda index: self.unit_rows(self.order[:count][index]), count, self.dim)
        return self._directions[count]

    def expect(self, gallery: int, queries: int) -> None:
        """Say that the nearest of the first ``queries`` rows among the first ``gallery`` will be asked for.

        All that was said is found by one search.
        """
        self._expected[gallery] = max(queries, self._expected.get(gallery, 0))

    def neighbour_table(self, gallery: int, queries: int) -> np.ndarray:
        """Positions (queries, k) in content order of the nearest by cosine, among the first ``gallery`` rows, of the first.

        More than asked for, to leave some out. Each row is left out of its own neighbours.
        """
        if self is not self._whole:
            return self._whole.neighbour_table(gallery, queries)
        if len(self._tables.get(gallery, ())) < queries:
            self.expect(gallery, queries)
            wanted = {size: count for size, count in self._expected.items() if len(self._tables.get(size, ())) < count}
            rows = self.directions(max(wanted))
            self._tables |= nearest_rows(rows, rows, wanted, self.settings.neighbours + SPARE, exclude_self=True)
        return self._tables[gallery][:queries]

    def nearest_kept(self, gallery: int, queries: int) -> np.ndarray:
        """Positions (m, k) in content order of the k nearest of each kept query, among the kept rows of the gallery."""
        table = self.neighbour_table(gallery, queries)
        kept = np.isin(self.group_of[self.order[:gallery]], self.kept)
        if not kept.sum() > self.settings.neighbours + 1:
            raise NotMeasured(f"it needs more than {self.settings.neighbours + 1} items, or every item is a neighbour")
        return np.take_along_axis(table, first_kept(table, kept, self.settings.neighbours), axis=1)[kept[:queries]]

    @property
    def neighbours(self) -> np.ndarray:
        """Positions (m, k) in the whole sample of the k nearest by cosine among the sampled rows that are kept."""
        return self.nearest_kept(len(self._whole.sample), len(self._whole.sample))

    @cached_property
    def rsa_count(self) -> int:
        return len(self._rsa_kept)

    @cached_property
    def _rsa_kept(self) -> np.ndarray:
        chosen = self.order[: self.settings.rsa_items]
        return np.flatnonzero(np.isin(self.group_of[chosen], self.kept))

    @of_whole
    def _rsa_sorted(self) -> Sorted:
        """Euclidean distances between the first items in content order, sorted."""
        from scipy.spatial.distance import pdist

        return Sorted(pdist(self.rows.take(self.order[: self.settings.rsa_items])))

    @cached_property
    def rsa_ranks(self) -> np.ndarray:
        """Ranks (m (m - 1) / 2,) of the Euclidean distances between the first items in content order that are kept."""
        if self is self._whole:
            return self._rsa_sorted.ranks()
        kept = np.zeros(len(self._whole._rsa_kept), bool)
        kept[self._rsa_kept] = True
        return self._rsa_sorted.ranks(kept_pairs(kept))

    @cached_property
    def unit_sample(self) -> np.ndarray:
        """Unit rows (m, d) of the sample; an all-zero row has no direction."""
        return self.unit_rows(self.sample)

    @of_whole
    def _kernel_sums(self) -> np.ndarray:
        return kernel_sums(self.unit_sample, self.group_of[self.sample], len(self.kept))

    @property
    def kernel_sum(self) -> float:
        """Sum of uniformity's kernel over pairs i != j of the sample."""
        return float(self._kernel_sums[np.ix_(self.kept, self.kept)].sum())

    def unit_rows(self, index: np.ndarray | slice) -> np.ndarray:
        """Unit rows (m, d) of the embeddings at ``index``."""
        z = self.rows.take(index)
        if not z.any(axis=1).all():
            raise NotMeasured("a row is all zeros, so it has no direction")
        return unit(z)
