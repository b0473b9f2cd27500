"""Flips of a study: by hand, and in a run, where they sum to the difference of two accuracies."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from builders.tiny import finished_run
from distillscope.results.rows import CLEAN
from distillscope.study.flips import against_teacher, by_noise, column, read_predictions

LABELS = np.array([0, 0, 0, 1, 1, 1, 1, 1])
TEACHER = np.array([0, 0, 1, 1, 1, 1, 0, 0])
STUDENT = np.array([0, 1, 0, 1, 0, 1, 0, 0])
HEADS = {"tuned": "probe"}


def test_flips_by_hand_and_those_of_the_worst_class():
    teacher = {column("tuned", CLEAN, None): TEACHER, column("tuned", "noise=0.1", 0): TEACHER}
    said = {("tuned", CLEAN, None): STUDENT, ("tuned", "noise=0.1", 0): TEACHER}
    rows = {(r.measure, r.condition): r.value for r in against_teacher(HEADS, said, teacher, LABELS, True)}
    assert rows["probe.negative_flips", CLEAN] == 2 / 8 and rows["probe.positive_flips", CLEAN] == 1 / 8
    assert rows["probe.worst_class_flips", CLEAN] == pytest.approx(1 / 3)
    assert rows["probe.negative_flips", "noise=0.1"] == 0
    alone = against_teacher(HEADS, said, teacher, LABELS, False)
    assert {r.condition for r in alone} == {CLEAN}, "under other noise no item is the same"
    assert against_teacher(HEADS, said, {}, LABELS, True) == []
    assert against_teacher(HEADS, said, {name: values[:3] for name, values in teacher.items()}, LABELS, True) == []


def test_what_noise_flips():
    said = {("tuned", CLEAN, None): TEACHER, ("tuned", "noise=0.1", 0): STUDENT}
    rows = {r.measure: r.value for r in by_noise(HEADS, said, LABELS, "student")}
    assert rows == {"probe.student.noise_flips": 2 / 8, "probe.student.worst_class_noise_flips": pytest.approx(1 / 3)}
    assert read_predictions(None) == {}


def test_in_a_run_they_sum_to_the_difference_of_the_accuracies():
    found = pd.read_csv(finished_run() / "results.csv")
    teacher = found[(found.student == "teacher") & (found.target == found[found.student == "S"].target.iloc[0])]
    for condition in ("clean", "noise=0.1"):
        part = found[(found.student == "S") & (found.condition == condition)]
        own = teacher[teacher.condition == condition].set_index("measure").value
        for _, trial in part.groupby(["arm", "seed"]):
            value = trial.set_index("measure").value
            lost = value["paper.probe.negative_flips"] - value["paper.probe.positive_flips"]
            assert lost == pytest.approx(own["paper.probe.teacher.accuracy"] - value["paper.probe.student.accuracy"])
            assert value["paper.probe.worst_class_flips"] >= value["paper.probe.negative_flips"]
    assert set(found[found.measure == "paper.probe.teacher.noise_flips"].condition) == {"noise=0.1"}
