"""Each (image, view) goes through the teacher once, and what comes back is what a live teacher gives."""

import hashlib
import json
import multiprocessing
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from builders import refused
from distillscope.config.parts import NoiseSpec, Part
from distillscope.config.study import Arm, Study
from distillscope.data import looking
from distillscope.data.noise import Noise
from distillscope.data.source import Source
from distillscope.data.splits import Splits, load_split
from distillscope.data.views import View
from distillscope.study.prepared import prepare_targets
from distillscope.teachers import cache
from distillscope.teachers.cache import embed, entry_path, missing_rows
from distillscope.teachers.encoder import Encoder, load_state, read_state
from distillscope.teachers.inventory import list_entries, prune_entries
from distillscope.teachers.models import timm as timm_teacher


def images(count, start=0):
    pixels = np.stack([np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
                       for i in range(start, start + count)])
    return Source("s", "train", np.array([f"i{i}" for i in range(start, start + count)]), pixels.__getitem__, None, None,
                  pixels)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    import timm
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("weights") / "teacher.safetensors"
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet", pretrained=False).state_dict(), path)
    return path


@pytest.fixture
def encoder(weights):
    teacher = timm_teacher(model="test_resnet", weights=weights).to(torch.device("cpu"))
    teacher.batch_size, teacher.seen = 4, 0
    encode = teacher.encode

    def counted(batch, ids, perturbation=None):
        teacher.seen += len(ids)
        return encode(batch, ids, perturbation)

    teacher.encode = counted
    return teacher


def test_embedded_once_and_then_found(encoder):
    source = images(10)
    first = embed(encoder, source)
    assert encoder.seen == 10 and first.shape == (10, encoder.dim) and first.dtype == np.float32
    assert (embed(encoder, source) == first).all() and encoder.seen == 10
    assert missing_rows(encoder, source) == 0 and missing_rows(encoder, images(12)) == 2


def test_an_entry_of_the_first_versions_is_found_whatever_looked_the_set_through(encoder, tmp_path, monkeypatch):
    (tmp_path / "photos" / "train").mkdir(parents=True)
    stored = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    Image.fromarray(stored).save(tmp_path / "photos" / "train" / "0.png")
    Image.fromarray(stored[::-1].copy()).save(tmp_path / "photos" / "train" / "1.png")
    # Names as they were written on 2026-11-23: of the decoded pixels; under a view of the name and the id.
    name = hashlib.blake2b(b"(4, 4, 3)" + stored.tobytes(), digest_size=16).digest()
    assert name.hex() == "20bf1909a7cd034ce5059a16f6ad57e1"
    under_view = hashlib.blake2b(name + b"train/0.png", digest_size=16).digest()
    for key, perturbation in ((name, None), (under_view, View("crop_flip", {}, 1, 0))):
        folder, described = entry_path(encoder, perturbation)
        for part in ("img_emb", "metadata"):
            (folder / part).mkdir(parents=True)
        (folder / "entry.json").write_text(json.dumps(described))
        np.save(folder / "img_emb" / "img_emb_0.npy", np.full((1, encoder.dim), 7, np.float32))
        table = pa.table({"image_path": ["elsewhere/x"], "image_hash": [name.hex()], "key": [key]})
        mark = hashlib.blake2b((folder / "img_emb" / "img_emb_0.npy").read_bytes(), digest_size=16).hexdigest()
        pq.write_table(table.replace_schema_metadata({"checksum": mark}), folder / "metadata" / "metadata_0.parquet")
    for limit, workers in ((2**31, 0), (0, 0), (0, 2), (0, 0)):  # held in memory; streamed; by workers; by its known files
        monkeypatch.setattr(looking, "IN_MEMORY_BYTES", limit)
        found = load_split("image_folder", {"path": tmp_path / "photos"}, "train", workers=workers)
        assert found.in_memory == (limit > 0)
        for perturbation in (None, View("crop_flip", {}, 1, 0)):
            assert (embed(encoder, found, perturbation)[0] == 7).all() and missing_rows(encoder, found, perturbation) == 0
    assert encoder.seen == 2  # the other image, clean and in its view


def test_appended_data_embeds_only_what_is_new_in_any_order(encoder):
    first = embed(encoder, images(6))
    longer = embed(encoder, images(9).take([8, 0, 7, 1, 6, 2, 3, 4, 5]))
    assert encoder.seen == 9 and (longer[[1, 3, 5, 6, 7, 8]] == first).all()


def test_an_image_that_stands_twice_needs_one_forward_but_not_under_noise(encoder):
    source = images(4)
    twice = Source("s", "train", np.array(list("abcdefgh")), None, None, None, np.concatenate([source.pixels] * 2))
    twice = Source("s", "train", twice.ids, twice.pixels.__getitem__, None, None, twice.pixels)
    z = embed(encoder, twice)
    assert encoder.seen == 4 and (z[:4] == z[4:]).all()
    noisy = embed(encoder, twice, Noise(0.1))
    assert encoder.seen == 12 and (noisy[:4] != noisy[4:]).any()


@pytest.mark.parametrize("perturbation", [View("crop_flip", {}, 42, 3), Noise(0.1), Noise(0.1, NoiseSpec(where="input"))])
def test_cached_targets_are_what_a_live_teacher_gives(encoder, perturbation):
    source = images(10)
    embed(encoder, source, perturbation)
    cached = embed(encoder, source, perturbation)
    live = encoder.encode(source.read(range(10)), source.ids, perturbation)
    cosine = (cached * live).sum(1) / np.linalg.norm(cached, axis=1) / np.linalg.norm(live, axis=1)
    assert cosine.min() > 0.9999
    clean = embed(encoder, source)
    assert np.abs(clean - cached).max() > 1e-4


def test_an_interrupted_run_keeps_what_was_done(encoder, monkeypatch):
    encode = encoder.encode

    def fails(batch, ids, perturbation=None):
        if "i8" in ids:
            raise KeyboardInterrupt
        return encode(batch, ids, perturbation)

    encoder.encode = fails
    with pytest.raises(KeyboardInterrupt):
        embed(encoder, images(12))
    encoder.encode = encode
    assert missing_rows(encoder, images(12)) == 4
    embed(encoder, images(12))
    assert encoder.seen == 12


def test_a_cache_that_is_deleted_while_it_fills_gives_no_rows_that_nobody_made(encoder, monkeypatch, cache_dir):
    monkeypatch.setattr(cache, "FLUSH_SECONDS", 0.0)
    encode, times = encoder.encode, []

    def deleting(batch, ids, perturbation=None):
        times.append(1)
        if len(times) == 3:
            for folder in ("metadata", "img_emb"):
                shutil.rmtree(entry_path(encoder, None)[0] / folder)
        return encode(batch, ids, perturbation)

    encoder.encode = deleting
    with refused(got="8 of 16 deleted or damaged meanwhile"):
        embed(encoder, images(16))
    assert embed(encoder, images(16)).shape == (16, encoder.dim)


def test_many_flushes_end_as_one_shard(encoder, monkeypatch):
    monkeypatch.setattr(cache, "FLUSH_SECONDS", 0.0)
    z = embed(encoder, images(12))
    folder = entry_path(encoder, None)[0]
    assert len(list(folder.glob("img_emb/*.npy"))) == len(list(folder.glob("metadata/*.parquet"))) == 1
    assert (embed(encoder, images(12)) == z).all() and encoder.seen == 12


def test_a_damaged_shard_is_named_and_made_again(encoder, capsys):
    z = embed(encoder, images(5))
    shard = next(entry_path(encoder, None)[0].glob("img_emb/*.npy"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 255
    shard.write_bytes(content)
    assert (embed(encoder, images(5)) == z).all() and encoder.seen == 10
    assert "damaged (checksum differs)" in capsys.readouterr().err


def test_the_key_knows_weights_preprocessing_precision_and_perturbation(encoder):
    def path(perturbation=None, **changes):
        fields = {k: getattr(encoder, k) for k in ("name", "module", "dim", "preprocess", "weights_hash", "precision")}
        return entry_path(Encoder(**{**fields, **changes}), perturbation)[0]

    from dataclasses import replace

    different = {path(), path(weights_hash="x"), path(precision="bfloat16"),
                 path(preprocess=replace(encoder.preprocess, size=99)),
                 path(Noise(0.1)), path(Noise(0.1, draw=1)), path(View("crop_flip", {}, 1, 0)),
                 path(View("crop_flip", {}, 1, 1))}
    assert len(different) == 8
    assert path(View("crop_flip", {}, 1, 0)) == path(View("crop_flip", {"padding": 4}, 1, 0))


def test_listing_and_pruning(encoder):
    embed(encoder, images(3))
    embed(encoder, images(3), Noise(0.1))
    entries = list_entries()
    assert [e["rows"] for e in entries] == [3, 3] and sorted(e["perturbation"] is None for e in entries) == [False, True]
    with refused(got="'nonesuch'"):
        prune_entries(["nonesuch"])
    assert prune_entries([entries[0]["name"]])[0] == 1 and len(list_entries()) == 1


def test_targets_are_listed_and_pruned_too(encoder, cache_dir):
    few = images(12)
    study = Study(name="x", data="digits", teacher="efficientnet_lite0", students="paper_cnn", arms=[Arm(name="a")])
    prepared = prepare_targets(study, encoder, Splits("x", few, None, few.take(np.arange(4)), few), Part(name="whiten", dim=2),
                               list(study.arms))
    (entry,) = [e for e in list_entries() if (e["perturbation"] or {}).get("kind") == "target"]
    assert entry["path"] == prepared.folder and entry["rows"] == 16 and entry["teacher"] == encoder.name
    assert entry["perturbation"]["name"] == "whiten" and entry["bytes"] > 16 * 2 * 4
    assert prune_entries([entry["name"]]) == (1, entry["bytes"]) and not prepared.folder.exists() and list_entries()


def _embed_in_process(weights, queue):
    torch.set_num_threads(1)  # threads of the first process are not there after a fork
    teacher = timm_teacher(model="test_resnet", weights=weights).to(torch.device("cpu"))
    teacher.batch_size = 4
    encode, count = teacher.encode, 0

    def counted(*args):
        nonlocal count
        count += len(args[1])
        return encode(*args)

    teacher.encode = counted
    z = embed(teacher, images(40))
    queue.put((count, float(z.sum())))


@pytest.mark.slow
def test_two_processes_that_want_one_entry_share_the_work(weights):
    context = multiprocessing.get_context("fork")  # begins at once: the two meet
    queue = context.Queue()
    processes = [context.Process(target=_embed_in_process, args=(weights, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    found = [queue.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(count for count, _ in found) == [0, 40] and found[0][1] == found[1][1]


# -- encoders ------------------------------------------------------------------------------------------------------------


def test_a_nan_names_the_image(encoder):
    encoder.module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * encoder.preprocess.size**2, 4))
    encoder.module[1].weight.data.fill_(float("nan"))
    with refused(got="NaN or infinity for 4 of"):
        embed(encoder, images(4))


class _Evil:
    def __reduce__(self):
        import os

        return os.mkdir, (self.path,)


def test_weights_are_never_executed(tmp_path):
    import pickle

    evil = _Evil()
    evil.path = str(tmp_path / "executed")
    for name in ("evil.pt", "evil.pth", "evil.bin"):
        (tmp_path / name).write_bytes(pickle.dumps(evil))
        with refused(where="weights"):
            read_state(tmp_path / name)
    torch.save({"w": evil}, tmp_path / "zip.pt")
    with refused(got="pickled objects"):
        read_state(tmp_path / "zip.pt")
    assert not (tmp_path / "executed").exists()


def test_weights_that_do_not_fit(tmp_path, weights):
    with refused(where="weights"):
        read_state(tmp_path / "absent.pt")
    (tmp_path / "cut.safetensors").write_bytes(weights.read_bytes()[:1000])
    with refused(advice="cut short"):
        read_state(tmp_path / "cut.safetensors")
    with refused(got=("2 missing", "unknown")):
        load_state(torch.nn.Linear(2, 2), read_state(weights), "x")
    with refused(got="'nonesuch_42'"):
        timm_teacher(model="nonesuch_42", weights=weights)


def test_ready_made_embeddings_are_aligned_by_id(tmp_path):
    from distillscope.teachers.models import embeddings

    z = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    np.save(tmp_path / "train.npy", z)
    ready = embeddings(path=tmp_path)
    assert (ready.lookup(images(4)) == z).all() and ready.dim == 3
    (tmp_path / "train_ids.txt").write_text("i3\ni2\ni1\ni0\n")
    assert (ready.lookup(images(4)) == z[::-1]).all()
    with refused(got="1 of 5 missing (first i4"):
        ready.lookup(images(5))
    z[1, 1] = np.nan
    np.save(tmp_path / "train.npy", z)
    with refused(got="in 1 rows, first i2"):
        embeddings(path=tmp_path).lookup(images(4))
    np.save(tmp_path / "train.npy", np.array([object()] * 4), allow_pickle=True)
    with refused(expected="a plain .npy file"):
        embeddings(path=tmp_path)


# -- the real architectures ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_clip_keeps_its_projection(tmp_path):
    import timm
    from safetensors.torch import save_file

    model = "vit_base_patch32_clip_quickgelu_224"
    save_file(timm.create_model(model, pretrained=False, num_classes=512).state_dict(), tmp_path / "clip.safetensors")
    teacher = timm_teacher(model=f"{model}.openai", weights=tmp_path / "clip.safetensors", unit_norm=True)
    assert teacher.dim == 512 and teacher.preprocess.size == 224
    assert sum(p.numel() for p in teacher.module.parameters()) == pytest.approx(87.85e6, rel=1e-3)
    z = teacher.to(torch.device("cpu")).encode(images(2).read([0, 1]), ["a", "b"])
    assert z.shape == (2, 512) and np.linalg.norm(z, axis=1) == pytest.approx([1, 1], rel=1e-5)


@pytest.mark.slow
def test_open_clip_from_a_local_file(tmp_path):
    library = pytest.importorskip("open_clip")
    from distillscope.teachers.clip import open_clip

    torch.save(library.create_model("ViT-B-32").state_dict(), tmp_path / "clip.pt")
    teacher = open_clip(model="ViT-B-32:openai", weights=tmp_path / "clip.pt").to(torch.device("cpu"))
    assert teacher.encode(images(2).read([0, 1]), ["a", "b"]).shape == (2, 512) and not teacher.reading
    assert "GELU" in open_clip(model="ViT-B-32", weights=tmp_path / "clip.pt").reading
    with refused(got="'ViT-B-32'"):
        open_clip(model="ViT-B-32")


def test_a_head_that_brings_a_norm_of_its_own_is_left_out_whole():
    """As timm's LeViT has one."""
    from distillscope.teachers.models import _fit_head, _other_head

    class Normed(torch.nn.Module):
        pretrained_cfg = {"classifier": "head.1"}

        def __init__(self, classes):
            super().__init__()
            self.body = torch.nn.Linear(4, 3)
            self.head = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Linear(3, classes))

        def reset_classifier(self, classes):
            self.head = torch.nn.Identity()

    module, tuned = Normed(9), Normed(2).state_dict()
    assert _other_head(module, tuned) == 2
    assert _fit_head(module, tuned, 2, "auto")[1].keys() == module.state_dict().keys() == {"body.weight", "body.bias"}


def test_fine_tuned_weights_with_a_head_of_their_own(tmp_path):
    """The head is left out, as it is of the architecture's own weights, and it is said; "keep" keeps it."""
    timm_library = pytest.importorskip("timm")
    from safetensors.torch import save_file

    from distillscope.teachers.models import timm

    tuned = timm_library.create_model("test_resnet", pretrained=False, num_classes=10).eval()
    save_file(tuned.state_dict(), tmp_path / "tuned.safetensors")
    encoder = timm(model="test_resnet", weights=tmp_path / "tuned.safetensors")
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(encoder.module.eval()(images),
                              tuned.forward_head(tuned.forward_features(images), pre_logits=True))
    assert "tuned.safetensors has a head of 10 outputs of its own, which is left out" in encoder.reading
    assert timm(model="test_resnet", weights=tmp_path / "tuned.safetensors", head="keep").dim == 10
    save_file({k: v for k, v in tuned.state_dict().items() if not k.startswith("fc.")}, tmp_path / "backbone.safetensors")
    assert timm(model="test_resnet", weights=tmp_path / "backbone.safetensors").weights_hash == encoder.weights_hash
    torch.save(tuned, tmp_path / "tuned.pt")
    with refused(got="with pickled objects") as caught:
        timm(model="test_resnet", weights=tmp_path / "tuned.pt")
    assert "\x1b" not in str(caught.value) and "\n" not in str(caught.value)
