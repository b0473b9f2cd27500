"""Images at a URL are those of a folder, read shard by shard, from stores that fail now and then."""

import io
import tarfile

import datasets as hf
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from builders import refused
from builders.stores import KEYS, http_server, s3_server
from builders.tiny import TEACHER, teacher_weights
from distillscope import cli
from distillscope.config.resolve import named_dataset
from distillscope.data import looking
from distillscope.data.splits import load_split
from distillscope.errors import UserError
from distillscope.files import remote
from distillscope.inputs.embeddings import read_embeddings
from distillscope.study.embedding import embed_dataset

NAME = f"timm/{TEACHER}:{teacher_weights()}"


def png(i):
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(i).integers(0, 256, (16 + i % 3, 20, 3), dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


def write_tars(root):
    for split, shards in (("train", 3), ("test", 1)):
        for number in range(shards):
            with tarfile.open(root / f"{split}-{number}.tar", "w") as tar:
                for i in range(4 * number, 4 * number + 4):
                    for name, content in ((f"{i:02}.png", png(i)), (f"{i:02}.cls", b"cat" if i % 2 else b"dog")):
                        member = tarfile.TarInfo(name)
                        member.size = len(content)
                        tar.addfile(member, io.BytesIO(content))


def write_parquet(root):
    for number in range(2):
        rows = range(6 * number, 6 * number + 6)
        table = pa.table({"image": [{"bytes": png(i), "path": None} for i in rows], "label": [i % 2 for i in rows]})
        pq.write_table(table, root / f"train-{number:05}-of-00002.parquet", row_group_size=4)


def write_folders(root):
    for i in range(8):
        place = root / "train" / "ab"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i}.png").write_bytes(png(i))
    (root / "test" / "c").mkdir(parents=True)
    (root / "test" / "c" / "9.png").write_bytes(png(9))
    (root / "train" / "notes.txt").write_text("")


LAYOUTS = {"tars": write_tars, "parquet": write_parquet, "folders": write_folders}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for name, write in LAYOUTS.items():
        (root / name).mkdir()
        write(root / name)
    return root


@pytest.fixture(scope="module")
def bucket(root):
    """s3://photos with the three layouts."""
    with pytest.MonkeyPatch.context() as patch:
        for key, value in {**KEYS, "AWS_ENDPOINT_URL": s3_server()}.items():
            patch.setenv(key, value)
        fsspec.filesystem("s3", **remote.OPTIONS["s3"]).mkdir("photos")
        fsspec.filesystem("s3", **remote.OPTIONS["s3"]).put(str(root), "photos", recursive=True)
        yield f"s3://photos/{root.name}"


@pytest.fixture(autouse=True)
def at_once(tmp_path, monkeypatch):
    """No waiting, and a place of its own for what is fetched."""
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "WAIT_SECONDS", 0)
    monkeypatch.setattr(remote, "_folders", [])
    remote._told.value = False


@pytest.fixture
def fetches(monkeypatch):
    """The URLs of which a whole file is asked for."""
    urls, get = [], remote._get
    monkeypatch.setattr(remote, "_get", lambda file, to: urls.append(file.url) or get(file, to))
    return urls


def load(name, split="train", **options):
    part = named_dataset(str(name))
    return load_split(part.name, part.settings, split, **options)


@pytest.mark.parametrize(("classes", "got"), [(None, "none"), (["b", "a"], "other classes")])
def test_files_of_other_columns_or_classes_are_refused(classes, got):
    """Labels of the files that have some stood beside the rows of one that has none."""
    store = fsspec.filesystem("memory")
    for number, names in enumerate((["a", "b"], classes, ["a", "b"])):
        rows = {"image": [{"bytes": png(i), "path": None} for i in range(2)]} | ({"label": [0, 1]} if names else {})
        table = hf.Dataset.from_dict(rows)
        table = table.cast_column("label", hf.ClassLabel(names=names)) if names else table
        with store.open(f"/odd/train-{number:05}-of-00003.parquet", "wb") as file:
            table.to_parquet(file)
    with pytest.raises(UserError, match=f"train-00001-of-00003.parquet: expected a column label as in .*, got {got}"):
        load_split("remote", {"path": "memory://odd"}, "train")


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_bucket_reads_as_the_folder_does(bucket, root, layout, streams, monkeypatch):
    if streams:
        monkeypatch.setattr(looking, "IN_MEMORY_BYTES", 2000)
    here, there = load(root / layout), load(f"{bucket}/{layout}", workers=int(streams))
    assert len(here) == len(there) and np.array_equal(here.labels, there.labels) and here.class_names == there.class_names
    if layout != "parquet":  # there the rows of each file are counted for themselves
        assert np.array_equal(here.ids, there.ids)
    assert all(np.array_equal(here.image(i), there.image(i)) for i in range(len(here)))
    assert here.note == there.note


def test_fetched_shards_make_way_for_others(bucket, monkeypatch, fetches):
    monkeypatch.setattr(looking, "IN_MEMORY_BYTES", 2000)
    monkeypatch.setattr(remote, "FETCHED_BYTES", 25_000)  # one shard
    source = load(f"{bucket}/tars")
    assert source.image(0).shape == (16, 20, 3) and source.image(11).shape == (18, 20, 3)
    assert len(fetches) > 3 and len(list(remote.fetch_folder().glob("*.tar"))) == 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_embeddings_of_a_bucket_go_to_a_bucket_and_each_shard_is_fetched_once(bucket, root, layout, tmp_path, fetches):
    for out in (f"s3://photos/out/{layout}", tmp_path / "out"):
        said = embed_dataset(f"{bucket}/{layout}", "train", teacher=NAME, out=out, device="cpu")
        assert str(out) in said
    system = fsspec.filesystem("s3", **remote.OPTIONS["s3"])
    system.invalidate_cache()
    written = {path.split(f"out/{layout}/")[1]: system.cat_file(path) for path in system.find(f"photos/out/{layout}")}
    assert written == {str(p.relative_to(tmp_path / "out")): p.read_bytes() for p in (tmp_path / "out").rglob("*.*")}
    assert len(fetches) == len(set(fetches)) == {"tars": 3, "parquet": 2, "folders": 0}[layout]
    if layout == "tars":
        embed_dataset(str(root / layout), "train", teacher=NAME, out=tmp_path / "here", device="cpu")
        assert (tmp_path / "here" / "img_emb" / "img_emb_2.npy").read_bytes() == written["img_emb/img_emb_2.npy"]


def test_parts_fill_a_bucket_and_only_what_is_missing_is_made_again(bucket, fetches):
    out = "s3://photos/out/parts"
    for part in ("2/2", "1/2"):
        embed_dataset(f"{bucket}/tars", "train", teacher=NAME, out=out, device="cpu", shard=part)
        remote._folders.clear()
    system = fsspec.filesystem("s3", **remote.OPTIONS["s3"])
    system.rm(f"{out}/img_emb/img_emb_1.npy")
    fetches.clear()
    with pytest.raises(UserError, match="expected a new or empty folder, got one with files. Add --resume"):
        embed_dataset(f"{bucket}/tars", "train", teacher=NAME, out=out, device="cpu")
    assert embed_dataset(f"{bucket}/tars", "train", teacher=NAME, out=out, device="cpu", resume=True).startswith("12 x ")
    assert fetches == [f"{bucket}/tars/train-1.tar"]


def test_memory_stores_and_lists_of_shards_are_read_too(root):
    system = fsspec.filesystem("memory")
    system.put(str(root / "tars"), "/tars", recursive=True)
    assert np.array_equal(load("memory://tars").ids, load(root / "tars").ids)
    assert load("memory://tars/train-{0..1}.tar").ids.tolist() == [f"train/{i:02}" for i in range(8)]
    assert len(load("memory://tars/train-2.tar")) == 4


def test_a_server_that_fails_a_few_times_is_asked_again_and_that_is_said_once(root, capfd):
    pytest.importorskip("aiohttp", reason="the extra http is not installed")
    with http_server(root / "tars") as (address, handler):
        handler.fails.update({"/train-0.tar": 3, "/train-2.tar": 2})
        found = load(f"{address}/train-{{0..2}}.tar")
        assert len(found) == 12
        assert capfd.readouterr().err.count("503") == 1


@pytest.mark.parametrize("fault, said", [
    ("down", r"train-1.tar: expected an answer, got ClientResponseError: 503.*\(5 tries\)\. See whether the store is up, and"),
    ("gone", r"train-1.tar: expected a file or folder that is there, got none, or none any more\. .*what was finished is kept"),
    ("cut", r"train-1.tar: expected an answer, got ClientPayloadError: .*\(5 tries\)"),
    ("locked", r"train-1.tar: expected a store that lets you in, got ClientResponseError: 403"),
    ("short", r"train-1.tar: expected an uncompressed tar file, got ReadError: unexpected end of data"),
])
def test_a_shard_that_fails_is_named_and_what_was_finished_stays(root, tmp_path, fault, said):
    pytest.importorskip("aiohttp", reason="the extra http is not installed")
    served = tmp_path / "served"
    served.mkdir()
    for file in (root / "tars").iterdir():
        content = file.read_bytes()
        if file.name != "train-1.tar" or fault != "gone":
            (served / file.name).write_bytes(content[:5000] if file.name == "train-1.tar" and fault == "short" else content)
    with http_server(served) as (address, handler):
        handler.fails["/train-1.tar"] = 99 * (fault == "down")
        handler.cut |= {"/train-1.tar"} if fault == "cut" else set()
        handler.refuses |= {"/train-1.tar"} if fault == "locked" else set()
        words = ["embed", "--teacher", NAME, "--data", f"{address}/train-{{0..2}}.tar", "--split", "train", "--device", "cpu",
                 "--out", str(tmp_path / "out"), "--resume"]
        with pytest.raises(UserError, match=said):
            CliRunner().invoke(cli.app, words, catch_exceptions=False)
        assert (tmp_path / "out" / "metadata" / "metadata_0.parquet").is_file()
        handler.fails.clear(), handler.cut.clear(), handler.refuses.clear()
        (served / "train-1.tar").write_bytes((root / "tars" / "train-1.tar").read_bytes())
        assert "12 x " in CliRunner().invoke(cli.app, words, catch_exceptions=False).output


def test_without_credentials_or_an_extra_one_line_says_what_to_do(bucket, monkeypatch, tmp_path):
    for key in KEYS:
        monkeypatch.delenv(key)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    fsspec.filesystem("s3").clear_instance_cache()
    with pytest.raises(UserError, match=r"tars: expected a store that lets you in, got NoCredentials.* AWS_PROFILE"):
        load(f"{bucket}/tars")
    fsspec.filesystem("s3").clear_instance_cache()
    with pytest.raises(UserError, match=r"gs://b/x: expected what reads gs://, .*pip install 'distillscope\[gcs\]'"):
        load("gs://b/x")
    with pytest.raises(UserError, match=r"nosuch://b/x: expected a URL that fsspec reads, as s3://"):
        load("nosuch://b/x")


def test_what_is_not_there_is_said(bucket):
    with pytest.raises(UserError, match=r"expected validation\*.tar, got shards of test, train. Add --split test"):
        load(f"{bucket}/tars", "validation")
    for url in (f"{bucket}/nothing", "s3://nobucket/x"):
        with pytest.raises(UserError, match=f"{url}: expected (a file or folder|files)"):
            load(url)


def test_a_name_that_leads_out_of_its_folder_is_refused(monkeypatch):
    class Store:
        invalidate_cache = staticmethod(lambda: None)
        _strip_protocol = staticmethod(lambda url: "bucket/run")
        find = staticmethod(lambda root, detail: {"bucket/run/trials/../../page": {"size": 3}})

    monkeypatch.setattr("distillscope.files.remote._system", lambda url: Store)
    with refused(where="s3://bucket/run", got="'trials/../../page'"):
        remote.listed("s3://bucket/run")


def test_embeddings_at_a_url_are_read_as_those_of_a_folder(bucket, tmp_path):
    embed_dataset(f"{bucket}/tars", "train", teacher=NAME, out="s3://photos/read/emb", device="cpu")
    embed_dataset(f"{bucket}/tars", "train", teacher=NAME, out=tmp_path / "emb", device="cpu")
    here, there = read_embeddings(tmp_path / "emb"), read_embeddings("s3://photos/read/emb")
    assert np.array_equal(here.rows[:], there.rows[:]) and np.array_equal(here.ids, there.ids)
    assert read_embeddings("s3://photos/read/emb/img_emb/img_emb_1.npy").rows.shape == (4, here.rows.shape[1])
    found = CliRunner().invoke(cli.app, ["audit", "--teacher", "s3://photos/read/emb", "--student", "s3://photos/read/emb",
                                         "--out", str(tmp_path / "audit"), "--only", "alignment"], catch_exceptions=False)
    assert found.exit_code == 0, found.output
