"""What lies on disk: images at a student's size, made once, within a limit; large arrays, of which no second is made."""

import resource
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from builders.tiny import TEACHER, teacher_weights, tiny_values
from distillscope.config.load import study_from
from distillscope.config.parts import Part, Teacher
from distillscope.config.study import Arm, Study
from distillscope.data import looking, source, splits
from distillscope.data.decode import decode
from distillscope.data.preprocess import Preprocess
from distillscope.data.source import Source
from distillscope.data.splits import Splits, load_split, looked_through, named_split
from distillscope.files import folders as rooms
from distillscope.files.folders import cache_root, room
from distillscope.students.load import StudentEncoder
from distillscope.study import one_look, student
from distillscope.study.measuring import save_embeddings
from distillscope.study.plan import plan_student
from distillscope.study.prepared import prepare_targets
from distillscope.study.run import run_study
from distillscope.study.student import distill_one
from distillscope.teachers import cache
from distillscope.teachers.encoder import Encoder, load_teacher
from distillscope.teachers.inventory import list_entries, prune_entries
from distillscope.teachers.one_pass import row_keeper
from distillscope.training import stored_images
from distillscope.training.stored_images import entry_of, is_worth_it, keeper_for, stored


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """60 images of train and 12 of test, of many sizes."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for split, count in (("train", 60), ("test", 12)):
        for i in range(count):
            place = root / split / "ab"[i % 2]
            place.mkdir(parents=True, exist_ok=True)
            shape = (16 + i % 5, 20 + i % 7, 3)
            Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(place / f"{i:02}.png")
    return root


@pytest.fixture
def streamed(monkeypatch):
    """Memory holds two images."""
    monkeypatch.setattr(looking, "IN_MEMORY_BYTES", 2_500)


@pytest.fixture
def decoded(monkeypatch):
    """One for each image that this process decodes."""
    calls = []
    monkeypatch.setattr(source, "decode", lambda encoded, decoding: calls.append(1) or decode(encoded, decoding))
    return calls


def train(photos, **options):
    return load_split("image_folder", {"path": photos}, "train", **options)


def values(photos, **changes):
    return tiny_values(data=[str(photos)], limit=None, limit_test=None, validation=6, seeds=[1],
                       teacher=[f"timm/{TEACHER}:{teacher_weights()}"], training={"epochs": 3, "batch_size": 8}, **changes)


def weights(folder):
    return (folder / "weights.safetensors").read_bytes()


@pytest.mark.parametrize("size", [9, 16, 24])
@pytest.mark.parametrize("mode", ["bicubic", "bilinear", "nearest", "nearest-exact"])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_student_sees_the_same_pixels(photos, streamed, size, mode, workers, monkeypatch):
    monkeypatch.setattr(stored_images, "SHARD_BYTES", 20 * 3 * size * size)  # several files
    found, sees = train(photos, workers=workers), Preprocess(size, interpolation=mode)
    kept = stored(found, sees, "photos")
    for some in ([3, 1, 4], [59, 0]):
        assert torch.equal(sees(kept.read(some)), sees(found.read(some)))
    assert kept.image(0).shape == (size, size, 3) and not kept.in_memory and (kept.ids == found.ids).all()
    assert torch.equal(sees(kept.take([7, 5]).read([1])), sees(found.read([5])))


def test_later_epochs_trials_and_commands_decode_nothing_and_train_the_same_student(photos, tmp_path, streamed, decoded):
    study = study_from(values(photos, noise={"sigmas": []}))
    distill_one(study, tmp_path / "streamed", device="cpu", keep_images=0)
    each_epoch = len(decoded)
    decoded.clear()
    distill_one(study, tmp_path / "kept", device="cpu")
    assert weights(tmp_path / "kept") == weights(tmp_path / "streamed")
    assert list(cache_root().glob("targets/*/train.npy")) and not list(cache_root().glob("targets/*/test.npy"))
    assert len(decoded) < each_epoch - 60  # once, and not in each of three epochs and their looks at the student's health
    decoded.clear()
    distill_one(study, tmp_path / "again", device="cpu")
    assert weights(tmp_path / "again") == weights(tmp_path / "streamed")
    assert len(decoded) <= 115  # five that tell the size of all, three while memory may hold them, 32 of each part as its mark
    metrics = [(tmp_path / name / "metrics.jsonl").read_text().count("\n") for name in ("streamed", "kept")]
    assert metrics == [3, 3]


def test_a_study_of_mixed_sizes_gives_the_same_numbers(photos, tmp_path):
    study = study_from(values(photos))
    kept = run_study(study, tmp_path / "kept", device="cpu", jobs=1, report=False)
    assert any(e["name"].startswith("images-16px") and e["rows"] == 60 for e in list_entries())
    read = run_study(study, tmp_path / "read", device="cpu", jobs=1, keep_images=0, report=False)
    columns = ["measure", "condition", "draw", "arm", "student"]
    one, other = (r.results[r.results.measure != "train.seconds"].sort_values(columns).reset_index(drop=True)
                  for r in (kept, read))
    assert one.equals(other)


def test_a_view_of_the_image_as_stored_reads_it_as_stored(photos, streamed):
    found, sees = train(photos), Preprocess(16)
    arms = {a.name: a for a in study_from(values(photos, arms=[
        {"name": "plain"}, {"name": "crop", "view": "crop_flip"},
        {"name": "stored", "view": {"name": "noise", "where": "source"}},
        {"name": "seen", "view": {"name": "noise", "where": "input"}}])).arms}
    assert [n for n in arms if is_worth_it(found, sees, arms[n])] == ["plain", "seen"]
    assert not is_worth_it(found, Preprocess(16, crop_fraction=0.875), arms["plain"])


@pytest.mark.parametrize("workers", [0, 1])
def test_images_are_kept_as_they_are_looked_through(photos, streamed, decoded, workers):
    sees, arm = Preprocess(9), Arm(name="a")
    named = named_split("image_folder", {"path": photos}, "train")
    source = looked_through(named, workers=workers, keepers=lambda found: [keeper_for(found, sees, arm, 50)])
    before = len(decoded)
    kept = stored(source, sees, "photos")
    assert len(decoded) == before and (workers or before == len(source))
    assert all((kept.image(i) == sees.shown(source.read([i]))[0].permute(1, 2, 0).numpy()).all() for i in range(len(source)))
    decoded.clear()
    looked_through(named, keepers=lambda found: [keeper_for(found, sees, arm, 50)])
    assert workers or len(decoded) <= 3  # while memory may hold the set; a worker hears of it later
    assert keeper_for(named, sees, arm, 1e-6) is None and keeper_for(named, sees, Arm(name="a", view="crop_flip"), 50) is None


@pytest.fixture
def looked(monkeypatch):
    """The files' bytes, one for each time that this process decodes them, but for the few that give sizes and fingerprints."""
    calls = []
    monkeypatch.setattr(source, "decode", lambda encoded, decoding: calls.append(encoded) or decode(encoded, decoding))
    monkeypatch.setattr(splits, "_sample_pixels", lambda found: b"")
    monkeypatch.setattr(student, "_say_if_enlarged", lambda spec, found: None)
    monkeypatch.setattr(one_look, "fits_memory", lambda found: False)
    return calls


def test_before_the_first_epoch_each_image_is_decoded_once_for_teacher_and_students(photos, tmp_path, streamed, looked):
    study = study_from(values(photos, noise={"sigmas": []}, students=[
        {"name": "paper_cnn", "label": "S", "width": 1, "image_size": 16},
        {"name": "paper_cnn", "label": "M", "width": 1, "image_size": 12}]))
    run_study(study, tmp_path / "run", device="cpu", jobs=1, report=False)
    train = {path.read_bytes() for path in (photos / "train").rglob("*.png")}
    assert sum(encoded in train for encoded in looked) == 60 + 2 + 2 * 6  # a check of two; each student measured on validation
    looked.clear()
    one = study_from(values(photos, noise={"sigmas": []}, arms=[{"name": "cosine", "objective": "cosine"}]))
    distill_one(one, tmp_path / "student", device="cpu")
    assert len(looked) <= 5  # all is there: two while memory might hold the set, and what checks look at
    (entry,) = [e for e in list_entries() if e["name"].startswith("timm") or "resnet" in e["name"]]
    assert entry["rows"] == 72


def test_rows_made_while_images_are_looked_through_are_those_that_the_teacher_gives(photos, streamed):
    teacher = load_teacher(Teacher.model_validate(f"timm/{TEACHER}:{teacher_weights()}"), "cpu", None)
    named = named_split("image_folder", {"path": photos}, "train")
    found = looked_through(named, keepers=lambda found: [row_keeper(teacher, found)])
    assert not teacher.num_missing(found)
    rows, wanted = teacher.rows(found), teacher.encode(found.read(range(60)))
    assert np.abs(rows - wanted).max() <= 1e-5 * np.abs(wanted).max()
    assert row_keeper(teacher, load_split("digits", {}, "test")) is None


def test_the_plan_tells_the_size_and_the_limit_falls_back_to_streaming(photos, tmp_path, streamed, decoded, capsys):
    study = study_from(values(photos))

    def planned(**options):
        return dict(plan_student(study, tmp_path / "no", device="cpu", **options))["images kept on disk"]

    assert planned().startswith("60 at 16 px, 0.00 GiB in ") and planned().endswith(", 0 there already")
    assert planned(keep_images=1e-6) == ("none (60 images at 16 px would take 0.00 GiB, more than --keep-images 1e-06): "
                                         "decoded again in each epoch")
    assert not (cache_root() / "images").exists()
    distill_one(study, tmp_path / "student", device="cpu", keep_images=1e-6)
    assert "more than --keep-images 1e-06: decoded again in each epoch" in " ".join(capsys.readouterr().err.split())
    assert not (cache_root() / "images").exists()
    distill_one(study, tmp_path / "other", device="cpu")
    assert planned().endswith(", 60 there already")


def test_what_is_damaged_is_named_and_made_again_and_only_what_is_new_is_made(photos, streamed, decoded, capsys, monkeypatch):
    found, sees = train(photos), Preprocess(16)
    stored(found.take(np.arange(40)), sees, "photos")
    decoded.clear()
    stored(found, sees, "photos")
    assert len(decoded) == 20
    path = sorted((cache_root() / "images").rglob("*.npy"))[0]
    path.write_bytes(path.read_bytes()[:-4] + b"abcd")
    monkeypatch.setattr(stored_images, "_entries", {})  # another command
    capsys.readouterr()
    kept = stored(found, sees, "photos")
    assert f"cache {path}: damaged (checksum differs); its rows are made again" in capsys.readouterr().err
    assert torch.equal(sees(kept.read([0, 59])), sees(found.read([0, 59])))


def test_an_interrupted_filling_goes_on(photos, streamed, monkeypatch):
    found, sees, shown = train(photos), Preprocess(16), Preprocess.shown
    seen = []

    def interrupted(self, images):
        seen.append(1)
        if len(seen) > 45:
            raise KeyboardInterrupt
        return shown(self, images)

    monkeypatch.setattr(Preprocess, "shown", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stored(found, sees, "photos")
    monkeypatch.setattr(Preprocess, "shown", shown)
    assert 16 <= sum(len(s.keys) for s in entry_of(sees).load().shards) < 60
    assert len(stored(found, sees, "photos")) == 60


def test_they_are_listed_and_pruned(photos, streamed):
    stored(train(photos), Preprocess(16), "photos")
    entry = next(e for e in list_entries() if e["name"].startswith("images-16px"))
    assert entry["rows"] == 60 and entry["perturbation"]["kind"] == "images at 16 px" and entry["bytes"] > 60 * 768
    assert prune_entries([entry["name"]])[0] == 1 and not entry["path"].exists()


def test_an_image_held_as_an_array_is_not_kept_twice(photos):
    pixels = np.zeros((4, 8, 8, 3), np.uint8)
    held = source.Source("s", "train", np.array(list("abcd")), pixels.__getitem__, pixels=pixels)
    assert not is_worth_it(held, Preprocess(16), study_from(values(photos)).arms[0])


DIM, COUNT = 512, 6000
WHOLE = DIM * COUNT * 4
"""Bytes of all embeddings, 12 MiB."""


def test_a_large_array_lies_on_disk_and_leaves_nothing_behind(cache_dir, monkeypatch):
    small = room((10, 3))
    monkeypatch.setattr(rooms, "IN_MEMORY_BYTES", 1000)
    large = room((1000, 3))
    assert small.base is None and isinstance(large.base, np.memmap) and not list(cache_dir.iterdir())
    large[:] = np.arange(3000).reshape(1000, 3)
    assert type(large) is np.ndarray and large[999, 2] == 2999


def test_without_room_on_the_disk_it_is_in_memory(monkeypatch):
    monkeypatch.setattr(rooms, "IN_MEMORY_BYTES", 1000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        assert room((1000, 3)).base is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Spread(torch.nn.Module):
    """(b, 3, 2, 2) -> (b, DIM), another row for another image."""

    def forward(self, x):
        return torch.cos(x.flatten(1).sum(1, keepdim=True) * torch.arange(1, DIM + 1) / 7)


@pytest.fixture
def items():
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 2, 2, 3), dtype=np.uint8)
    return Source("s", "train", np.array([str(i) for i in range(COUNT)]), pixels.__getitem__, pixels=pixels)


def test_memory_stays_flat_from_the_teacher_to_the_targets_and_the_written_embeddings(items, tmp_path, monkeypatch):
    for place, name, value in ((rooms, "IN_MEMORY_BYTES", 2**16), (cache, "ROWS", 256)):
        monkeypatch.setattr(place, name, value)
    monkeypatch.setattr("distillscope.targets.transforms.BLOCK", 256)
    defaults = cache.Entry.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "most_rows", 512)
    sees = Preprocess(2, mean=(0.5,) * 3, std=(0.5,) * 3)
    encoder = Encoder("spread", Spread(), DIM, sees, "0" * 16, batch_size=64)
    student = StudentEncoder("spread", Spread(), DIM, sees, "0" * 16)
    study = Study(name="x", data="digits", teacher="efficientnet_lite0", students="paper_cnn", arms=[Arm(name="a")])
    splits = Splits("x", items, None, replace(items.take(np.arange(20)), split="test"), items)
    splits.marks  # noqa: B018  images in memory are no part of this
    prepare_targets(study, encoder, Splits("y", splits.test, None, splits.test, splits.test), Part(name="none"), [])  # imports
    tracemalloc.start()
    try:
        prepared = prepare_targets(study, encoder, splits, Part(name="none"), list(study.arms))
        rows = encoder.rows(items)
        save_embeddings(tmp_path / "out", rows, items, np.float32)
        own = student.embed_source(items)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < WHOLE / 2
    for found in (prepared.rows("train"), np.load(tmp_path / "out" / "img_emb" / "img_emb_0.npy"), own):
        assert found.shape == (COUNT, DIM) and np.allclose(found, rows, atol=1e-4)
    assert np.allclose(rows[17], encoder.encode(items.read([17]))[0], atol=1e-5)
