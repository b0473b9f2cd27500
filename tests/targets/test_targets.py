"""Target transforms: what they do to train, what they leave of other rows, that they are stored whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard as sylvester
from scipy.stats import kstest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler, normalize

from builders import refused
from builders.tiny import tiny_study
from distillscope.errors import UserError
from distillscope.measure.probe import ridge_map
from distillscope.measure.spectrum import effective_rank, eigenvalues_of
from distillscope.registry import targets
from distillscope.study.plan import plan_study
from distillscope.study.run import run_study
from distillscope.targets.isotropy import hadamard, phi_s, random, whiten
from distillscope.targets.transforms import (
    centre,
    check_target,
    fit_target,
    load_target,
    moments,
    pca,
    posthoc_twin,
    precision_of,
    standardise,
    top_k,
)

N, D = 9000, 12  # more rows than a block
SETTINGS = {"pca": {"dim": 5}, "top_k": {"k": 4}, "whiten": {"exponent": 0.7, "dim": 6}, "random": {"dim": 7}}
FLOAT32 = 2e-5  # float32 rows and matrices, averaged over the rows


def teacher(seed: int = 0, n: int = N, d: int = D) -> np.ndarray:
    """A cloud far from the origin with a steep spectrum, in float32."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(d, d)) * 0.7 ** np.arange(d)
    return (rng.normal(size=(n, d)) @ mixing.T + 3 * np.sin(np.arange(d))).astype(np.float32)


def fit(name: str, rows: np.ndarray):
    return targets.call(name, SETTINGS.get(name, {}), rows)


def covariance(z: np.ndarray) -> np.ndarray:
    return np.cov(z.astype(np.float64).T, bias=True)


@pytest.mark.parametrize("name", list(targets))
def test_a_target_is_a_map_of_single_rows_stored_and_reloaded_to_the_same_bits(name, tmp_path):
    train, test = teacher(0), teacher(1, 100)
    target = fit(name, train)
    whole = target(test)
    assert whole.dtype == np.float32 and len(whole) == 100 and np.isfinite(whole).all()
    assert np.allclose(np.concatenate([target(test[:30]), target(test[30:])]), whole, atol=1e-5)
    assert target.name == fit(name, train.copy()).name
    target.save(tmp_path / "target.safetensors")
    assert (tmp_path / "target.safetensors").exists() == (name != "none")
    again = load_target(tmp_path / "target.safetensors")
    assert again.name == target.name
    assert np.array_equal(again(test), whole)


@pytest.mark.parametrize("name", [n for n in targets if n != "none"])
def test_what_a_target_does_hangs_on_train_alone(name):
    train, test = teacher(0), teacher(1, 50)
    target = fit(name, train)
    before = target(test)
    target(100 * teacher(2, 500) + 7)  # other rows have passed through it
    assert np.array_equal(target(test), before)
    assert not np.allclose(fit(name, teacher(3))(test), before, atol=1e-3)  # another train, another target


@pytest.mark.parametrize("name", [n for n in targets if n != "none"])
def test_only_directions_count(name):
    """All but `none` take unit rows, so that an image's norm says nothing."""
    target, test = fit(name, teacher(0)), teacher(1, 50)
    assert np.allclose(target(test * np.linspace(0.1, 9, 50, dtype=np.float32)[:, None]), target(test), atol=1e-4)


def test_moments_do_not_hang_on_the_rows_order_though_they_are_summed_by_blocks():
    rows = teacher(n=20_000)
    rows = rows[np.argsort(rows[:, 0])]  # blocks with means far apart
    unit = normalize(rows.astype(np.float64))
    mean, second = moments(rows)
    assert np.allclose(mean, unit.mean(axis=0), atol=1e-7)
    assert np.allclose(second, np.cov(unit.T, bias=True), atol=1e-7)
    zero, second = moments(rows, centre=False)
    assert not zero.any() and np.allclose(second, unit.T @ unit / len(unit), atol=1e-7)


@pytest.mark.parametrize("exponent", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("dim", [None, 6])
def test_whitened_train_has_the_covariance_of_the_exponent(exponent, dim):
    train = teacher()
    found = covariance(whiten(train, exponent=exponent, dim=dim)(train))
    values = PCA(dim or D).fit(normalize(train).astype(np.float64)).explained_variance_  # an SVD of the rows
    wanted = values ** (1 - exponent)
    assert np.allclose(found, np.diag(wanted / wanted.mean()), atol=2e-3 if exponent > 0.9
                       else 2e-4)  # float32 rows over small values
    assert np.trace(found) / len(found) == pytest.approx(1, abs=1e-3)
    if exponent == 1:
        assert np.allclose(found, np.eye(len(found)), atol=2e-3)


def test_whitening_gives_rank_back_and_exponents_lie_in_order():
    train = teacher()
    ranks = [effective_rank(eigenvalues_of(whiten(train, exponent=e)(train))) for e in (0, 0.25, 0.5, 0.75, 1)]
    assert ranks == sorted(ranks) and ranks[-1] == pytest.approx(D, rel=1e-3)
    assert ranks[0] == pytest.approx(effective_rank(eigenvalues_of(normalize(train))), rel=1e-3)


@pytest.mark.parametrize("dim", [None, 4, 2])
def test_phi_s_gives_every_dimension_one_variance_and_keeps_distances_in_proportion(dim):
    train = teacher()
    z = phi_s(train, dim=dim)(train)
    assert z.var(axis=0) == pytest.approx(np.ones(dim or D), rel=1e-4)
    assert z.mean(axis=0) == pytest.approx(np.zeros(dim or D), abs=1e-4)
    plain = PCA(dim or D).fit_transform(normalize(train))
    few = slice(0, 40)
    ratios = (np.linalg.norm(z[few][:, None] - z[few],
                             axis=2) / (np.linalg.norm(plain[few][:, None] - plain[few], axis=2) + np.eye(40)))
    assert np.ptp(ratios[~np.eye(40, dtype=bool)]) < 1e-2 * ratios.max()


def test_hadamard_matrices_of_the_dimensions_that_encoders_have():
    for order in (1, 2, 4, 12, 20, 28, 36, 60, 192, 320, 384, 512, 576, 640, 768, 1024, 1152, 1280, 1408, 1536, 1664, 2048):
        h = hadamard(order)
        assert set(np.unique(np.abs(h))) == {1.0}
        assert np.array_equal(h @ h.T, order * np.eye(order)), order
    assert np.array_equal(hadamard(512) @ hadamard(512).T, sylvester(512) @ sylvester(512).T)
    for order in (3, 6, 10, 50):
        assert hadamard(order) is None
    with refused(where="target phi_s dim", expected=("1", "2", "4"), got="10", advice="target.dim=8"):
        phi_s(teacher(d=10))


def test_centre_standardise_and_top_k_against_scikit_learn():
    train, test = teacher(0), teacher(1, 60)
    assert np.allclose(centre(train)(test), normalize(test) - normalize(train).mean(axis=0), atol=1e-6)
    assert np.allclose(standardise(train)(test), StandardScaler().fit(normalize(train)).transform(normalize(test)), atol=1e-3)
    oracle = PCA(4).fit(normalize(train))
    assert np.allclose(top_k(train, k=4)(test), oracle.inverse_transform(oracle.transform(normalize(test))), atol=1e-5)
    assert np.allclose(top_k(train, k=D)(test), normalize(test), atol=1e-5)
    assert np.linalg.matrix_rank(top_k(train, k=4)(train) - normalize(train).mean(axis=0), tol=1e-3) == 4
    assert np.allclose(np.abs(pca(train, dim=4, centre=True)(test)), np.abs(oracle.transform(normalize(test))), atol=1e-4)


def test_a_random_teacher_tells_nothing_of_the_teacher_but_for_copies():
    train = teacher(n=4000)
    target = random(train)
    z = target(train)
    assert np.abs(covariance(z) - np.eye(D)).max() < 0.1  # sampling: 1 / sqrt(4000), the largest of D^2
    assert z.mean(axis=0) == pytest.approx(np.zeros(D), abs=0.1)
    near, far = z[:2000], z[2000:]
    assert np.abs((near * far).mean()) < 0.01
    # uniform phases: every value is sqrt(2) cos of a uniform angle
    assert kstest(np.arccos(np.clip(z[:500, 0] / np.sqrt(2), -1, 1)) / np.pi, "uniform").pvalue > 1e-3
    ridge = ridge_map(train[:2000], z[:2000])
    assert 1 - np.square(ridge(train[2000:]) - z[2000:]).mean() / z[2000:].var() < 0.02  # nothing linear to be learned
    copies = target((normalize(train[:50]) + 1e-7 * np.random.default_rng(0).normal(size=(50, D))).astype(np.float32))
    assert np.abs(copies - z[:50]).max() < 1e-3  # the last bits change little
    assert not np.allclose(random(train, seed=1)(train[:5]), z[:5], atol=0.1)
    smooth = random(train, frequency=0.2)(train)
    ridge = ridge_map(train[:2000], smooth[:2000])
    assert 1 - np.square(ridge(train[2000:]) - smooth[2000:]).mean() / smooth[2000:].var() > 0.8  # a slow wave can be learned


def low_rank(n: int, common: float = 0.0) -> np.ndarray:
    """A teacher of rank 64 in 256 dimensions, as a network computes it: the common part passes through the last layer."""
    rng = np.random.default_rng(3)
    inner, last = rng.normal(size=(n, 512)) @ rng.normal(size=(512, 64)) / 22, rng.normal(size=(64, 256))
    return ((inner + common).astype(np.float32) @ last.astype(np.float32)).astype(np.float32)


def rounded(rows: np.ndarray, precision: str) -> np.ndarray:
    return torch.from_numpy(rows).to(getattr(torch, precision)).float().numpy()


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("n", "common"), [(300, 0.0), (3000, 0.0), (3000, 10.0), (300, 10.0)])
def test_directions_that_hold_rounding_alone_are_not_whitened(precision, n, common):
    rows = rounded(low_rank(n, common), precision)
    said = r"target whiten: expected embeddings of rank 256 or more, got rank 64 on \d+ train images in " + precision
    with pytest.raises(UserError, match=said):
        whiten(rows)
    unit = normalize(rows)  # divided by its norm afterwards, it no longer shows: the teacher's precision is told
    with pytest.raises(UserError, match=said):
        fit_target("whiten", {}, unit, precision)
    assert whiten(rows, dim=64)(rows).std(axis=0) == pytest.approx(np.ones(64), rel=1e-2)
    assert np.isfinite(whiten(rows, exponent=0)(rows)).all()


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("n", [600, 3000])
def test_embeddings_of_full_rank_are_whitened_in_any_precision(precision, n):
    """Variances that fall by a factor of 300, about a mean that is most of the norm."""
    rng = np.random.default_rng(4)
    rows = (rng.normal(size=(n, 256)) * np.geomspace(1, 300**-0.5, 256)) @ np.linalg.qr(rng.normal(size=(256, 256)))[0] + 1
    rows = rounded(rows.astype(np.float32), precision)
    assert precision_of(rows) == precision
    assert np.trace(covariance(whiten(rows)(rows))) == pytest.approx(256, rel=1e-2)
    assert np.isfinite(standardise(rows)(rows)).all()


def test_a_spread_that_float32_cannot_hold_about_a_far_mean_is_refused():
    rows = (1 + 1e-8 * np.random.default_rng(5).normal(size=(500, D)) * np.r_[1e4, np.ones(D - 1)]).astype(np.float32)
    with refused(expected="12", got="rank 1 on 500 train images in float32"):
        whiten(rows)
    rows = np.concatenate([np.random.default_rng(6).normal(size=(500, 4)), np.full((500, 1), 1e-3)], axis=1).astype(np.float32)
    # A constant value of rows that differ in norm is not constant in unit rows.
    assert np.isfinite(standardise(rows)(rows)).all()


def test_a_teacher_of_too_low_a_rank_is_refused_by_its_rank():
    low = (np.random.default_rng(0).normal(size=(500, 5)) @ np.random.default_rng(1).normal(size=(5, D))).astype(np.float32)
    for exponent in (1.0, 0.5):
        with refused(where="target whiten", expected="12", got="rank 5 on 500 train images in float32", advice="target.dim=5"):
            whiten(low, exponent=exponent)
    assert covariance(whiten(low, dim=5)(low)) == pytest.approx(np.eye(5), abs=2e-3)
    assert np.isfinite(whiten(low, exponent=0)(low)).all()
    with refused(got="rank 7 on 8 train images"):
        whiten(teacher(n=8))
    with refused(expected="12", got="rank 0 on 9 train images"):
        whiten(np.ones((9, D), dtype=np.float32))
    with refused(where="target random"):
        random(np.ones((9, D), dtype=np.float32))
    constant = teacher()
    constant[:, 3] = 0
    with refused(where="target standardise", got="1 of 12"):
        standardise(constant)


@pytest.mark.parametrize(("name", "settings", "message"), [
    ("whiten", {"exponent": 1.5}, r"target\.exponent: expected float less than or equal to 1, got 1\.5"),
    ("whiten", {"exponent": -0.1}, r"target\.exponent: .*greater than or equal to 0"),
    ("whiten", {"dim": 0}, r"target\.dim: .*greater than or equal to 1"),
    ("whiten", {"dim": 13}, r"target\.dim: expected 1 to the teacher's 12 dimensions, got 13\. Set target\.dim=12 or less"),
    ("phi_s", {"dim": 16}, r"target\.dim: expected 1 to the teacher's 12"),
    ("top_k", {"k": 13}, r"target\.k: expected 1 to the teacher's 12"),
    ("top_k", {}, r"target\.k: expected a value"),
    ("random", {"frequency": 0}, r"target\.frequency: .*greater than 0"),
])
def test_settings_out_of_range_are_said(name, settings, message):
    with pytest.raises(UserError, match=message):
        targets.call(name, settings, teacher(n=50), where="target")


IMPOSSIBLE = [
    ({"name": "phi_s", "dim": 92},
     r"target phi_s dim: expected 1, 2 or a multiple of 4 with a Hadamard matrix, got 92\. Set target\.dim=88"),
    ({"name": "top_k", "k": 5000}, r"target\.k: expected 1 to the teacher's 96 dimensions, got 5000"),
    ({"name": "whiten", "dim": 90},
     (r"target whiten: expected embeddings of rank 90 or more, got rank 79 at most on 80 train images\. "
                                     r"Set target\.dim=79 or less, or use more images")),
    ({"name": "random", "dim": 97}, r"target\.dim: expected 1 to the teacher's 96 dimensions, got 97"),
]


@pytest.mark.parametrize(("part", "message"), IMPOSSIBLE)
@pytest.mark.parametrize("place", ["study", "arm"])
def test_what_cannot_be_fitted_is_said_before_anything_is_embedded(part, message, place, tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(tmp_path / "cache"))
    arm = {"name": "a", "target": "none" if place == "study" else part}
    study = tiny_study(limit=120, arms=[arm], target=part if place == "study" else "none")
    for start in (lambda: plan_study(study, tmp_path / "run", "cpu", jobs=1),
                  lambda: run_study(study, tmp_path / "run", jobs=1)):
        with pytest.raises(UserError, match=message):
            start()
    assert not (tmp_path / "cache").exists()


def test_what_can_be_fitted_passes_the_check():
    for name in targets:
        check_target(name, {**SETTINGS.get(name, {}), **({"dim": D} if name == "pca" else {})}, D, D + 1)
    check_target("whiten", {"exponent": 0}, D, 5)
    with refused(expected="12", got="rank 11 at most on 12 train images"):
        check_target("whiten", {}, D, D)


def test_a_file_that_is_no_target_is_said(tmp_path):
    (tmp_path / "target.safetensors").write_bytes(b"nonsense")
    with refused(expected="a stored target"):
        load_target(tmp_path / "target.safetensors")


@pytest.mark.parametrize("name", list(targets))
def test_every_target_has_a_posthoc_twin(name):
    student_train, student_test = teacher(5), teacher(6, 50)
    twin = posthoc_twin(name, SETTINGS.get(name, {}), student_train)
    assert np.array_equal(twin(student_test), fit(name, student_train)(student_test))


def test_rank_won_after_training_does_not_pass_the_ridge_map():
    """Whitening a student of rank 4 raises its rank without a gain; what it knows of the teacher stays at 4."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(4000, D))
    student = np.concatenate([truth[:, :4], 0.03 * rng.normal(size=(4000, 8))], axis=1).astype(np.float32)  # 4 known, 8 noise
    train, test = slice(0, 3000), slice(3000, None)
    white = posthoc_twin("whiten", {}, student[train])
    known = {}
    for side, z in (("plain", student), ("white", white(student))):
        known[side] = (effective_rank(eigenvalues_of(z[test])),
                       effective_rank(eigenvalues_of(ridge_map(z[train], truth[train])(z[test]))))
    assert known["plain"][0] < 5 and known["white"][0] > 10
    assert known["white"][1] < 6
