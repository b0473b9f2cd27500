"""`encode` takes images as people have them and refuses what it would have to guess at; preprocessing, views and noise."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from builders import refused
from distillscope.config.parts import CLIP_MEAN, CLIP_STD, NoiseSpec
from distillscope.config.study import NoiseSweep
from distillscope.data.noise import Noise
from distillscope.data.preprocess import Preprocess
from distillscope.data.views import View
from distillscope.errors import UserError
from distillscope.stress.frequencies import BandNoise
from distillscope.teachers.cache import entry_path
from distillscope.teachers.encoder import Encoder
from distillscope.training.streams import NotebookStreams

HWC = np.random.default_rng(0).integers(0, 256, (5, 8, 6, 3), dtype=np.uint8)
CHW = torch.from_numpy(HWC).permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def encoder():
    """Every pixel of a 6 x 6 crop is a dimension; nothing is resized."""
    return Encoder("flat", torch.nn.Flatten(), 108, Preprocess(6), "0")


def same(encoder, images, ids=None, expected=None):
    expected = encoder.encode(CHW, [str(i) for i in range(5)]) if expected is None else expected
    return np.allclose(encoder.encode(images, ids), expected, atol=1e-4)


def test_every_way_to_hand_over_the_same_images_gives_the_same_rows(encoder, tmp_path):
    paths = []
    for i, image in enumerate(HWC):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
        paths.append(tmp_path / f"{i}.png")
    pil = [Image.fromarray(i) for i in HWC]
    for images in (HWC, HWC.transpose(0, 3, 1, 2), np.ascontiguousarray(HWC[..., ::-1])[..., ::-1], torch.from_numpy(HWC),
                   list(HWC), list(CHW), pil,
                   iter(pil), paths, [str(p) for p in paths], np.array([str(p) for p in paths]),
                   [p.read_bytes() for p in paths],
                   [pil[0], HWC[1], CHW[2], paths[3], HWC[4]]):
        assert same(encoder, images)
    read_only = HWC.copy()
    read_only.flags.writeable = False
    assert same(encoder, read_only, list("abcde"))


def test_one_image_is_a_batch_of_one(encoder):
    expected = encoder.encode(CHW[:1])
    for image in (HWC[0], CHW[0], Image.fromarray(HWC[0])):
        assert same(encoder, image, None, expected) and encoder.encode(image).shape == (1, 108)
    assert encoder.encode([]).shape == (0, 108)


def test_grey_and_sizes_that_differ(encoder):
    grey = HWC[0, ..., :1]
    expected = encoder.encode(np.repeat(grey, 3, axis=-1))
    for image in (grey, grey[..., 0], torch.from_numpy(grey).permute(2, 0, 1), Image.fromarray(grey[..., 0])):
        assert same(encoder, image, None, expected)
    mixed = encoder.encode([HWC[0], Image.fromarray(HWC[1]).resize((20, 30)), HWC[2]])
    assert np.allclose(mixed[[0, 2]], encoder.encode(HWC[[0, 2]]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floats_stand_for_pixels_in_nought_to_one(encoder, dtype):
    assert np.abs(encoder.encode((CHW / 255).to(dtype)) - encoder.encode(CHW)).max() < 0.02
    assert np.abs(encoder.encode((HWC / 255).astype(np.float32 if dtype == torch.float32
                                                    else np.float64)) - encoder.encode(CHW)).max() < 0.02


@pytest.mark.parametrize(("images", "words"), [
    (CHW.float(), r"uint8 images, or floats in \[0, 1\], got floats from 0 to 255\. Divide by 255, or pass uint8\."),
    (HWC.astype(np.float64), "Divide by 255"), ([CHW[0] / 255, CHW[1].float()], "Divide by 255"),
    ((CHW / 255 - 0.5) / 0.2, "before any normalisation"), (CHW / 250, r"Clamp them to \[0, 1\]"),
    (CHW * torch.nan, "floats from nan"),
    (CHW.long(), "an array of int64"), (HWC.astype(np.uint16), "array of uint16"), (HWC > 9, "array of bool"),
    (np.zeros((2, 9, 9, 4), np.uint8), r"shape \(2, 9, 9, 4\).*transparency"), (np.zeros((7, 9, 9), np.uint8), "3 channels"),
    (np.zeros((1, 1, 3, 9, 9), np.uint8), "shape"), ([[1, 2]], "got list"), (7, "got int"), ({"a": 1}, "got dict"),
    (None, "got NoneType"),
    ("no-such.png", "encode no-such.png: .*no such file"), (b"no image", "encode image 0: .*no image in a known format"),
    ([CHW[:2]], "a batch of 2"),
])
def test_what_is_no_image_is_refused_in_one_line(encoder, images, words):
    with pytest.raises(UserError, match=words):
        encoder.encode(images)


def test_more_images_than_a_batch_and_ids_that_do_not_fit(encoder, monkeypatch):
    seen = []
    monkeypatch.setattr("distillscope.teachers.encoder.ENCODE_BATCH", 16)
    inner = encoder._encode
    monkeypatch.setattr(encoder, "_encode", lambda images, ids, p: seen.append(list(ids)) or inner(images, ids, p))
    many = np.concatenate([HWC] * 8)
    assert np.array_equal(encoder.encode(many)[::5], np.repeat(encoder.encode(HWC[:1]), 8, axis=0))
    assert [len(i) for i in seen[:3]] == [16, 16, 8] and seen[1][0] == "16"
    with refused(expected="5", got="2"):
        encoder.encode(HWC, ["a", "b"])
    seen.clear()
    monkeypatch.setattr("distillscope.teachers.encoder.ENCODE_BATCH", 256)
    monkeypatch.setattr("distillscope.teachers.encoder.ENCODE_PIXELS", 20 * encoder.preprocess.size**2)
    encoder.encode(many)
    assert [len(i) for i in seen] == [20, 20]  # on a CPU fewer of many pixels


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


STORED = torch.from_numpy(np.random.default_rng(7).integers(0, 256, (3, 3, 12, 10), dtype=np.uint8))
MIXED = [STORED[0], STORED[1][:, :8, :8].contiguous(), STORED[2]]
NOISE_IDS = ["test/0", "test/1", "a"]
STD = (0.2, 0.25, 0.3)

RECORDED = {  # (where, unit, clip): of the sweep, a view at a fixed sigma, and one at a sigma that is drawn
    ("source", "pixel", True): ("4ed5fac06532cfb6", "6eb2ca32ec1e4089", "de497153803fa64e"),
    ("source", "pixel", False): ("5403d211c3cd55df", "79031006ac64e085", "31836d83f39e3af1"),
    ("source", "normalised", True): ("0d41e385d1fb5338", "366748db3694dabf", "c38f4e2aa99e2706"),
    ("source", "normalised", False): ("d3d38be6e9b12226", "bd6980b5e6c741ec", "3b175fcc07d374a4"),
    ("input", "pixel", True): ("941b16b16c76584f", "58c11443a40c089d", "6ad6155f606ea821"),
    ("input", "normalised", True): ("2f862b71a5c3f1f5", "9e990465d2e9edd4", "ac047a17210196c1"),
}


def model_input() -> torch.Tensor:
    rng = np.random.default_rng(7)
    rng.integers(0, 256, (3, 3, 12, 10), dtype=np.uint8)  # as it was recorded
    return torch.from_numpy(rng.normal(size=(3, 3, 12, 10)).astype(np.float32))


def digest(images: torch.Tensor | list[torch.Tensor]) -> str:
    made = hashlib.blake2b(digest_size=8)
    for image in images if isinstance(images, list) else [images]:
        made.update(np.ascontiguousarray(image.numpy()).tobytes())
    return made.hexdigest()


@pytest.mark.parametrize(("where", "unit", "clip"), RECORDED)
def test_the_bytes_of_every_draw(where, unit, clip):
    spec, images = NoiseSpec(where=where, unit=unit, clip=clip, std=STD), STORED if where == "source" else model_input()
    views = [View("noise", {"sigma": 0.3, "fixed": fixed, **spec.model_dump()}, 5, 2) for fixed in (True, False)]
    assert tuple(digest(noise(images, NOISE_IDS)) for noise in (Noise(0.3, spec, 1, 5), *views)) == RECORDED[where, unit, clip]


def test_the_bytes_on_images_of_several_sizes_and_in_the_notebooks_stream():
    assert digest(Noise(0.3, NoiseSpec(unit="pixel"))(MIXED, NOISE_IDS)) == "a7d1a8ea19e9fffe"
    assert digest(View("noise", {}, 5, 2)(MIXED, NOISE_IDS)) == "e3ef6bb88c14c7df"
    streams = NotebookStreams(42, "S", [lambda: torch.nn.Linear(3, 4), lambda: torch.nn.Linear(5, 2)], 1, 2)
    noises = streams.noise([Noise(sigma, NoiseSpec(where="input", clip=False)) for sigma in (0.1, 0.2)], 70)
    assert digest(noises[1](model_input(), NOISE_IDS)) == "67b8980af2aa1b16"


def test_a_bands_draws():
    """Values, not bytes: a Fourier transform's last bit is the machine's own."""
    found = [float(v) for v in BandNoise(0.25, 0.75, 0.3, NoiseSpec(clip=False, std=STD), 1, 5)(STORED, NOISE_IDS)[:, 1, 3, 4]]
    assert found == pytest.approx(BAND, abs=1e-6)


BAND = [0.25409987568855286, 0.7797159552574158, 0.17932972311973572]


class Stand:
    """A teacher of which only the description counts."""

    name = "x"

    def describe(self) -> dict[str, int]:
        return {"a": 1}

    def rescales(self, perturbation) -> bool:
        return False


def test_cache_entries_have_the_names_that_they_had():
    spec = NoiseSpec(where="input", unit="pixel", clip=False, std=STD)
    named = {Noise(0.3, spec, 1, 5): "f360808ad48a", Noise(0.1, NoiseSpec(unit="pixel")): "9d1dedbeb220",
             BandNoise(0, 0.5, 0.1): "0b0bcba782e0", BandNoise(0, 2, 0.1, NoiseSpec(where="input"), 1, 0, 16): "dd844b900396"}
    for noise, name in named.items():
        assert entry_path(Stand(), noise)[0].name == f"x-{name}", noise
    for view, name in ((View("noise", {}, 1, 0), "a9948d48659e"), (View("crop_flip", {}, 1, 0), "eb118878c940"),
                       (View("noise", {"fixed": True, "std": (0.1, 0.1, 0.1)}, 1, 0), "861033bdd2ac")):
        assert entry_path(Stand(), view)[0].name == f"x-{name}", view


def test_a_sweep_says_the_same_as_its_spec():
    for where, unit, clip in itertools.product(("source", "input"), ("pixel", "normalised"), (True, False)):
        said = {"where": where, "unit": unit, "clip": clip, "std": STD}
        assert NoiseSweep(sigmas=(0.1,), **said).spec == NoiseSpec(**said)
