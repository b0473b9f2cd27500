"""Rows that repeat one another exactly are one item; rows that do not belong together are doubted."""

from __future__ import annotations

import numpy as np
import pytest

from distillscope.measure.audit import audit
from distillscope.measure.intervals import bootstrap_interval, independent_count, mcnemar_p, wilson_interval
from distillscope.measure.pair import question
from distillscope.measure.pool import Settings
from distillscope.measure.scan import Items, row_keys
from distillscope.report.sentences.audit import headline

FEW = Settings(null_draws=3)
SHOWN_ONCE = ("paper.infonce", "paper.uniformity", "paper.teacher_uniformity", "uniformity", "duplicates")
"""Of batches in row order, or of pairs of rows as they are: these see the repeats, and say so in their definitions."""


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
    for key, value in once.values.items():
        if key.startswith(SHOWN_ONCE) or key.split(".")[-1].startswith(SHOWN_ONCE):
            continue
        other = five_times.values[key]
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
    assert found.values["probe.student.accuracy"].n == 80


def test_repeats_with_other_labels_and_items_seen_in_training_are_said():
    teacher, student, labels = pair()
    double = [np.concatenate([z, z]) for z in (teacher, student)]
    found = audit(*double, np.concatenate([labels, (labels + 1) % 3]), settings=FEW, groups="knn", intervals=False)
    assert any("60 labels more than items" in note for note in found.notes)
    found = audit(teacher, student, labels, train_teacher=double[0], train_student=double[1], train_labels=np.tile(labels, 2),
                  settings=FEW, groups="knn")
    assert any(note.startswith("60 of the 60 items are training items too") for note in found.notes)
    assert found.values["knn.student.accuracy"].low is not None


def test_on_a_training_set_all_rows_count_and_intervals_do_not_shrink():
    teacher, student, labels = pair()
    train = {"train_teacher": teacher[:40], "train_student": student[:40], "train_labels": labels[:40]}
    one = audit(teacher[40:], student[40:], labels[40:], **train, settings=FEW, groups={"probe", "knn"})
    many = audit(*(np.repeat(z[40:], 9, axis=0) for z in (teacher, student, labels)), **train, settings=FEW,
                 groups={"probe", "knn"})
    assert many.values["probe.student.accuracy"].n == 180
    assert many["probe.mcnemar_p"] == pytest.approx(one["probe.mcnemar_p"])
    for key in ("probe.student.accuracy", "knn.teacher.accuracy"):
        assert (many.values[key].low, many.values[key].high) == pytest.approx((one.values[key].low, one.values[key].high)), key


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


ASKED = "Are these the same items in the same order?"


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


@pytest.mark.parametrize("case", PAIRED)
def test_where_something_pairs_them_it_does_not(case):
    found = audit(*PAIRED[case](*made()), groups={"spectrum", "alignment", "similarity", "retrieval", "knn"})
    assert question(found) == "" and not headline(found).startswith(ASKED)


def test_without_measures_of_pairing_nothing_is_asked():
    teacher, student, _ = SHUFFLED["rows slipped by one"](*made())
    assert question(audit(teacher, student, groups="spectrum", intervals=False)) == ""
