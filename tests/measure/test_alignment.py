"""Alignment against a full SVD and scikit-learn, R2 in closed form; contrastive measures against loops."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import subspace_angles

from builders.clouds import cloud, rotation, student_of
from distillscope.measure.alignment import angles_between
from distillscope.measure.audit import audit
from distillscope.measure.contrastive import batch_uniformity, infonce_losses
from distillscope.measure.pool import Settings
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


GROUPS = {"contrastive", "paper"}


def run(teacher, student, **kwargs):
    return audit(teacher, student, groups=GROUPS, intervals=False, **kwargs)


def torch_infonce(student, teacher, temperature=0.1):
    torch = pytest.importorskip("torch")
    s, t = (torch.nn.functional.normalize(torch.tensor(z), dim=1) for z in (student, teacher))
    return torch.nn.functional.cross_entropy(s @ t.T / temperature, torch.arange(len(s))).item()


def test_losses_are_torchs_cross_entropy(teacher, student):
    assert infonce_losses(student, teacher).mean() == pytest.approx(torch_infonce(student, teacher), rel=1e-10)
    assert infonce_losses(student, teacher, 0.01).mean() == pytest.approx(torch_infonce(student, teacher, 0.01), rel=1e-10)


def test_paper_infonce_is_the_mean_over_batches_in_row_order(teacher, student):
    expected = [torch_infonce(student[i : i + 64], teacher[i : i + 64]) for i in range(0, 200, 64)]
    found = run(teacher, student)
    assert len(expected) == 4 and found["paper.infonce"] == pytest.approx(np.mean(expected), rel=1e-10)
    assert found["paper.infonce_ceiling"] == pytest.approx((3 * np.log(64) + np.log(8)) / 4)


def test_the_papers_mean_ceiling_is_4_150():
    z = np.random.default_rng(0).normal(size=(10_000, 2))
    assert round(audit(z, z, groups={"paper"}, intervals=False)["paper.infonce_ceiling"], 3) == 4.150


def test_paper_uniformity_is_brute_force_with_self_pairs(teacher, student):
    unit = student / np.linalg.norm(student, axis=1, keepdims=True)
    per_batch = []
    for start in range(0, 200, 64):
        z = unit[start : start + 64]
        squared = np.square(z[:, None] - z[None]).sum(axis=2)
        per_batch.append(np.log(np.exp(-2 * squared).mean()))
    assert run(teacher, student)["paper.uniformity"] == pytest.approx(np.mean(per_batch), rel=1e-9)
    assert batch_uniformity(np.eye(4)) == pytest.approx(np.log((1 + 3 * np.exp(-4)) / 4))


def test_a_collapsed_student_is_at_chance(teacher):
    found = run(teacher, np.ones_like(teacher) + 1e-12 * cloud(1))
    # all student rows are one direction, so the loss is the mean over items of log sum exp - own, at least log K
    assert found["contrastive.infonce"] >= found["contrastive.ceiling"] - 1e-9
    assert found["contrastive.retained_share"] <= 1e-6 and found["contrastive.saturated"] == 0


def test_orthogonal_items_in_closed_form():
    """Student = teacher = e_1 ... e_K: loss = log(1 + (K - 1) exp(-1 / T))."""
    z = np.eye(50)
    found = run(z, z)
    expected = np.log1p(49 * np.exp(-10))
    assert found["contrastive.infonce"] == pytest.approx(expected, rel=1e-9)
    assert found["contrastive.retained_share"] == pytest.approx(1)
    assert found["contrastive.saturated"] == 1
    assert found["contrastive.best_temperature"] == 0.01
    assert any("cannot tell students apart" in note for note in found.notes)


def test_k_is_the_largest_that_fits_and_incomplete_batches_are_dropped():
    z = cloud(0, n=150)
    assert run(z, z)["contrastive.ceiling"] == pytest.approx(np.log(150))
    cut = run(z, z, settings=Settings(infonce_batch=64))
    assert cut["contrastive.ceiling"] == pytest.approx(np.log(64)) and cut.values["contrastive.infonce"].n == 128


def test_curves_contain_the_value_and_grow_with_k():
    teacher = cloud(0, n=1100)
    found = run(teacher, student_of(teacher, 1))
    by_k, by_t = found.curves["contrastive.infonce_by_k"], found.curves["contrastive.infonce_by_temperature"]
    assert by_k.x.tolist() == [16, 64, 256, 1024] and (np.diff(by_k.y) > 0).all()
    assert by_k.y[-1] == pytest.approx(found["contrastive.infonce"])
    assert by_t.y[by_t.x.tolist().index(0.1)] == pytest.approx(found["contrastive.infonce"])
    assert found["contrastive.infonce_best_temperature"] == by_t.y.min()
    np.testing.assert_allclose(found.curves["contrastive.ceiling_by_k"].y, np.log(by_k.x))


def test_what_it_sees_and_what_not(teacher, student):
    base, q = run(teacher, student), rotation(0, 12)
    row_scale = np.random.default_rng(0).uniform(0.5, 2, size=(200, 1))
    both = run(teacher @ q, student @ q * row_scale, settings=Settings(infonce_batch=200))
    assert both["contrastive.infonce"] == pytest.approx(base["contrastive.infonce"])
    assert run(teacher, student @ q)["contrastive.infonce"] > base["contrastive.infonce"] + 0.5
    shuffled = run(teacher, student[np.random.default_rng(1).permutation(200)])
    assert shuffled["contrastive.retained_share"] < 0.05
