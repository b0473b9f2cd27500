"""Probes and the ridge map against scikit-learn and autograd; what the audit makes of labels."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import RidgeCV

from builders import refused
from builders.planted import rotation
from distillscope.errors import UserError
from distillscope.measure import logistic
from distillscope.measure.audit import audit
from distillscope.measure.classes import classes, partitions_agree
from distillscope.measure.probe import (
    CS,
    PENALTIES,
    cross_validated_probes,
    linear_probe,
    linear_probes,
    ridge_map,
    standardised_probe,
    standardised_probes,
    tuned_probe,
)


def class_clouds(seed: int, n: int = 240, d: int = 8, num: int = 3, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % num
    return 2 * np.eye(d)[labels] + spread * rng.normal(size=(n, d)), labels


@pytest.mark.parametrize("num", [2, 4])
def test_the_papers_probe_is_scikit_learns(num):
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import normalize

    z, labels = class_clouds(0, num=num)
    test, _ = class_clouds(1, num=num)
    probe = linear_probe(z, labels)
    theirs = LogisticRegression(C=1, max_iter=2000).fit(normalize(z), labels)
    assert (probe.predict(test) == theirs.predict(normalize(test))).all()
    expected = theirs.predict_log_proba(normalize(test))
    scores = probe.scores(test)
    if num == 2:
        expected -= expected.mean(axis=1, keepdims=True)
    else:
        expected += (scores - expected).mean(axis=1, keepdims=True)  # logits are free up to a constant a row
    np.testing.assert_allclose(scores, expected, atol=1e-8)


@pytest.mark.parametrize("num", [2, 4])
@pytest.mark.parametrize("standard", [False, True])
def test_the_gradient_norm_is_autograds(num, standard):
    torch = pytest.importorskip("torch")
    z, labels = class_clouds(0, num=num)
    fit = standardised_probe if standard else functools.partial(linear_probe, unit_norm=False)
    probe = fit(z, labels, c=0.3, tol=0.01)
    x = torch.tensor((z - z.mean(axis=0)) / z.std(axis=0) if standard else z)
    two = num == 2  # there scikit-learn has one row of weights, twice ours
    weights = torch.tensor(2 * probe.weights[1:] if two else probe.weights, requires_grad=True)
    bias = torch.tensor(2 * probe.bias[1:] if two else probe.bias, requires_grad=True)
    logits = x @ weights.T + bias
    logits = torch.hstack([torch.zeros_like(logits), logits]) if two else logits
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels)) + weights.square().sum() / (2 * 0.3 * len(z))
    loss.backward()
    expected = float(torch.sqrt(weights.grad.square().sum() + bias.grad.square().sum()))
    assert probe.gradient_norm == pytest.approx(expected, rel=1e-6)


def test_a_tighter_tolerance_has_a_smaller_gradient_and_too_few_steps_are_told():
    z, labels = class_clouds(0)
    assert not standardised_probe(z, labels, max_iter=1).converged
    loose, tight = linear_probe(z, labels), linear_probe(z, labels, tol=1e-9)
    assert tight.gradient_norm < 1e-7 < loose.gradient_norm and tight.converged
    assert not linear_probe(z, labels, max_iter=1).converged


def test_tuning_chooses_c_by_validation_alone():
    z, labels = class_clouds(0, n=60, d=30, spread=1.5)
    validation, validation_labels = class_clouds(1, n=300, d=30, spread=1.5)
    cs = (1e-4, 1e-2, 1.0)
    accuracy = {c: np.mean(standardised_probe(z, labels, c).predict(validation) == validation_labels) for c in cs}
    best = max(accuracy.values())
    assert tuned_probe(z, labels, validation, validation_labels, cs=cs).c == min(c for c in cs if accuracy[c] == best)


def test_the_tuned_probe_ignores_scale_and_shift_of_columns_which_the_papers_does_not():
    z, labels = class_clouds(0)
    moved = z * np.logspace(-3, 3, 8) + 100
    tuned = [tuned_probe(x[:160], labels[:160], x[160:200], labels[160:200]).predict(x[200:]) for x in (z, moved)]
    assert (tuned[0] == tuned[1]).all()
    paper = [np.mean(linear_probe(x[:200], labels[:200]).predict(x[200:]) == labels[200:]) for x in (z, moved)]
    assert paper[1] < paper[0] - 0.1


@pytest.mark.parametrize("fit", [linear_probe, standardised_probe])
def test_one_class_is_refused(fit):
    with refused(where="probe labels", got="one"):
        fit(np.eye(3), np.zeros(3))


def folds(n: int) -> list[np.ndarray]:
    """Rows of two of three random folds."""
    return [np.flatnonzero(np.random.default_rng(3).permutation(n) % 3 != fold) for fold in range(3)]


def degenerate(case: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows on which a solver may stumble, with labels."""
    z, labels = class_clouds(2, n=90, d=6)
    if case == "more dimensions than items":
        return class_clouds(2, n=60, d=150, spread=2.0)
    if case == "two classes":
        return z, labels % 2
    if case == "a class with one item, in two folds only":
        labels[7] = 9
    if case == "duplicate columns":
        z[:, 1] = z[:, 0]
    if case == "columns of zeros and of one value":
        z[:, 1:3] = 0, 0.1
    if case == "a column constant in a fold":
        z[:, 1] = 0.1
        z[np.setdiff1d(np.arange(90), folds(90)[0]), 1] = 7
    if case == "collinear":
        z = np.outer(z[:, 0], np.arange(1.0, 7))
    if case == "scales of columns":
        z *= 10.0 ** np.array([-30, -3, 0, 3, 30, 120])
    if case == "far from the origin":
        z += 1e6
    if case == "separable":
        z += 40 * np.eye(6)[labels]
    if case == "constant":
        z[:] = 0.1
    if case == "one column":
        z = z[:, :1]
    return z, labels


@pytest.mark.parametrize("case", [
    "well posed", "more dimensions than items", "two classes", "a class with one item, in two folds only", "duplicate columns",
    "columns of zeros and of one value", "a column constant in a fold", "collinear", "scales of columns", "far from the origin",
    "separable", "constant", "one column"])
def test_folds_along_c_are_scikit_learns_optima(case):
    """A second-order solver at a tight tolerance, of each fold and C alone, on columns that scikit-learn standardises."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    z, labels = degenerate(case)
    for rows, probes in zip(folds(len(z)), standardised_probes(z, labels, folds(len(z)), tol=1e-6), strict=True):
        x = StandardScaler().fit_transform(z[rows])
        for c, probe in zip(CS, probes, strict=True):
            theirs = LogisticRegression(C=c, solver="newton-cholesky", tol=1e-10, max_iter=500).fit(x, labels[rows])
            assert probe.classes.tolist() == theirs.classes_.tolist() and probe.converged and probe.gradient_norm <= 1e-6
            expected, scores = theirs.predict_log_proba(x), probe.scores(z[rows])
            scores -= np.logaddexp.reduce(scores, axis=1, keepdims=True)
            np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)
            loss = [-p[np.arange(len(rows)), np.searchsorted(probe.classes, labels[rows])].mean()
                    + np.square(w).sum() * (2 if len(w) == 2 else 1) / (2 * c * len(rows))
                    for p, w in ((scores, probe.weights), (expected, theirs.coef_))]
            if len(theirs.classes_) > 2:
                assert loss[0] <= loss[1] + 1e-10


@pytest.mark.parametrize("case", [
    "well posed", "more dimensions than items", "two classes", "a class with one item, in two folds only", "collinear",
    "columns of zeros and of one value", "far from the origin", "constant"])
def test_the_papers_probes_of_folds_take_scikit_learns_steps(case):
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import normalize

    z, labels = degenerate(case)
    for rows, probe in zip(folds(len(z)), linear_probes(z, labels, folds(len(z))), strict=True):
        theirs = LogisticRegression(C=1, max_iter=2000).fit(normalize(z[rows]), labels[rows])
        assert (probe.predict(z) == theirs.predict(normalize(z))).all() and probe.n_iter == theirs.n_iter_[0]
        scores = probe.scores(z)
        scores -= np.logaddexp.reduce(scores, axis=1, keepdims=True)
        np.testing.assert_allclose(scores, theirs.predict_log_proba(normalize(z)), atol=1e-6)
        assert probe.gradient_norm == pytest.approx(linear_probe(z[rows], labels[rows]).gradient_norm, rel=1e-3, abs=1e-9)


def test_what_goes_wrong_in_one_pass_of_all_folds_is_raised(monkeypatch):
    """No fold waits for ever on another."""
    def broken(self, *given):
        raise MemoryError

    monkeypatch.setattr(logistic._Losses, "__call__", broken)
    with pytest.raises(MemoryError):
        linear_probes(*class_clouds(0, n=60), folds(60))


def test_the_closed_form_of_equal_clouds():
    """Two items a class at -1 and 1: by symmetry the bias is 0, and the slope w solves w = c n / (1 + exp(w))."""
    z, labels = np.array([[-1.0], [-1], [1], [1]]), np.array([0, 0, 1, 1])
    for c in (0.1, 1.0):
        probe = standardised_probe(z, labels, c, tol=1e-9)
        w = float((probe.weights[1] - probe.weights[0])[0])
        assert w == pytest.approx(4 * c / (1 + np.exp(w)), abs=1e-7) and np.abs(probe.bias).max() < 1e-9


def test_probes_of_many_parts_are_those_of_each_alone_whatever_the_blocks(monkeypatch):
    z, labels = class_clouds(0, n=300, d=12, num=4, spread=2.0)
    together = standardised_probes(z, labels, folds(300), tol=1e-8)
    monkeypatch.setattr(logistic, "BLOCK", 100)
    monkeypatch.setattr(logistic, "MOST_WEIGHTS", 1)
    alone = standardised_probes(z, labels, folds(300), tol=1e-8)
    for some, others in zip(together, alone, strict=True):
        for one, other in zip(some, others, strict=True):
            np.testing.assert_allclose(one.weights, other.weights, atol=1e-5)
            assert np.array_equal(one.predict(z), other.predict(z))


def test_all_folds_share_one_scatter_and_few_passes(monkeypatch):
    """What made the audit fast: one problem a side and kind of probe, one scatter for all C, a fraction of lbfgs's passes."""
    made, passes = [], []

    class Counted(logistic._Losses):
        def __init__(self, x, parts):
            made.append(self)
            super().__init__(x, parts)

        def __call__(self, *given):
            passes.append(1)
            return super().__call__(*given)

    monkeypatch.setattr(logistic, "_Losses", Counted)
    z, labels = class_clouds(0, n=1500, d=40, num=5, spread=1.5)
    z = z @ np.diag(np.arange(1.0, 41) ** -1.5) @ rotation(0, 40)  # correlated columns
    audit(z, z + 0.1 * np.random.default_rng(1).normal(size=z.shape), labels, groups={"probe"}, intervals=False)
    assert [len(losses.parts) for losses in made] == [5] * 4 and sum("gram" in vars(losses) for losses in made) == 2
    passes.clear()
    cross_validated_probes(z, labels, folds(1500))
    x = (z - z.mean(axis=0)) / z.std(axis=0)
    cold = sum(linear_probe(x, labels, c=c, unit_norm=False, tol=1e-6).n_iter for c in CS)
    assert len(passes) < cold / 2  # for all folds, where each alone would take as many


def test_cross_validated_probes_choose_on_the_last_fifth_of_their_rows():
    z, labels = class_clouds(0, n=120, d=10, spread=2.0)
    for rows, probe in zip(folds(120), cross_validated_probes(z, labels, folds(120)), strict=True):
        fitted, held = rows[:64], rows[64:]
        alone = tuned_probe(z[fitted], labels[fitted], z[held], labels[held])
        assert probe.c == alone.c and np.array_equal(probe.predict(z), alone.predict(z))


def test_audit_fits_to_train_and_tests_on_the_items():
    train, train_labels = class_clouds(0, n=300)
    test, labels = class_clouds(1)
    weak = np.random.default_rng(2).normal(size=(540, 8)) * 2
    found = audit(test, test + weak[:240], labels, train_teacher=train, train_student=train + weak[240:],
                  train_labels=train_labels, groups={"probe", "knn"})
    expected = np.mean(linear_probe(train, train_labels).predict(test) == labels)
    assert found["paper.probe.teacher.accuracy"] == pytest.approx(expected)
    assert found["knn.teacher.accuracy"] == pytest.approx(knn(train, train_labels, test, labels))
    for kind in ("probe", "paper.probe", "knn"):
        teacher, student = (found[f"{kind}.{side}.accuracy"] for side in ("teacher", "student"))
        assert student < teacher and found[f"{kind}.retention"] == pytest.approx(student / teacher)
        assert found[f"{kind}.mcnemar_p"] < 0.01
        value = found.measured[f"{kind}.retention"]
        assert value.low < value.value < value.high < 1
    assert found["probe.teacher.gradient_norm"] < 1e-3


def test_classes_that_training_items_lack_are_said_and_where_it_lacks_all_it_is_refused():
    """Numbers beside names read as an accuracy of 0."""
    z, labels = class_clouds(0)
    given = {"train_teacher": z, "train_student": z, "groups": {"knn"}, "intervals": False}
    for other in (np.array(["cat", "dog", "owl"])[labels], labels + 3):
        with refused(where="train_labels", expected="(0, 1, ...)", got="none of them"):
            audit(z, z, labels, train_labels=other, **given)
    some = audit(z, z, np.where(np.arange(240) < 7, 9, labels), train_labels=labels, **given)
    assert any("7 of the 240 items are of classes that no training item is of" in note for note in some.notes)


def knn(train, train_labels, test, labels):
    from distillscope.measure.neighbours import knn_accuracy

    return knn_accuracy(train, train_labels, test, labels, k=10)


def test_without_train_nothing_is_predicted_by_a_probe_that_saw_it():
    """With more dimensions than items a probe separates anything that it saw: only chance may be left."""
    rng = np.random.default_rng(0)
    noise, labels = rng.normal(size=(120, 300)), np.arange(120) % 2
    found = audit(noise, noise @ rotation(0, 300), rng.permutation(labels), groups={"probe", "knn"}, intervals=False)
    for key in ("probe.teacher.accuracy", "paper.probe.student.accuracy", "knn.teacher.accuracy"):
        assert 0.3 < found[key] < 0.7, key


def test_zero_shot_is_the_nearest_class_name():
    z, labels = class_clouds(0, spread=0.7)
    text = np.eye(8)[:3]
    found = audit(z, -z, labels, text=text, groups={"zero_shot"})
    expected = np.mean(np.argmax(z[:, :3], axis=1) == labels)
    assert found["zero_shot.teacher.accuracy"] == pytest.approx(expected)
    assert found["zero_shot.student.accuracy"] < 0.3


def test_without_labels_it_is_said():
    z, _ = class_clouds(0)
    found = audit(z, z, groups={"probe", "knn", "zero_shot"})
    assert not found.measured and "it needs labels" in found.left_out["probe.teacher.accuracy"]
    assert "left out, because it needs labels" in repr(found) and not found.notes


def test_it_is_scikit_learns_ridge_with_the_penalty_of_generalised_cross_validation():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 6)) * [3, 2, 1, 0.5, 0.2, 0.1] + 5
    y = x[:, :3] @ rng.normal(size=(3, 4)) + 2 * rng.normal(size=(400, 4)) - 8
    found = ridge_map(x, y, block=64)
    largest = np.linalg.eigvalsh(np.cov(x.T, bias=True) * 400)[-1]
    oracle = RidgeCV(alphas=PENALTIES * largest, alpha_per_target=False, gcv_mode="eigen").fit(x, y)
    # Scores differ by n - 1.
    assert found.penalty == np.float64(oracle.alpha_) or abs(np.log10(found.penalty / oracle.alpha_)) < 1.01
    exact = RidgeCV(alphas=[found.penalty]).fit(x, y)
    assert np.allclose(found(x), exact.predict(x), atol=1e-8)


def test_it_does_not_hang_on_how_rows_are_cut_or_typed():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(300, 5)), rng.normal(size=(300, 3)) + 100
    whole = ridge_map(x, y)
    assert np.allclose(ridge_map(x, y, block=37)(x), whole(x), atol=1e-9)
    assert np.allclose(ridge_map(x.astype(np.float32), y.astype(np.float32))(x), whole(x), atol=1e-3)


Y = np.arange(60) % 3
NAMES = np.array(["cat", "dog", "emu"])[Y]


@pytest.mark.parametrize("values", [
    Y, Y.astype(np.uint8), Y.astype(float), Y[:, None], Y.astype(str), np.eye(3)[Y], np.eye(3, dtype=bool)[Y],
    list(map(int, Y)),
    Y.astype(object), pd.Series(Y), pd.Categorical(Y), np.array([str(y).encode() for y in Y]),
])
def test_numbers_in_any_dress(values):
    found = classes(values)
    assert found.dtype == np.int64 and not np.ma.isMaskedArray(found) and found.tolist() == Y.tolist()


@pytest.mark.parametrize("values",
                         [NAMES, NAMES.astype(object), pd.Categorical(NAMES), [f" {n} " for n in NAMES], NAMES.astype("S"),
                                    pd.Series(NAMES, dtype="string")])
def test_names_in_any_dress(values):
    assert classes(values).tolist() == NAMES.tolist()


@pytest.mark.parametrize("values", [
    np.r_[Y, -1, -1], np.r_[Y, np.nan, np.nan], [*Y, None, float("nan")], [*NAMES, "", "NaN"], [*NAMES, None, "-1"],
    [*Y.astype(str), "", "-1"], [*Y.astype(str), "NA", "#n/a"],
    np.vstack([np.eye(3)[Y], np.zeros((2, 3))]), pd.Categorical([*NAMES, None, None]),
    np.ma.array(np.r_[Y, 0, 0], mask=[0] * 60 + [1, 1]),
    pd.array([*Y, None, None], "Int64"),
])
def test_what_stands_for_no_label_is_masked(values):
    found = classes(values)
    assert np.ma.getmaskarray(found).tolist() == [False] * 60 + [True] * 2
    assert np.ma.compressed(found).tolist() in (Y.tolist(), NAMES.tolist())


def test_minus_one_and_one_are_two_classes():
    assert classes([-1, 1, 1, -1]).tolist() == [-1, 1, 1, -1]
    assert classes([-2, -1, 0, 1]).tolist() == [-2, -1, 0, 1]


@pytest.mark.parametrize(("values", "message"), [
    ([0.5, 1.0], "whole numbers or text, got 0.5 in row 0"), ([1.0, np.inf], "got inf in row 1"),
    (np.full((4, 3), 0.3), "one-hot rows"),
    (np.ones((4, 3, 2)), "got .4, 3, 2."), (np.array([1, "a"], object), "a mixture, with 1"),
    ([{"a": 1}, {}], "got {'a': 1}"),
    (np.zeros(3, "M8[s]"), "dtype datetime64"), (np.full(3, 1e300), "1e.300 in row 0"),
])
def test_what_is_no_label_is_refused(values, message):
    with pytest.raises(UserError, match=message):
        classes(values)


def test_partitions_agree_whatever_their_names():
    assert partitions_agree(Y, NAMES).all() and partitions_agree(NAMES, (Y + 1) % 3).all()
    assert not partitions_agree(Y, Y // 2).all() and not partitions_agree(Y // 2, Y).all()
    moved = NAMES.copy()
    moved[[0, 1]] = moved[[1, 0]]
    assert np.flatnonzero(~partitions_agree(Y, moved)).tolist() == [0, 1]


def test_items_without_a_label_take_no_part_in_accuracies_alone():
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    teacher = 4 * np.eye(3, 6)[labels] + rng.normal(size=(300, 6))
    student = teacher @ rng.normal(size=(6, 4))
    known = np.arange(300) >= 40
    groups = {"probe", "knn", "spectrum", "zero_shot"}
    text = np.eye(3, 6)
    some = audit(teacher, student, np.where(known, labels, -1), groups=groups, intervals=False, text=text)
    part = audit(teacher[known], student[known], labels[known], groups=groups, intervals=False, text=text)
    for key in (k for k in part.measured if k.startswith(("probe", "knn", "zero_shot"))):
        assert (some.measured[key].value, some.measured[key].n) == (part.measured[key].value, part.measured[key].n), key
    assert some["teacher.effective_rank"] == audit(teacher, student, groups={"spectrum"},
                                                   intervals=False)["teacher.effective_rank"]
    assert "40 of 300 items have no label" in some.notes[0]
    train = {"train_teacher": teacher, "train_student": student, "train_labels": np.where(known, labels, np.nan)}
    fitted = audit(teacher, student, labels, groups={"knn"}, intervals=False, **train)
    assert fitted["knn.teacher.accuracy"] == audit(teacher, student, labels, groups={"knn"}, intervals=False,
                                                   train_labels=labels[known],
                                                   train_teacher=teacher[known],
                                                   train_student=student[known])["knn.teacher.accuracy"]


def test_of_equally_accurate_penalties_the_surest_wins():
    """The smallest C won, and its probabilities were below 0.6 where every item was right."""
    labels = np.arange(120) % 5
    z = 0.3 * np.random.default_rng(0).normal(size=(120, 12)) + 4 * np.eye(12)[labels]
    probe = tuned_probe(z[:80], labels[:80], z[80:], labels[80:])
    certainty = probe.certainty(z, labels)
    assert certainty[:, 1].all() and probe.c == 1.0 and certainty[:, 0].min() > 0.8
    assert tuned_probe(z[:80], labels[:80], z[80:], labels[80:], cs=(1e-4,)).certainty(z, labels)[:, 0].max() < 0.6
    assert np.isinf(probe.certainty(z[:1], np.array([7]))[0, 2])
