"""mapped.*: what the student knows of unseen images, however well it knows those that it was trained on."""

from __future__ import annotations

import numpy as np
import pytest

from distillscope.measure.probe import ridge_map
from distillscope.measure.rows import unit
from distillscope.study.mapped import folds_of, mapped_measures

TEST, TRAIN, DIM, NOISE = 3000, 1200, 12, 2.0


def pair(count: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit teacher rows, and a student that holds them under isotropic noise."""
    rng = np.random.default_rng(seed)
    teacher = unit(rng.normal(size=(count, DIM)))
    return teacher + noise / np.sqrt(DIM) * rng.normal(size=(count, DIM)), teacher


def test_a_student_that_memorised_its_train_images_gets_the_r2_of_what_it_knows_of_others():
    """Of unseen images R2 is 1 / (1 + noise^2); a map fitted where the student is right says less than nothing."""
    student, teacher = pair(TEST, NOISE, 0)
    known = {row[0]: row[3] for row in mapped_measures(student, teacher)}
    unit_noise = {row[0]: row[3] for row in mapped_measures(unit(student), teacher)}
    expected = 1 / (1 + NOISE**2)
    assert known["mapped.teacher_r2"] == pytest.approx(expected, abs=0.03) and unit_noise == pytest.approx(known)
    memorised, seen = pair(TRAIN, 0.0, 1)
    missed = teacher - ridge_map(unit(memorised), seen)(unit(student))
    assert 1 - np.square(missed).sum() / np.square(teacher - teacher.mean(0)).sum() < 0  # the fit of before


def test_chance_reads_as_nothing_and_the_order_of_items_changes_nothing():
    rng = np.random.default_rng(2)
    student, teacher = rng.normal(size=(500, 20)), rng.normal(size=(500, 30))
    found = {row[0]: row[3] for row in mapped_measures(student, teacher)}
    assert -0.02 < found["mapped.teacher_r2"] < 0.02 and found["mapped.recall_at_1"] < 0.02
    order = rng.permutation(500)
    again = {row[0]: row[3] for row in mapped_measures(student[order], teacher[order])}
    assert again == pytest.approx(found, abs=1e-9)


def test_repeats_share_a_fold_and_few_items_have_fewer_folds():
    teacher = np.repeat(np.random.default_rng(3).normal(size=(40, 4)), 3, axis=0)
    folds = folds_of(teacher)
    assert (folds.reshape(40, 3) == folds[::3, None]).all() and sorted(np.bincount(folds)) == [24] * 5
    assert set(folds_of(teacher[:9])) == {0, 1, 2}
