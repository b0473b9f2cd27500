"""What an index loses that keeps embeddings short: their first dimensions alone, int8 or binary codes; each side by itself.

On the first 4,096 items in content order, of which the first 1,024 are queries. Both the index and its queries are compressed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Literal

import numpy as np

from distillscope.measure.accuracy import made, retention, share_right
from distillscope.measure.exchange import FIRST, Exchange
from distillscope.measure.neighbours import first_kept, voted
from distillscope.measure.pool import SPARE, Side, of_whole
from distillscope.measure.results import NotMeasured, Points
from distillscope.measure.rows import unit
from distillscope.measure.search import Directions, nearest_rows
from distillscope.measure.similarity import overlap
from distillscope.registry import curves, measures

QUERIES = 1024
FEWEST_DIMS = 8
"""The shortest piece on the curve."""


def int8_codes(z: np.ndarray) -> np.ndarray:
    """``z`` (n, d) with each column rounded to 255 steps, evenly from minus to plus its largest absolute value.

    >>> int8_codes(np.array([[1.0, 0.0], [-0.5, 0.0]])).round(3).tolist()
    [[1.0, 0.0], [-0.504, 0.0]]
    """
    step = np.abs(z).max(axis=0) / 127
    step[step == 0] = 1.0
    codes: np.ndarray = np.rint(z / step) * step
    return codes


def binary_codes(z: np.ndarray) -> np.ndarray:
    """1 where a value of ``z`` (n, d) is above its column's mean, else -1: their products order as Hamming distances do.

    >>> binary_codes(np.array([[1.0, 5.0], [3.0, 4.0]])).tolist()
    [[-1.0, 1.0], [1.0, -1.0]]
    """
    return np.where(z > z.mean(axis=0), 1.0, -1.0)


CODES: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "half": ("its first half of the dimensions", lambda z: z[:, : max(1, z.shape[1] // 2)]),
    "quarter": ("its first quarter of the dimensions", lambda z: z[:, : max(1, z.shape[1] // 4)]),
    "int8": ("8 bits a dimension", int8_codes),
    "binary": ("1 bit a dimension", binary_codes),
}
"""How rows are compressed, and how that is said."""


class Compressed(Exchange):
    """Row-aligned teacher and student, each searched in compressed form."""

    @property
    def code_queries(self) -> int:
        """Queries: the first of the sample."""
        return min(QUERIES, len(self._whole.teacher.sample))

    @property
    def code_count(self) -> int:
        return int(self._kept_sample[: self.code_queries].sum())

    @of_whole
    def _code_tables(self) -> dict[tuple[str, str | int], np.ndarray]:
        return {}

    def _code_table(self, side: str, code: str | int) -> np.ndarray:
        """Positions (q, k) in the whole sample of the nearest of each query; ``code``: of `CODES`, or a length."""
        whole = self._whole
        if isinstance(whole, Compressed) and whole is not self:
            return whole._code_table(side, code)
        of: Side = self.teacher if side == "teacher" else self.student
        size = len(self.teacher.sample)
        if code == "":
            return of.neighbour_table(size, self.code_queries)
        key = (side, len_of if (len_of := _length(code, of.dim)) else code)
        if key not in self._code_tables:
            z = of.unit_sample[:, :len_of] if len_of else CODES[str(code)][1](of.unit_sample)
            if not z.any(axis=1).all():
                raise NotMeasured(f"{'the first dimensions of' if len_of else 'the code of'} a row are all zeros")
            short = Directions.of(unit(z))
            found = nearest_rows(short, short, {size: self.code_queries}, FIRST + SPARE, exclude_self=True)
            self._code_tables[key] = found[size]
        return self._code_tables[key]

    @cached_property
    def _code_results(self) -> dict[tuple[str, str | int], np.ndarray]:
        return {}

    def code_results(self, side: str, code: str | int) -> np.ndarray:
        """Positions (m, 10) of the first results of each kept query in the whole sample; without a code of whole rows."""
        if (side, code) not in self._code_results:
            table, kept = self._code_table(side, code), self._kept_sample
            if kept.sum() <= FIRST + 1:
                raise NotMeasured(f"it needs more than {FIRST + 1} items, or every item is a result")
            found = np.take_along_axis(table, first_kept(table, kept, FIRST), axis=1)
            self._code_results[side, code] = found[kept[: self.code_queries]]
        return self._code_results[side, code]

    def code_overlap(self, side: str, code: str | int) -> np.ndarray:
        """Share (m,) of the side's own first results that its compressed index gives too."""
        return overlap(self.code_results(side, code), self.code_results(side, ""))

    def code_correct(self, side: str, code: str) -> np.ndarray:
        """Whether the vote of the first results of each kept query (m,) is its class."""
        codes = self._codes
        own = codes[: self.code_queries][self._kept_sample[: self.code_queries]]
        correct: np.ndarray = voted(codes[self.code_results(side, code)], int(codes.max()) + 1) == own
        return correct


    def pieces(self, side: str) -> Points:
        """Overlap with whole rows over the number of first dimensions: powers of two, and all."""
        dim = (self.teacher if side == "teacher" else self.student).dim
        lengths = [*(2**i for i in range(FEWEST_DIMS.bit_length() - 1, dim.bit_length()) if 2**i < dim)]
        if not lengths:
            raise NotMeasured(f"it needs more than {FEWEST_DIMS} dimensions")
        kept = [float(np.mean(self.code_overlap(side, length))) for length in lengths]
        return Points(np.array([*lengths, dim]), np.array([*kept, 1.0]))

    @property
    def teacher_pieces(self) -> Points:
        return self.pieces("teacher")

    @property
    def student_pieces(self) -> Points:
        return self.pieces("student")


def _length(code: str | int, dim: int) -> int:
    """So many first dimensions, where ``code`` cuts rows; else 0."""
    return code if isinstance(code, int) else {"half": max(1, dim // 2), "quarter": max(1, dim // 4)}.get(code, 0)


def _register(side: Literal["teacher", "student"], code: str) -> None:
    """Overlap with whole rows, and what of the accuracy of neighbours is retained, as measures."""
    names = [f"{side}_{code}_{what}" for what in ("overlaps", "correct")]
    whole = f"{side}_whole_correct"
    setattr(Compressed, names[0], property(lambda pool: pool.code_overlap(side, code)))
    setattr(Compressed, names[1], property(lambda pool: pool.code_correct(side, code)))
    setattr(Compressed, whole, property(lambda pool: pool.code_correct(side, "")))
    says = CODES[code][0]
    for what, title, function, needs, defined in (
            ("overlap_10", "results kept", share_right, names[:1],
             f"Share of the {side}'s own first 10 results that its index with {says} gives too."),
            ("knn_retention", "kNN retention", retention, [names[1], whole],
             f"Accuracy of the vote of 10 neighbours on the {side} with {says}, over that with whole rows.")):
        key = f"codes.{side}.{code}_{what}"
        measures.register(key, unit="share", group="codes", interval="jackknife", n="code_count", ratio=function is retention,
                          title=f"{code}: {title}", percent=True, better="higher")(made(key, function, needs, defined))


for _side in ("teacher", "student"):
    for _code in CODES:
        _register(_side, _code)


@curves.register("codes.teacher_overlap_by_dims", unit="share", group="codes")
def teacher_overlap_by_dims(teacher_pieces: Points) -> Points:
    """Share of the teacher's own first 10 results that its first dimensions alone give too."""
    return teacher_pieces


@curves.register("codes.student_overlap_by_dims", unit="share", group="codes")
def student_overlap_by_dims(student_pieces: Points) -> Points:
    """Share of the student's own first 10 results that its first dimensions alone give too."""
    return student_pieces
