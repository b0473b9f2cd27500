"""The student in the teacher's space: what arms with different targets, or none, have in common.

A rank is cheap to raise: whitening moves it without any training. So it is reported twice: raw, and here, after the ridge
map that predicts the teacher's embedding of an image from the student's, where directions that say nothing of the teacher
are shrunk away.

The map is fitted on test images, cross-fitted: each image is mapped by a fit that never saw it. Fitted on the student's own
train images (as it was until 2026-11-26) it takes a student that has memorised them at its word: the penalty is chosen
against embeddings that fit too well, and overfitting reads as lost information. The validation part would do as well, but a
study may have none (the paper's), or one that is small beside 512 dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from distillscope import progress
from distillscope.files.writing import checksum, write_atomic, write_text
from distillscope.measure.audit import audit
from distillscope.measure.probe import FOLDS, ridge_map
from distillscope.measure.rows import unit
from distillscope.results.rows import Row

KEPT = {"student.effective_rank": "effective_rank", "retrieval.recall_at_1": "recall_at_1",
        "retrieval.recall_at_5": "recall_at_5", "retrieval.recall_at_10": "recall_at_10",
        "retrieval.neighbour_overlap_10": "neighbour_overlap_10"}


def folds_of(teacher: np.ndarray) -> np.ndarray:
    """Fold (n,) of each item, by content: the order of the items changes nothing, and exact repeats share a fold.

    >>> folds_of(np.array([[3.0, 0], [1, 0], [2, 0], [1, 0], [5, 0], [4, 0], [6, 0]])).tolist()
    [2, 0, 1, 0, 4, 3, 0]
    """
    item = np.unique(teacher, axis=0, return_inverse=True)[1].reshape(-1)
    return item % min(FOLDS, item.max() + 1)


def mapped_rows(student: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    """The student's rows (n, d) mapped to the teacher's (n, k), each by the ridge map of the folds that it is not in."""
    fold_of, mapped = folds_of(teacher), np.empty(teacher.shape)
    for fold in np.unique(fold_of):
        out = fold_of == fold
        mapped[out] = ridge_map(student[~out], teacher[~out])(student[out])
    return mapped


def mapped_measures(student: np.ndarray, teacher: np.ndarray) -> list[Row]:
    """Rows of the student's test embeddings (n, d), mapped to the teacher's (n, k).

    All rows are scaled to unit norm first. ``mapped.teacher_r2`` is the share of the teacher's variance that the map explains,
    ``mapped.mean_cosine`` the mean cosine with the teacher's embedding.

    >>> x = np.random.default_rng(0).normal(size=(400, 6))
    >>> found = {row.measure: row.value for row in mapped_measures(x, x[:, ::-1])}
    >>> round(found["mapped.teacher_r2"], 6), found["mapped.recall_at_1"]
    (1.0, 1.0)
    """
    reference = unit(np.asarray(teacher, np.float64))
    mapped = mapped_rows(unit(np.asarray(student, np.float64)), reference)
    residual = np.square(reference - mapped).sum() / np.square(reference - reference.mean(axis=0)).sum()
    cosines = (unit(mapped) * reference).sum(axis=1)
    found = audit(reference, mapped, groups={"spectrum", "retrieval"}, intervals=False).values
    rows = [Row.clean(f"mapped.{name}", found[key].value, found[key].n, found[key].unit)
            for key, name in KEPT.items() if key in found]
    return [*rows, Row.clean("mapped.teacher_r2", float(1 - residual), len(reference), "share"),
            Row.clean("mapped.mean_cosine", float(cosines.mean()), len(reference), "cosine")]


def keep_rows(path: Path, make: Callable[[], np.ndarray], cheap: Callable[[], bool] = lambda: True) -> None:
    """Targets (n, d) float32 in ``path``, written with their checksum unless they are there and sound.

    Older ones without a checksum are compared with what they would be made as, where that is ``cheap``; else they are taken
    if they are finite.
    """
    if path.is_file():
        if mark_of(path).is_file():
            why = None if is_sound(path) else "checksum differs"
        else:
            why = _fault(path, make if cheap() else None)
        if why is None:
            if not mark_of(path).is_file():
                write_text(mark_of(path), checksum(path))
            return
        progress.say(f"cache {path}: damaged ({why}); made again")
    mark_of(path).unlink(missing_ok=True)
    rows = make()
    write_atomic(path, lambda p: np.save(p, np.ascontiguousarray(rows, dtype=np.float32), allow_pickle=False))
    write_text(mark_of(path), checksum(path))


def mark_of(path: Path) -> Path:
    """Where a file's checksum stands; written after it."""
    return path.with_name(f"{path.name}.checksum")


def is_sound(path: Path) -> bool:
    try:
        return mark_of(path).read_text(encoding="utf-8").strip() == checksum(path)
    except (FileNotFoundError, ValueError):
        return False


def _fault(path: Path, make: Callable[[], np.ndarray] | None) -> str | None:
    """What is wrong with targets that were written before checksums were."""
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        return str(error).splitlines()[0][:120]
    if make is None:
        return None if rows.ndim == 2 and rows.dtype == np.float32 and np.isfinite(rows).all() else "not finite float32 rows"
    wanted = make()
    if rows.shape != wanted.shape or rows.dtype != np.float32:
        return f"{rows.dtype} of shape {rows.shape}"
    # Made on other threads or another machine the last digits differ.
    size = float(np.sqrt(np.square(wanted).mean()))
    return None if np.allclose(rows, wanted, rtol=1e-3, atol=1e-3 * size) else "other values"
