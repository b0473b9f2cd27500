"""The training loop: float32 losses, what stops it, what it warns of, what an arm needs; Muon."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
import torch

import distillscope.training.loop as loop
from builders import refused
from builders.training import DIM, ITEMS, source, student, targets, train
from distillscope.config.study import Arm, Training
from distillscope.data.preprocess import Preprocess
from distillscope.data.source import Source
from distillscope.data.views import View
from distillscope.registry import objectives
from distillscope.students.load import build_student
from distillscope.training.health import Health, _explained, warnings_of
from distillscope.training.loop import TrainingSet, distill, learning_rate_factor, make_optimizer
from distillscope.training.muon import COEFFICIENTS, STEPS, Muon, orthogonalised
from distillscope.training.streams import KeyedStreams


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


def without_norms():
    """A student in which no image's embedding depends on another's."""
    one = student()
    for i, layer in enumerate(one.module):
        if isinstance(layer, torch.nn.BatchNorm2d):
            one.module[i] = torch.nn.Identity()
    return one


WHOLE_BATCH = Arm(name="x", view={"name": "crop_flip"}, projector={"name": "mlp", "batch_norm": True}, objective=(
    {"name": "cosine", "projected": False}, {"name": "infonce_learned", "queue": 16}, {"name": "relational_distance"},
    {"name": "infonce_views", "weight": 0.1}, {"name": "centred_cosine", "weight": 0.5}))
"""Objectives and a projector that look at all images of a batch together."""


@pytest.mark.parametrize("drop_last", [True, False])
def test_a_batch_in_parts_trains_what_the_whole_trains(tmp_path, drop_last):
    """In-batch negatives, queues, the projector's batch norms and a learned temperature among it; the last batch is smaller."""
    found, rows = [], targets()
    shown = TrainingSet(source(), lambda epoch: rows, lambda epoch: View("crop_flip", {"padding": 1}, 0, epoch))
    for parts in (1, 4):
        one = without_norms()
        settings = Training(epochs=2, batch_size=20, drop_last=drop_last, optimizer="sgd", learning_rate=0.02, accumulate=parts)
        history = distill(one, shown, WHOLE_BATCH, settings, KeyedStreams(0, "S"), tmp_path / str(parts))
        found.append(([r["loss"] for r in history], [p.detach() for p in one.module.parameters()]))
    (losses, weights), (losses_in_parts, weights_in_parts) = found
    assert losses_in_parts == pytest.approx(losses, rel=1e-5)
    for a, b in zip(weights, weights_in_parts, strict=True):  # sums in another order: float32 rounding
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def test_batch_norms_and_dropout_of_a_batch_in_parts(tmp_path):
    """Running statistics take each part once, and both passes over a part draw the same dropout: else the gradient is off."""
    one = student()
    one.module.insert(0, torch.nn.Dropout(0.5))
    seen = []
    one.module[1].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().clone()))
    train(tmp_path, one, epochs=1, accumulate=2)
    assert [len(inputs) for inputs in seen] == [8] * 12  # three batches: two parts, twice
    for step in range(3):
        first, second, again, last = seen[4 * step : 4 * step + 4]
        assert torch.equal(first, again) and torch.equal(second, last) and not torch.equal(first, second)
    norm = next(m for m in one.module if isinstance(m, torch.nn.BatchNorm2d))
    assert norm.num_batches_tracked == 6 and norm.momentum == 0.1


@pytest.mark.parametrize("settings", [{}, {"accumulate": 2}])
def test_what_is_computed_again_changes_nothing(tmp_path, settings):
    """Running statistics of batch norms neither, though each batch passes twice."""
    states, calls = [], []
    for again in (False, True):
        one = KeyedStreams(0, "S").build(
            lambda: build_student("timm", {"model": "test_efficientnet"}, DIM, Preprocess(32), "S", torch.device("cpu")))
        counted = []
        one.module[0].blocks[0][0].register_forward_pre_hook(lambda *_, counted=counted: counted.append(1))
        train(tmp_path / str(again), one, epochs=1, batch_size=24, optimizer="sgd", recompute=again, **settings)
        states.append(one.module.state_dict())
        calls.append(len(counted))
    assert calls[1] == calls[0] + 2 * settings.get("accumulate", 1)
    for a, b in zip(*(s.values() for s in states), strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-6)


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
    assert "epoch 3: collapse, effective rank" in warnings_of([record], 3)["collapse"]
    assert warnings_of([{**record, "effective_rank": record["target_rank"]}], 3) == {}


def warned(ranks=(), losses=(), epochs=None):
    """The epochs at which a training with these records warns, by kind."""
    count, history, found = max(len(ranks), len(losses)), [], {}
    for i in range(count):
        record = {"epoch": i + 1, "loss": losses[i] if losses else 0.9**i, "n": 50, "split": "validation"}
        history.append({**record, "effective_rank": ranks[i], "target_rank": 100.0} if ranks else record)
        history[-1]["warned"] = list(warnings_of(history, epochs or count))
        for kind in history[-1]["warned"]:
            found.setdefault(kind, []).append(i + 1)
    return found


@pytest.mark.parametrize(("ranks", "epoch"), [
    ([4, 3, 2, 1], 2),       # below a twentieth, and falling: once
    ([3, 4, 4.5, 4.9], 4),   # below a twentieth at the end
    ([3, 4, 6, 9], None),    # has not learned enough yet
    ([60, 30, 15, 18], None),  # as students of the quickstart
    ([60, 15, 9, 8], 3),     # below a tenth, fallen twice
    ([60, 9, 9.5, 9], None),
])
def test_collapse_is_warned_of_once_and_a_rank_that_rises_is_none(ranks, epoch):
    assert warned(ranks=ranks) == ({"collapse": [epoch]} if epoch else {})


@pytest.mark.parametrize(("losses", "epochs", "epoch"), [
    ([1, 1, 1, 1], 4, 3), ([1, 1, 0.995, 0.98], 4, 3), ([1, 0.97, 0.97, 0.97], 4, None), ([1, 3, 2.5, 2.4], 4, None),
    ([-1, -1, -1.001], 3, 3), ([-1, -1.1, -1.2], 3, None), ([1, 1], 2, None), ([1] * 7, 18, 6),
])
def test_a_loss_that_does_not_leave_its_highest_is_flat_once_it_had_time_to(losses, epochs, epoch):
    assert warned(losses=losses, epochs=epochs) == ({"flat loss": [epoch]} if epoch else {})


def test_what_is_warned_of_is_told_while_it_trains_and_kept(tmp_path):
    told = []
    rows = np.tile(targets()[:1], (len(targets()), 1)) * 1e-3
    history = train(tmp_path, rows=rows, arm=Arm(name="x", objective="mse"), epochs=3, learning_rate=1e-12, warn=told.append)
    assert len(told) == 1 and "epoch 3: a flat loss" in told[0] and "training.learning_rate" in told[0]
    assert history[2]["warnings"] == told and history[2]["warned"] == ["flat loss"]


def test_health_without_labels_leaves_knn_out():
    bare = Source("bare", "train", source().ids, source().fetch, pixels=source().pixels)
    assert Health(bare, targets(), bare, "validation").check(student())["knn_accuracy"] is None


def test_health_says_how_much_of_the_target_the_student_explains():
    """The target as a linear map of the student: all of it. Targets of other images: none of it."""
    one = student()
    z = one.embed_source(source())
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


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle"])
def test_a_training_of_one_step_trains_and_is_not_advised_a_lower_rate(schedule, tmp_path):
    one = student()
    before = {k: v.clone() for k, v in one.module.named_parameters()}
    (record,) = train(tmp_path, one, epochs=1, batch_size=ITEMS, schedule=schedule)
    assert record["step"] == 1 and record["lr"] == 0.001
    assert all(not torch.equal(v, before[k]) for k, v in one.module.named_parameters() if v.ndim > 1)
    said = warnings_of([{**record, "effective_rank": 1.0, "target_rank": 100.0, "n": 50, "split": "validation"}], 1)["collapse"]
    assert "for one step" in said and "learning_rate" not in said
    assert [learning_rate_factor("one_cycle", step, 2) for step in (0, 1)] == [0, pytest.approx(0.811745)]


def test_arms_of_one_seed_share_initial_weights():
    for a, b in zip(student(seed=4).module.parameters(), student(seed=4).module.parameters(), strict=True):
        assert torch.equal(a, b)


MUON = Training(epochs=2, batch_size=16, optimizer="muon", learning_rate=0.01, schedule="one_cycle")


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (6, 6)])
def test_singular_vectors_stay_and_each_value_follows_the_polynomial(shape):
    matrix = random(*shape)
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    a, b, c = COEFFICIENTS
    s = s / s.norm()
    for _ in range(STEPS):
        s = a * s + b * s**3 + c * s**5
    assert torch.allclose(orthogonalised(matrix).double(), u * s @ v, atol=1e-4)


def test_a_matrix_of_zeros_stays_zero():
    assert torch.equal(orthogonalised(torch.zeros(3, 4)), torch.zeros(3, 4))


def kernel_of(rows: torch.Tensor, shape: tuple[int, ...]) -> torch.nn.Parameter:
    return torch.nn.Parameter(rows.clone().view(shape))


def test_the_first_step_is_the_orthogonal_gradient_at_its_size():
    weight, gradient = random(6, 12), 3 * random(6, 12) + 1
    parameter = kernel_of(weight, (6, 3, 2, 2))
    parameter.grad = gradient.clone().view(6, 3, 2, 2)
    Muon([parameter], lr=0.1).step()
    step = (weight - parameter.detach().view(6, 12)) / 0.1
    # Momentum only scales the first gradient, and the scale is divided out.
    assert torch.allclose(step, 0.6 * 12**0.5 * orthogonalised(gradient), atol=1e-4)
    assert 0.4 < float(step.square().mean().sqrt()) < 0.8


def test_momentum_is_nesterovs():
    weight, mean = random(4, 4), torch.zeros(4, 4)
    parameter = kernel_of(weight, (4, 1, 2, 2))
    optimizer = Muon([parameter], lr=0.1, momentum=0.9)
    for i in range(3):
        gradient = random(4, 4).roll(i, 0)
        parameter.grad = gradient.clone().view(4, 1, 2, 2)
        optimizer.step()
        mean = 0.9 * mean + 0.1 * gradient
        weight = weight - 0.1 * 0.6 * 2 * orthogonalised(0.1 * gradient + 0.9 * mean)
    assert torch.allclose(parameter.detach().view(4, 4), weight, atol=1e-5)


def test_a_kernels_layout_in_memory_changes_nothing():
    kernel, gradient, moved = random(4, 3, 2, 2), random(4, 3, 2, 2).flip(0), []
    for layout in (torch.contiguous_format, torch.channels_last):
        parameter = torch.nn.Parameter(kernel.clone().to(memory_format=layout))
        parameter.grad = gradient.clone().to(memory_format=layout)
        Muon([parameter], lr=0.1).step()
        moved.append(parameter.detach())
    assert torch.allclose(*moved, atol=1e-6)


def test_what_is_no_kernel_follows_torchs_adam():
    ours, theirs = ([torch.nn.Parameter(random(5)), torch.nn.Parameter(random(3, 5))] for _ in range(2))
    kernel = torch.nn.Parameter(random(2, 2, 1, 1))
    one, other = Muon([*ours, kernel], lr=0.05), torch.optim.Adam(theirs, lr=0.05)
    for i in range(4):
        for a, b in zip(ours, theirs, strict=True):
            a.grad, b.grad = (random(*a.shape).roll(i, 0) for _ in range(2))
        one.step()
        other.step()
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(ours, theirs, strict=True))
    assert torch.equal(kernel, random(2, 2, 1, 1))  # it had no gradient


def test_position_embeddings_are_no_kernels():
    kernel, positions = kernel_of(random(4, 4), (4, 1, 2, 2)), kernel_of(random(4, 4), (1, 4, 4))
    groups = Muon([kernel, positions], lr=0.1).param_groups
    assert [g["kernels"] for g in groups] == [True, False] and groups[1]["params"] == [positions]


def test_weight_decay_shrinks_kernels_only():
    kernel, matrix = torch.nn.Parameter(torch.ones(2, 2, 1, 1)), torch.nn.Parameter(torch.ones(2, 2))
    for parameter in (kernel, matrix):
        parameter.grad = torch.zeros_like(parameter)
    Muon([kernel, matrix], lr=0.1, weight_decay=0.5).step()
    assert torch.allclose(kernel, torch.full((2, 2, 1, 1), 0.95))
    assert torch.equal(matrix, torch.ones(2, 2))


def test_a_network_without_convolutions_is_named():
    with refused(where="training.optimizer", expected=("adam", "sgd")):
        make_optimizer([torch.nn.Parameter(torch.ones(3, 3))], MUON)


def run(folder) -> tuple[list[torch.Tensor], list[dict]]:
    one, rows = student(), targets()
    history = distill(one, TrainingSet(source(), lambda epoch: rows), Arm(name="x"), MUON, KeyedStreams(0, "S"), folder)
    return [p.detach().clone() for p in one.module.parameters()], history


def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    whole, history = run(tmp_path / "whole")
    assert history[-1]["loss"] < history[0]["loss"]
    saved, steps = loop.save_checkpoint, []

    def stop(path, state):
        saved(path, state)
        steps.append(state["step"])
        if len(steps) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(loop, "save_checkpoint", stop)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "part")
    monkeypatch.setattr(loop, "save_checkpoint", saved)
    resumed, _ = run(tmp_path / "part")
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))


def test_tensorboard_gets_each_epoch_in_the_folder(tmp_path):
    pytest.importorskip("tensorboard")
    train(tmp_path / "mine", track="tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "mine" / "distillscope")).Reload()
    assert [e.value for e in events.Scalars("loss")] == pytest.approx([r["loss"] for r in records(tmp_path / "mine")])


def test_wandb_offline_gets_each_epoch_and_the_settings(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="W&B is not installed: pip install 'distillscope[wandb]'")
    for name, value in {"MODE": "offline", "DIR": str(tmp_path), "SILENT": "true", "CONSOLE": "off"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    train(tmp_path / "mine", track="wandb")
    (written,) = tmp_path.rglob("*.wandb")
    wanted = [b"mine", b"learning_rate", b"cosine", b"loss", *(repr(r["loss"]).encode() for r in records(tmp_path / "mine"))]
    until = time.monotonic() + 20  # a process of W&B's own writes it, and may end after the training
    while not all(word in written.read_bytes() for word in wanted):
        assert time.monotonic() < until, written.read_bytes()
        time.sleep(0.05)


def test_mlflow_gets_each_epoch_and_the_settings_in_a_store_on_this_machine(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed: pip install 'distillscope[mlflow]'")
    store = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    train(tmp_path / "mine", track="mlflow")
    client = mlflow.MlflowClient(store)
    (run,) = client.search_runs([client.get_experiment_by_name("distillscope").experiment_id])
    assert run.info.run_name == "mine" and run.info.status == "FINISHED"
    assert run.data.params["batch_size"] == "16" and run.data.params["arm"] == "cosine"
    logged = sorted(client.get_metric_history(run.info.run_id, "loss"), key=lambda metric: metric.step)
    assert [m.value for m in logged] == pytest.approx([r["loss"] for r in records(tmp_path / "mine")])
    assert not any(p.name == "mlruns" for p in tmp_path.iterdir())


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
