"""Measures of one side: closed forms, a full SVD and loops as oracles, and what must and must not change them.

And of the student in the teacher's directions: alignment against a full SVD and scikit-learn, R2 in closed form.
"""

from __future__ import annotations

import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import subspace_angles
from scipy.spatial.distance import pdist

from builders import refused
from builders.planted import cloud, rotation, student_of
from distillscope.measure import functional, spectrum
from distillscope.measure.alignment import angles_between
from distillscope.measure.audit import audit, audit_one
from distillscope.measure.health import EmbeddingHealth
from distillscope.measure.pool import Settings, Side
from distillscope.measure.probe import PENALTIES, ridge
from distillscope.measure.results import NotMeasured
from distillscope.measure.rows import Rows, moments
from distillscope.measure.search import nearest_by_distance
from distillscope.measure.spectrum import eigenvalues_of, twonn_dimension

CENTRED = ("effective_rank", "effective_rank_by_s", "participation_ratio", "stable_rank", "dims_90", "dims_95", "dims_99",
           "algebraic_rank", "spectral_decay")
ALIGNMENT = {"alignment"}


def centred_measures(z: np.ndarray) -> dict[str, float]:
    return {name: getattr(spectrum, name)(eigenvalues_of(z)) for name in CENTRED}


def with_singular_values(s, n: int = 64) -> np.ndarray:
    """Centred rows whose singular values are exactly ``s``."""
    u = np.linalg.qr(np.random.default_rng(0).normal(size=(n, len(s))))[0]
    u = np.linalg.qr(u - u.mean(axis=0))[0]
    return u * np.asarray(s, float) @ rotation(1, len(s))


@pytest.mark.parametrize("k", [1, 2, 7])
def test_k_equal_directions_have_rank_k_by_every_definition(k):
    e = eigenvalues_of(with_singular_values([2.0] * k + [0.0] * 3))
    for name in ("effective_rank", "effective_rank_by_s", "participation_ratio", "stable_rank", "algebraic_rank"):
        # by s, three zeros that rounding made 1e-8 count a little
        assert getattr(spectrum, name)(e) == pytest.approx(k, rel=1e-5), name


def test_two_directions_in_closed_form():
    """s = (2, 1): p = (0.8, 0.2) by squares and (2/3, 1/3) by s."""
    e = eigenvalues_of(with_singular_values([2.0, 1.0]))
    assert spectrum.effective_rank(e) == pytest.approx(0.8**-0.8 * 0.2**-0.2)
    assert spectrum.effective_rank_by_s(e) == pytest.approx((2 / 3) ** (-2 / 3) * (1 / 3) ** (-1 / 3))
    assert spectrum.participation_ratio(e) == pytest.approx(25 / 17)
    assert spectrum.stable_rank(e) == pytest.approx(1.25)


def test_geometric_spectrum_in_closed_form():
    """p_k = (1 - q) q^k has entropy -ln(1 - q) - q / (1 - q) ln q."""
    q = 0.5
    e = q ** np.arange(60)
    assert spectrum.effective_rank(e) == pytest.approx(np.exp(-np.log(1 - q) - q / (1 - q) * np.log(q)))
    assert spectrum.dims_90(e) == 4 and spectrum.dims_95(e) == 5 and spectrum.dims_99(e) == 7


def test_dims_takes_a_share_that_is_met_exactly():
    assert spectrum.dims_for_energy(np.array([9.0, 1.0]), 0.9) == 1
    assert spectrum.dims_for_share([1.0] * 10, 0.9) == 9
    assert spectrum.dims_for_share([1.0] * 10, 1.0) == 10


def test_audit_agrees_with_a_full_svd_of_the_rows():
    z = cloud(3, n=300, d=20)
    s = np.linalg.svd(z - z.mean(axis=0), compute_uv=False)
    raw = np.linalg.svd(z, compute_uv=False)
    found = audit_one(z, intervals=False)
    from scipy.stats import entropy

    assert found["teacher.effective_rank"] == pytest.approx(np.exp(entropy(s**2)), rel=1e-10)
    assert found["teacher.effective_rank_by_s"] == pytest.approx(np.exp(entropy(s)), rel=1e-10)
    assert found["teacher.rankme"] == pytest.approx(np.exp(entropy(raw)), rel=1e-4)  # their epsilon adds 1e-7 to each p
    assert found["teacher.mean_energy"] == pytest.approx(1 - (s**2).sum() / (raw**2).sum())
    np.testing.assert_allclose(found.curves["teacher.spectrum"].y, s, rtol=1e-8)
    np.testing.assert_allclose(found.curves["teacher.cumulative_variance"].y, np.cumsum(s**2) / (s**2).sum())
    assert spectrum.effective_rank_from_singular_values(s) == pytest.approx(found["teacher.effective_rank"])
    assert spectrum.dims_for_share(s, 0.9) == found["teacher.dims_90"]


def test_rankme_is_the_published_formula():
    z = cloud(4, n=50, d=8)
    s = np.linalg.svd(z, compute_uv=False)
    p = s / s.sum() + 1e-7
    assert audit_one(z, intervals=False)["teacher.rankme"] == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-10)


def test_decay_of_a_power_law_is_its_exponent():
    for alpha in (0.5, 1.0, 2.5):
        for size in (8, 39, 40, 700):
            assert spectrum.spectral_decay(np.arange(1.0, size + 1) ** -alpha) == pytest.approx(alpha)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(12, 60), st.integers(2, 10), st.floats(0, 2))
def test_ranks_are_ordered(seed, n, d, decay):
    e = eigenvalues_of(cloud(seed, n, d, decay))
    ladder = [1, spectrum.participation_ratio(e), spectrum.effective_rank(e), spectrum.effective_rank_by_s(e),
              spectrum.algebraic_rank(e), d]
    assert all(low <= high * (1 + 1e-12) for low, high in pairwise(ladder)), ladder


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_what_centred_ranks_do_not_see(seed):
    z = cloud(seed, n=60, d=6)
    base = centred_measures(z)
    same = {
        "rotation": z @ rotation(seed, 6),
        "scale": 7.5 * z,
        "shift": z + 100.0,
        "permutation": z[np.random.default_rng(seed).permutation(60)],
        "every row twice": np.repeat(z, 2, axis=0),
        "zero columns": np.pad(z, ((0, 0), (0, 5))),
    }
    for name, changed in same.items():
        assert centred_measures(changed) == pytest.approx(base, rel=1e-6), name


def test_what_ranks_do_see():
    z = cloud(0, n=60, d=6)
    base = centred_measures(z)
    assert centred_measures(z * np.arange(1, 7))["effective_rank"] != pytest.approx(base["effective_rank"], rel=0.02)
    some_twice = np.vstack([z, z[:20]])
    assert centred_measures(some_twice)["effective_rank"] != pytest.approx(base["effective_rank"], rel=1e-4)
    near, far = (audit_one(z + shift, intervals=False) for shift in (0.0, 1e3))
    assert far["teacher.rankme"] < 1.2 < near["teacher.rankme"]  # not centred: distance from the origin is all it sees
    assert far["teacher.mean_energy"] > 0.999
    assert far["teacher.effective_rank"] == pytest.approx(near["teacher.effective_rank"])


def test_bias_by_n_is_as_documented_and_the_correction_removes_most_of_it():
    """Isotropic, d = 100: the raw rank is about d exp(-d / (2 (n - 1)))."""
    d, n = 100, 500
    found = [audit_one(np.random.default_rng(i).normal(size=(n, d)), intervals=False) for i in range(5)]
    raw = np.mean([f["teacher.effective_rank"] for f in found])
    corrected = np.mean([f["teacher.effective_rank_corrected"] for f in found])
    assert raw == pytest.approx(d * np.exp(-d / (2 * (n - 1))), rel=0.01)
    assert abs(corrected - d) < 0.2 * abs(raw - d)


def test_rank_by_n_rises_to_the_value_and_undersampling_is_flagged():
    found = audit_one(np.random.default_rng(0).normal(size=(150, 100)), intervals=False)
    curve = found.curves["teacher.rank_by_n"]
    assert curve.x.tolist() == [15, 30, 75, 150] and (np.diff(curve.y) > 0).all()
    assert curve.y[-1] == pytest.approx(found["teacher.effective_rank"])
    assert found["teacher.undersampled"] == 1 and any("less than 2 d" in note for note in found.notes)


def test_no_variance_is_said():
    with pytest.raises(NotMeasured, match="all embeddings are equal"):
        spectrum.effective_rank(np.zeros(4))
    found = audit_one(np.ones((20, 3)))
    assert "all embeddings are equal" in found.left_out["teacher.effective_rank"]
    assert found["teacher.mean_energy"] == 1


def test_vendi_score_is_the_uncentred_entropy_of_unit_rows():
    """vendi-score's dual form is exp entropy of s^2 of unit rows, uncentred: no rank of ours, but the same entropy."""
    vendi = pytest.importorskip("vendi_score.vendi")
    z = cloud(5, n=80, d=6)
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    s = np.linalg.svd(unit, compute_uv=False)
    assert spectrum.effective_rank_from_singular_values(s) == pytest.approx(vendi.score_dual(z), rel=1e-9)


def test_effdim_agrees_where_its_names_are_right():
    effdim = pytest.importorskip("effdim")
    z = cloud(6, n=120, d=8)
    theirs, e = effdim.compute_dim(z), eigenvalues_of(z)
    assert spectrum.participation_ratio(e) == pytest.approx(theirs["participation_ratio"], rel=1e-9)
    assert theirs["renyi_eff_dimensionality_alpha_2"] == pytest.approx(theirs["participation_ratio"], rel=1e-9)
    assert spectrum.dims_95(e) == theirs["pca_explained_variance_95"]


def value(z: np.ndarray, name: str, **kwargs) -> float:
    return audit_one(z, intervals=False, **kwargs)[f"teacher.{name}"]


def test_uniformity_is_the_brute_force_mean_over_pairs(teacher):
    unit = teacher / np.linalg.norm(teacher, axis=1, keepdims=True)
    assert value(teacher, "uniformity") == pytest.approx(np.log(np.mean(np.exp(-2 * pdist(unit) ** 2))), rel=1e-12)


def test_uniformity_in_closed_form():
    """+-e_k, each pair of rows: distances^2 are 0 for repeats, 2 across axes and 4 for opposites."""
    z = np.repeat(np.vstack([np.eye(5), -np.eye(5)]), 2, axis=0)
    expected = np.log((1 * 1 + 16 * np.exp(-4) + 2 * np.exp(-8)) / 19)
    assert value(z, "uniformity") == pytest.approx(expected, rel=1e-12)
    assert value(np.ones((20, 3)), "uniformity") == pytest.approx(0, abs=1e-12)


def test_uniformity_of_the_sphere():
    """For even spread in d dimensions the mean kernel is exp(-4) times a Bessel ratio: -4 + 8/d for large d."""
    z = np.random.default_rng(0).normal(size=(3000, 400))
    assert value(z, "uniformity") == pytest.approx(-4 + 8 / 400, abs=0.002)


def test_uniformity_sees_scale_of_no_row_and_a_shift(teacher):
    base = value(teacher, "uniformity")
    rows = np.random.default_rng(0).uniform(0.1, 9, size=(len(teacher), 1))
    assert value(teacher * rows, "uniformity") == pytest.approx(base)
    assert value(teacher @ rotation(0, 12), "uniformity") == pytest.approx(base)
    assert value(teacher + 10, "uniformity") > base + 0.3


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_twonn_of_a_uniform_cube_is_its_dimension(dim):
    z = np.random.default_rng(dim).uniform(size=(2500, dim)) @ rotation(0, 8)[:dim]
    assert value(z, "twonn_dimension") == pytest.approx(dim, rel=0.08)


def test_twonn_reads_low_in_many_dimensions_and_says_so():
    found = audit_one(np.random.default_rng(0).normal(size=(2000, 60)), intervals=False)
    assert 20 < found["teacher.twonn_dimension"] < 50
    assert any("TwoNN reads low" in note for note in found.notes)


def test_twonn_is_scikit_dimensions():
    skdim = pytest.importorskip("skdim")
    z = cloud(2, n=600, d=6)
    assert value(z, "twonn_dimension") == pytest.approx(float(skdim.id.TwoNN().fit(z).dimension_), rel=1e-6)


def test_twonn_leaves_repeats_out_and_refuses_zero_distances(teacher):
    repeated = audit_one(np.vstack([teacher, teacher[:50]]), intervals=False)
    assert repeated["teacher.twonn_dimension"] == pytest.approx(value(teacher, "twonn_dimension"))
    assert repeated.measured["teacher.twonn_dimension"].n == len(teacher)
    assert repeated["teacher.duplicates"] == pytest.approx(50 / 250)
    with pytest.raises(ValueError, match="zero distances"):
        twonn_dimension(np.column_stack([np.zeros(20), np.ones(20)]))


def test_twonn_needs_points():
    found = audit_one(np.repeat(cloud(0, n=5, d=3), 4, axis=0), intervals=False)
    assert "distinct rows" in found.left_out["teacher.twonn_dimension"]


def test_nearest_by_distance_keeps_the_digits_of_small_distances():
    """Far from the origin, through inner products alone these distances would be zero or noise."""
    z = 1e6 + np.array([[0.0], [1e-4], [3e-4], [1.0]]) * np.ones(3)
    _, distances = nearest_by_distance(z, 2)
    np.testing.assert_allclose(distances[0], np.sqrt(3) * np.array([1e-4, 3e-4]), rtol=1e-4)


def test_a_subsample_is_stated_and_close():
    z = cloud(1, n=3000, d=10)
    whole = audit_one(z, intervals=False)
    part = audit_one(z, intervals=False, settings=Settings(max_items=600))
    assert part.measured["teacher.uniformity"].n == 600
    assert part["teacher.uniformity"] == pytest.approx(whole["teacher.uniformity"], abs=0.1)


def test_captured_variance_is_the_papers_projection():
    teacher = cloud(0, n=300, d=40)
    student = student_of(teacher, 1)
    found = audit(teacher, student, groups=ALIGNMENT, intervals=False)
    directions = np.linalg.svd(teacher - teacher.mean(axis=0), full_matrices=False)[2]
    energy = np.square((student - student.mean(axis=0)) @ directions.T).sum(axis=0)
    np.testing.assert_allclose(found.curves["alignment.student_on_teacher"].y, np.cumsum(energy) / energy.sum())
    assert found["alignment.student_variance_top20"] == pytest.approx(energy[:20].sum() / energy.sum())
    np.testing.assert_allclose(found.curves["alignment.null"].y, np.arange(1, 41) / 40)
    swapped = audit(student, teacher, groups=ALIGNMENT, intervals=False)
    assert found["alignment.teacher_variance_captured"] == pytest.approx(swapped["alignment.student_variance_top20"])


def test_no_basis_captures_more_of_the_teacher_than_its_own():
    teacher = cloud(0, n=300, d=40)
    curves = audit(teacher, student_of(teacher, 1, noise=1), groups=ALIGNMENT, intervals=False).curves
    assert (curves["alignment.teacher_on_student"].y <= curves["alignment.teacher_on_teacher"].y + 1e-12).all()


def test_an_isotropic_student_lies_on_the_null():
    teacher, student = cloud(0, n=20_000, d=16), np.random.default_rng(1).normal(size=(20_000, 16))
    curves = audit(teacher, student, groups=ALIGNMENT, intervals=False).curves
    np.testing.assert_allclose(curves["alignment.student_on_teacher"].y, curves["alignment.null"].y, atol=0.01)


def test_a_perfect_student():
    teacher = cloud(0, d=40, n=500)
    found = audit(teacher, teacher.copy(), groups=ALIGNMENT, intervals=False)
    assert found["alignment.mean_cosine"] == pytest.approx(1)
    assert found["alignment.principal_angle_max"] == pytest.approx(0, abs=1e-5)
    assert found["alignment.teacher_r2"] == pytest.approx(1, abs=1e-6)
    assert found["alignment.student_variance_top20"] == pytest.approx(found["alignment.teacher_variance_top20"])


def test_mean_cosine_by_hand(teacher, student):
    from sklearn.metrics.pairwise import paired_cosine_distances

    found = audit(teacher, student, groups=ALIGNMENT, intervals=False)
    assert found["alignment.mean_cosine"] == pytest.approx(1 - paired_cosine_distances(teacher, student).mean())


def test_principal_angles_are_scipys():
    a, b = (np.linalg.qr(np.random.default_rng(i).normal(size=(30, 6)))[0] for i in (0, 1))
    b[:, 0] = a[:, 0]
    b = np.linalg.qr(b)[0]
    np.testing.assert_allclose(angles_between(a, b), np.degrees(subspace_angles(a, b))[::-1], atol=1e-6)


def test_what_is_measured_without_a_group_is_that_of_its_rows_alone(monkeypatch):
    z, decomposed = cloud(0, n=400, d=30), []
    side = Side(Rows(z))
    monkeypatch.setattr("distillscope.measure.pool.descending_eigenvalues",
                        lambda scatter: decomposed.append(scatter) or spectrum.descending_eigenvalues(scatter))
    for group in range(10):
        part = side.without(group)
        rest = z[side.group_of != group]
        values, vectors = np.linalg.eigh(moments(rest).scatter)
        assert np.abs(np.abs(part.leading.T @ vectors[:, :-21:-1]) - np.eye(20)).max() < 1e-9
        for half, kept in zip(part.half_eigenvalues, (part.kept[0::2], part.kept[1::2]), strict=True):
            expected = eigenvalues_of(z[np.isin(side.group_of, kept)])
            np.testing.assert_allclose(half, expected, rtol=1e-9, atol=1e-12 * expected[0])
        assert part.half_counts == [200, 160] and side.energy_of(part.kept) == pytest.approx(values.sum(), rel=1e-12)
    assert len(decomposed) == 11  # of 20 halves, some are of the same groups


def test_r2_of_a_linear_student_with_noise_in_closed_form():
    """teacher = student A + e: R2 is the share of variance that is not e's, per component where e is one direction."""
    rng = np.random.default_rng(0)
    student = rng.normal(size=(20_000, 6))
    teacher = np.hstack([student * np.array([6, 5, 4, 3, 2, 1]), 0.5 * rng.normal(size=(20_000, 1))])
    found = audit(teacher, student, groups=ALIGNMENT, intervals=False)
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
    found = audit(teacher, student, groups=ALIGNMENT, intervals=False)
    assert found["alignment.teacher_r2"] == pytest.approx(expected, abs=0.01)


def test_the_ridge_map_is_scikit_learns_at_the_penalty_it_chose(teacher, student):
    from sklearn.linear_model import Ridge

    energy = np.trace(moments(teacher).scatter)
    found = ridge(moments(student), moments(student, teacher), energy)
    theirs = Ridge(alpha=found.penalty).fit(student, teacher)
    np.testing.assert_allclose(found(student), theirs.predict(student), rtol=1e-8, atol=1e-8)
    largest = np.linalg.eigvalsh(moments(student).scatter)[-1]
    assert np.isclose(found.penalty / largest, PENALTIES).any()


def test_r2_of_an_unrelated_student_is_about_nothing_and_never_much_above():
    found = [audit(cloud(i, n=200), cloud(100 + i, n=200), groups=ALIGNMENT, intervals=False)["alignment.teacher_r2"]
             for i in range(5)]
    assert max(found) < 0.02 and min(found) > -0.2


def test_r2_sees_through_any_invertible_map_and_any_dimension(teacher, student):
    base = audit(teacher, student, groups=ALIGNMENT, intervals=False)
    mixed = student @ np.diag(np.linspace(0.5, 2, 12)) @ rotation(3, 12) + 5
    found = audit(teacher, np.pad(mixed, ((0, 0), (0, 4))), groups=ALIGNMENT, intervals=False)
    assert found["alignment.teacher_r2"] == pytest.approx(base["alignment.teacher_r2"], abs=5e-3)
    assert "12 dimensions" in found.left_out["alignment.mean_cosine"]


def test_what_a_captured_variance_curve_does_not_see():
    """It is blind to pairing: a student shuffled among items keeps its curve and loses its R2."""
    teacher = cloud(0, n=400, d=40)
    student = student_of(teacher, 1)
    shuffled = student[np.random.default_rng(0).permutation(400)]
    before, after = (audit(teacher, s, groups=ALIGNMENT, intervals=False) for s in (student, shuffled))
    assert after["alignment.student_variance_top20"] == pytest.approx(before["alignment.student_variance_top20"])
    assert before["alignment.teacher_r2"] > 0.5
    assert after["alignment.teacher_r2"] < 0.05


def in_batches(z, teacher=None, cuts=(1, 7, 60), **settings):
    health = EmbeddingHealth(**settings)
    parts = zip(np.split(z, cuts), [None] * (len(cuts) + 1) if teacher is None else np.split(teacher, cuts), strict=True)
    for part, of_teacher in parts:
        health.update(part, of_teacher)
    return health


@pytest.mark.parametrize("normalize", [None, "l2"])
def test_health_in_a_training_loop_is_that_of_the_audit_whatever_the_batches(normalize):
    rng = np.random.default_rng(0)
    z, teacher = 5 + rng.normal(size=(200, 12)) * np.linspace(2, 0.1, 12), rng.normal(size=(200, 12))
    found = in_batches(z, teacher, normalize=normalize).compute()
    for key in ("effective_rank", "participation_ratio"):
        assert found[key] == pytest.approx(getattr(functional, key)(z, normalize=normalize), rel=1e-9)
    assert found["teacher_effective_rank"] == pytest.approx(functional.effective_rank(teacher, normalize=normalize), rel=1e-9)
    assert found["mean_cosine"] == pytest.approx(functional.mean_cosine(teacher, z), abs=1e-12)
    assert found["mean_norm"] == pytest.approx(np.linalg.norm(z, axis=1).mean())
    assert in_batches(z, cuts=()).compute()["uniformity"] == pytest.approx(functional.uniformity(z), rel=1e-9)
    unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in np.split(z, (1, 7, 60))]
    pairs = np.concatenate([np.exp(-2 * ((part[i] - part[j]) ** 2).sum(axis=1)) for part in unit
                            for i, j in [np.triu_indices(len(part), 1)]])
    assert found["uniformity"] == pytest.approx(np.log(pairs.mean()), rel=1e-9)


def test_health_takes_tensors_that_are_trained_merges_and_forgets():
    rng = np.random.default_rng(0)
    z = torch.tensor(rng.normal(size=(64, 8)), dtype=torch.bfloat16, requires_grad=True)
    whole, one, two = EmbeddingHealth(), EmbeddingHealth(), EmbeddingHealth()
    whole.update(z), one.update(z[:20]), two.update(z[20:])
    one.merge(two)
    for key, value in whole.compute().items():
        assert key == "uniformity" or one.compute()[key] == pytest.approx(value, rel=1e-9), key
    sizes = {len(pickle.dumps(whole)) for _ in range(50) if whole.update(z) is None}
    assert max(sizes) - min(sizes) < 10, "memory does not grow; a count may take a byte more"
    whole.reset()
    with refused(expected="two rows", got="0"):
        whole.compute()
    whole.update(rng.normal(size=(5, 3)))
    assert whole.compute()["num_items"] == 5


def test_health_shows_each_kind_of_collapse():
    rng = np.random.default_rng(0)
    point = in_batches(np.full((100, 6), 0.1)).compute()
    assert (point["effective_rank"], point["dead_dims"], point["mean_energy"]) == (0, 6, 1)
    assert point["uniformity"] == pytest.approx(0, abs=1e-12)
    line = in_batches(rng.normal(size=(100, 1)) * np.ones(6)).compute()
    assert line["effective_rank"] == pytest.approx(1) == line["top_variance"]
    empty = rng.normal(size=(100, 6))
    empty[:30] = 0
    assert in_batches(empty).compute()["zero_rows"] == 30


@pytest.mark.parametrize(("batch", "teacher", "got"), [
    (np.array([[1.0, np.nan]]), None, "nan in row 0"), (np.ones((2, 3)), None, "3"), (np.ones(2), None, "shape (2,)"),
    (np.ones((4, 2)), np.ones((3, 2)), "3"), (np.full((2, 2), 1e200), None, "1e+200 in row 0"),
    (np.ones((2, 2), int), None, "int64")])
def test_what_health_refuses_leaves_it_as_it_was(batch, teacher, got):
    health = EmbeddingHealth()
    health.update(np.random.default_rng(0).normal(size=(9, 2)))
    before = health.compute()
    with refused(got=got):
        health.update(batch, teacher)
    assert health.compute() == before
