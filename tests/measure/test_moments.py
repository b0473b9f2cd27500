"""Means and scatters: merged without loss, and without the digits that float32 or an offset would cost."""

import numpy as np
import pytest

from distillscope.measure.rows import Accumulator, Rows, merged, moments
from distillscope.measure.scan import content_order, row_keys


def test_scatter_is_numpys_covariance(teacher):
    found = moments(teacher)
    np.testing.assert_allclose(found.scatter / (len(teacher) - 1), np.cov(teacher.T), rtol=1e-12)


def test_cross_scatter_is_a_block_of_the_joint_covariance(teacher, student):
    joint = np.cov(np.hstack([student, teacher]).T) * (len(teacher) - 1)
    d = student.shape[1]
    np.testing.assert_allclose(moments(student, teacher).scatter, joint[:d, d:], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("cuts", [[1], [3, 4, 100], list(range(1, 200))])
def test_any_cut_merges_to_the_same(teacher, student, cuts):
    parts = [moments(x, y) for x, y in zip(np.split(student, cuts), np.split(teacher, cuts), strict=True)]
    stream = Accumulator()
    for x, y in zip(np.split(student, cuts), np.split(teacher, cuts), strict=True):
        stream.add(x, y)
    for found in (merged(parts), stream.result()):
        np.testing.assert_allclose(found.scatter, moments(student, teacher).scatter, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(found.other_mean, teacher.mean(axis=0), rtol=1e-12)


def test_a_large_offset_costs_no_digits():
    """A sum of uncentred products would lose all of this variance."""
    x = np.random.default_rng(0).normal(size=(500, 3))
    shifted = Accumulator()
    for part in np.split(x + 1e7, 5):
        shifted.add(part)
    np.testing.assert_allclose(shifted.result().scatter, moments(x).scatter, rtol=1e-6, atol=1e-5)
    raw = (x + 1e7).T @ (x + 1e7) - 500 * np.outer((x + 1e7).mean(0), (x + 1e7).mean(0))
    assert np.abs(raw - moments(x).scatter).max() > 1


def test_small_singular_values_survive_that_float32_would_lose():
    s = np.array([1.0, 1e-3, 1e-5])
    u = np.linalg.qr(np.random.default_rng(0).normal(size=(400, 4)) - 0.0)[0][:, :3]
    u = np.linalg.qr(u - u.mean(axis=0))[0]
    z = u * s @ np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    found = np.sqrt(np.linalg.eigvalsh(moments(z).scatter)[::-1].clip(min=0))
    np.testing.assert_allclose(found, s, rtol=1e-4)
    in_float32 = np.linalg.eigvalsh(z.astype("f4").T @ z.astype("f4"))[::-1]
    assert abs(np.sqrt(abs(in_float32[2])) - 1e-5) > 1e-6


def test_row_keys_depend_on_values_not_on_dtype_or_place():
    z = np.random.default_rng(0).normal(size=(500, 16)).astype(np.float16)
    keys = row_keys(z)
    assert (row_keys(z.astype(np.float64)) == keys).all()
    assert (row_keys(z[::-1]) == keys[::-1]).all()
    assert len(np.unique(keys)) == 500
    assert (row_keys(z, seed=1) != keys).all()
    assert row_keys(np.array([[0.0, 1.0]])) == row_keys(np.array([[-0.0, 1.0]]))


def test_content_order_is_unrelated_to_the_values():
    z = np.sort(np.random.default_rng(0).normal(size=(4000, 2)), axis=0)
    order = content_order(row_keys(z))
    assert sorted(order) == list(range(4000))
    assert abs(np.corrcoef(order, np.arange(4000))[0, 1]) < 0.06  # 4 standard errors of no correlation


def test_normalised_rows_have_unit_norm_in_every_block(teacher):
    rows = Rows(teacher, "l2")
    for where, block in rows.blocks(7):
        np.testing.assert_allclose(np.linalg.norm(block, axis=1), 1)
        np.testing.assert_allclose(block, teacher[where] / np.linalg.norm(teacher[where], axis=1, keepdims=True))
