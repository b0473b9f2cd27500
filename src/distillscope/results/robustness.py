"""What a student loses under stress, against what its teacher loses under the same images."""

from __future__ import annotations

from typing import Any

import numpy as np

from distillscope.results.rows import TEACHER, Condition

KEYS = ["dataset", "split", "teacher", "target"]
OWN = [*KEYS, "student", "arm", "seed"]
MEAN = Condition.of("corruption", "mean")


def mean_corruption_error(student: Any, teacher: Any) -> float:
    """Error relative to the teacher's: the mean over corruptions of sum of errors / sum of the teacher's errors.

    Both (corruptions, severities), accuracies in [0, 1]; a corruption may have fewer severities than another. Hendrycks &
    Dietterich 2019, their CE with the teacher in place of AlexNet. 1: as often wrong as the teacher. NaN where the
    teacher is never wrong under some corruption.

    >>> mean_corruption_error([[0.6, 0.4]], [[0.8, 0.7]])
    2.0
    """
    return _ratio(_lost(student, 1.0), _lost(teacher, 1.0))


def relative_corruption_error(student: Any, teacher: Any, student_clean: float, teacher_clean: float) -> float:
    """What corruption adds to the error, relative to what it adds to the teacher's (their relative CE).

    NaN where the teacher loses nothing, or gains, under some corruption.

    >>> round(relative_corruption_error([[0.5]], [[0.7]], 0.7, 0.8), 6)
    2.0
    """
    return _ratio(_lost(student, student_clean), _lost(teacher, teacher_clean))


def retention(accuracy: float, clean: float) -> float:
    """The share of the clean accuracy that is left; NaN where there was none.

    >>> retention(0.3, 0.6)
    0.5
    """
    return accuracy / clean if clean > 0 else float("nan")


def against_teacher(results: Any) -> Any:
    """For every student, probe and condition: retention beside the teacher's, from a run's tidy results (a DataFrame).

    Columns: what names the trial, ``probe``, ``condition``, ``accuracy``, ``clean`` (on the same items), ``retention``,
    ``teacher_retention``, ``relative_retention`` (their ratio: 1 is as robust as the teacher), ``n``. One row more a student
    and probe with condition "corruption=mean" holds ``mean_corruption_error`` and ``relative_corruption_error`` where the
    corruptions were measured on both. Conditions that the teacher lacks are left out; draws are averaged.
    """
    import pandas as pd

    found = results[results["measure"].str.fullmatch(r"(paper\.)?probe\.(student|teacher)\.accuracy")].copy()
    found["probe"] = found["measure"].str.replace(r"\.(student|teacher)\.accuracy", "", regex=True)
    groups = found.groupby([*OWN, "probe", "condition"], dropna=False, sort=False)
    found = groups.agg(accuracy=("value", "mean"), n=("n", "max")).reset_index()
    found["reference"] = [Condition.parse(c).reference for c in found["condition"]]
    index = [*OWN, "probe"]
    clean = found[["accuracy", "condition", *index]].rename(columns={"condition": "reference", "accuracy": "clean"})
    found = found.merge(clean, on=["reference", *index], how="left")
    found["retention"] = [retention(a, c) for a, c in zip(found["accuracy"], found["clean"], strict=True)]
    is_teacher = found["student"] == TEACHER
    shared = [*KEYS, "probe", "condition"]
    teachers = found[is_teacher][[*shared, "accuracy", "clean", "retention"]]
    teachers = teachers.rename(columns={c: f"teacher_{c}" for c in ("accuracy", "clean", "retention")})
    table = found[~is_teacher & (found["condition"] != found["reference"])].merge(teachers, on=shared)
    table["relative_retention"] = table["retention"] / table["teacher_retention"]
    suite = pd.DataFrame([row for _, group in table.groupby(index, dropna=False, sort=False) for row in _suite(group, index)])
    return (pd.concat([table, suite], ignore_index=True) if len(suite) else table).drop(columns="reference")


def _suite(group: Any, index: list[str]) -> list[dict[str, Any]]:
    """One row with the errors of the corruption suite of one student and probe."""
    own = group[of_suite(group)]
    if own.empty:
        return []
    names = np.array([Condition.parse(c).what for c in own["condition"]], object)
    students, teachers = ([own[column].to_numpy()[names == name] for name in dict.fromkeys(names)]
                          for column in ("accuracy", "teacher_accuracy"))
    first = own.iloc[0]
    return [{**{k: first[k] for k in index}, "condition": MEAN, "n": first["n"],
             "mean_corruption_error": mean_corruption_error(students, teachers),
             "relative_corruption_error": relative_corruption_error(students, teachers, first["clean"],
                                                                    first["teacher_clean"])}]


def of_suite(frame: Any) -> Any:
    """Which rows (n,) are of one corruption at one severity."""
    conditions = map(Condition.parse, frame["condition"])
    return np.array([c.kind == "corruption" and c.strength is not None for c in conditions], bool)


def _lost(accuracies: Any, clean: float) -> np.ndarray:
    """What is lost to ``clean``, summed over the severities of each corruption."""
    rows = accuracies if np.ndim(accuracies[0]) else [accuracies]
    return np.array([np.sum(clean - np.asarray(row, float)) for row in rows])


def _ratio(student: np.ndarray, teacher: np.ndarray) -> float:
    """Mean of the ratios; NaN where one has no positive denominator."""
    return float(np.mean(student / teacher)) if (teacher > 0).all() else float("nan")
