"""Similarity and retrieval: explicit kernels, SciPy's Procrustes and Spearman, scikit-learn and brute force; nulls, ties.

And contrastive measures, against loops and torch's cross-entropy; few items, against all dimensions and scikit-learn's ridge.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.spatial import procrustes as scipy_procrustes
from scipy.spatial.distance import pdist, squareform
from scipy.stats import rankdata, spearmanr
from threadpoolctl import ThreadpoolController, threadpool_limits

from builders import refused
from builders.planted import cloud, rotation, student_of
from distillscope.measure import search, tolerances
from distillscope.measure.audit import audit
from distillscope.measure.comparison import permutations, shuffled_moments
from distillscope.measure.contrastive import batch_uniformity, in_batches, infonce_losses
from distillscope.measure.neighbours import knn_accuracy, knn_predictions, nearest
from distillscope.measure.pair import Pair
from distillscope.measure.pool import Settings, Side
from distillscope.measure.results import GROUPS
from distillscope.measure.rows import Frame, Rows, unit
from distillscope.measure.search import Directions, ahead_of_own, nearest_by_distance, nearest_rows, own_ranks, top_positions
from distillscope.measure.similarity import Sorted, kept_pairs, linear_cka, linear_cka_debiased
from distillscope.measure.similarity import procrustes as procrustes_similarity
from distillscope.measure.threads import over_blocks
from distillscope.measure.tolerances import TIE

KEYS = ("linear_cka", "linear_cka_debiased", "procrustes", "rsa_spearman", "mutual_knn_10")
CONTRASTIVE = {"contrastive", "paper"}


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
        null = f.measured["similarity.linear_cka_null"]
        assert null.low - 0.02 < f["similarity.linear_cka"] < null.high + 0.02


def test_procrustes_is_scipys_disparity(teacher, student):
    disparity = scipy_procrustes(teacher, student)[2]
    assert 1 - run(teacher, student)["similarity.procrustes"] ** 2 == pytest.approx(disparity, rel=1e-8)


def test_rsa_is_scipys_spearman_of_distances(teacher, student):
    assert run(teacher, student)["similarity.rsa_spearman"] == pytest.approx(spearmanr(pdist(teacher), pdist(student))[0])


@pytest.mark.parametrize("levels", [3, 40, 10**9])
def test_ranks_of_any_part_of_sorted_values_are_scipys(levels):
    rng = np.random.default_rng(levels)
    values, kept = rng.integers(0, levels, 2000).astype(float), rng.random(2000) < 0.9
    assert (Sorted(values).ranks() == rankdata(values)).all()
    assert (Sorted(values).ranks(kept) == rankdata(values[kept])).all()


def test_pairs_of_kept_items_are_in_pdists_order():
    rng = np.random.default_rng(0)
    rows, kept = rng.normal(size=(30, 4)), rng.random(30) < 0.8
    assert pdist(rows)[kept_pairs(kept)].tolist() == pdist(rows[kept]).tolist()


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
        null = base.measured[f"similarity.{key}_null"]
        assert base[f"similarity.{key}"] > null.high
        assert abs(shuffled[f"similarity.{key}"] - null.value) < 1.5 * (null.high - null.low), key


def test_the_null_of_neighbours_is_chance(teacher, student):
    assert run(teacher, student)["similarity.mutual_knn_10_null"] == pytest.approx(10 / 199, rel=0.1)


@pytest.mark.parametrize("scale", [1.0, 1e25])
@pytest.mark.parametrize("rank", [40, 2])
def test_null_draws_are_those_of_float64(rank, scale):
    teacher, student = cloud(0, n=300, d=40), scale * cloud(1, n=300, d=40)[:, :rank] @ np.eye(rank, 30)
    found = shuffled_moments(teacher, student, 3, 0)
    t, s = teacher - teacher.mean(axis=0), student - student.mean(axis=0)
    energies = np.square(t).sum(axis=1), np.square(s).sum(axis=1)
    for number, order in enumerate(permutations(300, 3, 0, "moments")):
        moved = s[order].T @ t, t.T @ t, s.T @ s
        for name, expected in (("linear_cka", linear_cka(*moved)), ("procrustes", procrustes_similarity(*moved)),
                               ("linear_cka_debiased", linear_cka_debiased(*moved, energies[0], energies[1][order]))):
            assert found[name][number] == pytest.approx(expected, rel=0, abs=tolerances.NULL), name


def test_repeated_rows_bias_neighbours_which_is_why_they_are_never_bootstrapped(teacher, student):
    index = np.random.default_rng(0).integers(0, 200, 200)
    bootstrapped = run(teacher[index], student[index])
    assert bootstrapped["similarity.mutual_knn_10"] > run(teacher, student)["similarity.mutual_knn_10"] + 0.03


def retrieved(teacher, student, **kwargs):
    return audit(teacher, student, groups={"retrieval"}, intervals=False, **kwargs)


def test_recall_is_brute_force(teacher):
    student = student_of(teacher, 1, noise=0.6)
    t, s = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (teacher, student))
    order = np.argsort(-(s @ t.T), axis=1)
    found = retrieved(teacher, student)
    for k in (1, 5, 10):
        expected = np.mean([i in order[i, :k] for i in range(len(t))])
        assert found[f"retrieval.recall_at_{k}"] == pytest.approx(expected)
    assert found["retrieval.recall_at_1"] < found["retrieval.recall_at_10"] < 1


def test_a_perfect_and_a_collapsed_student(teacher):
    assert retrieved(teacher, teacher.copy())["retrieval.recall_at_1"] == 1
    assert retrieved(teacher, teacher.copy())["retrieval.neighbour_overlap_10"] == 1
    collapsed = retrieved(teacher, np.ones_like(teacher))
    assert collapsed["retrieval.recall_at_10"] <= 0.06


def test_what_lies_in_the_direction_of_the_own_item_is_it_and_other_ties_count_against_the_query():
    gallery = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert own_ranks(gallery, gallery, np.arange(3)).tolist() == [1, 1, 1]
    between = np.full((3, 2), 0.5**0.5)  # as near to all rows
    assert own_ranks(gallery, between, np.arange(3)).tolist() == [2, 2, 3]


def test_rows_that_differ_in_length_alone_are_no_miss(teacher):
    scaled = np.vstack([teacher, 3 * teacher])
    found = retrieved(scaled, scaled.copy())
    assert found["retrieval.recall_at_1"] == 1 == found["retrieval.neighbour_overlap_10"]


def test_the_map_undoes_a_rotation_and_a_change_of_dimension():
    teacher = cloud(0, n=400)
    rotated = teacher @ rotation(2, 12)
    found = retrieved(teacher, rotated)
    assert found["retrieval.recall_at_1"] < 0.5 and found["retrieval.mapped_recall_at_1"] == 1
    wider = retrieved(teacher, np.hstack([rotated, rotated[:, :3]]))
    assert wider["retrieval.mapped_recall_at_1"] == 1 and "retrieval.recall_at_1" in wider.left_out
    assert wider["retrieval.neighbour_overlap_10"] > 0


def test_gallery_and_queries_are_capped_and_stated(teacher, student):
    found = retrieved(teacher, student, settings=Settings(gallery_items=100, retrieval_pairs=2000))
    assert found.measured["retrieval.recall_at_1"].n == 20
    assert found["retrieval.recall_at_1"] >= retrieved(teacher, student)["retrieval.recall_at_1"] - 0.2


@pytest.mark.parametrize("exclude_self", [False, True])
def test_nearest_in_blocks_is_a_full_sort(monkeypatch, exclude_self):
    monkeypatch.setattr(search, "BLOCK_PAIRS", 7 * 40)
    z = cloud(0, n=40)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    similarity = z @ z.T - (10 * np.eye(40) if exclude_self else 0)
    expected = np.argsort(-similarity, axis=1, kind="stable")[:, :6]
    assert (nearest(z, z, 6, exclude_self=exclude_self) == expected).all()


def awkward(name):
    """Rows (150, 24) whose similarities float32 tells apart only in part, or not at all."""
    rng, z = np.random.default_rng(5), cloud(2, n=150, d=24)
    few = z[rng.integers(0, 40, 150)]
    return {
        "plain": z, "repeats": few, "tiny gaps": few + 1e-9 * rng.normal(size=z.shape),
        "gaps of rounding": few * rng.uniform(0.5, 2, (150, 1)), "large mean": z + 1000,
        "one direction": np.outer(rng.uniform(1, 2, 150), z[0]), "integers": rng.integers(0, 2, (150, 24)) + np.eye(150, 24),
        "two values": np.sign(rng.normal(size=(150, 24))),
    }[name]


AWKWARD = ("plain", "repeats", "tiny gaps", "gaps of rounding", "large mean", "one direction", "integers", "two values")


def levels(similarity):
    """Similarities (n,) as whole numbers, the same for those within a tie."""
    order = np.argsort(-similarity, kind="stable")
    found = np.empty(len(order), int)
    found[order] = np.cumsum(np.append(0, -np.diff(similarity[order]) > TIE))
    return found


@pytest.mark.parametrize("case", AWKWARD)
def test_neighbours_are_those_of_float64_brute_force(case, monkeypatch):
    z = unit(awkward(case))
    similarity = z @ z.T - 10 * np.eye(len(z))
    for block in (150 * 7, 2**22):
        monkeypatch.setattr(search, "BLOCK_PAIRS", block)
        rows = Directions.of(z)
        found = nearest_rows(rows, rows, {150: 150, 90: 60}, 12, exclude_self=True)
        for size, count in ((150, 150), (90, 60)):
            expected = [np.lexsort((np.arange(size), levels(row[:size])))[:12] for row in similarity[:count]]
            assert (found[size] == np.array(expected)).all()


@pytest.mark.parametrize("case", AWKWARD)
@pytest.mark.parametrize("noise", [0.0, 1e-10, 0.3])
def test_ranks_of_own_items_are_those_of_float64_brute_force(case, noise, monkeypatch):
    z = awkward(case)
    gallery, queries = unit(z), unit(z + noise * np.abs(z).mean() * np.random.default_rng(7).normal(size=z.shape))
    own, groups = np.arange(150), np.arange(150) % 3
    expected = np.zeros((150, 3), int)
    for i in range(150):
        right = queries[i] @ gallery[i]
        before = (gallery @ queries[i] >= right - TIE) & (own != i)
        before &= (gallery @ queries[i] > right + TIE) | (gallery @ gallery[i] < 1 - TIE)
        expected[i] = np.bincount(groups[before], minlength=3)
    for block in (150 * 7, 2**22):
        monkeypatch.setattr(search, "BLOCK_PAIRS", block)
        assert (ahead_of_own(Directions.of(gallery), Directions.of(queries), own, groups, 3) == expected).all()


@pytest.mark.parametrize("case", AWKWARD)
def test_nearest_by_distance_are_those_of_float64_brute_force(case):
    z = awkward(case)
    _, distances = nearest_by_distance(z, 5)
    square = squareform(pdist(z)) + np.diag(np.full(len(z), np.inf))
    np.testing.assert_allclose(distances, np.sort(square, axis=1)[:, :5], rtol=1e-12, atol=1e-12)


@pytest.fixture
def blas_kept():
    """What is patched here says how many threads BLAS is given back: the real number returns after it."""
    with threadpool_limits(1, user_api="blas"):
        yield


def test_threads_change_no_neighbour(blas_kept, monkeypatch):
    z = cloud(0, n=500, d=24)
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(ThreadpoolController, "info", lambda _, n=threads: [{"user_api": "blas", "num_threads": n}])
        monkeypatch.setattr(search, "BLOCK_PAIRS", 500 * 40)
        found.append(audit(z, student_of(z, 1), groups=set(GROUPS) - {"probe"}).to_dict()["measures"])
    assert found[0] == found[1]


def test_ctrl_c_in_a_block_ends_the_others_unbegun(blas_kept, monkeypatch):
    monkeypatch.setattr(ThreadpoolController, "info", lambda _: [{"user_api": "blas", "num_threads": 2}])
    begun = []

    def work(number):
        begun.append(number)
        time.sleep(0.01)
        if number == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        over_blocks(work, ((i,) for i in range(200)))
    assert len(begun) < 50


def test_each_side_is_searched_once(monkeypatch):
    searched = []

    def counted(gallery, queries, wanted, *args, **kwargs):
        searched.append(dict(wanted))
        return nearest_rows(gallery, queries, wanted, *args, **kwargs)

    monkeypatch.setattr("distillscope.measure.pool.nearest_rows", counted)
    z = cloud(0, n=300)
    audit(z, student_of(z, 1), np.arange(300) % 3, settings=Settings(max_items=100))
    assert searched == [{100: 100, 300: 300}] * 2


@pytest.mark.parametrize("size", [60, 700, 701])
@pytest.mark.parametrize("values", [3, 400, None])
def test_the_largest_of_folded_rows_are_those_of_a_full_sort(size, values):
    rng = np.random.default_rng(size)
    scores = rng.normal(size=(9, size)).astype(np.float32) if values is None else rng.integers(0, values, (9, size)) / 7
    scores[0, ::2] = -np.inf
    found = search._largest(scores, 13)
    assert (np.take_along_axis(scores, found, axis=1) == -np.sort(-scores, axis=1)[:, :13]).all()
    assert all(len(set(row)) == 13 for row in found.tolist())


def test_ties_go_by_position():
    scores = np.array([[1.0, 2.0, 2.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    assert top_positions(scores, 2).tolist() == [[1, 2], [0, 1]]
    assert top_positions(scores, 5).tolist() == [[1, 2, 3, 0, 4], [0, 1, 2, 3, 4]]


def test_knn_is_scikit_learns_with_two_classes_and_odd_k():
    from sklearn.neighbors import KNeighborsClassifier

    rng = np.random.default_rng(0)
    gallery, queries = cloud(0, n=150), cloud(1, n=90)
    labels = (gallery[:, 0] + 0.3 * rng.normal(size=150) > gallery[:, 0].mean()).astype(int)
    theirs = KNeighborsClassifier(9, metric="cosine").fit(gallery, labels).predict(queries)
    assert (knn_predictions(gallery, labels, queries, 9) == theirs).all()


def test_a_tied_vote_goes_to_the_nearest_of_the_tied():
    gallery = np.array([[1.0, 0.0], [1.0, 0.2], [1.0, 0.4], [1.0, 0.6]])
    query = np.array([[1.0, -0.1]])
    assert knn_predictions(gallery, np.array(["b", "a", "a", "b"]), query, 4).tolist() == ["b"]
    assert knn_predictions(gallery, np.array(["c", "b", "a", "a"]), query, 4).tolist() == ["a"]


def test_leave_one_out_leaves_itself_out():
    z = np.repeat(np.eye(4), 2, axis=0)
    assert knn_accuracy(z, [0, 1] * 4, z, [0, 1] * 4, k=1, exclude_self=True) == 0
    assert knn_accuracy(z, [0, 0, 1, 1, 2, 2, 3, 3], z, [0, 0, 1, 1, 2, 2, 3, 3], k=1, exclude_self=True) == 1


def test_k_beyond_the_gallery_is_refused():
    with refused(where="neighbours k", expected=("1", "2"), got="3"):
        nearest(np.eye(3), np.eye(3), 3, exclude_self=True)


def contrasted(teacher, student, **kwargs):
    return audit(teacher, student, groups=CONTRASTIVE, intervals=False, **kwargs)


def torch_infonce(student, teacher, temperature=0.1):
    torch = pytest.importorskip("torch")
    s, t = (torch.nn.functional.normalize(torch.tensor(z), dim=1) for z in (student, teacher))
    return torch.nn.functional.cross_entropy(s @ t.T / temperature, torch.arange(len(s))).item()


def test_losses_are_torchs_cross_entropy(teacher, student):
    assert infonce_losses(student, teacher).mean() == pytest.approx(torch_infonce(student, teacher), rel=1e-10)
    assert infonce_losses(student, teacher, 0.01).mean() == pytest.approx(torch_infonce(student, teacher, 0.01), rel=1e-10)


def test_paper_infonce_is_the_mean_over_batches_in_row_order(teacher, student):
    expected = [torch_infonce(student[i : i + 64], teacher[i : i + 64]) for i in range(0, 200, 64)]
    found = contrasted(teacher, student)
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
    assert contrasted(teacher, student)["paper.uniformity"] == pytest.approx(np.mean(per_batch), rel=1e-9)
    assert batch_uniformity(np.eye(4)) == pytest.approx(np.log((1 + 3 * np.exp(-4)) / 4))


def test_a_collapsed_student_is_at_chance(teacher):
    found = contrasted(teacher, np.ones_like(teacher) + 1e-12 * cloud(1))
    # all student rows are one direction, so the loss is the mean over items of log sum exp - own, at least log K
    assert found["contrastive.infonce"] >= found["contrastive.ceiling"] - 1e-9
    assert found["contrastive.retained_share"] <= 1e-6 and found["contrastive.saturated"] == 0


def test_orthogonal_items_in_closed_form():
    """Student = teacher = e_1 ... e_K: loss = log(1 + (K - 1) exp(-1 / T))."""
    z = np.eye(50)
    found = contrasted(z, z)
    expected = np.log1p(49 * np.exp(-10))
    assert found["contrastive.infonce"] == pytest.approx(expected, rel=1e-9)
    assert found["contrastive.retained_share"] == pytest.approx(1)
    assert found["contrastive.saturated"] == 1
    assert found["contrastive.best_temperature"] == 0.01
    assert any("cannot distinguish students" in note for note in found.notes)


def test_k_is_the_largest_that_fits_and_incomplete_batches_are_dropped():
    z = cloud(0, n=150)
    assert contrasted(z, z)["contrastive.ceiling"] == pytest.approx(np.log(150))
    cut = contrasted(z, z, settings=Settings(infonce_batch=64))
    assert cut["contrastive.ceiling"] == pytest.approx(np.log(64)) and cut.measured["contrastive.infonce"].n == 128


def test_curves_contain_the_value_and_grow_with_k():
    teacher = cloud(0, n=1100)
    found = contrasted(teacher, student_of(teacher, 1))
    by_k, by_t = found.curves["contrastive.infonce_by_k"], found.curves["contrastive.infonce_by_temperature"]
    assert by_k.x.tolist() == [16, 64, 256, 1024] and (np.diff(by_k.y) > 0).all()
    assert by_k.y[-1] == pytest.approx(found["contrastive.infonce"])
    assert by_t.y[by_t.x.tolist().index(0.1)] == pytest.approx(found["contrastive.infonce"])
    assert found["contrastive.infonce_best_temperature"] == by_t.y.min()
    np.testing.assert_allclose(found.curves["contrastive.ceiling_by_k"].y, np.log(by_k.x))


def test_losses_at_larger_k_are_those_of_float64():
    teacher, student = cloud(0, n=300), student_of(cloud(0, n=300), 1)
    found = contrasted(teacher, student, settings=Settings(infonce_batch=32)).curves["contrastive.infonce_by_k"]
    order = Side(Rows(teacher)).order[: 300 // 32 * 32]
    assert found.x.tolist() == [16, 32, 64, 256]
    for k, loss in zip(found.x, found.y, strict=True):
        expected = infonce_losses(*(in_batches(z[order], int(k)) for z in (student, teacher))).mean()
        assert loss == pytest.approx(expected, rel=0, abs=tolerances.SINGLE if k > 32 else 1e-12)


def test_what_it_sees_and_what_not(teacher, student):
    base, q = contrasted(teacher, student), rotation(0, 12)
    row_scale = np.random.default_rng(0).uniform(0.5, 2, size=(200, 1))
    both = contrasted(teacher @ q, student @ q * row_scale, settings=Settings(infonce_batch=200))
    assert both["contrastive.infonce"] == pytest.approx(base["contrastive.infonce"])
    assert contrasted(teacher, student @ q)["contrastive.infonce"] > base["contrastive.infonce"] + 0.5
    shuffled = contrasted(teacher, student[np.random.default_rng(1).permutation(200)])
    assert shuffled["contrastive.retained_share"] < 0.05


@pytest.mark.parametrize("case", ["plain", "as many", "collinear", "two values", "far away", "float16"])
def test_few_items_measure_in_their_span_as_in_all_dimensions(case, monkeypatch):
    """Scatters of n - 1 coordinates say what those of d dimensions do, in a file's step too, whose rows leave the span."""
    n, d = (64, 64) if case == "as many" else (60, 90)
    teacher, student = cloud(0, n=n, d=d) + (1e3 if case == "far away" else 0), student_of(cloud(0, n=n, d=d), 1)
    if case == "collinear":
        teacher = teacher[:, :30] @ cloud(2, n=30, d=d)
    if case == "float16":
        teacher = ((teacher - teacher.mean(axis=0)) * 10.0 ** -np.linspace(0, 5, d) @ rotation(2, d)).astype(np.float16)
    if case == "two values":
        student = np.where(student > 0, 1.0, 0.5)
    given = {"artefacts": {"file": student + 0.3 * cloud(3, n=n, d=d)},
             "groups": {"spectrum", "alignment", "similarity", "retrieval"}}
    few = audit(teacher, student, **given)
    monkeypatch.setattr(Frame, "of", classmethod(lambda cls, rows: cls()))
    all_dimensions = audit(teacher, student, **given)
    assert few.left_out == all_dimensions.left_out and few.measured.keys() == all_dimensions.measured.keys()
    for key, value in all_dimensions.measured.items():
        found, expected = (np.array([v.value, v.low, v.high], float) for v in (few.measured[key], value))
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-7, err_msg=key)
    for stage, other in zip(few.stages, all_dimensions.stages, strict=True):
        assert {k: v.value for k, v in stage.values.items()} == pytest.approx({k: v.value for k, v in other.values.items()})
    for key, curve in all_dimensions.curves.items():
        rank = slice(None) if "_on_" not in key else slice(29 if case == "collinear" else 50)  # past the rank: anywhere
        np.testing.assert_allclose(few.curves[key].y[rank], curve.y[rank], rtol=1e-6, atol=1e-5 * curve.y[0], err_msg=key)


def test_fold_maps_of_few_items_are_scikit_learns_ridge():
    from sklearn.linear_model import Ridge

    teacher, student = cloud(0, n=40, d=50), student_of(cloud(0, n=40, d=50), 1)[:, :45]
    pair = Pair(*(Side(Rows(z), items=Side(Rows(teacher)).items, precision="float64") for z in (teacher, student)))
    assert pair.cross_scatter.shape == pair.teacher.scatter.shape == (39, 39)  # what made the audit of few items fast
    new = cloud(5, n=7, d=45)
    for fold, found in zip(pair.folds, pair.fold_maps, strict=True):
        seen = ~np.isin(pair.teacher.group_of, fold)
        theirs = Ridge(alpha=found.penalty).fit(student[seen], teacher[seen])
        np.testing.assert_allclose(found(new), theirs.predict(new), rtol=1e-6, atol=1e-7)
