"""Items from elsewhere: AUROC and FPR95 of both sides by the distance to the tenth neighbour, and what the student loses."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import auc, roc_auc_score, roc_curve
from sklearn.neighbors import NearestNeighbors

from builders import refused
from distillscope.measure.audit import audit
from distillscope.measure.ood import accepted, placements, roc
from distillscope.measure.pool import Settings
from distillscope.results.audit_file import audit_of

KEYS = ("ood.teacher.auroc", "ood.student.auroc", "ood.auroc_difference", "ood.teacher.fpr95", "ood.student.fpr95",
        "ood.fpr95_difference")


def encoded(trial: int, n: int, elsewhere: bool = False, d: int = 12):
    """Three classes, or flat noise from elsewhere, by two encoders of one quality."""
    rng = np.random.default_rng((13, trial, elsewhere))
    z = rng.normal(size=(n, d)) * (0.6 * np.arange(1, d + 1) ** -0.2 if elsewhere else np.arange(1, d + 1) ** -0.5)
    if not elsewhere:
        z[:, :3] += 1.2 * np.eye(3)[rng.integers(0, 3, n)]
    return z + 0.45 * rng.normal(size=(n, d)), z + 0.45 * rng.normal(size=(n, d))


def tenth(known, queries, own: bool):
    known, queries = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (known, queries))
    return NearestNeighbors(n_neighbors=10 + own, algorithm="brute").fit(known).kneighbors(queries)[0][:, -1]


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("count", [70, 260])
def test_it_is_what_scikit_learn_says(trained, count):
    """Fewer from elsewhere than known ones, and more; each side by its own neighbours."""
    sides, others, train = encoded(0, 200), encoded(1, count, True), encoded(2, 300)
    given = dict(zip(("train_teacher", "train_student"), train, strict=True)) if trained else {}
    labels = {"labels": np.arange(200) % 3, "train_labels": np.arange(300) % 3} if trained else {}
    found = audit(*sides, ood_teacher=others[0], ood_student=others[1], groups="ood", **given, **labels)
    value = {}
    for side, z, far, reference in zip(("teacher", "student"), sides, others, train if trained else sides, strict=True):
        known, strange = tenth(reference, z, not trained), tenth(reference, far, False)
        truth = np.repeat([0, 1], [200, count])
        value[side] = roc_auc_score(truth, np.r_[known, strange])
        assert found[f"ood.{side}.auroc"] == pytest.approx(value[side])
        passed, kept = roc_curve(1 - truth, -np.r_[known, strange], drop_intermediate=False)[:2]
        assert found[f"ood.{side}.fpr95"] == pytest.approx(passed[np.argmax(kept >= 0.95)])
        curve = found.curves[f"ood.{side}_roc"]
        assert auc(curve.x, curve.y) == pytest.approx(value[side], abs=0.01)
    assert found["ood.auroc_difference"] == pytest.approx(value["student"] - value["teacher"])
    assert all(found.measured[key].n == count and found.measured[key].low is not None for key in KEYS)


def test_closed_forms():
    """Two normal clouds a standard deviation apart: AUROC is Phi(1 / sqrt 2), FPR95 Phi(1.645 - 1)."""
    q = norm.ppf((np.arange(2000) + 0.5) / 2000)
    assert placements(q, q + 1).mean() == pytest.approx(norm.cdf(2**-0.5), abs=1e-3)
    assert placements(q[::2], q + 1).mean() == pytest.approx(norm.cdf(2**-0.5), abs=1e-3)
    assert accepted(q, q + 1).mean() == pytest.approx(norm.cdf(norm.ppf(0.95) - 1), abs=2e-3)
    assert roc(q, q + 1).y[20] == pytest.approx(1 - norm.cdf(norm.ppf(0.9) - 1), abs=2e-3)
    assert placements(q, q).mean() == 0.5 == placements(np.zeros(5), np.zeros(9)).mean()


def test_one_encoder_twice_loses_nothing_and_what_is_surely_found_has_an_interval():
    known, far = encoded(3, 120)[0], -10 * np.abs(encoded(4, 40, True)[0])
    known = np.abs(known)
    found = audit(known, 3 * known, ood_teacher=far, ood_student=3 * far, groups="ood").measured
    assert (found["ood.teacher.auroc"].value, found["ood.teacher.fpr95"].value) == (1, 0)
    assert 0.9 < found["ood.teacher.auroc"].low < 1 == found["ood.teacher.auroc"].high
    for key in ("ood.auroc_difference", "ood.fpr95_difference"):
        assert found[key].value == 0 and found[key].low == -found[key].high < -0.02, "40 items do not show that there is none"


def test_intervals_cover_other_items_known_and_strange():
    """n 160, q 100, R 60: of 60 intervals that cover 95 %, 51 or fewer do so once in 300 times."""
    found = [audit(*encoded(i, 160), ood_teacher=far[0], ood_student=far[1], groups="ood").measured for i in range(60)
             if (far := encoded(i, 100, True))]
    for key in KEYS:
        values = [f[key] for f in found]
        truth = np.mean([v.value for v in values])
        assert np.mean([v.low <= truth <= v.high for v in values]) >= 0.86, key
        assert np.mean([v.high - v.low for v in values]) < 2.5 * 3.92 * np.std([v.value for v in values]), key


def test_repeats_are_one_item_and_what_is_known_already_is_said():
    sides, others = encoded(5, 100), encoded(6, 60, True)
    once = audit(*sides, ood_teacher=others[0], ood_student=others[1], groups="ood")
    twice = audit(*(np.r_[z, z[:30]] for z in sides), groups="ood",
                  **{f"ood_{side}": np.r_[z, z[:20]] for side, z in zip(("teacher", "student"), others, strict=True)})
    assert dict(twice) == pytest.approx(dict(once)) and twice.measured["ood.teacher.auroc"].n == 60
    again = audit(*sides, ood_teacher=sides[0][:50], ood_student=sides[1][:50], groups="ood", intervals=False)
    assert any(note.startswith("50 of the 50 items from elsewhere are among the known") for note in again.notes)
    assert audit_of(once.to_json(), "again").measured == once.measured


def test_order_and_settings_change_nothing_but_what_they_say():
    sides, others = encoded(7, 90), encoded(8, 50, True)
    names, turn = ("ood_teacher", "ood_student"), np.random.default_rng(0).permutation(90)
    plain = audit(*sides, **dict(zip(names, others, strict=True)), groups="ood")
    moved = audit(*(z[turn] for z in sides), **dict(zip(names, (z[::-1] for z in others), strict=True)), groups="ood")
    assert dict(moved) == pytest.approx(dict(plain))
    few = audit(*sides, **dict(zip(names, others, strict=True)), groups="ood", settings=Settings(max_items=40))
    assert few.measured["ood.teacher.fpr95"].n == 40


def test_bad_input_is_one_line():
    sides, others = encoded(9, 60), encoded(10, 40, True)
    assert "elsewhere" in audit(*sides, groups="ood").left_out["ood.auroc_difference"]
    with refused(where="ood_student", expected="both"):
        audit(*sides, ood_teacher=others[0])
    with refused(where="ood_student", expected="40"):
        audit(*sides, ood_teacher=others[0], ood_student=others[1][:30])
    with refused(where="ood_teacher", expected="12 dimensions like the teacher"):
        audit(*sides, ood_teacher=others[0][:, :5], ood_student=others[1])
    small = audit(sides[0][:10], sides[1][:10], ood_teacher=others[0], ood_student=others[1], groups="ood")
    assert "10 known items" in small.left_out["ood.teacher.auroc"]
