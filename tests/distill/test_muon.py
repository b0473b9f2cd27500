"""Muon against closed forms and torch's Adam; a resumed run gives the same numbers."""

from __future__ import annotations

import pytest
import torch

import distillscope.distill.loop as loop
from builders.refusals import refused
from builders.training import source, student, targets
from distillscope.config.study import Arm, Training
from distillscope.distill.loop import TrainingSet, distill, make_optimizer
from distillscope.distill.muon import COEFFICIENTS, STEPS, Muon, orthogonalised
from distillscope.distill.streams import KeyedStreams

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
