"""JPEGs decoded at a part of their size: what a model sees stays within a grey level of the whole image's, and it is said."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torchvision.transforms import InterpolationMode

from builders import refused, tiny
from distillscope.config.parts import Teacher
from distillscope.config.resolve import named_dataset
from distillscope.data.decode import Decoding, decode
from distillscope.data.preprocess import REDUCED, SMOOTH, Preprocess, coarse_for
from distillscope.data.source import content_hash
from distillscope.data.splits import load_split
from distillscope.teachers.encoder import load_teacher


def photo(name, width, **options):
    """One of scikit-learn's two photographs, enlarged to ``width`` and with a camera's grain, as a JPEG file."""
    whole = Image.fromarray(load_sample_image(name))
    pixels = np.asarray(whole.resize((width, round(whole.height * width / whole.width)), Image.Resampling.LANCZOS))
    grain = np.random.default_rng(width).normal(0, 3, pixels.shape)
    out = io.BytesIO()
    Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=90, **options)
    return out.getvalue()


@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
@pytest.mark.parametrize("width", [640, 1_000, 2_400])
def test_what_a_model_sees_of_a_reduced_photo(name, width):
    encoded = photo(name, width)
    whole, _ = decode(encoded)
    tried = 0
    for size, crop in ((32, 1.0), (64, 0.875), (96, 1.0), (224, 0.875)):
        decoding = Decoding(min_side=REDUCED * round(size / crop))
        reduced, done = decode(encoded, decoding)
        assert min(reduced.shape[:2]) >= min(decoding.min_side, min(whole.shape[:2]))
        if not done["reduced"]:
            assert content_hash(reduced) == content_hash(whole)
            continue
        tried += 1
        for mode in ("bicubic", "bilinear", "nearest", "nearest-exact"):
            sees = Preprocess(size, interpolation=mode, crop_fraction=crop)
            one, other = (sees.resize(torch.from_numpy(i).permute(2, 0, 1)[None]).mul(255) for i in (whole, reduced))
            if mode in SMOOTH:
                assert abs(float((one - other).mean())) < 0.5 and float((one - other).abs().mean()) < 1, (size, mode)
                assert not coarse_for(sees, decoding)
            else:  # picking other pixels, these differ by the grain
                assert f"it resizes by {mode}" in coarse_for(sees, decoding)
    assert tried


def test_the_settings_of_resizing_are_all_tried():
    assert {"bicubic", "bilinear", "nearest", "nearest-exact"} <= {mode.value for mode in InterpolationMode}


def test_only_jpegs_are_reduced_and_turned_as_before(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "photos" / "train").mkdir(parents=True)
    (tmp_path / "photos" / "train" / "0.jpg").write_bytes(photo("china.jpg", 640, exif=exif))
    Image.open(io.BytesIO(photo("china.jpg", 640))).save(tmp_path / "photos" / "train" / "1.png")
    found = load_split("image_folder", {"path": tmp_path / "photos", "min_side": 100}, "train")
    assert [found.image(i).shape for i in range(2)] == [(160, 107, 3), (427, 640, 3)]
    assert found.note == "1 turned by EXIF, 1 JPEG decoded at a half, a quarter or an eighth, the shorter side at least 100 px"
    whole = load_split("image_folder", {"path": tmp_path / "photos"}, "train")
    assert whole.note == "1 turned by EXIF" and content_hash(whole.image(1)) == content_hash(found.image(1))
    with refused(got="0"):
        part = named_dataset(f"{{path: {tmp_path / 'photos'}, min_side: 0}}")
        load_split(part.name, part.settings, "train")


def test_a_model_that_would_see_other_pixels_is_named_before_it_embeds(tmp_path, capsys):
    (tmp_path / "photos" / "train").mkdir(parents=True)
    for i, name in enumerate(("china.jpg", "flower.jpg")):
        (tmp_path / "photos" / "train" / f"{i}.jpg").write_bytes(photo(name, 640))
    teacher = load_teacher(Teacher.model_validate(f"timm/test_resnet:{tiny.teacher_weights()}"), "cpu", None)
    needs = REDUCED * round(teacher.preprocess.size / teacher.preprocess.crop_fraction)
    for side, said in ((needs // 3, True), (needs // 3, False), (needs, False)):  # the second time nothing is embedded
        found = load_split("image_folder", {"path": tmp_path / "photos", "min_side": side}, "train")
        capsys.readouterr()
        teacher.rows(found)
        assert (f"{needs} px on it would see nearly the same" in capsys.readouterr().err) == said
