"""What similarity, its nulls (the student's items shuffled) and retrieval are made from: a ``Pair`` that compares items."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from distillscope.draws import keyed_rng
from distillscope.measure.pair import Pair
from distillscope.measure.pool import of_whole
from distillscope.measure.results import NotMeasured
from distillscope.measure.rows import moments, unit
from distillscope.measure.search import Directions, ahead_of_own
from distillscope.measure.similarity import linear_cka, linear_cka_debiased, overlap
from distillscope.measure.spectrum import descending_eigenvalues
from distillscope.measure.threads import over_blocks


class Comparison(Pair):
    """Row-aligned teacher and student, with shuffled draws and a search index."""

    @property
    def rsa_count(self) -> int:
        return self.teacher.rsa_count

    # -- shuffled items ----------------------------------------------------------------------------------------------

    @cached_property
    def null_count(self) -> int:
        """Items in the shuffles."""
        return min(self.settings.null_items, self.count)

    @cached_property
    def _moment_draws(self) -> dict[str, np.ndarray]:
        index = self.teacher.order[: self.null_count]
        return shuffled_moments(self.teacher.coordinates(index), self.student.coordinates(index),
                                self.settings.null_draws, self.settings.seed)

    @property
    def linear_cka_draws(self) -> np.ndarray:
        return self._moment_draws["linear_cka"]

    @property
    def linear_cka_debiased_draws(self) -> np.ndarray:
        return self._moment_draws["linear_cka_debiased"]

    @property
    def procrustes_draws(self) -> np.ndarray:
        return self._moment_draws["procrustes"]

    @cached_property
    def rsa_spearman_draws(self) -> np.ndarray:
        return shuffled_rsa(self.teacher.rsa_ranks, self.student.rsa_ranks,
                            self.settings.null_draws, self.settings.seed)

    @cached_property
    def mutual_knn_draws(self) -> np.ndarray:
        return shuffled_mutual_knn(self.teacher.neighbours, self.student.neighbours,
                                   self.settings.null_draws, self.settings.seed)

    # -- the search index --------------------------------------------------------------------------------------------

    @cached_property
    def gallery_index(self) -> np.ndarray:
        """Row numbers of the gallery, in content order."""
        return self.teacher.order[: self.settings.gallery_items]

    @cached_property
    def num_queries(self) -> int:
        """Queries: the first items of the gallery."""
        gallery = len(self.gallery_index)
        return min(gallery, max(1, self.settings.retrieval_pairs // gallery))

    def expect(self, gallery: int, queries: int) -> None:
        """Say to both sides which neighbours will be asked for."""
        for side in (self.teacher, self.student):
            side.expect(gallery, queries)

    @cached_property
    def _kept_queries(self) -> np.ndarray:
        return np.isin(self.teacher.group_of[self.gallery_index[: self.num_queries]], self.kept)

    @property
    def retrieval_count(self) -> int:
        return int(self._kept_queries.sum())

    @of_whole
    def _ahead(self) -> np.ndarray:
        """Items (m, g) that come before each student query's own one in the teacher's gallery, by group."""
        self.need_one_dim()
        return self._ahead_of_own(self.student.directions(self.num_queries))

    @of_whole
    def _mapped_ahead(self) -> np.ndarray:
        """The same for queries mapped by the ridge map of the folds that they are not in.

        With a group left out the maps hardly change, so they stay.
        """
        return self._ahead_of_own(self.mapped(self.gallery_index[: self.num_queries]))

    def mapped(self, index: np.ndarray) -> Directions:
        """The student's rows of ``index``, each mapped by the ridge map of the folds that it is not in, of unit norm."""
        rows = np.empty((len(index), self.teacher.dim))
        for fold, model in zip(self.folds, self.fold_maps, strict=True):
            inside = np.isin(self.teacher.group_of[index], fold)
            rows[inside] = model(self.student.rows.take(index[inside]))
        return Directions.of(unit(rows))

    def _ahead_of_own(self, queries: Directions) -> np.ndarray:
        return ahead_of_own(self.teacher.directions(len(self.gallery_index)), queries, np.arange(queries.count),
                            self.teacher.group_of[self.gallery_index], len(self.kept))

    def _ranks(self, ahead: np.ndarray) -> np.ndarray:
        return 1 + ahead[np.ix_(self._kept_queries, np.asarray(self.kept, dtype=np.intp))].sum(axis=1)

    @cached_property
    def retrieval_ranks(self) -> np.ndarray:
        """Rank (m,) of each student query's own item in the teacher's gallery."""
        return self._ranks(self._ahead)

    @property
    def found_at_1(self) -> np.ndarray:
        return self.retrieval_ranks <= 1

    @property
    def found_at_5(self) -> np.ndarray:
        return self.retrieval_ranks <= 5

    @property
    def found_at_10(self) -> np.ndarray:
        return self.retrieval_ranks <= 10

    @cached_property
    def mapped_retrieval_ranks(self) -> np.ndarray:
        """The same after the out-of-fold ridge map."""
        return self._ranks(self._mapped_ahead)

    @property
    def mapped_found_at_1(self) -> np.ndarray:
        return self.mapped_retrieval_ranks <= 1

    @property
    def mapped_found_at_5(self) -> np.ndarray:
        return self.mapped_retrieval_ranks <= 5

    @property
    def mapped_found_at_10(self) -> np.ndarray:
        return self.mapped_retrieval_ranks <= 10

    @cached_property
    def neighbour_overlaps(self) -> np.ndarray:
        """Share (m,) of each query's first results in the student's index that the teacher's index gives too."""
        gallery = len(self.gallery_index)
        return overlap(*(side.nearest_kept(gallery, self.num_queries) for side in (self.student, self.teacher)))


def permutations(count: int, draws: int, seed: int, purpose: str) -> list[np.ndarray]:
    """``draws`` random orders of ``count`` items."""
    return [keyed_rng(seed, "null", purpose, draw).permutation(count) for draw in range(draws)]


def shuffled_moments(teacher: np.ndarray, student: np.ndarray, draws: int, seed: int) -> dict[str, np.ndarray]:
    """Null draws of the three measures made of scatters, from rows ``teacher`` (n, d) and ``student`` (n, d').

    Both sides are brought to unit energy, which changes none, and multiplied in float32: draws err by up to `tolerances.NULL`.
    """
    teacher, student = teacher - teacher.mean(axis=0), student - student.mean(axis=0)
    teacher, student = (z / (np.linalg.norm(z) or 1.0) for z in (teacher, student))
    single = teacher.astype(np.float32), student.astype(np.float32)
    scatters = moments(teacher).scatter, moments(student).scatter
    energies = np.square(teacher).sum(axis=1), np.square(student).sum(axis=1)
    found = {name: np.empty(draws) for name in ("linear_cka", "linear_cka_debiased", "procrustes")}

    def draw(number: int, order: np.ndarray) -> None:
        cross = (single[1][order].T @ single[0]).astype(np.float64)
        found["linear_cka"][number] = linear_cka(cross, *scatters)
        found["linear_cka_debiased"][number] = linear_cka_debiased(cross, *scatters, energies[0], energies[1][order])
        squares = cross @ cross.T if cross.shape[0] < cross.shape[1] else cross.T @ cross
        found["procrustes"][number] = np.sqrt(descending_eigenvalues(squares)).sum()  # half of the time of singular values

    over_blocks(draw, enumerate(permutations(len(teacher), draws, seed, "moments")))
    return found


def shuffled_rsa(teacher: np.ndarray, student: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Null draws of RSA from the ranks (n (n - 1) / 2,) of condensed distances."""
    from scipy.spatial.distance import squareform

    first, second = teacher - teacher.mean(), student - student.mean()
    if not (first.any() and second.any()):
        raise NotMeasured("all embeddings of a side are equally far from one another, so there is no order to compare")
    first, second = first / np.linalg.norm(first), second / np.linalg.norm(second)
    first, second = squareform(first), squareform(second)  # both triangles, so sums are twice those over pairs
    return np.array([sum(float(np.vdot(first[i : i + 64], second[order[i : i + 64]].take(order, axis=1)))
                         for i in range(0, len(order), 64)) / 2  # 64 rows at a time stay in cache
                     for order in permutations(len(first), draws, seed, "rsa")])


def shuffled_mutual_knn(teacher: np.ndarray, student: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Null draws of the mutual neighbour share from neighbour positions (n, k)."""
    def shuffled(order: np.ndarray) -> np.ndarray:
        renamed = np.empty(len(order), np.intp)
        renamed[order] = np.arange(len(order))  # the student's item order[i] now stands at i
        return renamed[student[order]]

    return np.array([float(np.mean(overlap(teacher, shuffled(order))))
                     for order in permutations(len(teacher), draws, seed, "neighbours")])
