"""The student in the teacher's space: what arms with different targets, or none, have in common.

A rank is cheap to raise: whitening moves it without any training. So it is reported twice: raw, and here, after the ridge
map that predicts the teacher's embedding of an image from the student's, fitted on train, where directions that say nothing
of the teacher are shrunk away.
"""

from __future__ import annotations

import numpy as np

from distillscope.audit import audit
from distillscope.measure.ridge import ridge_map
from distillscope.measure.rows import unit

KEPT = {"student.effective_rank": "effective_rank", "retrieval.recall_at_1": "recall_at_1",
        "retrieval.recall_at_5": "recall_at_5", "retrieval.recall_at_10": "recall_at_10",
        "retrieval.neighbour_overlap_10": "neighbour_overlap_10"}


def mapped_measures(student_train: np.ndarray, teacher_train: np.ndarray, student: np.ndarray,
                    teacher: np.ndarray) -> list[tuple]:
    """Rows (measure, condition, draw, value, n, unit) of the student's test embeddings (n, d), mapped to (n, k).

    All rows are scaled to unit norm first; the map is fitted on the train rows alone. ``mapped.teacher_r2`` is the share of
    the teacher's test variance that the map explains, ``mapped.mean_cosine`` the mean cosine with the teacher's embedding.

    >>> x = np.random.default_rng(0).normal(size=(400, 6))
    >>> found = {row[0]: row[3] for row in mapped_measures(x[:300], x[:300, ::-1], x[300:], x[300:, ::-1])}
    >>> round(found["mapped.teacher_r2"], 6), found["mapped.recall_at_1"]
    (1.0, 1.0)
    """
    model = ridge_map(unit(np.asarray(student_train, np.float64)), unit(np.asarray(teacher_train, np.float64)))
    reference, mapped = unit(np.asarray(teacher, np.float64)), model(unit(np.asarray(student, np.float64)))
    residual = np.square(reference - mapped).sum() / np.square(reference - reference.mean(axis=0)).sum()
    cosines = (unit(mapped) * reference).sum(axis=1)
    found = audit(reference, mapped, groups={"spectrum", "retrieval"}, intervals=False).values
    rows = [(f"mapped.{name}", "clean", None, found[key].value, found[key].n, found[key].unit)
            for key, name in KEPT.items() if key in found]
    return [*rows, ("mapped.teacher_r2", "clean", None, float(1 - residual), len(reference), "share"),
            ("mapped.mean_cosine", "clean", None, float(cosines.mean()), len(reference), "cosine")]
