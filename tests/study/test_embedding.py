"""Embeddings written piece by piece: by one command or many, interrupted or not, the files are the same."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from builders.tiny import TEACHER, teacher_weights
from builders.together import Together
from distillscope import cli
from distillscope.config.parts import Teacher
from distillscope.data import pieces, preprocess, source
from distillscope.data.decode import decode
from distillscope.data.splits import load_split
from distillscope.errors import UserError
from distillscope.inputs.embeddings import read_embeddings
from distillscope.study import embedding
from distillscope.study.embedding import embed_dataset
from distillscope.teachers import cache
from distillscope.teachers.encoder import load_teacher

COUNT, DIFFERENT = 23, 20
NAME = f"timm/{TEACHER}:{teacher_weights()}"


def picture(i):
    rng = np.random.default_rng(i % DIFFERENT)  # three images are there twice
    return Image.fromarray(rng.integers(0, 256, (16 + i % 5, 20 + i % 4, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    for i in range(COUNT):
        place = root / "train" / "ab"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        picture(i).save(place / f"{i:02}.png")
    return root


@pytest.fixture
def decoded(monkeypatch):
    """One for each image that this process decodes."""
    calls = []
    monkeypatch.setattr(source, "decode", lambda encoded, decoding: calls.append(1) or decode(encoded, decoding))
    return calls


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pieces, "MOST_ROWS", 8)


def embed(photos, out=None, **options):
    return embed_dataset(str(photos), "train", teacher=NAME, out=out, device="cpu", **options)


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("workers", [0, 1])
def test_parts_in_any_order_are_what_one_command_writes_and_what_embedding_in_memory_gives(photos, tmp_path, workers):
    assert embed(photos, tmp_path / "one", workers=workers).startswith(f"{COUNT} x ")
    for part in ("3/3", "1/3", "2/3"):
        said = embed(photos, tmp_path / "parts", shard=part)
    assert "(part 2/3: 1 of 3 files)" in said and files(tmp_path / "one") == files(tmp_path / "parts")
    found = read_embeddings(tmp_path / "parts")
    held = load_split("image_folder", {"path": photos}, "train")
    rows = load_teacher(Teacher.model_validate(NAME), "cpu", None).rows(held)
    assert found.ids.tolist() == held.ids.tolist() and np.array_equal(found.labels, held.labels)
    assert np.abs(found.rows[:] - rows).max() <= 1e-5 * np.abs(rows).max()


def test_processes_of_a_launcher_fill_one_folder_and_one_entry_of_the_cache(photos, tmp_path, monkeypatch, decoded):
    alone = embed(photos, tmp_path / "alone")
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(tmp_path / "shared"))
    decoded.clear()
    both = Together(2)
    with monkeypatch.context() as patch:
        both.patched(patch)
        said = both.run(lambda rank: embed(photos, tmp_path / "both"))
    assert said == [alone.replace("alone", "both")] * 2
    assert files(tmp_path / "both").keys() == files(tmp_path / "alone").keys()
    found, wanted = read_embeddings(tmp_path / "both"), read_embeddings(tmp_path / "alone")
    assert found.ids.tolist() == wanted.ids.tolist()
    assert np.abs(found.rows[:] - wanted.rows[:]).max() <= 1e-5 * np.abs(wanted.rows[:]).max()  # other batches
    assert len(decoded) <= COUNT and len(list((tmp_path / "shared").glob("embeddings/*/img_emb/*.npy"))) == 1
    decoded.clear()
    embed(photos)
    assert not decoded


def test_each_image_is_decoded_once_and_never_again(photos, tmp_path, decoded):
    embed(photos, tmp_path / "a")
    assert len(decoded) == DIFFERENT
    embed(photos, tmp_path / "b")
    embed(photos)
    assert len(decoded) == DIFFERENT and files(tmp_path / "a") == files(tmp_path / "b")


@pytest.mark.parametrize("shard", [None, "1/1"])
def test_an_interrupted_command_goes_on(photos, tmp_path, monkeypatch, decoded, shard):
    embed(photos, tmp_path / "whole")
    shutil.rmtree(tmp_path / "cache")
    write, written = embedding.EmbeddingFiles.write, []

    def stopped(self, number, *rest):
        if number == 1 and not written:
            written.append(number)
            raise KeyboardInterrupt
        write(self, number, *rest)

    monkeypatch.setattr(embedding.EmbeddingFiles, "write", stopped)
    with pytest.raises(KeyboardInterrupt):
        embed(photos, tmp_path / "out", shard=shard)
    with pytest.raises(UserError, match=r"expected 3 files, as embeddings.json says, got 2 missing, first metadata_1\."):
        read_embeddings(tmp_path / "out")
    if shard is None:
        with pytest.raises(UserError, match=r"Add --resume, or name another\."):
            embed(photos, tmp_path / "out")
    decoded.clear()
    assert embed(photos, tmp_path / "out", resume=shard is None, shard=shard).startswith(f"{COUNT} x ")
    assert len(decoded) == (7 if shard is None else 16)  # the cache has what was made for the file that was not written
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_a_damaged_file_is_made_again(photos, tmp_path, capfd):
    embed(photos, tmp_path / "out")
    before = files(tmp_path / "out")
    with open(tmp_path / "out" / "img_emb" / "img_emb_1.npy", "r+b") as file:
        file.seek(500)
        file.write(b"\xff\xff")
    embed(photos, tmp_path / "out", resume=True)
    assert "img_emb_1.npy: damaged (checksum differs); made again" in capfd.readouterr().err
    assert files(tmp_path / "out") == before


def test_a_file_that_is_none_of_the_folders_is_refused(photos, tmp_path):
    """Its items were read with the others."""
    embed(photos, tmp_path / "out")
    for kind, name in (("img_emb", "img_emb_{}.npy"), ("metadata", "metadata_{}.parquet")):
        shutil.copy(tmp_path / "out" / kind / name.format(0), tmp_path / "out" / kind / name.format(3))
    with pytest.raises(UserError, match=r"expected 3 files, as embeddings.json says, got img_emb_3.npy too\."):
        read_embeddings(tmp_path / "out")


def test_parts_of_other_images_or_models_are_refused(photos, tmp_path):
    embed(photos, tmp_path / "out", shard="1/3")
    more = shutil.copytree(photos, tmp_path / photos.name)
    picture(30).save(more / "train" / "a" / "30.png")
    with pytest.raises(UserError, match="the images: expected 23 as when it started, got 24"):
        embed(more, tmp_path / "out", shard="2/3")
    with pytest.raises(UserError, match="the model's weights, preprocessing or precision: expected"):
        embed(photos, tmp_path / "out", shard="2/3", precision="bfloat16")
    for number in (1, 2):
        embed_dataset(str(photos), "train", teacher=NAME, out=tmp_path / "b", device="cpu", precision="bfloat16",
                      shard=f"{number}/2", limit=22)
    shutil.copy(tmp_path / "b" / "img_emb" / "img_emb_1.npy", tmp_path / "out" / "img_emb")
    shutil.copy(tmp_path / "b" / "metadata" / "metadata_1.parquet", tmp_path / "out" / "metadata")
    (tmp_path / "out" / "embeddings.json").unlink()
    with pytest.raises(UserError, match=r"metadata_1.parquet: expected embeddings by one model, as in metadata_0.parquet"):
        read_embeddings(tmp_path / "out")


def test_images_that_have_changed_since_are_embedded_anew_and_other_settings_are_refused(photos, tmp_path, capfd):
    """Rows of the old images stood under the new ones' ids."""
    some = shutil.copytree(photos, tmp_path / photos.name)
    embed(some, tmp_path / "out")
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(some / "train" / "a" / "00.png")
    embed(some, tmp_path / "out", resume=True)
    said = capfd.readouterr().err
    assert said.count("the files of its images have changed since; made again") == 1 and "img_emb_0.npy" in said
    embed(some, tmp_path / "new")
    assert files(tmp_path / "out") == files(tmp_path / "new")
    with pytest.raises(UserError, match=r"how the images are read: expected \{\} as when it started, got"):
        embed(f"{{path: {some}, background: black}}", tmp_path / "out", resume=True)


def test_an_image_replaced_by_one_of_as_many_bytes_is_embedded_anew(tmp_path, capfd):
    some = tmp_path / "some" / "train"
    some.mkdir(parents=True)
    for i in range(3):
        picture(i).save(some / f"{i}.bmp")
    embed(some.parent, tmp_path / "out")
    before, bytes_of_it = (some / "1.bmp").stat(), len((some / "1.bmp").read_bytes())
    picture(99).resize(picture(1).size).save(some / "1.bmp")
    os.utime(some / "1.bmp", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert len((some / "1.bmp").read_bytes()) == bytes_of_it
    embed(some.parent, tmp_path / "out", resume=True)
    assert "the files of its images have changed since; made again" in capfd.readouterr().err
    embed(some.parent, tmp_path / "new")
    assert files(tmp_path / "out") == files(tmp_path / "new")


@pytest.mark.parametrize("shard", ["0/3", "4/3", "3", "a/b", "1/0", "-1/3"])
def test_a_part_out_of_range_is_refused(photos, tmp_path, shard):
    with pytest.raises(UserError, match=r"--shard: expected i/n, the i-th of n parts, from 1/n to n/n"):
        embed(photos, tmp_path / "out", shard=shard)


def test_what_cannot_be_decoded_is_left_out_of_its_file_and_said_once(photos, tmp_path, capfd):
    some = shutil.copytree(photos, tmp_path / photos.name)
    for name in ("a/00.png", "b/21.png"):
        (some / "train" / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"1 corrupt of 7: train/a/00.png \(an empty file\)\. Fix them"):
        embed(some, tmp_path / "out")
    assert embed(some, tmp_path / "out", corrupt="skip", resume=True).startswith(f"{COUNT - 2} x ")
    assert capfd.readouterr().err.count("2 corrupt images left out: train/a/00.png (an empty file), train/b/21.png") == 1
    found = read_embeddings(tmp_path / "out")
    assert len(found) == COUNT - 2 and "train/b/21.png" not in found.ids


def test_each_webdataset_shard_is_a_file_whose_classes_have_names(tmp_path, monkeypatch):
    root = tmp_path / "shards"
    root.mkdir()
    for number in range(3):
        with tarfile.open(root / f"train-{number}.tar", "w") as tar:
            for i in range(number * 4, number * 4 + 4):
                encoded = io.BytesIO()
                picture(i).save(encoded, "PNG")
                label = b"cat" if i < 5 else b"dog"
                for name, content in ((f"{i:03}.png", encoded.getvalue()), (f"{i:03}.cls", label)):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    embed(root, tmp_path / "out", shard="2/2")
    embed(root, tmp_path / "out", shard="1/2")
    found = read_embeddings(tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out" / "img_emb").iterdir()) == [f"img_emb_{i}.npy" for i in range(3)]
    assert found.labels.tolist() == ["cat"] * 5 + ["dog"] * 7 and found.ids[4] == "train/004"


def test_somebody_elses_cache_is_read_and_not_written(photos, tmp_path, monkeypatch):
    embed(photos, tmp_path / "a")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cache, "locked", refuse)
    assert embed(photos, tmp_path / "b").startswith(f"{COUNT} x ") and files(tmp_path / "a") == files(tmp_path / "b")


def test_the_array_job_of_the_docs_fills_one_folder(photos, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "scale.md").read_text()
    script = re.search(r"```bash\n(#!/bin/bash\n.*?)```", page, re.DOTALL)[1]
    (tmp_path / "embed.slurm").write_text(script)
    (tmp_path / "bin").mkdir()
    for name, text in (("srun", 'exec "$@"'), ("distillscope", 'printf "%s\\n" "$@"')):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    told = {"TEACHER": NAME, "DATA": str(photos), "OUT": str(tmp_path / "out"), "SLURM_ARRAY_TASK_COUNT": "2",
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    for task in ("2", "1"):
        words = subprocess.run(["bash", tmp_path / "embed.slurm"], env={**os.environ, **told, "SLURM_ARRAY_TASK_ID": task},
                               check=True, capture_output=True, text=True).stdout.splitlines()
        found = CliRunner().invoke(cli.app, [*words, "--device", "cpu"])
        assert found.exit_code == 0 and f"(part {task}/2: " in found.output, found.output
    embed(photos, tmp_path / "one", shard="1/1")
    assert len(read_embeddings(tmp_path / "out")) == COUNT
    assert np.array_equal(read_embeddings(tmp_path / "out").ids, read_embeddings(tmp_path / "one").ids)


def test_large_jpegs_are_decoded_at_a_part_of_their_size_unless_whole_ones_are_asked_for(tmp_path, monkeypatch, capsys):
    (tmp_path / "photos" / "train").mkdir(parents=True)
    for i, size in enumerate(((420, 344), (40, 30))):
        rows = np.linspace(0, 255, size[0] * size[1]).reshape(*size[::-1], 1) * [1.0, 0.7, 0.4]
        Image.fromarray(rows.astype(np.uint8)).save(tmp_path / "photos" / "train" / f"{i}.jpg")
    monkeypatch.setattr(preprocess, "LEAST_SIDE", 1)
    monkeypatch.setattr(preprocess, "REDUCED", 1)  # of a teacher that sees 168 px
    photos, whole = str(tmp_path / "photos"), f"{{path: {tmp_path / 'photos'}, min_side: whole}}"
    embed(photos, tmp_path / "reduced")
    said = " ".join(capsys.readouterr().err.split())
    assert "1 JPEG decoded at a half, a quarter or an eighth, the shorter side at least" in said
    embed(whole, tmp_path / "whole")
    assert "JPEG" not in capsys.readouterr().err
    one, other = (read_embeddings(tmp_path / name).rows[:] for name in ("reduced", "whole"))
    assert not np.array_equal(one[0], other[0]) and np.allclose(one[1], other[1], rtol=1e-4, atol=1e-5)
    (tmp_path / "reduced" / "metadata" / "metadata_0.parquet").unlink()
    with pytest.raises(UserError, match="how large photos are decoded: expected JPEGs, .* got whole"):
        embed(whole, tmp_path / "reduced", resume=True)
    manifest = tmp_path / "whole" / "embeddings.json"
    older = {k: v for k, v in json.loads(manifest.read_text()).items() if k != "decoded"}
    manifest.write_text(json.dumps(older))
    assert embed(whole, tmp_path / "whole", resume=True).startswith("2 x ")
    with pytest.raises(UserError, match="Repeat the command with min_side: whole in --data, or name another --out"):
        embed(photos, tmp_path / "whole", resume=True)


def test_memory_does_not_grow_with_the_number_of_shards(tmp_path, monkeypatch):
    torch.jit.script(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 16)).eval()).save(str(tmp_path / "small.pt"))
    peaks = {}
    for shards in (1, 2, 8):  # the first also imports
        root = tmp_path / f"shards{shards}"
        root.mkdir()
        for number in range(shards):
            with tarfile.open(root / f"train-{number}.tar", "w") as tar:
                for i in range(100):
                    encoded = io.BytesIO()
                    Image.new("RGB", (8, 8), (number, i, 0)).save(encoded, "PNG")
                    member = tarfile.TarInfo(f"{number}-{i}.png")
                    member.size = encoded.tell()
                    tar.addfile(member, io.BytesIO(encoded.getvalue()))
        tracemalloc.start()
        embed_dataset(str(root), "train", teacher=str(tmp_path / "small.pt"), preprocess={"size": 8}, device="cpu", shard="1/1",
                      out=tmp_path / f"out{shards}")
        peaks[shards] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert len(read_embeddings(tmp_path / "out8")) == 800 and peaks[8] < peaks[2] + 100 * 600  # bytes, of 600 more images


@pytest.mark.minutes
def test_memory_and_time_of_100_000_images(tmp_path):
    """By the benchmark: what embedding and an epoch add to all processes, and the processor time an image."""
    script = Path(__file__).parents[2] / "benchmarks" / "many_images.py"
    subprocess.run([sys.executable, script, "--root", tmp_path, "--count", "10000", "100000", "--out", tmp_path], check=True)
    few, many = json.loads((tmp_path / "many_images.json").read_text())["rows"]
    for work in ("embed", "distil"):
        grown = many[f"{work}, together MiB"] - few[f"{work}, together MiB"]
        assert grown < 90_000 * 1024 / 2**20  # at most 1 KiB an image
        assert many[f"{work}, ms an image"] < 1.2 * few[f"{work}, ms an image"]
