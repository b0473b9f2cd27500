"""Intervals: against other forms, and their coverage over repeated samples from one population.

And the items they count: rows that repeat one another exactly are one item; rows that do not belong together are doubted.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from builders.planted import labelled_sample, rotation
from distillscope.measure.audit import audit
from distillscope.measure.doubt import question
from distillscope.measure.intervals import (
    bootstrap_interval,
    dependent_interval,
    independent_count,
    jackknife_interval,
    mcnemar_p,
    mean_interval,
    wilson_interval,
)
from distillscope.measure.pool import Settings
from distillscope.measure.scan import Items, row_keys
from distillscope.report.sentences.audit import headline

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
LABELLED = ("retrieval.recall_at_1", "retrieval.recall_at_10", "retrieval.mapped_recall_at_1", "retrieval.neighbour_overlap_10",
            "knn.teacher.accuracy", "knn.student.accuracy", "knn.retention", "swap.student_in_teacher.recall_10",
            "swap.mapped_teacher_in_student.ndcg_10", "swap.student_in_teacher.label_recall_at_1", "swap.student.label_ndcg_10",
            "swap.teacher.hub_skewness", "swap.student.antihubs", "codes.teacher.half_overlap_10",
            "codes.student.half_knn_retention", "codes.student.binary_overlap_10")
PROBED = ("probe.teacher.accuracy", "probe.student.accuracy", "probe.retention", "paper.probe.teacher.accuracy",
          "paper.probe.retention")
FEW = Settings(null_draws=3)
SHOWN_ONCE = ("paper.infonce", "paper.uniformity", "paper.teacher_uniformity", "uniformity", "duplicates")
"""Of batches in row order, or of pairs of rows as they are: these see the repeats, and say so in their definitions."""
ASKED = "Are these the same items in the same order?"


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
    return [audit(*sample(i), groups=groups, settings=settings).measured for i in range(count)], least


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


def covered(values: list, key: str) -> float:
    truth = np.mean([v[key].value for v in values])
    return float(np.mean([v[key].low <= truth <= v[key].high for v in values]))


@pytest.fixture(scope="module")
def neighbours():
    return [audit(*labelled_sample(i, 160), groups={"retrieval", "swap", "codes", "knn"}).measured for i in range(60)]


@pytest.mark.parametrize("key", LABELLED)
def test_coverage_of_neighbour_measures(neighbours, key):
    """n 160, d 16, R 60: of 60 intervals that cover 95 %, 51 or fewer do so once in 300 times."""
    assert covered(neighbours, key) >= 0.86
    spread = np.std([v[key].value for v in neighbours])
    assert np.mean([v[key].high - v[key].low for v in neighbours]) < 2.5 * 3.92 * spread, "too wide to be of use"


def test_one_number_has_one_interval():
    """Shared neighbours in an index and among items are one number up to 4,096 items."""
    found = audit(*labelled_sample(0, 200)[:2], groups={"retrieval", "similarity"}, settings=Settings(null_draws=1)).measured
    index, shared = found["retrieval.neighbour_overlap_10"], found["similarity.mutual_knn_10"]
    assert (index.value, index.low, index.high, index.n) == (shared.value, shared.low, shared.high, shared.n)


def test_mcnemar_holds_its_size_on_neighbours(neighbours):
    """R 60: of 60 tests with a size of 5 %, 8 or more are false alarms once in 120 times."""
    assert np.sum([v["knn.mcnemar_p"].value < 0.05 for v in neighbours]) <= 8


@pytest.mark.minutes
def test_coverage_of_probes_and_neighbours_at_length(capsys):
    """n 400, d 16, R 200: prints what docs/measures.md states."""
    groups = {"retrieval", "swap", "codes", "knn", "probe"}
    values = [audit(*labelled_sample(i, 400), groups=groups).measured for i in range(200)]
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


def test_many_scores_sorted_by_class_have_the_interval_of_mixed_ones():
    """Blocks of neighbours of one class read 2.1 times as wide, or 3 where there are more items."""
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=100), 400) + 0.5 * rng.normal(size=40_000)
    low, high = bootstrap_interval(np.mean, [x])
    assert high - low == pytest.approx(2 * 1.96 * x.std() / np.sqrt(len(x)), rel=0.1)
    low, high = bootstrap_interval(lambda a, b: float(a.mean() / b.mean()), [x + 9, 2 * (x + 9)])
    assert low == pytest.approx(0.5) == high, "blocks of both sides must be of the same items"


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


def pair(n: int = 60, d: int = 16):
    rng = np.random.default_rng(3)
    labels = np.arange(n) % 3
    teacher = rng.normal(size=(n, d)) * np.arange(1, d + 1) ** -0.5
    teacher[:, :3] += 1.5 * np.eye(3)[labels]
    return teacher, teacher + 0.5 * rng.normal(size=(n, d)), labels


@pytest.fixture(scope="module")
def once():
    return audit(*pair(), settings=FEW)


@pytest.fixture(scope="module")
def five_times():
    order = np.random.default_rng(0).permutation(300)
    return audit(*(np.repeat(z, 5, axis=0)[order] for z in pair()), settings=FEW)


def test_a_repeated_pair_reads_like_the_pair(once, five_times):
    """Each item five times, in any order: the same values and intervals, but for what is a count of rows."""
    assert set(once) == set(five_times)
    for key, value in once.measured.items():
        if key.startswith(SHOWN_ONCE) or key.split(".")[-1].startswith(SHOWN_ONCE):
            continue
        other = five_times.measured[key]
        assert other.value == pytest.approx(value.value, rel=1e-6, abs=1e-6), key
        tolerance = 0.02 if key == "alignment.mean_cosine" else 1e-6  # bootstrapped, of another order of the items
        for mine, theirs in ((value.low, other.low), (value.high, other.high)):
            assert (mine is None) == (theirs is None) and (mine is None
                                                           or theirs == pytest.approx(mine, rel=1e-5, abs=tolerance)), key


def test_the_number_of_repeats_is_said(once, five_times):
    assert five_times.repeats == five_times.to_dict()["repeats"] == {"rows": 300, "items": 60}
    assert five_times.notes[0].startswith("240 of 300 rows repeat another row of the teacher exactly: 60 distinct items.")
    assert not any("repeat" in note for note in once.notes)


def test_a_model_against_itself_loses_nothing_with_repeats():
    teacher, _, labels = pair()
    index = np.r_[np.arange(60), np.zeros(30, int), np.arange(20)]
    found = audit(teacher[index], teacher[index].copy(), labels[index], settings=FEW, intervals=False)
    for key in ("retrieval.recall_at_1", "retrieval.neighbour_overlap_10", "similarity.mutual_knn_10", "probe.retention",
                "knn.retention", "contrastive.retained_share", "similarity.rsa_spearman"):
        assert found[key] == pytest.approx(1, abs=1e-9), key
    assert found["alignment.teacher_r2"] == pytest.approx(found["alignment.teacher_r2_ceiling"], abs=1e-6)


def test_repeats_never_straddle_folds_nor_groups():
    index = np.random.default_rng(1).integers(0, 40, 400)
    rows = np.random.default_rng(0).normal(size=(40, 4))[index]
    items = Items.of(row_keys(rows))
    assert items.count == len(np.unique(index)) and items.repeated
    group = items.groups(10)
    for item in range(items.count):
        assert len(np.unique(group[items.number == item])) == 1
    assert np.ptp(np.bincount(group)) <= np.bincount(items.number).max(), "groups of about one size"
    alone = Items.of(row_keys(rows[np.unique(index, return_index=True)[1]]))
    assert (alone.groups(10)[alone.order] == np.arange(alone.count) % 10).all()


def test_noise_on_the_students_repeats_leaks_nothing():
    """The teacher's row five times, and five noisy rows of an unrelated student: nothing can be predicted."""
    rng = np.random.default_rng(0)
    teacher, student = np.repeat(rng.normal(size=(80, 24)), 5, axis=0), np.repeat(rng.normal(size=(80, 24)), 5, axis=0)
    found = audit(teacher, student + 0.01 * rng.normal(size=student.shape), np.repeat(np.arange(80) % 2, 5), settings=FEW,
                  groups=("alignment", "probe", "knn"))
    assert found["alignment.teacher_r2"] < 0.05
    assert found["probe.student.accuracy"] < 0.7 and found["knn.student.accuracy"] < 0.7
    assert found.measured["probe.student.accuracy"].n == 80


def test_repeats_with_other_labels_and_items_seen_in_training_are_said():
    teacher, student, labels = pair()
    double = [np.concatenate([z, z]) for z in (teacher, student)]
    found = audit(*double, np.concatenate([labels, (labels + 1) % 3]), settings=FEW, groups="knn", intervals=False)
    assert any("60 labels more than items" in note for note in found.notes)
    found = audit(teacher, student, labels, train_teacher=double[0], train_student=double[1], train_labels=np.tile(labels, 2),
                  settings=FEW, groups="knn")
    assert any(note.startswith("60 of the 60 items are training items too") for note in found.notes)
    assert found.measured["knn.student.accuracy"].low is not None


def test_on_a_training_set_all_rows_count_and_intervals_do_not_shrink():
    teacher, student, labels = pair()
    train = {"train_teacher": teacher[:40], "train_student": student[:40], "train_labels": labels[:40]}
    one = audit(teacher[40:], student[40:], labels[40:], **train, settings=FEW, groups={"probe", "knn"})
    many = audit(*(np.repeat(z[40:], 9, axis=0) for z in (teacher, student, labels)), **train, settings=FEW,
                 groups={"probe", "knn"})
    assert many.measured["probe.student.accuracy"].n == 180
    assert many["probe.mcnemar_p"] == pytest.approx(one["probe.mcnemar_p"])
    for key in ("probe.student.accuracy", "knn.teacher.accuracy"):
        found, expected = many.measured[key], one.measured[key]
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high)), key


def test_intervals_of_repeated_items_are_those_of_the_items():
    x = np.random.default_rng(0).normal(size=200)
    items = np.repeat(np.arange(200), 4)
    assert bootstrap_interval(np.mean, [np.repeat(x, 4)],
                              items=items) == pytest.approx(bootstrap_interval(np.mean, [x]), abs=0.03)
    assert independent_count(items) == 200 and independent_count(np.zeros(9, int)) == 1
    right = x > 0
    assert wilson_interval(np.repeat(right, 4), count=independent_count(items)) == pytest.approx(wilson_interval(right))
    first, second = right, np.roll(right, 1)
    assert mcnemar_p(np.repeat(first, 4), np.repeat(second, 4), items) == mcnemar_p(first, second)


def made(n: int = 200, d: int = 16):
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 4, n)  # in no order: sorted by class, a slip by one would still pair items of one class
    teacher = rng.normal(size=(n, d)) * np.arange(1, d + 1) ** -0.5
    teacher[:, :4] += 2 * np.eye(4)[labels]
    return teacher, teacher @ rng.normal(size=(d, d)) / 4 + 0.2 * rng.normal(size=(n, d)), labels


SHUFFLED = {
    "rows slipped by one": lambda t, s, y: (t, np.roll(t, 1, axis=0), y),
    "the student's rows in another order": lambda t, s, y: (t, s[np.random.default_rng(0).permutation(len(s))], y),
    "other dimensions too": lambda t, s, y: (t, s[::-1, :7], y),
    "labels in the student's order": lambda t, s, y: (t, np.roll(s, 3, axis=0), np.roll(y, 3)),
}
PAIRED = {
    "a student": lambda t, s, y: (t, s, y),
    "a turned teacher": lambda t, s, y: (t, t @ np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))[0], y),
    "two dimensions of it": lambda t, s, y: (t, t[:, :2], y),
    "a weak student": lambda t, s, y: (t, 0.3 * t + np.random.default_rng(0).normal(size=t.shape), y),
    "a collapsed student": lambda t, s, y: (t, np.ones_like(t) + 1e-9 * t[:, :1] ** 3, y),
    "the teacher less a class": lambda t, s, y: (t, np.where((y == 0)[:, None], s.mean(axis=0), s) + 1e-3 * s, y),
}


@pytest.mark.parametrize("with_labels", [False, True])
@pytest.mark.parametrize("case", SHUFFLED)
def test_where_nothing_pairs_the_rows_the_first_sentence_asks(case, with_labels):
    teacher, student, labels = SHUFFLED[case](*made())
    found = audit(teacher, student, labels if with_labels else None,
                  groups={"spectrum", "alignment", "similarity", "retrieval", "knn"},
                  settings=Settings())
    assert found.doubt.startswith(ASKED) and headline(found).startswith(ASKED) and question(found) == found.to_dict()["doubt"]
    assert "effective rank" in found.doubt and ("vote of 10 neighbours" in found.doubt) == with_labels
    assert ("labels fit the student's rows, not the teacher's" in found.doubt) == (with_labels and "labels" in case)


@pytest.mark.parametrize("case", PAIRED)
def test_where_something_pairs_them_it_does_not(case):
    found = audit(*PAIRED[case](*made()), groups={"spectrum", "alignment", "similarity", "retrieval", "knn"})
    assert question(found) == "" and not headline(found).startswith(ASKED)


def test_without_measures_of_pairing_nothing_is_asked():
    teacher, student, _ = SHUFFLED["rows slipped by one"](*made())
    assert question(audit(teacher, student, groups="spectrum", intervals=False)) == ""
