"""Probes against scikit-learn and autograd; what the audit makes of labels."""

import numpy as np
import pytest

from builders.clouds import rotation
from builders.refusals import refused
from distillscope.measure.audit import audit
from distillscope.measure.probe import linear_probe, tuned_probe


def classes(seed: int, n: int = 240, d: int = 8, num: int = 3, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % num
    return 2 * np.eye(d)[labels] + spread * rng.normal(size=(n, d)), labels


@pytest.mark.parametrize("num", [2, 4])
def test_the_papers_probe_is_scikit_learns(num):
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import normalize

    z, labels = classes(0, num=num)
    test, _ = classes(1, num=num)
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
def test_the_gradient_norm_is_autograds(num):
    torch = pytest.importorskip("torch")
    z, labels = classes(0, num=num)
    probe = linear_probe(z, labels, c=0.3, standardise=True, unit_norm=False, tol=0.01)
    x = torch.tensor((z - z.mean(axis=0)) / z.std(axis=0))
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
    z, labels = classes(0)
    loose, tight = linear_probe(z, labels), linear_probe(z, labels, tol=1e-9)
    assert tight.gradient_norm < 1e-7 < loose.gradient_norm and tight.converged
    assert not linear_probe(z, labels, max_iter=1).converged


def test_tuning_chooses_c_by_validation_alone():
    z, labels = classes(0, n=60, d=30, spread=1.5)
    validation, validation_labels = classes(1, n=300, d=30, spread=1.5)
    cs = (1e-4, 1e-2, 1.0)
    accuracy = {c: np.mean(linear_probe(z, labels, c=c, standardise=True, unit_norm=False, tol=1e-5).predict(validation)
                           == validation_labels) for c in cs}
    best = max(accuracy.values())
    assert tuned_probe(z, labels, validation, validation_labels, cs=cs).c == min(c for c in cs if accuracy[c] == best)


def test_the_tuned_probe_ignores_scale_and_shift_of_columns_which_the_papers_does_not():
    z, labels = classes(0)
    moved = z * np.logspace(-3, 3, 8) + 100
    tuned = [tuned_probe(x[:160], labels[:160], x[160:200], labels[160:200]).predict(x[200:]) for x in (z, moved)]
    assert (tuned[0] == tuned[1]).all()
    paper = [np.mean(linear_probe(x[:200], labels[:200]).predict(x[200:]) == labels[200:]) for x in (z, moved)]
    assert paper[1] < paper[0] - 0.1


def test_one_class_is_refused():
    with refused(where="probe labels", got="one"):
        linear_probe(np.eye(3), np.zeros(3))


def test_audit_fits_to_train_and_tests_on_the_items():
    train, train_labels = classes(0, n=300)
    test, labels = classes(1)
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
        value = found.values[f"{kind}.retention"]
        assert value.low < value.value < value.high < 1
    assert found["probe.teacher.gradient_norm"] < 1e-3


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
    z, labels = classes(0, spread=0.7)
    text = np.eye(8)[:3]
    found = audit(z, -z, labels, text=text, groups={"zero_shot"})
    expected = np.mean(np.argmax(z[:, :3], axis=1) == labels)
    assert found["zero_shot.teacher.accuracy"] == pytest.approx(expected)
    assert found["zero_shot.student.accuracy"] < 0.3


def test_without_labels_it_is_said():
    z, _ = classes(0)
    found = audit(z, z, groups={"probe", "knn", "zero_shot"})
    assert not found.values and "it needs labels" in found.left_out["probe.teacher.accuracy"]
    assert "left out, because it needs labels" in repr(found) and not found.notes
