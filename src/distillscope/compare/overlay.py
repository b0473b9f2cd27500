"""Several studies as one, so that a study's figures and table draw them together: a run's label becomes part of the arm.

Colours and markers are kept per student throughout; dashed lines and hollow markers show which run it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from distillscope.compare.agree import NOISE
from distillscope.compare.differences import Pair
from distillscope.compare.read import StudySide
from distillscope.config.parts import Student
from distillscope.config.study import Arm
from distillscope.results.models import Setting, settings_of
from distillscope.results.rows import TEACHER, Condition
from distillscope.results.run import Finished, Run

OF_TEACHER = ["dataset", "teacher", "target", "student", "split", "condition", "draw", "measure"]


def joined_run(sides: Sequence[StudySide], pairs: Sequence[Pair], path: Path) -> Run:
    """One `Run` that holds every side, at ``path``, where its figures will be.

    A teacher's rows are kept once where the sides agree on them; where they do not, the later side's target gets its label.
    Accuracy under noise of another kind than the first side's is left out: one axis cannot hold both.
    """
    arms = [list(dict.fromkeys(s.run.all_results.loc[s.run.all_results["student"] != TEACHER, "arm"])) for s in sides]
    alone = all(len(names) <= 1 for names in arms)
    frames: list[pd.DataFrame] = []
    logs: list[pd.DataFrame] = []
    trials: list[Finished] = []
    references: list[Finished] = []
    students: dict[str, Student] = {}
    conditions: dict[str, Any] = {}
    for position, side in enumerate(sides):
        renamed = {arm: side.label if alone else f"{side.label}: {arm}" for arm in arms[position]}
        frame = side.run.all_results.copy()
        targets: dict[str, str] = {}
        if position and _other_noise(pairs[position - 1]):
            frame = frame[frame["condition"].map(lambda c: Condition.parse(c).kind != "noise").astype(bool)]
        else:
            conditions = {**(side.run.provenance.get("conditions") or {}), **conditions}
        if position:
            targets = {t: f"{t} of {side.label}" for t in _disputed(pd.concat(frames), frame)}
        frame["arm"] = frame["arm"].map(lambda a, names=renamed: names.get(a, a))
        frame["target"] = frame["target"].map(lambda t, names=targets: names.get(t, t))
        frames.append(frame)
        trials += [_renamed(t, renamed, targets) for t in side.run.trials]
        known = {(t.dataset, t.teacher, t.target) for t in references}
        references += [r for t in side.run.references
                       if ((r := _renamed(t, renamed, targets)).dataset, r.teacher, r.target) not in known]
        if len(side.run.training):
            arm = side.run.training["arm"].map(lambda a, names=renamed: names.get(a, a))
            logs.append(side.run.training.assign(arm=arm))
        for student in side.run.study.students:
            students.setdefault(student.label, student)
    results = pd.concat(frames, ignore_index=True)
    again = (results["student"] == TEACHER) & results.duplicated(OF_TEACHER)
    labels = [s.label for s in sides]
    named = [Arm(name=side.label if alone else f"{side.label}: {arm}") for side, names in zip(sides, arms, strict=True)
             for arm in _ordered(side, names)]
    study = sides[0].run.study.model_copy(update={
        "name": ", ".join(labels), "description": "", "published": (), "students": tuple(students.values()),
        "arms": tuple(named)})
    training = pd.concat(logs, ignore_index=True) if logs else pd.DataFrame()
    return Run(path, study, study.dump(), {"conditions": conditions}, results[~again].reset_index(drop=True), trials,
               references, training)


def _ordered(side: StudySide, found: list[str]) -> list[str]:
    planned = [a.name for a in side.run.study.arms]
    return [a for a in planned if a in found] + [a for a in found if a not in planned]


def _other_noise(pair: Pair) -> bool:
    return any(NOISE in m.left_out for doubts in pair.mismatches.values() for m in doubts)


def _disputed(first: pd.DataFrame, other: pd.DataFrame) -> set[str]:
    """Targets of whose teacher the two have other numbers."""
    ours, theirs = (f[f["student"] == TEACHER].drop_duplicates(OF_TEACHER) for f in (first, other))
    both = ours.merge(theirs, on=OF_TEACHER, suffixes=("", "_other"))
    same = np.isclose(both["value"], both["value_other"], rtol=1e-6, atol=1e-9, equal_nan=True)
    return set(both.loc[~same, "target"])


def _renamed(trial: Finished, arms: dict[str, str], targets: dict[str, str]) -> Finished:
    return replace(trial, arm=arms.get(trial.arm, trial.arm), target=targets.get(trial.target, trial.target))


def joined_settings(run: Run) -> list[Setting]:
    """The models of a joined run, each student with its run behind its name."""
    return [replace(s, students=tuple(replace(m, label=f"{m.student} ({m.arm})") for m in s.students),
                    most_arms=len(run.study.arms)) for s in settings_of(run)]
