"""The first sentence of an audit is true for every kind of pair, and its digits show what it says."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from distillscope.measure.audit import audit
from distillscope.measure.pool import Settings
from distillscope.measure.results import Audit, Value
from distillscope.report.sentences.audit import does_it_matter, headline, losses
from distillscope.report.sentences.audit_measures import between, meaning, told
from distillscope.report.sentences.numbers import NBSP

FEW = Settings(null_draws=9)
GROUPS = {"spectrum", "alignment", "similarity", "retrieval", "knn"}


@functools.cache
def teacher_and_labels(n: int = 150, d: int = 20):
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 4, n)
    teacher = rng.normal(size=(n, d)) * np.arange(1, d + 1) ** -0.5 + 0.2
    teacher[:, :4] += 1.5 * np.eye(4)[labels]
    return teacher, labels


def int8(z: np.ndarray) -> np.ndarray:
    step = np.abs(z).max() / 127
    return np.round(z / step) * step


def turned(z: np.ndarray) -> np.ndarray:
    return z @ np.linalg.qr(np.random.default_rng(0).normal(size=(z.shape[1],) * 2))[0]


def noisy(z: np.ndarray, noise: float) -> np.ndarray:
    return z + noise * np.random.default_rng(1).normal(size=z.shape)


STUDENTS = {
    "itself": (lambda t: t.copy(), "No loss shows"),
    "turned": (turned, "No loss shows"),
    "turned and doubled, 3 constant dimensions more": (lambda t: np.hstack([2 * turned(t), np.ones((len(t), 3))]),
                                                       "No loss shows"),
    "around another mean": (lambda t: t + 100, "No loss shows"),
    "int8": (int8, "No loss shows"),
    "a little noise": (lambda t: noisy(t, 0.05), ("No loss shows", "Little was lost")),
    "much noise": (lambda t: noisy(t, 1.0), "Most was lost"),
    "half of the dimensions": (lambda t: turned(t)[:, :6], ("Most was lost", "Much was lost")),
    "collapsed": (lambda t: np.tile(t[:1], (len(t), 1)), "The student has collapsed"),
    "other items": (lambda t: np.random.default_rng(9).permutation(t), "Are these the same items in the same order?"),
    "repeats": (lambda t: t, "No loss shows"),
}


@pytest.mark.parametrize("with_labels", [True, False])
@pytest.mark.parametrize("case", STUDENTS)
def test_the_first_words_are_what_the_student_is(case, with_labels):
    teacher, labels = teacher_and_labels()
    make, starts = STUDENTS[case]
    if case == "repeats":
        teacher, labels = np.tile(teacher, (4, 1)), np.tile(labels, 4)
    found = audit(teacher, make(teacher), labels if with_labels else None, groups=GROUPS, settings=FEW)
    said = headline(found)
    assert said.startswith(starts), said
    assert said.endswith(".") and "  " not in said and "nan" not in said
    if starts == "No loss shows":
        assert "much" not in said and "cannot stand in" not in said and not any(loss.retained < 0.95 for loss in losses(found))


def test_other_coordinates_are_no_loss_and_are_said():
    teacher, labels = teacher_and_labels()
    said = headline(audit(teacher, -teacher, labels, groups=GROUPS, settings=FEW)).replace(NBSP, " ")
    assert said.startswith("No loss shows")
    assert "0 % of the student's queries find their own item as they are, 100 % after" in said


def test_a_near_perfect_pair_reads_as_what_it_is():
    """int8 against fp32: cosine 0.99988, R2 0.994, recall at 1 98.3 %."""
    def share(value, reach, n=3000, unit="share"):
        return Value(value, value - reach, min(1.0, value + reach), n, "A definition.", unit)

    found = Audit({"alignment.mean_cosine": share(0.99988, 1e-5, unit="cosine"),
                   "alignment.teacher_r2": share(0.994, 0.0004, unit="R2"),
                   "retrieval.recall_at_1": share(0.983, 0.004), "retrieval.mapped_recall_at_1": share(0.984, 0.004)})
    said = headline(found).replace(NBSP, " ")
    assert said.startswith("Little was lost, most of it in what tells one item from another: 98 %") and "0.99988" in said
    cosine = found.values["alignment.mean_cosine"]
    assert (told(cosine), between(cosine)) == ("0.99988", "[0.99987, 0.99989]")
    line = next(line for line in found.lines() if line.name == "alignment.teacher_r2")
    assert "99.4 %" in meaning(line, found).replace(NBSP, " ") and "0.99988" in repr(found)
    assert "0.99987 to 0.99989" in repr(found)


@pytest.mark.parametrize(("value", "low", "high", "text", "interval"), [
    (1.0, 1.0, 1.0, "1.000", "[1.000, 1.000]"),
    (1 - 1e-16, 1 - 2e-16, 1 + 1e-16, "1.000", "[1.000, 1.000]"),
    (0.9, 0.8, 1.0, "0.900", "[0.800, 1.000]"),
    (0.99996, 0.9999, 1.0, "0.99996", "[0.99990, 1.00000]"),
    (0.5, 0.49999, 0.50001, "0.50000", "[0.49999, 0.50001]"),
    (-0.9999, -0.99991, -0.99989, "−0.99990", "[−0.99991, −0.99989]"),
])
def test_digits_show_the_value_and_its_interval(value, low, high, text, interval):
    held = Value(value, low, high, 10, "", "R2")
    assert (told(held), between(held)) == (text, interval)


def test_shares_as_per_cent_do_not_read_as_all():
    assert told(Value(0.99996, None, None, 10, "", "share"), "retrieval.recall_at_1").replace(NBSP, " ") == "99.996 %"
    assert told(Value(1.0, 0.99, 1.0, 10, "", "share"), "retrieval.recall_at_1").replace(NBSP, " ") == "100.0 %"


def test_labels_that_the_teacher_cannot_read_tell_nothing():
    """Every item a class of its own: accuracies are 0, and the sentence follows the number."""
    teacher, _ = teacher_and_labels()
    found = audit(teacher, noisy(teacher, 0.5), np.arange(len(teacher)), groups=GROUPS, settings=FEW)
    said = headline(found).replace(NBSP, " ")
    assert found["knn.teacher.accuracy"] == 0 and "no accuracy was measured" not in said
    assert "these 150 classes tell nothing of a loss" in said and "0.0 %" in said
    assert does_it_matter(found)[0].startswith("These 150 classes")


@pytest.mark.parametrize("n", [10, 12, 16, 30])
def test_few_items_claim_nothing(n):
    """A model against itself, and turned, with fewer items than dimensions."""
    teacher, labels = teacher_and_labels(d=40)
    for student in (teacher[:n].copy(), turned(teacher[:n])):
        found = audit(teacher[:n], student, labels[:n], groups=GROUPS, settings=FEW)
        said = headline(found)
        assert not said.startswith(("Most", "Much", "Some")), said


def test_equal_accuracies_of_few_items_leave_room_for_a_loss():
    held = {f"probe.{side}.accuracy": Value(0.5, 0.24, 0.76, 10, "Accuracy.", "share") for side in ("teacher", "student")}
    held["probe.retention"] = Value(1.0, 0.6, 1.5, 10, "Retention.", "share")
    held["probe.mcnemar_p"] = Value(1.0, None, None, 10, "p.", "p")
    assert "10 items leave room for one" in headline(Audit(held))
