"""Intervals: against other forms, and their coverage over repeated samples from one population."""

import numpy as np
import pytest
from scipy import stats

from builders.clouds import rotation
from distillscope.measure.audit import audit
from distillscope.measure.intervals import (
    bootstrap_interval,
    dependent_interval,
    jackknife_interval,
    mcnemar_p,
    mean_interval,
    wilson_interval,
)
from distillscope.measure.pool import Settings

TRIALS = {"few": (40, 34), "many": (100, 89)}
"""Repeats, and how many intervals have to cover: of intervals that cover 95 %, fewer do so once in 300 times.

`pytest -m minutes` does the many; docs/measures.md lists the wider ones.
"""

COVERED = (
    "teacher.effective_rank", "student.effective_rank", "teacher.effective_rank_corrected", "teacher.rankme",
    "teacher.participation_ratio", "teacher.stable_rank", "teacher.spectral_decay", "teacher.mean_energy",
    "teacher.uniformity", "teacher.twonn_dimension", "teacher.dims_90", "teacher.dims_95", "alignment.mean_cosine",
    "alignment.student_variance_top20", "alignment.teacher_variance_captured", "alignment.teacher_r2",
    "contrastive.infonce", "contrastive.teacher_infonce", "contrastive.retained_share", "similarity.linear_cka",
    "similarity.linear_cka_debiased", "similarity.procrustes", "similarity.rsa_spearman", "similarity.mutual_knn_10",
)


def sample(trial: int, n: int = 240, d: int = 30) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng((7, trial))
    teacher = rng.normal(size=(n, d)) * np.arange(1, d + 1) ** -0.5 + 0.2
    return teacher, teacher @ (np.eye(d) + 0.3 * rotation(0, d)) + 0.4 * rng.normal(size=(n, d))


@pytest.fixture(scope="module", params=["few", pytest.param("many", marks=pytest.mark.minutes)])
def trials(request):
    """(audits of samples from one population, how many of their intervals have to cover)."""
    settings = Settings(null_draws=1, rsa_items=150)
    groups = {"spectrum", "alignment", "contrastive", "similarity"}
    count, least = TRIALS[request.param]
    return [audit(*sample(i), groups=groups, settings=settings).values for i in range(count)], least


@pytest.mark.parametrize("key", COVERED)
def test_coverage_of_what_an_estimate_at_this_n_is_on_average(trials, key):
    """The interval is of the estimate at this n: it knows nothing of the bias that n brings."""
    found, least = trials
    values = [t[key] for t in found]
    truth = np.mean([v.value for v in values])
    if key.split(".")[1].startswith("dims"):
        truth = np.median([v.value for v in values])
    assert sum(v.low <= truth <= v.high for v in values) >= least
    assert all(v.low <= v.value <= v.high for v in values)
    spread = np.std([v.value for v in values])
    assert np.mean([v.high - v.low for v in values]) < 2.5 * 3.92 * spread + 2 * key.count("dims"), "too wide to be of use"


# -- items that are one another's neighbours, and classifiers --------------------------------------------------------------

LABELLED = ("retrieval.recall_at_1", "retrieval.recall_at_10", "retrieval.mapped_recall_at_1", "retrieval.neighbour_overlap_10",
            "knn.teacher.accuracy", "knn.student.accuracy", "knn.retention")
PROBED = ("probe.teacher.accuracy", "probe.student.accuracy", "probe.retention", "paper.probe.teacher.accuracy",
          "paper.probe.retention")


def labelled_sample(trial: int, n: int, d: int = 16) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three overlapping classes, and two encoders of one quality: retention is 1, and McNemar's null holds."""
    rng = np.random.default_rng((11, trial))
    labels = rng.integers(0, 3, n)
    shared = rng.normal(size=(n, d)) * np.arange(1, d + 1) ** -0.5
    shared[:, :3] += 1.2 * np.eye(3)[labels]
    return *(shared + 0.45 * rng.normal(size=(n, d)) for _ in range(2)), labels


def covered(values: list, key: str) -> float:
    truth = np.mean([v[key].value for v in values])
    return float(np.mean([v[key].low <= truth <= v[key].high for v in values]))


@pytest.fixture(scope="module")
def neighbours():
    return [audit(*labelled_sample(i, 160), groups={"retrieval", "knn"}).values for i in range(60)]


@pytest.mark.parametrize("key", LABELLED)
def test_coverage_of_neighbour_measures(neighbours, key):
    """n 160, d 16, R 60: of 60 intervals that cover 95 %, 51 or fewer do so once in 300 times."""
    assert covered(neighbours, key) >= 0.86
    spread = np.std([v[key].value for v in neighbours])
    assert np.mean([v[key].high - v[key].low for v in neighbours]) < 2.5 * 3.92 * spread, "too wide to be of use"


def test_one_number_has_one_interval():
    """Shared neighbours in an index and among items are one number up to 4,096 items."""
    found = audit(*labelled_sample(0, 200)[:2], groups={"retrieval", "similarity"}, settings=Settings(null_draws=1)).values
    index, shared = found["retrieval.neighbour_overlap_10"], found["similarity.mutual_knn_10"]
    assert (index.value, index.low, index.high, index.n) == (shared.value, shared.low, shared.high, shared.n)


def test_mcnemar_holds_its_size_on_neighbours(neighbours):
    """R 60: of 60 tests with a size of 5 %, 8 or more are false alarms once in 120 times."""
    assert np.sum([v["knn.mcnemar_p"].value < 0.05 for v in neighbours]) <= 8


@pytest.mark.minutes
def test_coverage_of_probes_and_neighbours_at_length(capsys):
    """n 400, d 16, R 200: prints what docs/measures.md states."""
    values = [audit(*labelled_sample(i, 400), groups={"retrieval", "knn", "probe"}).values for i in range(200)]
    with capsys.disabled():
        for key in (*LABELLED, *PROBED):
            spread = np.std([v[key].value for v in values])
            width = np.mean([v[key].high - v[key].low for v in values]) / (3.92 * spread)
            print(f"\n{key:34} coverage {covered(values, key):.3f} width {width:.2f}", end="")
        for key in ("probe.mcnemar_p", "paper.probe.mcnemar_p", "knn.mcnemar_p"):
            print(f"\n{key:34} size {np.mean([v[key].value < 0.05 for v in values]):.3f}", end="")
    assert all(covered(values, key) >= 0.85 for key in (*LABELLED, *PROBED))


def test_dependent_shares_are_never_surer_than_wilsons():
    correct = np.arange(200) < 150
    plain = wilson_interval(correct)
    assert dependent_interval(correct, [0.75] * 10) == plain == dependent_interval(correct, np.linspace(0.7499, 0.7501, 10))
    low, high = dependent_interval(correct, np.linspace(0.72, 0.78, 10))
    assert low < plain[0] and high > plain[1]
    assert dependent_interval(np.ones(50, bool), [1.0] * 10) == wilson_interval(np.ones(50, bool))


def test_a_bootstrap_of_rows_would_miss_the_rank():
    """Why spectra are not bootstrapped: repeated rows lower the rank by more than its whole interval."""
    from distillscope.measure.spectrum import effective_rank, eigenvalues_of

    rng = np.random.default_rng(0)
    z = rng.normal(size=(240, 100))
    draws = [effective_rank(eigenvalues_of(z[rng.integers(0, 240, 240)])) for _ in range(50)]
    assert effective_rank(eigenvalues_of(z)) > 1.1 * max(draws)


def test_bootstrap_of_a_mean_is_the_normal_interval():
    x = np.random.default_rng(0).exponential(size=2000)
    low, high = bootstrap_interval(lambda s: s.mean(), [x])
    error = x.std() / np.sqrt(2000)
    assert low == pytest.approx(x.mean() - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(x.mean() + 1.96 * error, abs=0.2 * error)


def test_blocks_of_many_scores_leave_the_interval_as_it_is():
    x = np.random.default_rng(0).normal(size=40_003)
    low, high = bootstrap_interval(lambda s: s.mean(), [x])
    assert high - low == pytest.approx(2 * 1.96 / np.sqrt(40_003), rel=0.1)


def test_bootstrap_is_paired():
    """Equal errors on both sides cancel in the ratio, as they would not if sides were resampled apart."""
    x = np.random.default_rng(0).uniform(0.5, 1.5, size=500)
    low, high = bootstrap_interval(lambda a, b: a.mean() / b.mean(), [x, 2 * x])
    assert low == pytest.approx(0.5) and high == pytest.approx(0.5)


def test_jackknife_of_a_mean_is_students_interval_of_group_means():
    x = np.random.default_rng(0).normal(size=(10, 30))
    left_out = [np.delete(x, g, axis=0).mean() for g in range(10)]
    means = x.mean(axis=1)
    expected = stats.t.interval(0.95, 9, loc=means.mean(), scale=stats.sem(means))
    assert jackknife_interval(x.mean(), left_out) == pytest.approx(expected)


def test_mean_and_wilson_intervals_are_scipys():
    x = np.random.default_rng(0).normal(size=12)
    assert mean_interval(x) == pytest.approx(stats.t.interval(0.95, 11, loc=x.mean(), scale=stats.sem(x)))
    assert mean_interval(x[:1]) == (None, None)
    for right in (0, 3, 20):
        theirs = stats.binomtest(right, 20).proportion_ci(method="wilson")
        assert wilson_interval(np.arange(20) < right) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_mcnemar_counts_only_where_they_differ():
    first = np.array([True] * 50 + [True] * 8 + [False] * 2)
    second = np.array([True] * 50 + [False] * 8 + [True] * 2)
    expected = 2 * sum(stats.binom.pmf(k, 10, 0.5) for k in range(3))
    assert mcnemar_p(first, second) == pytest.approx(expected) == mcnemar_p(second, first)
    assert mcnemar_p(first, first) == 1
