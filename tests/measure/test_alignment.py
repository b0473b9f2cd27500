"""Alignment against a full SVD and scikit-learn; R2 in closed form."""

import numpy as np
import pytest
from scipy.linalg import subspace_angles

from builders.clouds import cloud, rotation, student_of
from distillscope.measure.alignment import angles_between
from distillscope.measure.audit import audit
from distillscope.measure.probe import PENALTIES, ridge
from distillscope.measure.rows import moments

GROUP = {"alignment"}


def test_captured_variance_is_the_papers_projection():
    teacher = cloud(0, n=300, d=40)
    student = student_of(teacher, 1)
    found = audit(teacher, student, groups=GROUP, intervals=False)
    directions = np.linalg.svd(teacher - teacher.mean(axis=0), full_matrices=False)[2]
    energy = np.square((student - student.mean(axis=0)) @ directions.T).sum(axis=0)
    np.testing.assert_allclose(found.curves["alignment.student_on_teacher"].y, np.cumsum(energy) / energy.sum())
    assert found["alignment.student_variance_top20"] == pytest.approx(energy[:20].sum() / energy.sum())
    np.testing.assert_allclose(found.curves["alignment.null"].y, np.arange(1, 41) / 40)
    swapped = audit(student, teacher, groups=GROUP, intervals=False)
    assert found["alignment.teacher_variance_captured"] == pytest.approx(swapped["alignment.student_variance_top20"])


def test_no_basis_captures_more_of_the_teacher_than_its_own():
    teacher = cloud(0, n=300, d=40)
    curves = audit(teacher, student_of(teacher, 1, noise=1), groups=GROUP, intervals=False).curves
    assert (curves["alignment.teacher_on_student"].y <= curves["alignment.teacher_on_teacher"].y + 1e-12).all()


def test_an_isotropic_student_lies_on_the_null():
    teacher, student = cloud(0, n=20_000, d=16), np.random.default_rng(1).normal(size=(20_000, 16))
    curves = audit(teacher, student, groups=GROUP, intervals=False).curves
    np.testing.assert_allclose(curves["alignment.student_on_teacher"].y, curves["alignment.null"].y, atol=0.01)


def test_a_perfect_student():
    teacher = cloud(0, d=40, n=500)
    found = audit(teacher, teacher.copy(), groups=GROUP, intervals=False)
    assert found["alignment.mean_cosine"] == pytest.approx(1)
    assert found["alignment.principal_angle_max"] == pytest.approx(0, abs=1e-5)
    assert found["alignment.teacher_r2"] == pytest.approx(1, abs=1e-6)
    assert found["alignment.student_variance_top20"] == pytest.approx(found["alignment.teacher_variance_top20"])


def test_mean_cosine_by_hand(teacher, student):
    from sklearn.metrics.pairwise import paired_cosine_distances

    found = audit(teacher, student, groups=GROUP, intervals=False)
    assert found["alignment.mean_cosine"] == pytest.approx(1 - paired_cosine_distances(teacher, student).mean())


def test_principal_angles_are_scipys():
    a, b = (np.linalg.qr(np.random.default_rng(i).normal(size=(30, 6)))[0] for i in (0, 1))
    b[:, 0] = a[:, 0]
    b = np.linalg.qr(b)[0]
    np.testing.assert_allclose(angles_between(a, b), np.degrees(subspace_angles(a, b))[::-1], atol=1e-6)


def test_r2_of_a_linear_student_with_noise_in_closed_form():
    """teacher = student A + e: R2 is the share of variance that is not e's, per component where e is one direction."""
    rng = np.random.default_rng(0)
    student = rng.normal(size=(20_000, 6))
    teacher = np.hstack([student * np.array([6, 5, 4, 3, 2, 1]), 0.5 * rng.normal(size=(20_000, 1))])
    found = audit(teacher, student, groups=GROUP, intervals=False)
    assert found["alignment.teacher_r2"] == pytest.approx(1 - 0.25 / (91 + 0.25), abs=1e-3)
    per_component = found.curves["alignment.teacher_r2_per_component"].y
    np.testing.assert_allclose(per_component[:6], 1, atol=1e-3)
    assert per_component[6] == pytest.approx(0, abs=1e-2)


def test_r2_is_scikit_learns_on_held_out_folds():
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import cross_val_predict

    teacher = cloud(0, n=600, d=15)
    student = student_of(teacher, 1, noise=1.0)[:, :9]
    predicted = cross_val_predict(RidgeCV(alphas=np.logspace(-3, 3, 13)), student, teacher, cv=5)
    expected = 1 - np.square(predicted - teacher).sum() / np.square(teacher - teacher.mean(axis=0)).sum()
    assert audit(teacher, student, groups=GROUP, intervals=False)["alignment.teacher_r2"] == pytest.approx(expected, abs=0.01)


def test_the_ridge_map_is_scikit_learns_at_the_penalty_it_chose(teacher, student):
    from sklearn.linear_model import Ridge

    energy = np.trace(moments(teacher).scatter)
    found = ridge(moments(student), moments(student, teacher), energy)
    theirs = Ridge(alpha=found.penalty).fit(student, teacher)
    np.testing.assert_allclose(found(student), theirs.predict(student), rtol=1e-8, atol=1e-8)
    largest = np.linalg.eigvalsh(moments(student).scatter)[-1]
    assert np.isclose(found.penalty / largest, PENALTIES).any()


def test_r2_of_an_unrelated_student_is_about_nothing_and_never_much_above():
    found = [audit(cloud(i, n=200), cloud(100 + i, n=200), groups=GROUP, intervals=False)["alignment.teacher_r2"]
             for i in range(5)]
    assert max(found) < 0.02 and min(found) > -0.2


def test_r2_sees_through_any_invertible_map_and_any_dimension(teacher, student):
    base = audit(teacher, student, groups=GROUP, intervals=False)
    mixed = student @ np.diag(np.linspace(0.5, 2, 12)) @ rotation(3, 12) + 5
    found = audit(teacher, np.pad(mixed, ((0, 0), (0, 4))), groups=GROUP, intervals=False)
    assert found["alignment.teacher_r2"] == pytest.approx(base["alignment.teacher_r2"], abs=5e-3)
    assert "12 dimensions" in found.left_out["alignment.mean_cosine"]


def test_what_a_captured_variance_curve_does_not_see():
    """It is blind to pairing: a student shuffled among items keeps its curve and loses its R2."""
    teacher = cloud(0, n=400, d=40)
    student = student_of(teacher, 1)
    shuffled = student[np.random.default_rng(0).permutation(400)]
    before, after = (audit(teacher, s, groups=GROUP, intervals=False) for s in (student, shuffled))
    assert after["alignment.student_variance_top20"] == pytest.approx(before["alignment.student_variance_top20"])
    assert before["alignment.teacher_r2"] > 0.5
    assert after["alignment.teacher_r2"] < 0.05
