"""Colour profiles are not applied; images with another one than sRGB are counted, and that is said."""

import io
import shutil
from functools import partial

import numpy as np
import pytest
from PIL import Image, ImageCms

from builders.icc import ADOBE, DISPLAY_P3, SRGB, colour_profile, grey_profile, srgb_curve
from distillscope.data import looking
from distillscope.data.decode import Decoding, decode
from distillscope.data.known_images import RECORD, KnownImages
from distillscope.data.splits import load_split
from distillscope.files.folders import cache_root

RGB = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8))
GREY = RGB.convert("L")
OTHERS = {"Adobe RGB": (RGB, colour_profile(ADOBE, 563 / 256)), "Display P3": (RGB, colour_profile(DISPLAY_P3, srgb_curve())),
          "gamma 1.8": (RGB, colour_profile(SRGB, 1.8)), "grey, gamma 2.2": (GREY, grey_profile(2.2))}
ALIKE = {"made sRGB": (RGB, colour_profile(SRGB, srgb_curve())), "grey of sRGB": (GREY, grey_profile(srgb_curve())),
         "LittleCMS's sRGB": (RGB, ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()),
         "damaged": (RGB, b"no profile" * 30), "none": (RGB, None)}


def encoded(image, profile, kind="PNG"):
    buffer = io.BytesIO()
    image.save(buffer, kind, icc_profile=profile)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("name", [*OTHERS, *ALIKE])
def test_an_image_with_another_profile_than_srgb_is_counted_and_its_numbers_stay(name, kind):
    image, profile = {**OTHERS, **ALIKE}[name]
    pixels, done = decode(encoded(image, profile, kind))
    assert dict(done) == ({"profile": 1} if name in OTHERS else {})
    assert np.array_equal(pixels, decode(encoded(image, None, kind))[0])


def test_cmyk_is_counted_as_such_alone_whatever_its_profile():
    assert dict(decode(encoded(RGB.convert("CMYK"), OTHERS["Adobe RGB"][1], "JPEG"))[1]) == {"cmyk": 1}


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Of nine photos three in Display P3, and one of those turned too."""
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "photos" / "test"
    folder.mkdir(parents=True)
    for i in range(9):
        image = Image.fromarray(np.random.default_rng(i).integers(0, 256, (9, 9, 3), dtype=np.uint8))
        exif = Image.Exif()
        exif[0x0112] = 6 if i == 8 else 1
        image.save(folder / f"{i}.png", icc_profile=OTHERS["Display P3"][1] if i >= 6 else None, exif=exif)
    return partial(load_split, "image_folder", {"path": str(tmp_path / "photos")}, "test")


SAID = "1 turned by EXIF, 3 with a colour profile other than sRGB, which is not applied"


def test_the_output_says_how_many(photos, capsys):
    assert photos().note.endswith(SAID) and SAID in capsys.readouterr().err


def test_what_is_remembered_of_files_says_it_too_also_where_an_older_version_remembered_them(photos, monkeypatch):
    monkeypatch.setattr(looking, "IN_MEMORY_BYTES", 500)
    assert photos().note == photos().note and photos().note.endswith(SAID)
    known = KnownImages(Decoding())
    assert known.records["nbytes"].tolist() == [243] * len(known.records) and len(known.records) >= 6
    older = np.dtype([("encoded", "V16"), ("content", "V16"), ("nbytes", "<i8"), ("done", "u1")])
    plain = known.records.copy()
    plain["more"] = 0
    assert older.itemsize == RECORD.itemsize and plain.view(older)["nbytes"].tolist() == [243] * len(plain)
    shutil.rmtree(cache_root() / "known_images")
    known._write(plain)
    decoded = []
    monkeypatch.setattr("distillscope.data.source.decode", lambda *a: decoded.append(1) or decode(*a))
    assert photos().note.endswith(SAID)
    assert len(decoded) < 9, "they are remembered"
