"""What who swaps encoders asks: which items flip, which class pays for the mean, what a mixed index finds."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import skew, t
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss as sklearns_log_loss
from sklearn.metrics import ndcg_score

from builders import refused
from builders.planted import rotation
from distillscope.measure.audit import audit
from distillscope.measure.calibration import calibration_error, log_loss, risk_over_coverage
from distillscope.measure.compressed import binary_codes, int8_codes
from distillscope.measure.exchange import ndcg, occurrences
from distillscope.measure.few import C, kept, places
from distillscope.measure.intervals import jackknife_error, ratio_ends, wilson_ends, wilson_interval
from distillscope.measure.results import NotMeasured
from distillscope.measure.subsets import ends, subsets
from distillscope.measure.swap import skewness
from distillscope.results.audit_file import audit_of


def two(trial: int = 0, n: int = 240, d: int = 12, lost: int | None = None):
    """Four classes; the student's are as far apart, but for one that lies where the next does."""
    rng = np.random.default_rng((3, trial))
    labels = rng.integers(0, 4, n)
    centres = 2.5 * np.eye(4, d)[labels]
    student = centres.copy()
    if lost is not None:
        student[labels == lost] = 2.5 * np.eye(4, d)[(lost + 1) % 4]
    return centres + rng.normal(size=(n, d)), student + rng.normal(size=(n, d)), labels


# -- flips -----------------------------------------------------------------------------------------------------------------


def test_flips_are_counted_item_by_item_and_their_difference_is_the_accuracy_lost():
    found = audit(*two(lost=2), groups={"probe", "knn"}).measured
    for head in ("probe", "knn"):
        lost, won = found[f"{head}.negative_flips"], found[f"{head}.positive_flips"]
        gap = found[f"{head}.teacher.accuracy"].value - found[f"{head}.student.accuracy"].value
        assert lost.value - won.value == pytest.approx(gap) and lost.value > 0.1
        assert (lost.low, lost.high) == wilson_interval(np.arange(240) < round(240 * lost.value))


def test_one_encoder_twice_flips_nothing_and_the_interval_says_how_sure_that_is():
    teacher, _, labels = two()
    flips = audit(teacher, 3 * teacher, labels, groups="knn").measured["knn.negative_flips"]
    assert flips.value == 0 == flips.low and flips.high == pytest.approx(1.96**2 / (240 + 1.96**2), abs=1e-3)


def test_flips_of_class_names():
    teacher, labels = np.repeat(np.eye(3), 5, axis=0) + 0.01 * np.random.default_rng(0).normal(size=(15, 3)), np.arange(15) // 5
    student = teacher.copy()
    student[:3] = student[:3, ::-1]
    found = audit(teacher, student, labels, text=np.eye(3), groups="zero_shot")
    assert (found["zero_shot.negative_flips"], found["zero_shot.positive_flips"]) == (3 / 15, 0)


# -- classes and subgroups -------------------------------------------------------------------------------------------------


def test_the_worst_class_is_the_one_that_was_lost_and_its_interval_shows_it():
    found = audit(*two(lost=2), groups={"probe", "knn"})
    for head in ("probe", "knn"):
        classes = [s for s in found.subsets if (s.kind, s.classifier) == ("class", head)]
        assert [s.name for s in classes] == list("0123") and sum(s.n for s in classes) == 240
        worst = found.measured[f"{head}.worst_class_retention"]
        least = min(classes, key=lambda s: s.values["retention"].value)
        assert worst.value == least.values["retention"].value and least.name in "23"
        assert worst.high < 0.9 and worst.low == min(s.values["retention"].low for s in classes)
        assert found[f"{head}.worst_class_flips"] == max(s.values["negative_flips"].value for s in classes)
        share = sum(s.n * s.values["negative_flips"].value for s in classes) / 240
        assert share == pytest.approx(found[f"{head}.negative_flips"])


def test_subgroups_are_of_any_kind_and_some_items_may_be_in_none():
    teacher, student, labels = two(lost=2)
    rooms = np.where(labels >= 2, "cellar", "hall").astype(object)
    rooms[:40] = None
    found = audit(teacher, student, labels, subgroups=rooms, groups="knn")
    parts = {s.name: s for s in found.subsets if s.kind == "subgroup"}
    assert set(parts) == {"cellar", "hall"} and sum(s.n for s in parts.values()) == 200
    assert found["knn.worst_subgroup_retention"] == parts["cellar"].values["retention"].value
    assert any("40 of 240 items are in no subgroup" in note for note in found.notes)
    assert audit_of(found.to_json(), "again").subsets == found.subsets
    bare = audit(teacher, student, labels, subgroups=rooms, groups="knn", intervals=False)
    assert all(v.low is None for s in bare.subsets for v in s.values.values()) and json.loads(bare.to_json())["subsets"]


def test_what_is_missing_is_said():
    teacher, student, labels = two()
    found = audit(teacher, student, labels, groups="probe", intervals=False)
    assert "subgroups" in found.left_out["probe.worst_subgroup_retention"]
    assert "labels" in audit(teacher, student, subgroups=labels, groups="knn").left_out["knn.worst_subgroup_flips"]
    with refused(where="subgroups", expected="240"):
        audit(teacher, student, labels, subgroups=labels[:9])
    with refused(where="subgroups", expected="some"):
        audit(teacher, student, labels, subgroups=np.full(240, np.nan))
    nothing = subsets("class", "knn", np.array([0, 0, 1]), np.zeros(3, bool), np.ones(3, bool))
    assert "retention" not in nothing[0].values
    with pytest.raises(NotMeasured, match="nothing correctly"):
        ends(nothing, "retention")


def test_repeats_of_an_item_do_not_narrow_its_class():
    rng = np.random.default_rng(0)
    of, first, second = rng.integers(0, 3, 90), rng.random(90) < 0.8, rng.random(90) < 0.7
    once = subsets("class", "knn", of, first, second)
    many = subsets("class", "knn", np.repeat(of, 4), np.repeat(first, 4), np.repeat(second, 4), np.repeat(np.arange(90), 4))
    for one, more in zip(once, many, strict=True):
        assert more.n == 4 * one.n
        for key, value in one.values.items():
            assert more.values[key].interval == pytest.approx(value.interval) and more.values[key].value == value.value


@pytest.mark.parametrize("counts", [(800, 60, 30), (150, 20, 12), (60, 9, 4)])
def test_the_interval_of_a_ratio_is_about_that_of_the_delta_method(counts):
    both, lost, won = counts
    low, high = ratio_ends(*(np.array(float(v)) for v in counts))
    error = np.sqrt((lost + won) / ((both + lost) * (both + won)))
    centre = np.log((both + won) / (both + lost))
    assert np.log([low, high]) == pytest.approx([centre - 1.96 * error, centre + 1.96 * error], abs=0.1 * error)


def test_a_ratio_covers_and_so_do_all_classes_at_once():
    """20,000 draws: a ratio of 10 to 1,000 items; and the worst of eight classes of 40, whichever reads worst."""
    rng = np.random.default_rng(0)
    for n, (both, lost, won) in {10: (0.5, 0.2, 0.2), 50: (0.8, 0.1, 0.02), 1000: (0.9, 0.03, 0.03)}.items():
        drawn = rng.multinomial(n, [both, lost, won, 1 - both - lost - won], 20_000).astype(float)
        low, high = ratio_ends(*drawn.T[:3])
        assert 0.94 <= np.mean((low <= (both + won) / (both + lost)) & ((both + won) / (both + lost) <= high)) <= 0.99
    drawn = rng.multinomial(40, [0.75, 0.1, 0.05, 0.1], (20_000, 8)).astype(float)
    low, high = ratio_ends(*np.moveaxis(drawn, -1, 0)[:3], level=0.95 ** (1 / 8))
    true = 0.8 / 0.85
    assert np.mean((low <= true) & (true <= high)) >= 0.99
    assert np.mean((low <= true).all(axis=1) & (true <= high).all(axis=1)) >= 0.945
    worst = (low.min(axis=1) <= true) & (true <= high.min(axis=1))
    assert worst.mean() >= 0.945 and np.mean([a <= 0.1 <= b for a, b in zip(*wilson_ends(drawn[:500, 0, 1] / 40, 40.0),
                                                                                               strict=True)]) > 0.9


# -- one side in the other's index -----------------------------------------------------------------------------------------


def ranked(gallery: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The first 10 of each query by brute force, own item left out."""
    gallery, queries = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (gallery, queries))
    scores = queries @ gallery.T
    np.fill_diagonal(scores, -np.inf)
    return np.argsort(-scores, axis=1)[:, :10]


@pytest.mark.parametrize("how", ["student_in_teacher", "teacher_in_student", "student"])
def test_a_mixed_index_finds_what_brute_force_and_scikit_learn_say(how):
    teacher, student, labels = two(n=90)
    found = audit(teacher, student, labels, groups="swap", intervals=False)
    sides = {"student_in_teacher": (teacher, student), "teacher_in_student": (student, teacher), "student": (student, student)}
    results, own = ranked(*sides[how]), ranked(teacher, teacher)
    hit = np.array([[r in mine for r in row] for row, mine in zip(results, own, strict=True)])
    if how != "student":
        assert found[f"swap.{how}.recall_10"] == pytest.approx(hit.mean())
    relevant, given = np.zeros((90, 90)), np.zeros((90, 90))
    np.put_along_axis(relevant, own, 1, axis=1)
    np.put_along_axis(given, results, np.arange(10, 0, -1.0)[None].repeat(90, axis=0), axis=1)
    assert found[f"swap.{how}.ndcg_10"] == pytest.approx(ndcg_score(relevant, given, k=10, ignore_ties=True))
    of_class = (labels[:, None] == labels[None]) & ~np.eye(90, dtype=bool)
    assert found[f"swap.{how}.label_ndcg_10"] == pytest.approx(ndcg_score(of_class, given, k=10, ignore_ties=True))
    assert found[f"swap.{how}.label_recall_at_1"] == pytest.approx(np.mean(labels[results[:, 0]] == labels))


def test_the_teacher_itself_is_a_drop_in_and_a_turned_one_is_after_the_map():
    teacher, _, labels = two(n=300)
    same = audit(teacher, 2 * teacher, labels, groups="swap", intervals=False)
    for how in ("student", "student_in_teacher", "teacher_in_student"):
        assert same[f"swap.{how}.ndcg_10"] == pytest.approx(1)
        assert same[f"swap.{how}.label_ndcg_10"] == same["swap.teacher.label_ndcg_10"]
    assert same["swap.student.hub_skewness"] == same["swap.teacher.hub_skewness"]
    turned = audit(teacher, teacher @ rotation(1, 12), labels, groups="swap", intervals=False)
    assert turned["swap.student.ndcg_10"] == pytest.approx(1) and turned["swap.student_in_teacher.recall_10"] < 0.3
    assert turned["swap.mapped_student_in_teacher.recall_10"] > 0.97 < turned["swap.mapped_teacher_in_student.recall_10"]


def test_other_dimensions_are_compared_after_the_map_alone_and_labels_are_needed_by_what_asks_for_them():
    teacher, student, labels = two(n=120)
    found = audit(teacher, student[:, :9], groups="swap", intervals=False)
    assert "dimensions" in found.left_out["swap.student_in_teacher.recall_10"]
    assert "labels" in found.left_out["swap.student.label_ndcg_10"] and "swap.mapped_teacher_in_student.ndcg_10" in found
    some = np.ma.array(labels, mask=np.arange(120) < 30)
    part = audit(teacher, student, some, groups="swap", intervals=False)
    alone = audit(teacher[30:], student[30:], labels[30:], groups="swap", intervals=False)
    assert dict(part) == pytest.approx(dict(alone)) and part.measured["swap.student.ndcg_10"].n == 90


def test_a_class_of_one_asks_nothing():
    teacher, student, labels = two(n=80)
    labels[0] = 9
    found = audit(teacher, student, labels, groups="swap").measured
    assert found["swap.student.label_ndcg_10"].n == 79 and found["swap.student.ndcg_10"].n == 80
    assert ndcg(np.array([[True, True, False]]), np.array([2])).tolist() == [1]
    none = audit(teacher, student, np.arange(80), groups="swap", intervals=False).left_out
    assert none["swap.student.label_ndcg_10"] == none["swap.teacher.label_recall_at_1"] == "no class has two items"


def test_hubs_are_counted_and_their_skewness_is_scipys():
    teacher, student, _ = two(n=150)
    found = audit(teacher, student, groups="swap", intervals=False)
    counts = np.bincount(ranked(student, student).ravel(), minlength=150)
    assert found["swap.student.hub_skewness"] == pytest.approx(skew(counts))
    assert found["swap.student.antihubs"] == np.mean(counts == 0)
    assert occurrences(np.array([[2, 1], [2, 0], [0, 1]]), 4).tolist() == [2, 2, 2, 0]
    with pytest.raises(NotMeasured, match="equally many"):
        skewness(np.full(7, 10))


# -- shorter embeddings ----------------------------------------------------------------------------------------------------


def common(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(first, second, strict=True)]))


def test_a_cut_index_finds_what_brute_force_finds_in_the_first_dimensions():
    teacher, student, labels = two(n=90)
    found = audit(teacher, student, labels, groups="codes", intervals=False)
    for side, z in (("teacher", teacher), ("student", student)):
        whole, half = ranked(z, z), ranked(z[:, :6], z[:, :6])
        assert found[f"codes.{side}.half_overlap_10"] == pytest.approx(common(half, whole))
        assert found[f"codes.{side}.quarter_overlap_10"] == pytest.approx(common(ranked(z[:, :3], z[:, :3]), whole))
        curve = found.curves[f"codes.{side}_overlap_by_dims"]
        assert curve.x.tolist() == [8, 12] and curve.y[1] == 1
        assert curve.y[0] == pytest.approx(common(ranked(z[:, :8], z[:, :8]), whole))


def test_binary_codes_are_ordered_by_hamming_distance_and_int8_errs_by_half_a_step():
    z = np.random.default_rng(0).normal(size=(60, 16)) + 2
    bits = binary_codes(z)
    hamming = cdist(bits > 0, bits > 0, "hamming")
    np.testing.assert_allclose(bits @ bits.T / 16, 1 - 2 * hamming)
    step = np.abs(z).max(axis=0) / 127
    assert (np.abs(int8_codes(z) - z) <= step / 2 + 1e-12).all()
    steps = int8_codes(z) / step
    assert np.abs(steps - np.rint(steps)).max() < 1e-9 and np.abs(steps).max() == pytest.approx(127)


def test_what_was_made_of_whole_steps_loses_nothing_and_padding_costs_nothing():
    teacher, student, labels = two(n=200)
    padded = np.hstack([teacher, np.zeros_like(teacher)])
    found = audit(padded, student, labels, groups="codes").measured
    for what in ("overlap_10", "knn_retention"):
        assert found[f"codes.teacher.half_{what}"].value == 1
    assert found["codes.teacher.int8_overlap_10"].value > 0.9 > found["codes.teacher.binary_overlap_10"].value
    first = np.vstack([student[:-1], np.eye(1, 12, 11)])
    assert "all zeros" in audit(teacher, first, groups="codes", intervals=False).left_out["codes.student.half_overlap_10"]
    assert "labels" in audit(teacher, student, groups="codes", intervals=False).left_out["codes.student.int8_knn_retention"]


# -- few labels ------------------------------------------------------------------------------------------------------------


def few_by_hand(z, labels, test, test_labels, size):
    """With scikit-learn, on one part, of rows that are centred and scaled already."""
    chosen = np.concatenate([np.flatnonzero(labels == c)[:size] for c in np.unique(labels)])
    fit = LogisticRegression(C=C, tol=1e-8, max_iter=2000).fit(z[chosen], labels[chosen])
    return np.mean(fit.predict(test) == test_labels)


def test_few_labels_are_scikit_learns_on_disjoint_parts():
    teacher, student, labels = two(n=400)
    train, train_student, train_labels = two(1, n=300)
    given = {"train_teacher": train, "train_student": train_student, "train_labels": train_labels}
    found = audit(teacher, student, labels, **given, groups="few").measured
    order = audit_order(train)
    codes = train_labels[order]
    place = np.array([np.sum(codes[:i] == c) for i, c in enumerate(codes)])
    centred = train_student - train_student.mean(axis=0)
    spread = np.sqrt(np.square(centred).sum() / len(centred))
    fitted, tested = centred[order] / spread, (student - train_student.mean(axis=0)) / spread
    tested, known = tested[audit_order(teacher)], labels[audit_order(teacher)]
    rows = [few_by_hand(fitted[place % 10 == p], codes[place % 10 == p], tested[p::10], known[p::10], 5) for p in range(10)]
    value = found["few.student.accuracy_at_5"]
    assert value.value == pytest.approx(np.mean(rows), abs=0.006)
    reach = t.ppf(0.975, 9) * np.std(rows, ddof=1) / np.sqrt(10)
    assert value.high - value.low == pytest.approx(2 * reach, abs=0.01)


def test_items_that_alternate_by_class_are_tested_in_parts_of_all_classes():
    """Cut by row number, each of ten parts held one of ten classes: intervals three times as wide, and order counted."""
    rng = np.random.default_rng(0)
    labels, train_labels = np.arange(400) % 10, np.arange(300) % 10
    teacher, train = (3 * np.eye(10)[y] + rng.normal(size=(len(y), 10)) for y in (labels, train_labels))
    given = {"train_teacher": train, "train_student": train, "train_labels": train_labels, "groups": "few"}
    here, turn = audit(teacher, teacher, labels, **given).measured, rng.permutation(400)
    moved = audit(teacher[turn], teacher[turn], labels[turn], **given).measured
    assert here == moved
    of_one = here["few.teacher.accuracy_at_5"]
    assert of_one.high - of_one.low < 0.11
    few = audit(teacher[:12], teacher[:12], np.ma.array(labels[:12], mask=np.arange(12) > 1), **given)
    assert "3 parts" in few.left_out["few.teacher.accuracy_at_5"]


def audit_order(z: np.ndarray) -> np.ndarray:
    """The order of the rows by content."""
    from distillscope.measure.pool import Side
    from distillscope.measure.rows import Rows

    return Side(Rows(z)).order


def test_more_labels_tell_more_and_an_equal_student_keeps_all():
    teacher, _, labels = two(n=900)
    found = audit(teacher, teacher.copy(), labels, groups="few").measured
    values = [found[f"few.teacher.accuracy_at_{size}"].value for size in (1, 5, 10, 50)]
    assert values == sorted(values) and values[0] > 0.3
    assert all(found[f"few.retention_at_{size}"].value == 1 for size in (1, 5, 10, 50))


def test_intervals_of_few_labels_cover_other_labels_and_other_items():
    """R 40 at 95 %: 33 or fewer cover once in 300 times."""
    only = "few.student.accuracy_at_1".__eq__
    values = [audit(*two(i, n=160), groups="few", only=only).measured["few.student.accuracy_at_1"] for i in range(40)]
    truth = np.mean([v.value for v in values])
    assert sum(v.low <= truth <= v.high for v in values) >= 34


def test_classes_are_dealt_out_and_a_rare_one_ends_it():
    assert places(np.array([1, 0, 1, 1, 0, 2])).tolist() == [0, 0, 1, 2, 1, 0]
    teacher, student, labels = two(n=120)
    found = audit(teacher, student, np.where(np.arange(120) < 5, 9, labels), groups="few", intervals=False)
    assert "3 parts of the labelled items with 2 or more" in found.left_out["few.teacher.accuracy_at_1"]


def test_the_interval_of_a_ratio_of_means_is_that_of_the_jackknife_over_parts():
    rng = np.random.default_rng(0)
    teacher, student = rng.uniform(0.6, 0.8, 10), rng.uniform(0.4, 0.7, 10)
    shares = kept(student, teacher)
    left_out = [np.delete(student, g).mean() / np.delete(teacher, g).mean() for g in range(10)]
    assert shares.mean() == pytest.approx(student.mean() / teacher.mean())
    assert shares.std(ddof=1) / np.sqrt(10) == pytest.approx(jackknife_error(left_out), rel=0.03)
    with pytest.raises(NotMeasured, match="nothing correctly"):
        kept(student, np.zeros(10))


# -- calibration -----------------------------------------------------------------------------------------------------------


def test_probabilities_of_the_probe_are_scored_as_scikit_learn_and_loops_do():
    teacher, student, labels = two(n=300)
    train, train_student, train_labels = two(1, n=300)
    given = {"train_teacher": train, "train_student": train_student, "train_labels": train_labels}
    found = audit(teacher, student, labels, **given, groups="probe").measured
    c = found["probe.student.c"].value
    cut = audit_order(train)[:240]  # C is chosen on the last fifth
    mean, spread = train_student[cut].mean(axis=0), train_student[cut].std(axis=0)
    fit = LogisticRegression(C=c, tol=1e-8, max_iter=5000).fit((train_student[cut] - mean) / spread, train_labels[cut])
    p = fit.predict_proba((student - mean) / spread)
    assert found["probe.student.log_loss"].value == pytest.approx(sklearns_log_loss(labels, p), abs=1e-4)
    top, right = p.max(axis=1), p.argmax(axis=1) == labels
    error = sum(np.sum(b) / 300 * abs(top[b].mean() - right[b].mean()) for k in range(15)
                if (b := (top >= k / 15) & (top < (k + 1) / 15)).any())
    assert found["probe.student.ece"].value == pytest.approx(error, abs=1e-3)
    order = np.argsort(-top)
    risk = np.mean([np.mean(~right[order[: k + 1]]) for k in range(300)])
    assert found["probe.student.aurc"].value == pytest.approx(risk, abs=1e-3)
    assert all(found[f"probe.{side}.{what}"].low is not None for side in ("teacher", "student") for what in ("ece", "log_loss"))
    alone = audit(teacher, student, labels, groups="probe").measured
    assert alone["probe.student.ece"].low is None is alone["probe.student.log_loss"].low
    assert alone["probe.student.aurc"].low < alone["probe.student.aurc"].value < alone["probe.student.aurc"].high


def test_closed_forms_of_calibration():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 1, 40_000)
    honest = np.stack([p, rng.random(40_000) < p, np.zeros(40_000)], axis=1)
    assert calibration_error(honest) < 0.012
    assert calibration_error(honest - [[0.1, 0, 0]]) == pytest.approx(0.1, abs=0.012)
    perfect = np.stack([np.r_[np.full(60, 0.9), np.full(40, 0.6)], np.arange(100) < 60, np.ones(100)], axis=1)
    assert risk_over_coverage(perfect) == pytest.approx(np.mean([max(0, k - 60) / k for k in range(1, 101)]))
    assert log_loss(perfect) == 1
    with pytest.raises(NotMeasured, match="class that no probe"):
        log_loss(perfect * [[1, 1, np.inf]])
