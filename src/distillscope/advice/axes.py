"""What an arm can be good at: the axes that a study measured, and each arm's number on them.

- accuracy: clean accuracy, by the tuned probe where the study fitted one. robustness: the same under the study's noise, the
  mean over its levels.
- retrieval: how often the student, mapped into the teacher's space, finds its own image's teacher embedding first.
- geometry: effective rank after that map, which rescaling cannot raise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from distillscope.claims.results import Results, Undecided
from distillscope.results.arms import Arm
from distillscope.results.keys import ACCURACIES, facts_of
from distillscope.results.rows import CLEAN, TEACHER

AXES = ("accuracy", "robustness", "retrieval", "geometry")
PURPOSES = ("balance", *AXES)
FLOOR = 0.1
"""A gap counts as at least this share of what it leads to."""
PAPER, TUNED, NEIGHBOURS = ACCURACIES
"""Accuracies. The paper's probe (C 1, unit norm) underfits embeddings of few large directions, so that arms are ranked by the
tuned one where there is one; neighbours have no C to choose."""


@dataclass(frozen=True)
class Axis:
    """What an arm can be good at. ``teacher`` is the teacher's own value, ``ceiling`` what a gap is counted to; None where they
    were not measured. A raw value times ``scale`` is in ``unit``."""

    name: str
    title: str
    measure: str
    conditions: tuple[str, ...]
    unit: str
    scale: float
    teacher: float | None
    ceiling: float | None

    def gap(self, plain: float) -> float:
        """What the plain arm lacks to the ceiling, and never next to nothing.

        >>> axis = Axis("accuracy", "", "", ("clean",), "points", 100, 0.8, 0.8)
        >>> round(axis.gap(0.6), 3), round(axis.gap(0.79), 3), round(axis.gap(0.9), 3)
        (0.2, 0.08, 0.08)
        """
        ceiling = self.ceiling or 0.0
        return max(ceiling - plain, FLOOR * ceiling)


def axes_of(results: Results) -> tuple[list[Axis], dict[str, str]]:
    """The axes that the study measured, and why the others are missing."""
    found, missing = [], {}
    measures = set(results.frame["measure"])
    try:
        key = accuracy_key(results)
        of_teacher = key.replace("student", TEACHER)
        clean = mean_of(results.teacher_values(of_teacher))
        facts = facts_of(key)
        found.append(Axis("accuracy", "clean accuracy", key, (CLEAN,), facts.difference, facts.scale, clean, clean))
        sigmas = tuple(results.sigmas())
        if sigmas:
            own = [m for c in sigmas if (m := mean_of(results.teacher_values(of_teacher, c))) is not None]
            found.append(Axis("robustness", "noisy accuracy", key, sigmas, facts.difference, facts.scale,
                              float(np.mean(own)) if len(own) == len(sigmas) else None, clean))
        else:
            missing["robustness"] = "no accuracy under noise was measured"
    except Undecided as gap:
        missing |= dict.fromkeys(("accuracy", "robustness"), str(gap))
    for name, measure, teacher in (
            ("retrieval", "mapped.recall_at_1", 1.0),
            ("geometry", "mapped.effective_rank", mean_of(results.teacher_values("teacher.effective_rank")))):
        if measure in measures:
            facts = facts_of(measure)
            found.append(Axis(name, facts.title, measure, (CLEAN,), facts.difference, facts.scale, teacher, teacher))
        else:
            missing[name] = f"{measure} was not measured"
    return found, missing


def accuracy_key(results: Results) -> str:
    """The accuracy that arms are ranked by: the tuned probe's where the study fitted one, else that of the claims."""
    known = set(results.frame["measure"])
    return TUNED if TUNED in known else results.accuracy_key()


def mean_of(values: pd.Series) -> float | None:
    """The mean, or None of no value."""
    return float(values.mean()) if len(values) else None


def axis_values(results: Results, axis: Axis, arm: Arm, student: str) -> pd.Series:
    """One number per seed: the mean over the axis' conditions, for seeds that have them all."""
    def means() -> pd.Series:
        columns = [results.values(arm, student, axis.measure, c) for c in axis.conditions]
        return pd.concat(columns, axis=1, join="inner").mean(axis=1)

    return results.once(("axis", axis.measure, axis.conditions, student, arm.key), means).copy()
