"""CKA from explicit kernel matrices, SciPy's Procrustes and Spearman, scikit-learn's neighbours; and the nulls."""

import numpy as np
import pytest
from scipy.spatial import procrustes as scipy_procrustes
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr

from builders.clouds import cloud, rotation, student_of
from distillscope.measure.audit import audit

KEYS = ("linear_cka", "linear_cka_debiased", "procrustes", "rsa_spearman", "mutual_knn_10")


def run(teacher, student):
    return audit(teacher, student, groups={"similarity"}, intervals=False)


def debiased_hsic(k: np.ndarray, m: np.ndarray) -> float:
    """Song et al.'s equation 5 on n x n kernels, as it is printed."""
    n, ones = len(k), np.ones(len(k))
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    return (np.trace(k @ m) + ones @ k @ ones * (ones @ m @ ones) / ((n - 1) * (n - 2))
            - 2 / (n - 2) * ones @ k @ m @ ones) / (n * (n - 3))


def test_cka_is_the_kernel_form(teacher, student):
    n = len(teacher)
    centre = np.eye(n) - 1 / n
    k, m = centre @ (teacher @ teacher.T) @ centre, centre @ (student @ student.T) @ centre
    expected = np.sum(k * m) / np.sqrt(np.sum(k * k) * np.sum(m * m))
    assert run(teacher, student)["similarity.linear_cka"] == pytest.approx(expected, rel=1e-9)


def test_debiased_cka_is_the_kernel_form_without_centring(teacher, student):
    k, m = teacher @ teacher.T, student @ student.T
    expected = debiased_hsic(k, m) / np.sqrt(debiased_hsic(k, k) * debiased_hsic(m, m))
    assert run(teacher, student)["similarity.linear_cka_debiased"] == pytest.approx(expected, rel=1e-8)


def test_debiased_cka_is_ckatorchs():
    torch, hsic = pytest.importorskip("torch"), pytest.importorskip("ckatorch.hsic")
    teacher = cloud(0, n=60)
    student = student_of(teacher, 1)
    k, m = (torch.tensor(z @ z.T)[None] for z in (teacher, student))
    expected = (hsic.hsic1(k, m) / (hsic.hsic1(k, k) * hsic.hsic1(m, m)).sqrt()).item()
    assert run(teacher, student)["similarity.linear_cka_debiased"] == pytest.approx(expected, rel=1e-8)


def test_independent_data_biased_and_debiased():
    """Biased CKA of independent isotropic data is about d / (d + n); the debiased one about 0."""
    d, n = 100, 200
    found = [run(*(np.random.default_rng((i, j)).normal(size=(n, d)) for j in (0, 1))) for i in range(3)]
    assert np.mean([f["similarity.linear_cka"] for f in found]) == pytest.approx(d / (d + n), abs=0.02)
    assert np.mean([f["similarity.linear_cka_debiased"] for f in found]) == pytest.approx(0, abs=0.03)
    for f in found:
        null = f.values["similarity.linear_cka_null"]
        assert null.low - 0.02 < f["similarity.linear_cka"] < null.high + 0.02


def test_procrustes_is_scipys_disparity(teacher, student):
    disparity = scipy_procrustes(teacher, student)[2]
    assert 1 - run(teacher, student)["similarity.procrustes"] ** 2 == pytest.approx(disparity, rel=1e-8)


def test_rsa_is_scipys_spearman_of_distances(teacher, student):
    assert run(teacher, student)["similarity.rsa_spearman"] == pytest.approx(spearmanr(pdist(teacher), pdist(student))[0])


def test_mutual_knn_is_brute_force(teacher, student):
    from sklearn.neighbors import NearestNeighbors

    first, second = (NearestNeighbors(n_neighbors=10, metric="cosine").fit(z).kneighbors(return_distance=False)
                     for z in (teacher, student))
    expected = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(first, second, strict=True)])
    assert run(teacher, student)["similarity.mutual_knn_10"] == pytest.approx(expected)


def test_equal_representations_are_wholly_similar(teacher):
    found = run(teacher, 3 * teacher @ rotation(0, 12))
    for key in KEYS:
        assert found[f"similarity.{key}"] == pytest.approx(1, abs=1e-9), key


def test_what_must_not_matter(teacher, student):
    base = run(teacher, student)
    changed = {
        "rotation": (teacher, student @ rotation(1, 12), KEYS),
        "scale": (5 * teacher, student, KEYS),
        "zero columns": (teacher, np.pad(student, ((0, 0), (0, 7))), KEYS),
        "shift": (teacher + 9, student, KEYS[:4]),  # neighbours by cosine do see the origin
    }
    for name, (t, s, keys) in changed.items():
        found = run(t, s)
        for key in keys:
            assert found[f"similarity.{key}"] == pytest.approx(base[f"similarity.{key}"], rel=1e-8), (name, key)
    swapped = run(student, teacher)
    for key in KEYS:
        assert swapped[f"similarity.{key}"] == pytest.approx(base[f"similarity.{key}"], rel=1e-8), key


def test_what_must_matter(teacher, student):
    base = run(teacher, student)
    stretched = run(teacher, student * np.arange(1, 13))
    shuffled = run(teacher, student[np.random.default_rng(0).permutation(200)])
    for key in KEYS:
        assert abs(stretched[f"similarity.{key}"] - base[f"similarity.{key}"]) > 0.01, key
        null = base.values[f"similarity.{key}_null"]
        assert base[f"similarity.{key}"] > null.high
        assert abs(shuffled[f"similarity.{key}"] - null.value) < 1.5 * (null.high - null.low), key


def test_the_null_of_neighbours_is_chance(teacher, student):
    assert run(teacher, student)["similarity.mutual_knn_10_null"] == pytest.approx(10 / 199, rel=0.1)


def test_repeated_rows_bias_neighbours_which_is_why_they_are_never_bootstrapped(teacher, student):
    index = np.random.default_rng(0).integers(0, 200, 200)
    bootstrapped = run(teacher[index], student[index])
    assert bootstrapped["similarity.mutual_knn_10"] > run(teacher, student)["similarity.mutual_knn_10"] + 0.03
