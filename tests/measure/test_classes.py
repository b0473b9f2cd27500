"""Labels in every way that people keep them are the same classes, and what is no label is left out and counted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from distillscope.errors import UserError
from distillscope.measure.audit import audit
from distillscope.measure.classes import classes, partitions_agree

Y = np.arange(60) % 3
NAMES = np.array(["cat", "dog", "emu"])[Y]


@pytest.mark.parametrize("values", [
    Y, Y.astype(np.uint8), Y.astype(float), Y[:, None], Y.astype(str), np.eye(3)[Y], np.eye(3, dtype=bool)[Y],
    list(map(int, Y)),
    Y.astype(object), pd.Series(Y), pd.Categorical(Y), np.array([str(y).encode() for y in Y]),
])
def test_numbers_in_any_dress(values):
    found = classes(values)
    assert found.dtype == np.int64 and not np.ma.isMaskedArray(found) and found.tolist() == Y.tolist()


@pytest.mark.parametrize("values",
                         [NAMES, NAMES.astype(object), pd.Categorical(NAMES), [f" {n} " for n in NAMES], NAMES.astype("S"),
                                    pd.Series(NAMES, dtype="string")])
def test_names_in_any_dress(values):
    assert classes(values).tolist() == NAMES.tolist()


@pytest.mark.parametrize("values", [
    np.r_[Y, -1, -1], np.r_[Y, np.nan, np.nan], [*Y, None, float("nan")], [*NAMES, "", "NaN"], [*NAMES, None, "-1"],
    [*Y.astype(str), "", "-1"],
    np.vstack([np.eye(3)[Y], np.zeros((2, 3))]), pd.Categorical([*NAMES, None, None]),
    np.ma.array(np.r_[Y, 0, 0], mask=[0] * 60 + [1, 1]),
    pd.array([*Y, None, None], "Int64"),
])
def test_what_stands_for_no_label_is_masked(values):
    found = classes(values)
    assert np.ma.getmaskarray(found).tolist() == [False] * 60 + [True] * 2
    assert np.ma.compressed(found).tolist() in (Y.tolist(), NAMES.tolist())


def test_minus_one_and_one_are_two_classes():
    assert classes([-1, 1, 1, -1]).tolist() == [-1, 1, 1, -1]
    assert classes([-2, -1, 0, 1]).tolist() == [-2, -1, 0, 1]


@pytest.mark.parametrize(("values", "message"), [
    ([0.5, 1.0], "whole numbers or text, got 0.5 in row 0"), ([1.0, np.inf], "got inf in row 1"),
    (np.full((4, 3), 0.3), "one-hot rows"),
    (np.ones((4, 3, 2)), "shape .4, 3, 2."), (np.array([1, "a"], object), "a mixture, with 1"),
    ([{"a": 1}, {}], "got {'a': 1}"),
    (np.zeros(3, "M8[s]"), "dtype datetime64"), (np.full(3, 1e300), "1e.300 in row 0"),
])
def test_what_is_no_label_is_refused(values, message):
    with pytest.raises(UserError, match=message):
        classes(values)


def test_partitions_agree_whatever_their_names():
    assert partitions_agree(Y, NAMES).all() and partitions_agree(NAMES, (Y + 1) % 3).all()
    assert not partitions_agree(Y, Y // 2).all() and not partitions_agree(Y // 2, Y).all()
    moved = NAMES.copy()
    moved[[0, 1]] = moved[[1, 0]]
    assert np.flatnonzero(~partitions_agree(Y, moved)).tolist() == [0, 1]


def test_items_without_a_label_take_no_part_in_accuracies_alone():
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    teacher = 4 * np.eye(3, 6)[labels] + rng.normal(size=(300, 6))
    student = teacher @ rng.normal(size=(6, 4))
    known = np.arange(300) >= 40
    groups = {"probe", "knn", "spectrum", "zero_shot"}
    text = np.eye(3, 6)
    some = audit(teacher, student, np.where(known, labels, -1), groups=groups, intervals=False, text=text)
    part = audit(teacher[known], student[known], labels[known], groups=groups, intervals=False, text=text)
    for key in (k for k in part.values if k.startswith(("probe", "knn", "zero_shot"))):
        assert (some.values[key].value, some.values[key].n) == (part.values[key].value, part.values[key].n), key
    assert some["teacher.effective_rank"] == audit(teacher, student, groups={"spectrum"},
                                                   intervals=False)["teacher.effective_rank"]
    assert "40 of 300 items have no label" in some.notes[0]
    train = {"train_teacher": teacher, "train_student": student, "train_labels": np.where(known, labels, np.nan)}
    fitted = audit(teacher, student, labels, groups={"knn"}, intervals=False, **train)
    assert fitted["knn.teacher.accuracy"] == audit(teacher, student, labels, groups={"knn"}, intervals=False,
                                                   train_labels=labels[known],
                                                   train_teacher=teacher[known],
                                                   train_student=student[known])["knn.teacher.accuracy"]
