"""`encode` takes images as people have them, and refuses values that it would have to guess at."""

import numpy as np
import pytest
import torch
from PIL import Image

from builders.refusals import refused
from distillscope.data.preprocess import Preprocess
from distillscope.errors import UserError
from distillscope.teachers.encoder import Encoder

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
