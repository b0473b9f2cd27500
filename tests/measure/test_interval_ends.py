"""Intervals near the ends of what a measure can be, of few items that differ, and of items in any order."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from builders.planted import labelled_sample
from distillscope.measure.audit import audit
from distillscope.measure.intervals import retention_interval
from distillscope.measure.pool import Settings

FEW = Settings(null_draws=3)


@pytest.fixture(scope="module")
def twins():
    """A student that is its teacher, on classes that none confuses."""
    labels = np.repeat(np.arange(3), 60)
    z = 0.1 * np.random.default_rng(0).normal(size=(180, 8)) + 9 * np.eye(8)[labels]
    return audit(z, z, labels, groups={"swap", "codes", "few", "probe", "knn", "retrieval", "alignment"}).measured


@pytest.mark.parametrize(("n", "lost", "won"), [(50, 0.008, 0.001), (100, 0.01, 0.001), (400, 0.0011, 0.0002),
                                                (200, 0.04, 0.02), (400, 0.15, 0.05)])
def test_coverage_of_a_retention_with_few_items_that_differ(n, lost, won):
    """The bootstrap's covered 0.80 to 0.88 where a student is as good as its teacher: few audits hold an item that differs."""
    right, rng = 0.95, np.random.default_rng(0)
    truth, inside = (right - lost + won) / right, []
    for _ in range(1000):
        draw = rng.random(n)
        before, after = draw < right, (draw < right - lost) | (draw > 1 - won)
        low, high = retention_interval(after, before)
        assert low <= after.sum() / before.sum() <= high
        inside.append(low <= truth <= high)
    assert np.mean(inside) >= 0.93


def test_an_audit_has_that_interval_for_retentions_of_right_items():
    teacher, student, labels = labelled_sample(3, 200)
    train = labelled_sample(4, 200)
    found = audit(teacher, student, labels, train_teacher=train[0], train_student=train[1], train_labels=train[2],
                  groups={"probe", "knn"}, settings=FEW).measured
    for key in ("probe", "knn"):
        shares = [found[f"{key}.{name}"].value for name in ("teacher.accuracy", "negative_flips", "positive_flips")]
        right, lost, won = (round(200 * share) for share in shares)
        before = np.arange(200) < right
        after = (np.arange(200) < right - lost) | (np.arange(200) >= 200 - won)
        assert found[f"{key}.retention"].interval == pytest.approx(retention_interval(after, before))


def test_intervals_do_not_depend_on_the_order_of_the_items():
    """The bootstrap's end of the mean cosine moved by 0.006 with it, and a gate with it."""
    rng = np.random.default_rng(0)
    teacher = rng.normal(size=(60, 16))
    student, order = teacher + 0.7 * rng.normal(size=teacher.shape), rng.permutation(60)
    found, other = (audit(teacher[rows], student[rows], groups={"alignment"}, settings=FEW).measured
                    for rows in (np.arange(60), order))
    for key, value in found.items():
        if value.interval:
            assert other[key].interval == pytest.approx(value.interval, rel=1e-9), key


def test_no_interval_leaves_what_a_measure_can_be():
    """Twelve items have at most eleven dimensions, and a loss in nats is never below 0."""
    rng = np.random.default_rng(0)
    for n, d in ((12, 64), (100, 6)):
        teacher = rng.normal(size=(n, d))
        found = audit(teacher, teacher + rng.normal(size=(n, d)), settings=FEW).measured
        most = {"dims": min(n, d), "nats": np.inf, "log kernel": 0, "cosine": 1, "degrees": 90, "R2": 1}
        least = {"dims": 1, "nats": 0, "log kernel": -8, "cosine": -1, "degrees": 0, "R2": -np.inf}
        for key, value in found.items():
            if value.interval and value.unit in most and "twonn" not in key and "corrected" not in key:
                assert least[value.unit] <= value.low <= value.value <= value.high <= most[value.unit] + 1e-9, (key, value)
        assert found["teacher.dims_99"].high <= min(n - 1, d) and found["student.effective_rank"].high <= min(n - 1, d)


def test_no_interval_of_a_share_leaves_what_can_be():
    """Near 1, half of the jackknife's intervals did."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(200, 12)) * 4.0 ** -np.arange(12)
    found = audit(z, z + 1e-3 * z.std(axis=0) * rng.normal(size=z.shape), rng.integers(0, 2, 200)).measured
    shares = {key: v for key, v in found.items() if v.unit == "share" and v.interval and "reten" not in key
              and "retained" not in key and not key.endswith(("difference", "null"))}
    assert len(shares) > 40 and not [(key, v) for key, v in shares.items() if not 0 <= v.low <= v.high <= 1 + 1e-9]
    assert sum(v.high >= 1 for v in shares.values()) > 5


@pytest.mark.parametrize("key", ["swap.student_in_teacher.recall_10", "swap.student_in_teacher.ndcg_10",
                                 "swap.student.label_ndcg_10", "few.student.accuracy_at_5",
                                 "retrieval.neighbour_overlap_10", "probe.student.accuracy"])
def test_shares_of_one_are_not_sure(twins, key):
    """Intervals had no width where every item was right."""
    found = twins[key]
    expected = stats.binomtest(found.n, found.n).proportion_ci(method="wilson")
    assert (found.value, found.low, found.high) == pytest.approx((1.0, expected.low, 1.0))


def test_retentions_of_one_are_not_sure(twins):
    for key in ("probe.retention", "knn.retention", "codes.student.int8_knn_retention"):
        found = twins[key]
        assert found.value == 1.0 and 0.9 < found.low < 1 < found.high < 1.1, key
    assert twins["few.retention_at_5"].interval is None, "of parts, whose shares say nothing of the items behind them"
