"""Two processes (gloo, on the CPU) give the loss and the gradient of one with the whole batch, negatives included."""

from __future__ import annotations

import copy
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from timm.layers import BatchNormAct2d

from builders import parted_training
from builders.refusals import refused
from distillscope.distill.gathered_batch import shared_batch_norms
from distillscope.registry import objectives


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folders of one process with the whole batch and of two with a part each, and what the two said."""
    if not torch.distributed.is_available():
        pytest.skip("torch without distributed")
    alone, parts = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    both = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
            "ACCELERATE_USE_CPU": "true"}
    pair = [subprocess.Popen([sys.executable, parted_training.__file__, str(parts)],
                             env={**both, "RANK": str(r), "LOCAL_RANK": str(r)},
                             stderr=subprocess.PIPE, text=True) for r in range(2)]
    parted_training.main(alone)
    said = [p.communicate(timeout=120)[1] for p in pair]
    assert [p.returncode for p in pair] == [0, 0], said
    return alone, parts, said


def read(trained, name: str) -> tuple:
    """(one process's, each of the two's)."""
    alone, parts, _ = trained
    return torch.load(alone / f"{name}0.pt"), [torch.load(parts / f"{name}{r}.pt") for r in range(2)]


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_give_the_loss_and_gradients_of_one(trained):
    alone, parts = read(trained, "gradients")
    assert {key.split()[0] for key in alone} == set(objectives)
    for key, wanted in alone.items():
        for part in parts:
            assert len(part[key]) == len(wanted) >= 3, key
            for a, b in zip(part[key], wanted, strict=True):  # sums in another order: float32 rounding
                assert torch.allclose(a, b, rtol=1e-4, atol=1e-5 * max(1.0, float(b.abs().max()))), key


@pytest.mark.slow
@pytest.mark.parametrize(("name", "rtol"), [("whole", 1e-3), ("halves", 1e-4)])
def test_two_processes_train_what_one_trains(trained, name, rtol):
    """Batch norms share their moments; without them each process sees half of each batch, and gradients are averaged."""
    alone, parts = read(trained, name)
    assert all(torch.equal(a, b) for a, b in zip(*parts, strict=True))
    for a, b in zip(alone, parts[0], strict=True):  # sums in another order: float32 rounding
        assert torch.allclose(a, b, rtol=rtol, atol=1e-5)
    assert losses(trained[1] / name) == pytest.approx(losses(trained[0] / name), rel=1e-4)
    assert len(losses(trained[1] / name)) == 2


@pytest.mark.slow
def test_one_process_speaks_for_both(trained):
    assert ["said by one of 2" in text for text in trained[2]] == [True, False]


def test_a_launcher_whose_processes_do_not_train_together_is_refused(tmp_path, monkeypatch):
    """Else each would train a whole copy into one folder."""
    from accelerate import PartialState

    from builders.training import train

    PartialState()  # alone, since it was made before the launcher's variables were set
    monkeypatch.setenv("WORLD_SIZE", "2")
    with refused(where="distill", expected="2", got="1", advice="torchrun"):
        train(tmp_path)


class Alone:
    """torch.distributed of one process."""

    @staticmethod
    def get_world_size() -> int:
        return 1

    @staticmethod
    def all_gather(parts, own) -> None:
        parts[0].copy_(own)

    @staticmethod
    def all_reduce(value) -> None:
        pass


@pytest.mark.parametrize("kind, shape, settings", [
    (torch.nn.BatchNorm2d, (7, 5, 3, 4), {}), (torch.nn.BatchNorm1d, (7, 5), {"affine": False}),
    (BatchNormAct2d, (7, 5, 3, 4), {}), (torch.nn.BatchNorm2d, (7, 5, 3, 4), {"momentum": None}),
    (torch.nn.BatchNorm1d, (7, 5), {"track_running_stats": False})])
def test_a_shared_batch_norm_is_the_layer_that_it_stands_for(monkeypatch, kind, shape, settings):
    """Outputs, gradients and running statistics, far from zero too, activation included; afterwards it is what it was."""
    monkeypatch.setattr("distillscope.distill.gathered_batch.distributed", Alone)
    generator = torch.Generator().manual_seed(0)
    plain = kind(shape[1], **settings)
    for parameter in plain.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    shared = copy.deepcopy(plain)
    for _ in range(3):
        given, slope = 100 + 3 * torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
        first, second = (given.clone().requires_grad_() for _ in range(2))
        plain.zero_grad(), shared.zero_grad()
        (plain(first * 1) * slope).sum().backward()
        with shared_batch_norms(shared):
            (shared(second * 1) * slope).sum().backward()
        assert torch.allclose(first.grad, second.grad, rtol=1e-4, atol=1e-5)
        for a, b in zip(plain.parameters(), shared.parameters(), strict=True):
            assert torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-4)
        for a, b in zip(plain.buffers(), shared.buffers(), strict=True):
            assert torch.allclose(a.double(), b.double(), rtol=1e-5)
    assert type(shared) is kind
