"""Two processes give the loss and the gradient of one with the whole batch, negatives included; random streams."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from builders import refused, training
from builders.together import Together
from distillscope.config.parts import NoiseSpec
from distillscope.config.study import Training
from distillscope.data.noise import Noise
from distillscope.registry import objectives
from distillscope.training.gathered_batch import shared_batch_norms
from distillscope.training.streams import KeyedStreams, NotebookStreams


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folders of one process with the whole batch and of two with a part each, and what the two said."""
    if not torch.distributed.is_available():
        pytest.skip("torch without distributed")
    alone, parts = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    both = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(training.free_port()),
            "ACCELERATE_USE_CPU": "true"}
    pair = [subprocess.Popen([sys.executable, training.__file__, str(parts)],
                             env={**both, "RANK": str(r), "LOCAL_RANK": str(r)},
                             stderr=subprocess.PIPE, text=True) for r in range(2)]
    training.main(alone)
    said = [p.communicate(timeout=120)[1] for p in pair]
    assert [p.returncode for p in pair] == [0, 0], said
    return alone, parts, said


def read(trained, name: str) -> tuple:
    """(one process's, each of the two's)."""
    alone, parts, _ = trained
    return torch.load(alone / f"{name}0.pt"), [torch.load(parts / f"{name}{r}.pt") for r in range(2)]


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def together(monkeypatch):
    """Two parts of one process; `trained` has two processes."""
    return Together(2).patched(monkeypatch)


def test_two_parts_give_the_loss_and_gradients_of_one(together):
    same_gradients(training.gradients(0, 1), together.run(lambda rank: training.gradients(rank, 2)))


@pytest.mark.minutes
def test_two_processes_give_the_loss_and_gradients_of_one(trained):
    same_gradients(*read(trained, "gradients"))


def same_gradients(alone, parts) -> None:
    assert {key.split()[0] for key in alone} == set(objectives)
    for key, wanted in alone.items():
        for part in parts:
            assert len(part[key]) == len(wanted) >= 3, key
            for a, b in zip(part[key], wanted, strict=True):  # sums in another order: float32 rounding
                assert torch.allclose(a, b, rtol=1e-4, atol=1e-5 * max(1.0, float(b.abs().max()))), key


@pytest.mark.minutes
@pytest.mark.parametrize(("name", "rtol"), [("whole", 1e-3), ("halves", 1e-4)])
def test_two_processes_train_what_one_trains(trained, name, rtol):
    """Batch norms share their moments; without them each process sees half of each batch, and gradients are averaged."""
    alone, parts = read(trained, name)
    assert all(torch.equal(a, b) for a, b in zip(*parts, strict=True))
    for a, b in zip(alone, parts[0], strict=True):  # sums in another order: float32 rounding
        assert torch.allclose(a, b, rtol=rtol, atol=1e-5)
    assert losses(trained[1] / name) == pytest.approx(losses(trained[0] / name), rel=1e-4)
    assert len(losses(trained[1] / name)) == 2


@pytest.mark.minutes
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
    monkeypatch.setattr("distillscope.training.gathered_batch.distributed", Alone)
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


def test_two_parts_of_a_batch_norm_are_the_layer_on_the_whole_batch(together):
    """Parts of 4 and 3 rows, whose gradients arrive and leave times the number of parts."""
    generator = torch.Generator().manual_seed(0)
    plain = torch.nn.BatchNorm2d(5)
    given, slope = (torch.randn(7, 5, 3, 4, generator=generator) for _ in range(2))
    layers = [copy.deepcopy(plain) for _ in range(2)]
    whole = given.clone().requires_grad_()
    wanted = plain(whole)
    (wanted * slope).sum().backward()

    def part(rank: int):
        own = given[rank::2].clone().requires_grad_()
        found = layers[rank](own)
        (2 * found * slope[rank::2]).sum().backward()
        return found.detach(), own.grad

    with shared_batch_norms(*layers):
        parts = together.run(part)
    for rank, (found, gradient) in enumerate(parts):
        assert torch.allclose(found, wanted[rank::2], atol=1e-5)
        assert torch.allclose(gradient, 2 * whole.grad[rank::2], atol=1e-5)
        for a, b in zip(layers[rank].buffers(), plain.buffers(), strict=True):
            assert torch.allclose(a.double(), b.double(), rtol=1e-5)
    for a, b, both in zip(*(layer.parameters() for layer in layers), plain.parameters(), strict=True):
        assert torch.allclose((a.grad + b.grad) / 2, both.grad, rtol=1e-4, atol=1e-4)


SEED, EPOCHS, ITEMS, BATCH = 42, 5, 150, 64
SHAPE = (3, 4, 4)  # 48 numbers per image: a multiple of 16, so that torch.randn's blocks do not depend on the batch
SIGMAS = (0.05, 0.1)
MAKERS = [
    lambda width=w: nn.Sequential(nn.Conv2d(3, width, 3), nn.Flatten(), nn.Linear(4 * width, 5)) for w in (2, 4, 8)
]


def streams(position: int, **settings) -> NotebookStreams:
    return NotebookStreams(SEED, "SML"[position], MAKERS, position, Training(epochs=EPOCHS, batch_size=BATCH), **settings)


def test_the_notebooks_order_is_that_of_one_loader_shared_by_the_students_in_turn():
    generator = torch.Generator().manual_seed(SEED)
    loader = torch.utils.data.DataLoader(torch.arange(ITEMS), BATCH, shuffle=True, drop_last=True, generator=generator)
    kept = ITEMS // BATCH * BATCH
    for position in range(3):
        one = streams(position)
        for epoch in range(EPOCHS + 1):
            expected = torch.cat(list(loader)).numpy()
            assert np.array_equal(one.order(epoch, ITEMS)[:kept], expected)
        assert np.array_equal(one.probe_items(ITEMS), expected)  # the sixth pass embeds for the probe


def test_the_notebooks_first_pass_is_that_of_a_loader():
    generator = torch.Generator().manual_seed(SEED)
    loader = torch.utils.data.DataLoader(torch.arange(ITEMS), BATCH, shuffle=True, drop_last=True, generator=generator)
    expected = torch.cat(list(loader)).numpy()
    assert np.array_equal(streams(0).order(0, ITEMS)[: len(expected)], expected)


def test_the_notebooks_students_are_initialised_in_turn_from_one_stream():
    torch.manual_seed(SEED)
    expected = [make() for make in MAKERS]
    for position in range(3):
        built = streams(position).build(MAKERS[position])
        for a, b in zip(built.parameters(), expected[position].parameters(), strict=True):
            assert torch.equal(a, b)


def notebook_noise(images: torch.Tensor) -> dict[tuple[int, float], torch.Tensor]:
    """The notebook's loops, restated: initialise all, then for each student and sigma one pass of a plain loader."""
    torch.manual_seed(SEED)
    for make in MAKERS:
        make()
    seen = {}
    for position in range(3):
        for sigma in (0.0, *SIGMAS):
            batches = torch.utils.data.DataLoader(images, BATCH, shuffle=False)
            seen[position, sigma] = torch.cat([x + torch.randn_like(x) * sigma for x in batches])
    return seen


@pytest.mark.parametrize("batch", [16, 64, ITEMS])
def test_the_notebooks_noise_is_that_of_its_sweep_whatever_the_batch(batch):
    images = torch.rand(ITEMS, *SHAPE, generator=torch.Generator().manual_seed(7))
    expected = notebook_noise(images)
    ids = [str(i) for i in range(ITEMS)]
    for position in range(3):
        noises = streams(position).noise([Noise(s, NoiseSpec(where="input", clip=False)) for s in SIGMAS], ITEMS)
        for sigma, noise in zip(SIGMAS, noises, strict=True):
            got = torch.cat([noise(images[i : i + batch], ids[i : i + batch]) for i in range(0, ITEMS, batch)])
            assert torch.allclose(got, expected[position, sigma], rtol=0, atol=1e-7)


def test_replaying_the_notebook_leaves_the_global_stream_alone():
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    one = streams(2)
    one.build(MAKERS[2])
    one.order(1, ITEMS)
    one.noise([Noise(0.1, NoiseSpec(where="input"))], 4)[0](torch.zeros(4, *SHAPE), list("abcd"))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_augmentation_control_takes_the_first_passes_and_every_image_in_order():
    control, small = streams(2, unseeded=True), streams(0)
    assert np.array_equal(control.order(0, ITEMS), small.order(0, ITEMS))
    assert np.array_equal(control.probe_items(ITEMS), np.arange(ITEMS))


def test_keyed_draws_are_shared_by_arms_and_sizes_and_differ_between_seeds_and_epochs():
    a, b = KeyedStreams(1, "S"), KeyedStreams(1, "L")
    assert np.array_equal(a.order(3, 100), b.order(3, 100))
    assert sorted(a.order(3, 100)) == list(range(100))
    assert not np.array_equal(a.order(3, 100), a.order(4, 100))
    assert not np.array_equal(a.order(3, 100), KeyedStreams(2, "S").order(3, 100))


def test_keyed_initial_weights_depend_on_seed_and_label_alone():
    def weight(seed: int, label: str) -> torch.Tensor:
        torch.rand(seed * 3 + 1)  # whatever was drawn before
        return KeyedStreams(seed, label).build(MAKERS[0])[0].weight

    assert torch.equal(weight(1, "S"), weight(1, "S"))
    assert not torch.equal(weight(1, "S"), weight(2, "S"))
    assert not torch.equal(weight(1, "S"), weight(1, "M"))
