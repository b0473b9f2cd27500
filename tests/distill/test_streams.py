"""The random draws of a trial: keyed, and the notebook's two streams against the loop that they replay."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from distillscope.config.noise import NoiseSpec
from distillscope.config.study import Training
from distillscope.data.noise import Noise
from distillscope.distill.streams import KeyedStreams, NotebookStreams

SEED, EPOCHS, ITEMS, BATCH = 42, 5, 150, 64
SHAPE = (3, 4, 4)  # 48 numbers an image: a multiple of 16, so that torch.randn's blocks do not depend on the batch
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
