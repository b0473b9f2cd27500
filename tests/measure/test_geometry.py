"""Uniformity and TwoNN against brute force, closed forms and scikit-dimension."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from builders.clouds import cloud, rotation
from distillscope.measure.audit import audit_one
from distillscope.measure.neighbours import nearest_by_distance
from distillscope.measure.pool import Settings
from distillscope.measure.spectrum import twonn_dimension


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
    assert repeated.values["teacher.twonn_dimension"].n == len(teacher)
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
    assert part.values["teacher.uniformity"].n == 600
    assert part["teacher.uniformity"] == pytest.approx(whole["teacher.uniformity"], abs=0.1)
