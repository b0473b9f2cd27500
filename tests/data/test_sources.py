"""Every kind of source, and its decoder: stable ids, labels in range, the same pixels; what is broken is named and counted."""

from __future__ import annotations

import io
import json
import tarfile
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from builders import refused
from distillscope.config.resolve import named_dataset
from distillscope.data.decode import MAX_PIXELS, BrokenImage, Decoding, decode
from distillscope.data.looking import load_in_memory
from distillscope.data.source import Source, content_hash, read_batches, stratified
from distillscope.data.splits import load_split, load_splits
from distillscope.errors import UserError

NUM = 12


def png(index):
    rng = np.random.default_rng(index)
    out = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


def pixels(index):
    return np.random.default_rng(index).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def write_parquet(path, encoded, labels=None):
    columns = {"img": [{"bytes": e, "path": None} for e in encoded]}
    if labels is not None:
        columns["label"] = pa.array(labels)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def write_tar(path, items):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in items:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.fixture(params=["parquet", "image_folder", "webdataset"])
def folder(request, tmp_path):
    root = tmp_path / request.param
    if request.param == "parquet":
        write_parquet(root / "train.parquet", [png(i) for i in range(NUM)], [i % 3 for i in range(NUM)])
    elif request.param == "image_folder":
        for i in range(NUM):
            (root / "train" / "abc"[i % 3]).mkdir(parents=True, exist_ok=True)
            (root / "train" / "abc"[i % 3] / f"{i:03d}.PNG").write_bytes(png(i))
    else:
        for shard in range(2):
            write_tar(root / f"train-{shard}.tar", [
                (f"{i:03d}.{suffix}", content) for i in range(shard * 6, shard * 6 + 6)
                for suffix, content in (("png", png(i)), ("json", json.dumps({"label": i % 3}).encode()))])
    return root


def test_a_folder_is_read_for_what_it_is(folder):
    part = named_dataset(str(folder))
    assert part.name == folder.name
    source = load_split(part.name, part.settings, "train")
    assert len(source) == NUM and len(set(source.ids)) == NUM
    order = np.argsort([int(str(i).rsplit("/", 1)[-1].split(".")[0]) for i in source.ids])
    assert (source.pixels[order] == np.stack([pixels(i) for i in range(NUM)])).all()
    assert source.labels[order].tolist() == [i % 3 for i in range(NUM)]


def test_streamed_reading_gives_what_memory_gives(folder):
    part = named_dataset(str(folder))
    whole = load_split(part.name, part.settings, "train")
    from distillscope.registry import datasets

    streamed = datasets.call(part.name, part.settings, "train")
    for (indices, a), (_, b) in zip(read_batches(whole, [[3, 1], [5]]), read_batches(streamed, [[3, 1], [5]], workers=1),
                                    strict=True):
        assert (a == b).all() and len(indices) == len(a)


def test_a_corrupt_image_is_named_and_counted_and_only_left_out_on_request(tmp_path):
    encoded = [png(i) for i in range(NUM)]
    encoded[5] = encoded[5][:40]
    path = write_parquet(tmp_path / "d" / "train.parquet", encoded, [i % 3 for i in range(NUM)]).parent
    with refused(got="1 corrupt of 12: d/train/000005", advice="--corrupt skip"):
        load_split("parquet", {"path": path}, "train")
    kept = load_split("parquet", {"path": path}, "train", corrupt="skip")
    assert len(kept) == NUM - 1 and "1 corrupt image left out: d/train/000005" in kept.note


@pytest.mark.parametrize(("labels", "message"), [
    ([0.5] * NUM, "whole numbers without gaps"),
    ([-1, *range(NUM - 1)], "whole numbers from 0 to .*got -1"),
])
def test_labels_that_cannot_be(tmp_path, labels, message):
    path = write_parquet(tmp_path / "train.parquet", [png(i) for i in range(NUM)], labels).parent
    with pytest.raises(UserError, match=message):
        load_split("parquet", {"path": path}, "train")


def test_one_class_and_missing_things(tmp_path):
    for split in ("train", "test"):
        write_parquet(tmp_path / f"{split}.parquet", [png(i) for i in range(NUM)], [1] * NUM)
    with refused(where="train labels", got="one"):
        load_splits("x", "parquet", {"path": tmp_path})
    with refused(expected="validation.parquet", got="no such file"):
        load_split("parquet", {"path": tmp_path}, "validation")
    with refused(expected="'nose'", got="columns img, label"):
        load_split("parquet", {"path": tmp_path, "label": "nose"}, "train")
    with refused(where="data.path"):
        load_split("parquet", {"path": tmp_path / "absent"}, "train")
    (tmp_path / "train.parquet").write_bytes((tmp_path / "train.parquet").read_bytes()[:300])
    with refused(expected="a readable parquet file"):
        load_split("parquet", {"path": tmp_path}, "train")


def test_a_tar_that_was_cut_short(tmp_path):
    write_tar(tmp_path / "train-0.tar", [(f"{i}.png", png(i)) for i in range(4)])
    shard = tmp_path / "train-0.tar"
    shard.write_bytes(shard.read_bytes()[:1500])
    with refused(got="1 files and then a cut"):
        load_split("webdataset", {"path": tmp_path}, "train")


def test_images_without_labels(tmp_path):
    (tmp_path / "train").mkdir()
    for i in range(3):
        (tmp_path / "train" / f"{i}.png").write_bytes(png(i))
    source = load_split("image_folder", {"path": tmp_path}, "train")
    assert source.labels is None and len(source) == 3
    with refused(expected="a sub-folder 'test'"):
        load_split("image_folder", {"path": tmp_path}, "test")


def test_test_images_that_train_holds_are_counted(tmp_path, capfd):
    """Under other names, as copies of a photo are."""
    for split, numbers in (("train", range(12)), ("test", range(10, 16))):
        for i in numbers:
            place = tmp_path / split / "ab"[i % 2]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((4, 4, 3), 9 * i, np.uint8)).save(place / f"{split}{i}.png")
    splits = load_splits("photos", "image_folder", {"path": tmp_path})
    said = "2 of 6 images are in train too, pixel for pixel (first test/a/test10.png)"
    assert said in splits.test.note and said in " ".join(capfd.readouterr().err.split())
    assert load_splits("photos", "image_folder", {"path": tmp_path}, screen=4).test.note == ""


def test_a_stratified_part_keeps_the_proportions_and_is_the_same_each_time():
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    source = Source("s", "train", np.array([f"i{i}" for i in range(160)]), lambda i: None, labels)
    part = stratified(source, 32, "limit")
    assert np.bincount(labels[part]).tolist() == [20, 10, 2]
    assert (part == stratified(source, 32, "limit")).all() and (np.diff(part) > 0).all()
    assert (part != stratified(source, 32, "validation")).any()


def test_sizes_that_differ_are_kept_as_they_are():
    shapes = [(4, 6, 3), (8, 8, 3)]
    source = Source("s", "t", np.array(["a", "b"]), lambda i: np.full(shapes[i], 7, np.uint8))
    source = load_in_memory(source)
    assert source.pixels is None and source.in_memory and source.nbytes == 264
    assert [tuple(i.shape) for i in source.read([0, 1])] == [(3, 4, 6), (3, 8, 8)]


def test_the_content_names_an_image_whatever_its_layout():
    image = pixels(0)
    assert content_hash(image) == content_hash(np.asfortranarray(image)) != content_hash(image[::-1])


@pytest.mark.data
def test_cifar10_from_the_local_folder(cifar10_dir):
    source = load_split("cifar10", {}, "test", limit=100)
    assert source.pixels.shape == (100, 32, 32, 3) and np.bincount(source.labels).tolist() == [10] * 10
    assert source.class_names[3] == "cat"


def ids(source):
    return set(source.ids.tolist())


def test_a_screen_leaves_the_test_split_alone_and_shares_no_item():
    real = load_splits("digits", "digits", {}, validation=100)
    part = load_splits("digits", "digits", {}, validation=100, screen=200, test_split="no such split")
    assert len(part.test) == 200 and part.test.split == "train, held out"
    assert not ids(part.test) & ids(real.test)
    assert ids(part.train) | ids(part.validation) | ids(part.test) == ids(real.whole_train)
    assert len(part.train) + len(part.validation) + len(part.test) == len(real.whole_train)
    counts = np.bincount(part.test.labels)
    assert counts.max() - counts.min() <= 3  # stratified


def test_a_screen_takes_the_same_items_whatever_the_validation_part():
    first, second = (load_splits("digits", "digits", {}, validation=v, screen=200) for v in (0, 50))
    assert ids(first.test) == ids(second.test)


def test_a_screen_must_leave_items_to_train_on():
    with refused(where="screen", got="99999"):
        load_splits("digits", "digits", {}, screen=99999)


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


@pytest.mark.parametrize(("split", "advice"), [("val", "Add --split test to"), ("nope", "--split train or --split test")])
def test_digits_have_no_third_split(split, advice):
    with refused(where="data digits", got=split, advice=advice):
        load_split("digits", {}, split)


def test_damaged_exif_costs_no_image():
    data = encoded(RGB, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert np.array_equal(decode(data)[0], np.asarray(opened(data).convert("RGB")))


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


@pytest.mark.parametrize("image", [GREY, (GREY // 257).astype(np.uint8), (GREY / 65535).astype(np.float32)])
def test_a_tiff_whose_nought_is_white_is_no_negative(image):
    """Pillow turns grey of 8 bits over, and gives deeper ones as they are stored."""
    data = encoded(Image.fromarray(image), "TIFF", tiffinfo={262: 0})
    with Image.open(io.BytesIO(data)) as stored:
        (offset,), bits = stored.tag_v2[273], image.dtype.itemsize * 8
        assert stored.tag_v2[262] == 0
    raw = np.frombuffer(data[offset : offset + image.nbytes], image.dtype).reshape(image.shape)
    light = 1 - raw if image.dtype.kind == "f" else 1 - raw / (2**bits - 1)
    assert np.abs(decode(data)[0][..., 0] - light * 255).max() <= 0.51
    assert decode(data)[0].std() > 10


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
        pixels = decode(bytes(spoilt[: max(1, cut % (2 * len(spoilt)))]))[0]
    except BrokenImage:
        return
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3


def test_a_colour_that_is_none():
    with refused(where="data.background", got="'whitish'"):
        Decoding("whitish")
