"""Flips of a study: items that the teacher classifies rightly and the student wrongly, clean and under the same noise; and
items that either side classifies rightly without noise and wrongly with it.

An accuracy under noise is a mean: a student that loses two points may have flipped ten items in a hundred. Seeds give the
interval. Both sides use probes of their own, fitted to clean train embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from distillscope.results.rows import CLEAN, Row

Predictions = Mapping[tuple, np.ndarray]
"""(probe, condition, draw) -> what it says of each test item (n,)."""


def read_predictions(path: Path | None) -> dict[str, np.ndarray]:
    """Column of predictions.parquet -> (n,); empty where there is no such file."""
    if path is None or not path.is_file():
        return {}
    return {str(name): values.to_numpy() for name, values in pd.read_parquet(path).items()}


def column(probe: str, condition: str, draw: int | None) -> str:
    """What predictions.parquet calls them.

    >>> column("tuned", "noise=0.1", 2)
    'tuned|noise=0.1|2'
    """
    return f"{probe}|{condition}|{'' if draw is None else draw}"


def against_teacher(heads: Mapping[str, str], student: Predictions, teacher: Mapping[str, np.ndarray], labels: np.ndarray,
                    same_noise: bool) -> list[Row]:
    """Negative and positive flips of each probe and condition, and the negative ones of the class that has most of them.

    ``heads``: probe -> head of its keys; ``teacher`` as `read_predictions` gives it. Noise is compared where both sides saw the
    ``same_noise``. Empty where the teacher's predictions are of another number of items.
    """
    rows: list[Row] = []
    for (probe, condition, draw), said in student.items():
        other = teacher.get(column(probe, condition, draw))
        if other is None or len(other) != len(said) or not (same_noise or condition == CLEAN):
            continue
        right, was = said == labels, other == labels
        lost, key, n = was & ~right, heads[probe], len(labels)
        worst = max(float(lost[labels == one].mean()) for one in np.unique(labels))
        rows += [Row(f"{key}.negative_flips", condition, draw, float(lost.mean()), n, "fraction"),
                 Row(f"{key}.positive_flips", condition, draw, float((right & ~was).mean()), n, "fraction"),
                 Row(f"{key}.worst_class_flips", condition, draw, worst, n, "fraction")]
    return rows


def by_noise(heads: Mapping[str, str], said: Predictions, labels: np.ndarray, side: str) -> list[Row]:
    """Share of items that each probe of a side gets right without noise and wrong under it; and of the worst class."""
    rows: list[Row] = []
    for (probe, condition, draw), noisy in said.items():
        if condition == CLEAN:
            continue
        lost = (said[probe, CLEAN, None] == labels) & (noisy != labels)
        worst = max(float(lost[labels == one].mean()) for one in np.unique(labels))
        head = f"{heads[probe]}.{side}"
        rows += [Row(f"{head}.noise_flips", condition, draw, float(lost.mean()), len(labels), "fraction"),
                 Row(f"{head}.worst_class_noise_flips", condition, draw, worst, len(labels), "fraction")]
    return rows
