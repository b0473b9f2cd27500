"""The one decoder against Pillow's own functions: turned, on a background, scaled, converted; what is broken says why."""

import io
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from builders.refusals import refused
from distillscope.data.decode import MAX_PIXELS, BrokenImage, Decoding, decode, decode_image

RNG = np.random.default_rng(0)
RGB = Image.fromarray(RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8))
GREY = (np.arange(54).reshape(6, 9) * 1213).astype(np.uint16)


def encoded(image, kind="PNG", **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def opened(data):
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize(("kind", "options"),
                         [("PNG", {}), ("JPEG", {}), ("WEBP", {"lossless": True}), ("BMP", {}), ("TIFF", {}), ("GIF", {})])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1"])
def test_a_plain_image_has_the_bytes_of_pillows_conversion_and_nothing_was_done(kind, options, mode):
    if kind in ("JPEG", "WEBP") and mode in ("P", "1"):
        return
    data = encoded(RGB.convert(mode), kind, **options)
    pixels, done = decode(data)
    assert not done and pixels.flags.writeable and pixels.dtype == np.uint8
    assert np.array_equal(pixels, np.asarray(opened(data).convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_an_image_stands_as_exif_says(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(RGB, kind, exif=exif)
    pixels, done = decode(data)
    assert np.array_equal(pixels, np.asarray(ImageOps.exif_transpose(opened(data)).convert("RGB")))
    assert dict(done) == ({"turned": 1} if orientation > 1 else {})
    if kind != "TIFF":  # Pillow itself turns those
        assert np.array_equal(decode(data, Decoding(exif=False))[0], np.asarray(opened(data).convert("RGB")))


def test_damaged_exif_costs_no_image():
    data = encoded(RGB, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert np.array_equal(decode_image(data), np.asarray(opened(data).convert("RGB")))


def transparent(mode):
    rgba = RGB.convert("RGBA")
    rgba.putalpha(Image.fromarray(np.linspace(0, 255, 54).reshape(6, 9).astype(np.uint8)))
    return encoded(rgba.convert(mode)) if mode in ("RGBA", "LA") else encoded(rgba, "WEBP", lossless=True, exact=True)


@pytest.mark.parametrize("background", ["white", "black", "#0a141e"])
@pytest.mark.parametrize("data", [
    transparent("RGBA"), transparent("LA"), transparent("WEBP"),
    encoded(RGB.convert("P"), transparency=RGB.convert("P").getpixel((0, 0))),
    encoded(RGB.convert("P"), transparency=bytes(range(256))),
    encoded(RGB.convert("P"), "GIF", transparency=RGB.convert("P").getpixel((1, 1))),
    encoded(RGB, transparency=RGB.getpixel((2, 2))), encoded(RGB.convert("L"), transparency=RGB.convert("L").getpixel((2, 2))),
], ids=["RGBA", "LA", "WebP", "P one colour", "P table", "GIF", "RGB tRNS", "L tRNS"])
def test_what_is_transparent_shows_the_background(data, background):
    pixels, done = decode(data, Decoding(background))
    rgba = np.asarray(opened(data).convert("RGBA")).astype(float)
    alpha, behind = rgba[..., 3:] / 255, np.array(Decoding(background).rgb)
    assert np.abs(pixels - (rgba[..., :3] * alpha + behind * (1 - alpha))).max() <= 1
    assert dict(done) == {"alpha": 1}


def test_alpha_that_hides_nothing_changes_nothing():
    pixels, done = decode(encoded(RGB.convert("RGBA")))
    assert not done and np.array_equal(pixels, np.asarray(RGB))


@pytest.mark.parametrize(("kind", "image"), [("PNG", GREY), ("TIFF", GREY), ("PPM", GREY), ("TIFF", GREY.astype(np.int32))])
def test_sixteen_bits_are_scaled_by_their_whole_range(kind, image):
    pixels, done = decode(encoded(Image.fromarray(image), kind))
    assert np.array_equal(pixels, np.repeat(np.rint(GREY / 257).astype(np.uint8)[..., None], 3, axis=-1))
    assert dict(done) == {"sixteen": 1}


def test_sixteen_bits_with_a_transparent_grey():
    pixels, _ = decode(encoded(Image.fromarray(GREY), transparency=int(GREY[2, 3])))
    assert pixels[2, 3].tolist() == [255] * 3 and pixels[0, 0].tolist() == [0] * 3


def test_floats_are_read_from_nought_to_one_and_else_refused():
    values = RNG.random((6, 9)).astype(np.float32)
    pixels, done = decode(encoded(Image.fromarray(values), "TIFF"))
    assert np.array_equal(pixels[..., 0], np.rint(values * 255)) and dict(done) == {"float": 1}
    for wrong, words in ((values * 255, "floats from .* to 25"), (values - 0.5, "floats from -0"),
                         (np.full_like(values, np.nan), "nan")):
        with pytest.raises(BrokenImage, match=words):
            decode(encoded(Image.fromarray(wrong), "TIFF"))
    with pytest.raises(BrokenImage, match="whole numbers from 0 to 70000"):
        decode(encoded(Image.fromarray(np.array([[0, 70000]], np.int32)), "TIFF"))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_converted(kind):
    """Pillow writes JPEG as Adobe does, inverted."""
    data = encoded(RGB.convert("CMYK"), kind)
    pixels, done = decode(data)
    assert np.array_equal(pixels, np.asarray(opened(data).convert("RGB"))) and dict(done) == {"cmyk": 1}
    assert np.abs(pixels.astype(int) - np.asarray(RGB)).mean() < 40  # inverted it would be 85


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_stands_for_an_animation(kind):
    data = encoded(RGB, kind, save_all=True, append_images=[ImageOps.invert(RGB)],
                   **({"lossless": True} if kind == "WEBP" else {}))
    pixels, done = decode(data)
    assert np.array_equal(pixels, np.asarray(opened(data).convert("RGB"))) and done["frames"] == 1


@pytest.mark.parametrize("size", [(10_000, 9_000), (15_000, 15_000)])
def test_a_decompression_bomb_is_refused_at_the_size_that_pillow_warns_of(size, monkeypatch):
    header = bytearray(encoded(Image.new("L", (1, 1)), "BMP"))
    header[18:26] = np.array(size, "<i4").tobytes()
    assert np.prod(size) > MAX_PIXELS
    with warnings.catch_warnings(), pytest.raises(BrokenImage, match="pixels|Bomb"):
        warnings.simplefilter("error")
        decode(bytes(header))


@pytest.mark.parametrize(("data", "words"), [
    (b"", "an empty file"), (b"no image", "no image in a known format"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image"),
    (encoded(RGB)[:60], "truncated"), (encoded(RGB, "JPEG")[:400], "Truncated"),
])
def test_what_is_no_image_says_why(data, words):
    with pytest.raises(BrokenImage, match=words):
        decode(data)


WHOLE = [encoded(RGB), encoded(RGB, "JPEG"), encoded(RGB, "GIF"), encoded(RGB, "TIFF"), encoded(RGB, "WEBP"),
         encoded(RGB, "BMP"),
         transparent("RGBA"), encoded(Image.fromarray(GREY))]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.sampled_from(WHOLE), st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=6),
       st.integers(0, 10_000))
def test_any_bytes_give_an_image_or_a_broken_one(data, changes, cut):
    spoilt = bytearray(data)
    for at, value in changes:
        spoilt[at % len(spoilt)] = value
    try:
        pixels = decode_image(bytes(spoilt[: max(1, cut % (2 * len(spoilt)))]))
    except BrokenImage:
        return
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3


def test_a_colour_that_is_none():
    with refused(where="data.background", got="'whitish'"):
        Decoding("whitish")
