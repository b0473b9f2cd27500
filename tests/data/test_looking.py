"""A set is scanned once, in worker processes; JPEGs are decoded at a part of their size where that is asked for."""

import io
import multiprocessing
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import _compute_resized_output_size

from builders import refused, tiny
from distillscope.config.parts import Teacher
from distillscope.config.resolve import named_dataset
from distillscope.data import looking, source
from distillscope.data.decode import Decoding, decode
from distillscope.data.known_images import MOST_FILES, KnownImages, record_of
from distillscope.data.looking import fits_memory, load_in_memory
from distillscope.data.preprocess import REDUCED, SMOOTH, Preprocess, coarse_for, reduced_for
from distillscope.data.reduced import same_shape
from distillscope.data.source import Source, content_hash, encoded_hash, read_batches
from distillscope.data.splits import load_split, load_splits, looked_through, named_split
from distillscope.data.views import View
from distillscope.files.folders import cache_root
from distillscope.teachers.cache import row_keys
from distillscope.teachers.encoder import load_teacher
from distillscope.teachers.inventory import list_entries, prune_entries


@pytest.fixture
def photos(tmp_path):
    """23 images without labels in train/, of two sizes, one turned by EXIF; and 12 in test/."""
    for split, count in (("train", 23), ("test", 12)):
        (tmp_path / "photos" / split).mkdir(parents=True)
        for i in range(count):
            exif = Image.Exif()
            if i == 4:
                exif[0x0112] = 6
            pixels = np.random.default_rng([i, count]).integers(0, 256, (9, 8 + i % 2, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / split / f"{i:02}.png", exif=exif)
    return tmp_path / "photos"


@pytest.fixture
def streamed(monkeypatch):
    """Memory holds three images: the fourth is the last whose pixels are asked for."""
    monkeypatch.setattr(looking, "IN_MEMORY_BYTES", 700)


@pytest.fixture
def decoded(monkeypatch):
    """Names of the processes that decode, one per image."""
    calls = []
    monkeypatch.setattr(source, "decode", lambda encoded, decoding: calls.append(os.getpid()) or decode(encoded, decoding))
    return calls


def look(path, **options):
    return load_split("image_folder", {"path": path}, "train", **options)


def names(found):
    return [name.tobytes() for name in found.names()]


def test_workers_find_what_one_process_finds_and_it_decodes_nothing(photos, streamed, decoded):
    (photos / "train" / "07.png").write_bytes(b"")
    alone = look(photos, corrupt="skip")
    assert len(decoded) == 23 and alone.note == "1 turned by EXIF; 1 corrupt image left out: train/07.png (an empty file)"
    assert names(alone) == [content_hash(alone.image(i)) for i in range(22)]
    decoded.clear()
    shutil.rmtree(cache_root() / "known_images")
    several = look(photos, corrupt="skip", workers=2)
    assert not decoded and not several.in_memory and several.workers == several.take([1]).workers == 2
    assert (several.note, several.ids.tolist(), names(several)) == (alone.note, alone.ids.tolist(), names(alone))
    with refused(got="1 corrupt of 23: train/07.png (an empty file)"):
        look(photos, workers=2)


def test_workers_give_a_set_that_memory_holds_too(photos):
    alone, several = look(photos), look(photos, workers=2)
    assert alone.in_memory and several.in_memory and names(alone) == names(several) and alone.note == several.note
    assert all((alone.image(i) == several.image(i)).all() for i in range(23))


def test_files_that_were_decoded_once_are_known_by_their_bytes(photos, streamed, decoded, tmp_path, capsys):
    first = look(photos)
    assert len(decoded) == 23
    shutil.copytree(photos, tmp_path / "copy")
    decoded.clear()
    again = look(tmp_path / "copy")
    assert len(decoded) == 4  # as long as memory might hold the set, its pixels are wanted
    assert names(again) == names(first) and again.note == first.note == "1 turned by EXIF"
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "copy" / "train" / "20.png")
    decoded.clear()
    assert names(look(tmp_path / "copy"))[20] == content_hash(np.zeros((9, 9, 3), np.uint8)) and len(decoded) == 5
    decoded.clear()
    as_stored = load_split("image_folder", {"path": photos, "exif": False}, "train")
    assert len(decoded) == 23 and names(as_stored)[4] != names(first)[4]  # another way to decode is another image


def test_what_was_added_since_is_found_after_a_refresh_also_where_files_were_joined(tmp_path):
    mine, theirs = KnownImages(Decoding(), tmp_path), KnownImages(Decoding(), tmp_path)
    for number in range(2 * MOST_FILES + 3):
        theirs.add([record_of(bytes([number]) * 16, bytes([number + 100]) * 16, number, {})])
        mine.refresh()
        found = [mine.find(bytes([n]) * 16) for n in range(number + 2)]
        assert [f and (f[0][0], f[1]) for f in found] == [*((n + 100, n) for n in range(number + 1)), None]
    assert len(mine.records) == 2 * MOST_FILES + 3 == len(KnownImages(Decoding(), tmp_path).records)


def test_damaged_records_are_named_and_the_images_decoded_again(photos, streamed, decoded, capsys):
    first = look(photos)
    (path,) = (cache_root() / "known_images").rglob("*.records")
    path.write_bytes(path.read_bytes()[:-3] + b"abc")
    decoded.clear()
    capsys.readouterr()
    assert names(look(photos)) == names(first) and len(decoded) == 23
    assert f"cache {path}: damaged (checksum differs); its images are decoded again" in capsys.readouterr().err


def test_what_is_known_is_listed_and_pruned(photos, streamed):
    look(photos)
    (entry,) = list_entries()
    assert entry["name"].startswith("known-") and entry["rows"] == 19 and entry["perturbation"]["kind"] == "known images"
    assert prune_entries() == (1, entry["bytes"]) and not list_entries()


def test_many_records_end_in_few_files_and_each_is_found():
    known = KnownImages(Decoding())
    files = [bytes([i, i // 7]) for i in range(200)]
    records = [record_of(encoded_hash(f), encoded_hash(b"pixels" + f), i, {"turned": 1, "profile": 1} if i % 2 else {})
               for i, f in enumerate(files)]
    known.add(records)
    for i in range(0, 60, 3):
        known.add(records[i : i + 5])  # known before: the joined file is the first one
    assert len(list(known.folder.glob("*.records"))) <= MOST_FILES
    again = KnownImages(Decoding())
    for i, f in enumerate(files):
        done = {"turned": 1, "profile": 1} if i % 2 else {}
        assert again.find(encoded_hash(f)) == (encoded_hash(b"pixels" + f), i, done, True)
    assert again.find(encoded_hash(b"another")) is None and KnownImages(Decoding("black")).find(encoded_hash(files[0])) is None


def test_a_cache_that_cannot_be_written_costs_a_line(photos, streamed, cache_dir, capsys):
    (cache_dir / "known_images").write_text("a file where the folder should be")
    assert len(look(photos)) == 23
    assert "what was found of images is not kept" in capsys.readouterr().err


def test_an_image_that_vanishes_is_one_line_from_a_worker_too(photos, streamed):
    found = look(photos)
    (photos / "train" / "05.png").unlink()
    for workers in (0, 1):
        with refused(where="photos/train item train/05.png", got="no such file"):
            list(read_batches(found, [[4], [5], [6]], workers))


def test_all_that_is_read_of_a_study_is_decoded_by_the_workers(photos, streamed, decoded):
    splits = load_splits("photos", "image_folder", {"path": photos}, validation=5, workers=1)
    for part in (splits.train, splits.validation, splits.test):
        for indices, images in read_batches(part, [[0, 2], [1]]):
            assert [(np.asarray(i.permute(1, 2, 0)) == part.image(j)).all() for i, j in zip(images, indices, strict=True)]
    assert len(decoded) == 9  # those that this test asked for by itself


def _in_spawned_process(path, queue):
    looking.IN_MEMORY_BYTES = 700
    found = look(path, workers=1)
    queue.put((found.in_memory, sum(len(images) for _, images in read_batches(found, [[0, 2], [1]]))))


def test_a_process_of_a_run_has_workers_of_its_own(photos):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_in_spawned_process, args=(photos, queue))
    process.start()
    assert queue.get(timeout=120) == (False, 3)
    process.join()


def test_an_image_is_hashed_once_whatever_the_views_and_parts(monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
    seen = []
    monkeypatch.setattr(source, "content_hash", lambda image: seen.append(1) or content_hash(image))
    given = load_in_memory(Source("s", "train", np.array(list("abcdef")), pixels.__getitem__, pixels=pixels))
    for part in (given, given.take([4, 2])):
        for view in (None, View("crop_flip", {}, 0, 0), View("crop_flip", {}, 0, 1)):
            assert len(row_keys(part, view is not None)[1]) == len(part)
    assert len(seen) == 6


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


def test_a_reduced_image_is_resized_to_the_shape_of_the_whole_one():
    rng, sides, same = np.random.default_rng(0), (256, 224, 96), 0
    for width, height in rng.integers(1536, 5000, (300, 2)):
        reduced = (int(width + 1) // 2, int(height + 1) // 2)
        found = same_shape((width, height), reduced, sides)
        assert max(abs(a - b) for a, b in zip(found, reduced, strict=True)) <= 2
        for side in sides:
            one, other = (_compute_resized_output_size(size[::-1], [side]) for size in ((width, height), found))
            same += one == other
    assert same >= 0.99 * 900  # as they come it is 95 %
    encoded = io.BytesIO()
    whole = Image.fromarray(load_sample_image("china.jpg")).resize((2571, 1679), Image.Resampling.BICUBIC)
    whole.save(encoded, "JPEG", quality=90)
    sees = Preprocess(224, crop_fraction=0.875)
    ways = Decoding(), Decoding().for_models(*reduced_for([sees])), Decoding(min_side=768)
    one, other, moved = (torch.from_numpy(looking.shown_of(sees, decode(encoded.getvalue(), way)[0])).float() for way in ways)
    assert float((one - other).abs().mean()) < 0.5 < 2 < float((one - moved).abs().mean())


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


def test_what_is_left_open_is_decoded_as_small_as_models_allow_and_named_by_its_file(tmp_path, monkeypatch, decoded):
    (tmp_path / "photos" / "train").mkdir(parents=True)
    for i, width in enumerate((640, 2_400)):
        (tmp_path / "photos" / "train" / f"{i}.jpg").write_bytes(photo("china.jpg", width))
    named = {side: named_split("image_folder", {"path": tmp_path / "photos", "min_side": side}, "train")
             for side in (None, "whole", 768)}
    whole = looked_through(named[None])
    assert [whole.image(i).shape for i in range(2)] == [(427, 640, 3), (1601, 2400, 3)]
    reduced = named[None].for_models(768)
    assert reduced.image(1).shape == (801, 1200, 3) and named["whole"].for_models(768).image(1).shape == (1601, 2400, 3)
    assert named[768].for_models(1200).image(1).shape == (801, 1200, 3) and named[None].for_models(None) is named[None]
    found = {True: names(looked_through(reduced))}
    assert not fits_memory(Source("s", "train", np.arange(9e5), lambda i: whole.image(0))) and fits_memory(whole)
    monkeypatch.setattr(looking, "IN_MEMORY_BYTES", 1000)
    decoded.clear()
    found[False] = names(looked_through(reduced))
    assert found[True] == found[False] == names(reduced) == names(named[768]) and len(decoded) == 2 + 4
    assert found[True][0] == names(whole)[0] and found[True][1] != names(whole)[1]
    assert found[True][1] != content_hash(reduced.image(1))
    assert names(load_split("image_folder", {"path": tmp_path / "photos", "min_side": 768, "exif": False}, "train"))[1] \
        != found[True][1]


def test_an_image_too_small_to_be_reduced_is_known_from_those_who_decode_whole(photos, streamed, decoded):
    first = look(photos)
    decoded.clear()
    again = looked_through(named_split("image_folder", {"path": photos}, "train").for_models(768))
    assert len(decoded) == 4 and names(again) == names(first)  # as long as memory might hold the set


def test_what_was_remembered_of_a_negative_is_not_believed(tmp_path, streamed):
    """TIFFs of 16 bits whose 0 is white were named by their negatives: embeddings of those stood under such names."""
    for i in range(6):
        grey = np.random.default_rng(i).integers(0, 65536, (9, 9), dtype=np.uint16)
        Image.fromarray(grey).save(tmp_path / f"{i}.tif", tiffinfo={262: 0} if i % 2 else {})
    wanted = load_split("image_folder", {"path": str(tmp_path)}, "test").hashes
    records, wrong = [], bytes(16)
    for path in sorted(tmp_path.glob("*.tif")):
        records.append(record_of(encoded_hash(path.read_bytes()), wrong, 243, {"sixteen": 1}))
    shutil.rmtree(cache_root() / "known_images")
    KnownImages(Decoding()).add(records)
    again = load_split("image_folder", {"path": str(tmp_path)}, "test").hashes
    assert (again[1::2] == wanted[1::2]).all() and again[4].tobytes() == wrong, "others are remembered"
