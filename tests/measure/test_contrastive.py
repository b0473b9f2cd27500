"""InfoNCE against torch's cross-entropy; closed forms at chance and at perfection; the paper's batches."""

import numpy as np
import pytest

from builders.clouds import cloud, rotation, student_of
from distillscope.measure.audit import audit
from distillscope.measure.contrastive import batch_uniformity, infonce_losses
from distillscope.measure.pool import Settings

GROUPS = {"contrastive", "paper"}


def run(teacher, student, **kwargs):
    return audit(teacher, student, groups=GROUPS, intervals=False, **kwargs)


def torch_infonce(student, teacher, temperature=0.1):
    torch = pytest.importorskip("torch")
    s, t = (torch.nn.functional.normalize(torch.tensor(z), dim=1) for z in (student, teacher))
    return torch.nn.functional.cross_entropy(s @ t.T / temperature, torch.arange(len(s))).item()


def test_losses_are_torchs_cross_entropy(teacher, student):
    assert infonce_losses(student, teacher).mean() == pytest.approx(torch_infonce(student, teacher), rel=1e-10)
    assert infonce_losses(student, teacher, 0.01).mean() == pytest.approx(torch_infonce(student, teacher, 0.01), rel=1e-10)


def test_paper_infonce_is_the_mean_over_batches_in_row_order(teacher, student):
    expected = [torch_infonce(student[i : i + 64], teacher[i : i + 64]) for i in range(0, 200, 64)]
    found = run(teacher, student)
    assert len(expected) == 4 and found["paper.infonce"] == pytest.approx(np.mean(expected), rel=1e-10)
    assert found["paper.infonce_ceiling"] == pytest.approx((3 * np.log(64) + np.log(8)) / 4)


def test_the_papers_mean_ceiling_is_4_150():
    z = np.random.default_rng(0).normal(size=(10_000, 2))
    assert round(audit(z, z, groups={"paper"}, intervals=False)["paper.infonce_ceiling"], 3) == 4.150


def test_paper_uniformity_is_brute_force_with_self_pairs(teacher, student):
    unit = student / np.linalg.norm(student, axis=1, keepdims=True)
    per_batch = []
    for start in range(0, 200, 64):
        z = unit[start : start + 64]
        squared = np.square(z[:, None] - z[None]).sum(axis=2)
        per_batch.append(np.log(np.exp(-2 * squared).mean()))
    assert run(teacher, student)["paper.uniformity"] == pytest.approx(np.mean(per_batch), rel=1e-9)
    assert batch_uniformity(np.eye(4)) == pytest.approx(np.log((1 + 3 * np.exp(-4)) / 4))


def test_a_collapsed_student_is_at_chance(teacher):
    found = run(teacher, np.ones_like(teacher) + 1e-12 * cloud(1))
    # all student rows are one direction, so the loss is the mean over items of log sum exp - own, at least log K
    assert found["contrastive.infonce"] >= found["contrastive.ceiling"] - 1e-9
    assert found["contrastive.retained_share"] <= 1e-6 and found["contrastive.saturated"] == 0


def test_orthogonal_items_in_closed_form():
    """Student = teacher = e_1 ... e_K: loss = log(1 + (K - 1) exp(-1 / T))."""
    z = np.eye(50)
    found = run(z, z)
    expected = np.log1p(49 * np.exp(-10))
    assert found["contrastive.infonce"] == pytest.approx(expected, rel=1e-9)
    assert found["contrastive.retained_share"] == pytest.approx(1)
    assert found["contrastive.saturated"] == 1
    assert found["contrastive.best_temperature"] == 0.01
    assert any("cannot tell students apart" in note for note in found.notes)


def test_k_is_the_largest_that_fits_and_incomplete_batches_are_dropped():
    z = cloud(0, n=150)
    assert run(z, z)["contrastive.ceiling"] == pytest.approx(np.log(150))
    cut = run(z, z, settings=Settings(infonce_batch=64))
    assert cut["contrastive.ceiling"] == pytest.approx(np.log(64)) and cut.values["contrastive.infonce"].n == 128


def test_curves_contain_the_value_and_grow_with_k():
    teacher = cloud(0, n=1100)
    found = run(teacher, student_of(teacher, 1))
    by_k, by_t = found.curves["contrastive.infonce_by_k"], found.curves["contrastive.infonce_by_temperature"]
    assert by_k.x.tolist() == [16, 64, 256, 1024] and (np.diff(by_k.y) > 0).all()
    assert by_k.y[-1] == pytest.approx(found["contrastive.infonce"])
    assert by_t.y[by_t.x.tolist().index(0.1)] == pytest.approx(found["contrastive.infonce"])
    assert found["contrastive.infonce_best_temperature"] == by_t.y.min()
    np.testing.assert_allclose(found.curves["contrastive.ceiling_by_k"].y, np.log(by_k.x))


def test_what_it_sees_and_what_not(teacher, student):
    base, q = run(teacher, student), rotation(0, 12)
    row_scale = np.random.default_rng(0).uniform(0.5, 2, size=(200, 1))
    both = run(teacher @ q, student @ q * row_scale, settings=Settings(infonce_batch=200))
    assert both["contrastive.infonce"] == pytest.approx(base["contrastive.infonce"])
    assert run(teacher, student @ q)["contrastive.infonce"] > base["contrastive.infonce"] + 0.5
    shuffled = run(teacher, student[np.random.default_rng(1).permutation(200)])
    assert shuffled["contrastive.retained_share"] < 0.05
