"""What measures of a row-aligned teacher and student are made from, each once and lazily."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from distillscope.measure import alignment, contrastive
from distillscope.measure.pool import Side, of_whole
from distillscope.measure.probe import Map, fold_groups, missed, residual_energy, ridge
from distillscope.measure.results import NotMeasured
from distillscope.measure.rows import SMALLEST_NORM, Accumulator, Moments, by_group, merged, span, unit
from distillscope.measure.spectrum import padded
from distillscope.measure.threads import over_blocks
from distillscope.registry import positional


class Pair:
    """Row-aligned teacher and student, and everything derived from both.

    The student's groups and subsamples are the teacher's, so that both sides leave out the same items.
    """

    def __init__(self, teacher: Side, student: Side) -> None:
        self.teacher, self.student, self.settings = teacher, student, teacher.settings
        self._whole = self

    def without(self, group: int) -> Pair:
        """This pair with one group of items left out on both sides."""
        part = object.__new__(type(self))
        part.teacher, part.student = self.teacher.without(group), self.student.without(group)
        part.settings, part._whole = self.settings, self._whole
        return part

    @property
    def kept(self) -> tuple[int, ...]:
        return self.teacher.kept

    @property
    def count(self) -> int:
        return self.teacher.count

    @property
    def item_count(self) -> int:
        return self.teacher.item_count

    @property
    def sample_count(self) -> int:
        return self.teacher.sample_count

    def need_one_dim(self) -> int:
        """The common dimension; what compares coordinates exists only where there is one."""
        if self.teacher.dim != self.student.dim:
            raise NotMeasured(f"it compares coordinates, and the teacher has {self.teacher.dim} dimensions, "
                              f"the student {self.student.dim}")
        return self.teacher.dim

    @of_whole
    def cross_group_moments(self) -> list[Moments]:
        """Cross moments (student, teacher) of each group."""
        parts = [Accumulator() for _ in self.teacher.kept]
        size = max(span(side.rows, len(parts)) for side in (self.teacher, self.student))
        for start in range(0, self.teacher.rows.count, size):
            over_blocks(lambda part, index, start=start: part.add(self.student.coordinates(start + index),
                                                                  self.teacher.coordinates(start + index)),
                        zip(parts, by_group(self.teacher.group_of[start : start + size], len(parts)), strict=True))
        return [part.result() for part in parts]

    def cross_moments_of(self, groups: tuple[int, ...]) -> Moments:
        """Cross moments (student, teacher) of the items of ``groups``."""
        return merged(self.cross_group_moments[g] for g in groups)

    @cached_property
    def cross_moments(self) -> Moments:
        return self.cross_moments_of(self.teacher.kept)

    @property
    def cross_scatter(self) -> np.ndarray:
        """Centred cross scatter (student's r, teacher's r)."""
        return self.cross_moments.scatter

    @cached_property
    def paired_cosines(self) -> np.ndarray:
        """Cosine (n,) between each item's two embeddings, in row order."""
        self.need_one_dim()
        cosines = np.empty(self.teacher.rows.count)

        def measure(where: slice) -> None:
            block, other = self.student.rows.take(where), self.teacher.rows.take(where)
            lengths = np.sqrt(np.einsum("ij,ij->i", block, block) * np.einsum("ij,ij->i", other, other))
            if not lengths.min() > SMALLEST_NORM:  # squares of some values vanish: unit rows cost two divisions more
                if not (block.any(axis=1) & other.any(axis=1)).all():
                    raise NotMeasured("a row is all zeros, so it has no direction")
                block, other, lengths = unit(block), unit(other), np.ones(len(block))
            cosines[where] = np.einsum("ij,ij->i", block, other) / lengths

        over_blocks(measure, self.student.rows.parts())
        return cosines

    @cached_property
    def student_energy_on_teacher(self) -> np.ndarray:
        """Energy (d,) of the centred student along each of the teacher's principal directions."""
        return self._energy(self.student, self.teacher)

    @cached_property
    def teacher_energy_on_student(self) -> np.ndarray:
        """Energy (d,) of the centred teacher along each of the student's principal directions."""
        return self._energy(self.teacher, self.student)

    def _energy(self, of: Side, along: Side) -> np.ndarray:
        """Energy (d,) of ``of`` along the components of ``along``; what has no part in those is spread over the rest evenly.

        Where there are as many items as dimensions or fewer, the components that the items do not fix may lie anywhere.
        """
        dim = self.need_one_dim()
        found = alignment.energy_along(of.frame.along(along.components), of.scatter)
        if len(found) == dim:
            return found
        rest = max(float(np.trace(of.scatter) - found.sum()), 0.0)
        return np.append(found, np.full(dim - len(found), rest / (dim - len(found))))

    @cached_property
    def student_energy_on_leading(self) -> np.ndarray:
        """Energy (2,) of the centred student along the teacher's first k = 20 principal directions together, and the rest."""
        return self._leading_energy(self.student, self.teacher)

    @cached_property
    def teacher_energy_on_leading(self) -> np.ndarray:
        """Energy (2,) of the centred teacher along the student's first k = 20 principal directions together, and the rest."""
        return self._leading_energy(self.teacher, self.student)

    def _leading_energy(self, of: Side, along: Side) -> np.ndarray:
        dim, total = self.need_one_dim(), float(np.trace(of.scatter))
        found = alignment.energy_along(of.frame.along(along.leading), of.scatter)
        missing = min(alignment.TOP, dim) - len(found)  # components that the items do not fix, as above
        inside = found.sum() + max(total - found.sum(), 0.0) * missing / max(1, dim - len(found))
        return np.array([inside, max(total - inside, 0.0)])

    @cached_property
    def principal_angles(self) -> np.ndarray:
        """Principal angles (k,) in degrees between the spans of the first k = 20 components of both sides, or fewer."""
        self.need_one_dim()
        k = min(side.leading.shape[1] for side in (self.teacher, self.student))
        return alignment.angles_between(self.teacher.leading[:, :k], self.student.leading[:, :k])

    # -- the cross-validated linear map ------------------------------------------------------------------------------

    @cached_property
    def folds(self) -> list[tuple[int, ...]]:
        """The groups of items, cut into folds."""
        return fold_groups(self.teacher.kept)

    @cached_property
    def _training_folds(self) -> list[tuple[int, ...]]:
        return [tuple(g for g in self.teacher.kept if g not in fold) for fold in self.folds]

    @cached_property
    def fold_maps(self) -> list[Map]:
        """For each fold, the ridge map student -> teacher fitted on the other folds, between rows."""
        return [model.between(self.student.frame, self.teacher.frame) for model in self._inner_maps]

    @cached_property
    def _inner_maps(self) -> list[Map]:
        """The same maps between coordinates."""
        return [ridge(self.student.moments_of(train), self.cross_moments_of(train),
                      self.teacher.energy_of(train), self.teacher.items_in(train)) for train in self._training_folds]

    @cached_property
    def teacher_residual_energy(self) -> np.ndarray:
        """Out-of-fold squared error (d,) of the linear map along each of the teacher's principal directions."""
        total = np.zeros(self.teacher.axes.shape[1])
        for fold, model in zip(self.folds, self._inner_maps, strict=True):
            total += residual_energy(model, self.teacher.axes, self.student.moments_of(fold),
                                     self.cross_moments_of(fold), self.teacher.moments_of(fold))
        return padded(total, self.teacher.dim)

    @cached_property
    def teacher_missed(self) -> float:
        """The sum of that error over all directions."""
        if self is self._whole:
            return float(self.teacher_residual_energy.sum())
        return sum(missed(model, self.student.moments_of(fold), self.cross_moments_of(fold), self.teacher.energy_of(fold))
                   for fold, model in zip(self.folds, self._inner_maps, strict=True))

    @property
    def teacher_energy(self) -> float:
        """Sum of squared distances of the teacher's rows from their mean."""
        return float(np.trace(self.teacher.scatter))

    @cached_property
    def teacher_own_r2(self) -> float:
        """R2 of the teacher predicted from itself over the same folds: 1 where each has more training items than dimensions."""
        if all(self.teacher.items_in(train) > self.teacher.dim + 1 for train in self._training_folds):
            return 1.0
        missed = 0.0
        for fold, train in zip(self.folds, self._training_folds, strict=True):
            seen, unseen = self.teacher.moments_of(train), self.teacher.moments_of(fold)
            model = ridge(seen, seen, float(np.trace(seen.scatter)), self.teacher.items_in(train))
            missed += residual_energy(model, self.teacher.axes, unseen, unseen, unseen).sum()
        total = self.teacher.eigenvalues.sum()
        return float(1 - missed / total) if total > 0 else 1.0

    # -- contrastive -------------------------------------------------------------------------------------------------

    @cached_property
    def contrastive_batch(self) -> int:
        """K: as set, or all items where there are fewer. Groups left out make batches smaller, but not other batches."""
        return min(self.settings.infonce_batch, self.teacher.rows.count)

    @property
    def contrastive_chance(self) -> float:
        """log of the mean number of kept items in a batch: log K where none is left out."""
        return float(np.log(self.contrastive_batch * len(self.kept) / len(self._whole.kept)))

    @cached_property
    def _contrastive_index(self) -> np.ndarray:
        """Row numbers of the items that take part, in content order: whole batches of K."""
        most = max(self.settings.infonce_items, self.contrastive_batch)
        chosen = self.teacher.order[:most]
        return chosen[: len(chosen) // self.contrastive_batch * self.contrastive_batch]

    @cached_property
    def contrastive_rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Student's and teacher's unit rows of the items that take part, in content order."""
        self.need_one_dim()
        return self.student.unit_rows(self._contrastive_index), self.teacher.unit_rows(self._contrastive_index)

    @property
    def contrastive_count(self) -> int:
        """Items in whole batches of K."""
        self.need_one_dim()
        return len(self._contrastive_index)

    @of_whole
    def _batched(self) -> contrastive.Batched:
        """The student in batches of K, of other K, and at other temperatures on at most four batches of K."""
        student, teacher = self.contrastive_rows
        sizes = sorted({k for k in (*contrastive.BATCHES, self.contrastive_batch) if k <= len(student)})
        return self._in_batches(student, teacher, sizes, contrastive.TEMPERATURES)

    @of_whole
    def _batched_teacher(self) -> contrastive.Batched:
        """The teacher in both places, in batches of K."""
        _, teacher = self.contrastive_rows
        return self._in_batches(teacher, teacher)

    def _in_batches(self, student: np.ndarray, teacher: np.ndarray, sizes: Sequence[int] = (),
                    temperatures: Sequence[float] = ()) -> contrastive.Batched:
        member = np.eye(len(self.kept))[self.teacher.group_of[self._contrastive_index]]
        return contrastive.batched(student, teacher, self.contrastive_batch, self.settings.infonce_temperature, member, sizes,
                                   temperatures, 4 * self.contrastive_batch)

    @cached_property
    def contrastive_losses(self) -> np.ndarray:
        """InfoNCE loss of each item in its batch of K."""
        return self._kept_losses(self._batched)

    @cached_property
    def contrastive_teacher_losses(self) -> np.ndarray:
        """The same with the teacher in both places."""
        return self._kept_losses(self._batched_teacher)

    def _kept_losses(self, found: contrastive.Batched) -> np.ndarray:
        kept = np.isin(self.teacher.group_of[self._contrastive_index], self.kept)
        return found.constant[kept] + np.log(found.sums[kept][:, self.kept].sum(axis=1))

    @property
    def contrastive_by_k(self) -> dict[int, np.ndarray]:
        """Losses at the set temperature for several K up to the number of items."""
        return self._batched.by_size

    @property
    def contrastive_by_temperature(self) -> dict[float, np.ndarray]:
        """Losses at the set K for several temperatures, on at most four batches."""
        return self._batched.by_temperature

    # -- the paper's, in row order -----------------------------------------------------------------------------------

    @cached_property
    def paper_batch_sizes(self) -> np.ndarray:
        """Sizes of batches of 64 in row order, the short last one included."""
        size, count = contrastive.PAPER_BATCH, self.teacher.rows.count
        return np.array([min(size, count - start) for start in range(0, count, size)])

    @of_whole
    def _paper(self) -> contrastive.PaperBatches:
        """What each of the paper's batches gave; losses where both sides have one dimension."""
        size, count = contrastive.PAPER_BATCH, self.teacher.rows.count
        found = contrastive.PaperBatches.of(len(self.paper_batch_sizes))

        def measure(where: slice) -> None:
            student, teacher = (side.unit_rows(where) for side in (self.student, self.teacher))
            found.measure(where.start // size, student, teacher)

        over_blocks(measure, ((slice(start, min(start + 16 * size, count)),) for start in range(0, count, 16 * size)))
        return found

    @property
    def paper_batch_losses(self) -> np.ndarray:
        """Mean InfoNCE loss of each of the paper's batches."""
        self.need_one_dim()
        return self._paper.losses

    @property
    def paper_student_uniformities(self) -> np.ndarray:
        """The paper's uniformity of each batch of the student."""
        return self._paper.student

    @property
    def paper_teacher_uniformities(self) -> np.ndarray:
        """The paper's uniformity of each batch of the teacher."""
        return self._paper.teacher


def resolve(pool: Side | Pair, function: Callable[..., Any]) -> list[Any]:
    """The arguments that ``function`` names, computed where they were not yet."""
    return [resolve_name(pool, name) for name in positional(function)]


def resolve_name(pool: Side | Pair, name: str) -> Any:
    """One attribute of the pool; on a pair ``teacher_x`` and ``student_x`` are a side's x where the pair has none."""
    if hasattr(type(pool), name):
        return getattr(pool, name)
    side, _, rest = name.partition("_")
    if isinstance(pool, Pair) and side in ("teacher", "student") and hasattr(Side, rest):
        return getattr(getattr(pool, side), rest)
    raise LookupError(f"no '{name}' in the pool, known: {', '.join(sorted(n for n in dir(type(pool)) if n[0] != '_'))}")
