"""What is cached is what is used: damage is named and made again, leftovers are swept, listing and pruning survive it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from builders import refused
from distillscope.cli import app
from distillscope.config.parts import Part
from distillscope.config.study import Arm, Study
from distillscope.data.preprocess import Preprocess
from distillscope.data.source import Source
from distillscope.data.splits import Splits
from distillscope.study.prepared import prepare_targets
from distillscope.targets.transforms import load_target
from distillscope.teachers import cache
from distillscope.teachers.cache import Entry, embed, entry_path
from distillscope.teachers.encoder import Encoder
from distillscope.teachers.inventory import list_entries, prune_entries


def images(count):
    pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return Source("s", "train", np.array([f"i{i}" for i in range(count)]), pixels.__getitem__, None, None, pixels)


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 4)).eval()
    return Encoder("tiny", module, 4, Preprocess(8), "mark", "float32", device=torch.device("cpu"))


def prepare(encoder, **arm):
    few = images(12)
    study = Study(name="x", data="digits", teacher="efficientnet_lite0", students="paper_cnn", seeds=[1],
                  arms=[Arm(name="a", **arm)],
                  training={"epochs": 1, "batch_size": 4})
    return prepare_targets(study, encoder, Splits("x", few, None, few.take(np.arange(4)), few), Part(name="whiten", dim=2),
                           list(study.arms))


def flip(path, at=-1):
    content = bytearray(path.read_bytes())
    content[at] ^= 8
    path.write_bytes(content)


DAMAGE = {
    "flipped": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:140]),
    "empty": lambda path: path.write_bytes(b""),
    "of another shape": lambda path: np.save(path, np.load(path)[:3]),
    "not numbers": lambda path: path.write_text("nothing"),
}


@pytest.mark.parametrize("marked", [True, False], ids=["with its checksum", "from before checksums"])
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["train", "test", "view"])
def test_damaged_targets_are_named_and_made_again(encoder, capsys, damage, name, marked):
    prepared = prepare(encoder, view=Part(name="crop_flip"))
    path = next(prepared.folder.glob(f"{name}*.npy"))
    right = path.read_bytes()
    if not marked:
        path.with_name(f"{path.name}.checksum").unlink()
    DAMAGE[damage](path)
    prepare(encoder, view=Part(name="crop_flip"))
    told = "".join(capsys.readouterr().err.split())
    assert path.read_bytes() == right and f"{path}:damaged".replace(" ", "") in told and "madeagain" in told


def test_sound_targets_are_kept_and_older_ones_are_given_a_checksum(encoder, capsys):
    prepared = prepare(encoder)
    stands = {p: p.stat().st_mtime_ns for p in prepared.folder.iterdir()}
    prepare(encoder)
    assert {p: p.stat().st_mtime_ns for p in prepared.folder.iterdir()} == stands
    older = np.load(prepared.folder / "train.npy") * np.float32(1 + 1e-6)  # made on another machine
    np.save(prepared.folder / "train.npy", older)
    (prepared.folder / "train.npy.checksum").unlink()
    prepare(encoder)
    assert (prepared.rows("train") == older).all() and (prepared.folder / "train.npy.checksum").is_file()
    assert "damaged" not in capsys.readouterr().err


def test_a_damaged_transform_is_made_again(encoder):
    prepared = prepare(encoder)
    path = prepared.folder / "target.safetensors"
    right = load_target(path)
    flip(path)
    prepare(encoder)
    found = load_target(path)
    assert found.name == right.name and (found.mean == right.mean).all() and (found.matrix == right.matrix).all()


def reindexed(folder, change):
    """The entry's index, changed, as if it had been written so."""
    path = next(folder.glob("metadata/*.parquet"))
    table = pq.read_table(path)
    pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), path)


@pytest.mark.parametrize("change", [
    lambda table: table.slice(0, 3), lambda table: table.drop_columns(["key"]), lambda table: table.take([1, 0, 2, 3, 4]),
    lambda table: table.set_column(2, "key", [[b"short"] * 5]),
], ids=["fewer rows", "no keys", "another order", "short keys"])
def test_an_index_that_is_not_of_its_rows_is_made_again(encoder, capsys, change):
    right = embed(encoder, images(5))
    reindexed(entry_path(encoder, None)[0], change)
    assert (embed(encoder, images(5)) == right).all()
    assert "its rows are made again" in " ".join(capsys.readouterr().err.split())


def test_an_index_of_fewer_rows_is_found_out_in_older_entries_too(encoder, capsys):
    right = embed(encoder, images(5))
    folder = entry_path(encoder, None)[0]
    path = next(folder.glob("metadata/*.parquet"))
    table = pq.read_table(path)
    pq.write_table(table.slice(1).replace_schema_metadata({b"checksum": table.schema.metadata[b"checksum"]}), path)
    assert (embed(encoder, images(5)) == right).all() and "an index of 4 rows" in " ".join(capsys.readouterr().err.split())


def test_what_a_kill_left_in_an_entry_is_swept(encoder):
    right = embed(encoder, images(5))
    folder = entry_path(encoder, None)[0]
    (folder / "img_emb" / "img_emb_7.npy").write_bytes(b"claimed")
    (folder / "img_emb" / ".img_emb_8.123.tmp.npy").write_bytes(b"half")
    (folder / "metadata" / "metadata_notes.parquet").write_bytes(b"mine")
    assert (embed(encoder, images(5)) == right).all()
    assert [p.name for p in (folder / "img_emb").iterdir()] == ["img_emb_0.npy"]


def test_a_row_that_a_kill_left_twice_is_joined_to_one(encoder, monkeypatch):
    monkeypatch.setattr(cache, "FLUSH_SECONDS", 0.0)
    encoder.batch_size = 2
    right = embed(encoder, images(4))
    entry = Entry(*entry_path(encoder, None)).load()
    shard = entry.shards[0]
    table = pq.read_table(shard.metadata)
    entry.append(np.array(shard.rows()), table["image_path"].to_pylist(),
                 [bytes.fromhex(h) for h in table["image_hash"].to_pylist()], shard.keys)
    assert (embed(encoder, images(6))[:4] == right).all()
    keys = np.concatenate([s.keys for s in Entry(*entry_path(encoder, None)).load().shards])
    assert len(keys) == len(np.unique(keys, axis=0)) == 6


@pytest.mark.parametrize("spoil", [
    lambda e: next(e.glob("metadata/*.parquet")).write_bytes(b"PAR1"), lambda e: (e / "entry.json").write_text("[]"),
    lambda e: (e / "entry.json").write_text("[" * 100_000), lambda e: (e / "entry.json").unlink(),
    lambda e: (e / "entry.json").write_bytes(b"\xff"),
], ids=["index", "list", "deep", "none", "not UTF-8"])
def test_a_damaged_entry_is_listed_as_such_and_can_be_pruned(encoder, spoil):
    embed(encoder, images(3))
    spoil(entry_path(encoder, None)[0])
    (entry,) = list_entries()
    assert entry["damaged"]
    shown = CliRunner().invoke(app, ["cache", "list"])
    assert shown.exit_code == 0 and "damaged:" in shown.stdout
    assert prune_entries()[0] == 1 and list_entries() == []


def test_damaged_targets_are_listed_and_pruned(encoder):
    prepared = prepare(encoder)
    (prepared.folder / "train.npy").write_bytes(b"")
    (prepared.folder / "entry.json").write_text(json.dumps({"teacher": 3, "target": []}))
    assert [bool(e["damaged"]) for e in list_entries()] == [False, True]
    assert prune_entries()[0] == 2 and list_entries() == []


def test_of_a_linked_entry_the_link_is_removed(encoder, cache_dir, tmp_path):
    embed(encoder, images(3))
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "mine.txt").write_text("mine")
    for kind in ("embeddings", "targets"):
        (cache_dir / kind).mkdir(exist_ok=True)
        (cache_dir / kind / "out").symlink_to(tmp_path / "away")
        (cache_dir / kind / "broken").symlink_to(tmp_path / "nowhere")
    (entry_path(encoder, None)[0] / "deep").symlink_to(tmp_path / "away")
    assert sum("a link to" in (e["damaged"] or "") for e in list_entries()) == 4
    assert prune_entries()[0] == 5 and list_entries() == []
    assert (tmp_path / "away" / "mine.txt").read_text() == "mine"


def test_what_may_not_be_removed_is_one_line_after_the_others_are_gone(encoder, cache_dir, monkeypatch):
    embed(encoder, images(3))
    (cache_dir / "embeddings" / "closed").mkdir()
    real = shutil.rmtree

    def refuse(path, *args, **kwargs):
        if path.name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        real(path, *args, **kwargs)

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with refused(where="cache prune closed", got="Permission denied (1 such; 1 others"):
        prune_entries()
    assert [e["name"] for e in list_entries()] == ["closed"]


def test_what_a_process_fills_now_is_left(encoder, capsys):
    embed(encoder, images(3))
    held = cache.locked(entry_path(encoder, None)[0])
    try:
        assert prune_entries() == (0, 0) and "a process is filling it; left" in " ".join(capsys.readouterr().err.split())
    finally:
        held.release()


def test_somebody_elses_cache_is_read_where_it_has_everything(encoder, monkeypatch):
    right = embed(encoder, images(3))

    def closed(*args, **kwargs):
        raise PermissionError(13, "Permission denied", "cache/.lock")

    monkeypatch.setattr(cache.locks, "acquire", closed)
    assert (embed(encoder, images(3)) == right).all()
    with pytest.raises(PermissionError):
        embed(encoder, images(4))
