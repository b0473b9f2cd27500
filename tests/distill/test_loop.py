"""The training loop: float32 losses, what stops it, what it warns of, what an arm needs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from builders.refusals import refused
from builders.training import DIM, source, student, targets, train
from distillscope.config.study import Arm, Training
from distillscope.data.source import Source
from distillscope.data.views import View
from distillscope.distill.health import Health, _explained, warnings_of
from distillscope.distill.loop import TrainingSet, distill, learning_rate_factor
from distillscope.distill.streams import KeyedStreams
from distillscope.registry import objectives


def test_losses_are_computed_in_float32_under_bfloat16(tmp_path, monkeypatch):
    seen = []

    def spy(student, teacher):
        seen.append((student.dtype, teacher.dtype, torch.is_autocast_enabled("cpu")))
        return cosine(student, teacher)

    cosine = objectives.get("cosine")
    monkeypatch.setitem(objectives._parts, "cosine", spy)
    one = student("bfloat16")
    networks = []
    one.module[-1].register_forward_hook(lambda module, inputs, output: networks.append(output.dtype))
    train(tmp_path, one)
    assert set(seen) == {(torch.float32, torch.float32, False)}
    assert set(networks) == {torch.bfloat16}
    assert all(p.dtype == torch.float32 for p in one.module.parameters())


def test_a_loss_of_nan_is_one_line_that_says_where(tmp_path):
    rows = targets()
    rows[:] = np.nan
    with refused(where="training of S, epoch 1, step 1", got="nan") as error:
        train(tmp_path, rows=rows)
    assert "\n" not in str(error.value)


def test_a_batch_larger_than_the_data_is_said(tmp_path):
    with refused(where="training.batch_size", expected="48", got="64"):
        train(tmp_path, batch_size=64)


def test_the_loss_falls_and_every_epoch_is_logged(tmp_path):
    history = train(tmp_path, epochs=8)
    assert history[-1]["loss"] < history[0]["loss"]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == history
    assert [r["epoch"] for r in lines] == list(range(1, 9))
    assert [r["step"] for r in lines] == [3 * e for e in range(1, 9)]


def test_the_part_of_a_batch_left_over_is_trained_on_when_asked(tmp_path):
    history = distill(
        student(),
        TrainingSet(source().take(range(40)), lambda epoch: targets()),
        Arm(name="cosine"),
        Training(epochs=1, batch_size=16, drop_last=False),
        KeyedStreams(0, "S"),
        tmp_path,
    )
    assert history[-1]["step"] == 3


def test_a_collapsed_student_is_warned_of(tmp_path):
    class Constant(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(DIM))

        def forward(self, images):
            return self.weight.expand(len(images), DIM) + 1e-3 * images.mean((1, 2, 3))[:, None]

    one = student()
    one.module = Constant()
    record = Health(source(), targets(), source(), "validation").check(one)
    record["epoch"] = 3
    assert record["effective_rank"] < 1.5 < record["target_rank"]
    assert "epoch 3: collapse, effective rank" in warnings_of(record)[0]
    assert warnings_of({**record, "effective_rank": record["target_rank"]}) == []


def test_health_without_labels_leaves_knn_out():
    bare = Source("bare", "train", source().ids, source().fetch, pixels=source().pixels)
    assert Health(bare, targets(), bare, "validation").check(student())["knn_accuracy"] is None


def test_health_says_how_much_of_the_target_the_student_explains():
    """The target as a linear map of the student: all of it. Targets of other images: none of it."""
    one = student()
    z = one.embed(source())
    linear = z @ np.random.default_rng(0).normal(size=(DIM, DIM)).astype(np.float32)
    linear = linear / np.linalg.norm(z, axis=1, keepdims=True) + 3  # of the unit rows, which is what health compares
    half = np.arange(len(z)) < len(z) // 2
    held, gallery = source().take(np.flatnonzero(half)), source().take(np.flatnonzero(~half))
    unit = linear / np.linalg.norm(linear, axis=1, keepdims=True)
    found = Health(held, unit[half], gallery, "validation", unit[~half]).check(one)["teacher_r2"]
    shuffled = unit[np.random.default_rng(1).permutation(len(unit))]
    none = Health(held, shuffled[half], gallery, "validation", shuffled[~half]).check(one)["teacher_r2"]
    assert found > 0.9 and none < 0.3
    assert Health(held, unit[half], gallery, "validation").check(one)["teacher_r2"] is None


def test_the_sketch_of_wide_embeddings_keeps_r2():
    rng = np.random.default_rng(0)
    wide = (rng.normal(size=(3000, 40)) * np.linspace(2, 0.2, 40)) @ rng.normal(size=(40, 900))
    teacher = wide + 8 * rng.normal(size=wide.shape)
    exact = 1 - np.square(teacher - wide).sum() / np.square(teacher - teacher.mean(axis=0)).sum()
    found = _explained(wide[:2500], teacher[:2500], wide[2500:], teacher[2500:])
    assert found == pytest.approx(exact, abs=0.03)


def test_an_objective_over_two_views_sees_two_and_trains(tmp_path):
    arm = Arm(
        name="views",
        objective=({"name": "cosine"}, {"name": "infonce_views", "weight": 0.5}),
        view={"name": "crop_flip"},
    )
    asked = []

    def view(epoch):
        asked.append(epoch)
        return View("crop_flip", {"padding": 1}, 0, epoch)

    one = student()
    before = [p.clone() for p in one.module.parameters()]
    history = distill(
        one,
        TrainingSet(source(), lambda epoch: targets(), view),
        arm,
        Training(epochs=3, batch_size=16),
        KeyedStreams(0, "S"),
        tmp_path,
    )
    assert asked == [0, "0 second", 1, "1 second", 2, "2 second"]
    assert history[-1]["loss"] < history[0]["loss"]
    assert not torch.equal(before[0], next(one.module.parameters()))


def test_an_objective_over_two_views_without_one_says_what_to_set(tmp_path):
    with refused(where="arms.x.objective", advice="arms.x.view=crop_flip"):
        train(tmp_path, arm=Arm(name="x", objective=({"name": "infonce_views"},)))


def test_schedules_start_and_end_where_they_should():
    assert [learning_rate_factor("constant", s, 10) for s in (0, 5, 10)] == [1, 1, 1]
    assert learning_rate_factor("cosine", 0, 10) == 1
    assert learning_rate_factor("cosine", 10, 10) == pytest.approx(0)
    assert learning_rate_factor("one_cycle", 3, 10) == pytest.approx(1)


def test_arms_of_one_seed_share_initial_weights():
    for a, b in zip(student(seed=4).module.parameters(), student(seed=4).module.parameters(), strict=True):
        assert torch.equal(a, b)
