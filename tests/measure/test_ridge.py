"""The ridge map into the teacher's space, against scikit-learn's."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import RidgeCV

from distillscope.measure.probe import PENALTIES, ridge_map


def test_it_is_scikit_learns_ridge_with_the_penalty_of_generalised_cross_validation():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 6)) * [3, 2, 1, 0.5, 0.2, 0.1] + 5
    y = x[:, :3] @ rng.normal(size=(3, 4)) + 2 * rng.normal(size=(400, 4)) - 8
    found = ridge_map(x, y, block=64)
    largest = np.linalg.eigvalsh(np.cov(x.T, bias=True) * 400)[-1]
    oracle = RidgeCV(alphas=PENALTIES * largest, alpha_per_target=False, gcv_mode="eigen").fit(x, y)
    # Scores differ by n - 1.
    assert found.penalty == np.float64(oracle.alpha_) or abs(np.log10(found.penalty / oracle.alpha_)) < 1.01
    exact = RidgeCV(alphas=[found.penalty]).fit(x, y)
    assert np.allclose(found(x), exact.predict(x), atol=1e-8)


def test_it_does_not_hang_on_how_rows_are_cut_or_typed():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(300, 5)), rng.normal(size=(300, 3)) + 100
    whole = ridge_map(x, y)
    assert np.allclose(ridge_map(x, y, block=37)(x), whole(x), atol=1e-9)
    assert np.allclose(ridge_map(x.astype(np.float32), y.astype(np.float32))(x), whole(x), atol=1e-3)
