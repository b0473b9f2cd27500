"""Views replay from their key; preprocessing is PIL's to one grey level."""

import numpy as np
import pytest
import torch
from PIL import Image

from distillscope.config.noise import CLIP_MEAN, CLIP_STD, NoiseSpec
from distillscope.data.noise import Noise
from distillscope.data.preprocess import Preprocess
from distillscope.data.views import View

IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 3, 16, 16), dtype=np.uint8))
IDS = [f"i{i}" for i in range(6)]


def test_a_view_depends_on_seed_epoch_and_item_alone():
    view = View("crop_flip", {}, 42, 3)
    whole = view(IMAGES, IDS)
    assert (whole[4:5] == view(IMAGES[4:5], IDS[4:5])).all()
    assert (whole != View("crop_flip", {}, 42, 4)(IMAGES, IDS)).any()
    assert (whole != View("crop_flip", {}, 43, 3)(IMAGES, IDS)).any()
    assert whole.shape == IMAGES.shape and whole.dtype == torch.uint8


def test_crop_flip_without_padding_or_flip_changes_nothing():
    assert (View("crop_flip", {"padding": 0, "flip": 0.0}, 1, 0)(IMAGES, IDS) == IMAGES).all()
    assert (View("crop_flip", {"padding": 0, "flip": 1.0}, 1, 0)(IMAGES, IDS) == IMAGES.flip(-1)).all()


@pytest.mark.parametrize("size", [8, 16, 56])
def test_resizing_is_pils_to_one_grey_level(size):
    ours = Preprocess(size).resize(IMAGES) * 255
    pil = np.stack([np.asarray(Image.fromarray(i.permute(1, 2, 0).numpy()).resize((size, size), Image.BICUBIC))
                    for i in IMAGES])
    assert np.abs(ours.permute(0, 2, 3, 1).numpy() - pil).max() <= 1.001


def test_normalisation_and_crop():
    x = Preprocess(16)(IMAGES)
    expected = (IMAGES.float() / 255 - torch.tensor(CLIP_MEAN).view(3, 1, 1)) / torch.tensor(CLIP_STD).view(3, 1, 1)
    assert torch.allclose(x, expected, atol=1e-6)
    assert Preprocess(14, crop_fraction=14 / 16).resize(IMAGES).mul(255).round().byte().equal(IMAGES[..., 1:15, 1:15])
    # uint8 is rounded and clamped after each of two passes, floats once at the end: two grey levels at most.
    mild = (IMAGES.float() * 0.4 + 70).byte()
    assert torch.allclose(Preprocess(24).resize(mild.float() / 255), Preprocess(24).resize(mild), atol=2.01 / 255)


def test_noise_is_the_same_draw_for_every_sigma_model_and_batch():
    small, large = (Noise(s, NoiseSpec(unit="pixel", clip=False))(IMAGES, IDS) - IMAGES.float() / 255 for s in (0.05, 0.2))
    assert torch.allclose(4 * small, large, atol=1e-6)
    assert torch.equal(Noise(0.1)(IMAGES, IDS)[2:3], Noise(0.1)(IMAGES[2:3], IDS[2:3]))
    assert not torch.equal(Noise(0.1)(IMAGES, IDS), Noise(0.1, draw=1)(IMAGES, IDS))


def test_noise_has_the_size_that_it_states_in_both_units():
    grey = torch.full((200, 3, 16, 16), 128, dtype=torch.uint8)
    ids = [str(i) for i in range(200)]
    pixel = (Noise(0.1, NoiseSpec(unit="pixel", clip=False))(grey, ids) - grey / 255).std(dim=(0, 2, 3))
    assert pixel == pytest.approx(torch.full((3,), 0.1), rel=0.02)  # standard error of a std: 1 / sqrt(2 * 51,200) = 0.3 %
    normalised = (Noise(0.1, NoiseSpec(clip=False))(grey, ids) - grey / 255).std(dim=(0, 2, 3))
    assert normalised == pytest.approx(0.1 * torch.tensor(CLIP_STD), rel=0.02)
    both = Noise(0.1).both_units()
    assert both["sigma_pixel"] == pytest.approx(0.1 * np.mean(CLIP_STD)) and both["sigma_normalised"] == 0.1
    noisy = Noise(1.0, NoiseSpec(unit="pixel"))(grey, ids)
    assert noisy.min() == 0 and noisy.max() == 1


def test_the_papers_noise_is_added_to_the_input_and_not_clipped():
    x = Preprocess(16)(IMAGES)
    added = Noise(0.2, NoiseSpec(where="input", clip=False))(x, IDS) - x
    assert added.std() == pytest.approx(0.2, rel=0.05)  # 4,608 values: standard error 1 %
