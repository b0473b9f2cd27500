"""Rows that do not belong together are asked about first."""

import numpy as np
import pytest

from distillscope.measure.audit import audit
from distillscope.measure.pair import question
from distillscope.measure.pool import Settings
from distillscope.report.sentences.audit import headline

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
