"""The clean pair in any format, under any usual name, in any order, is read as the same pair: rows, pairing and classes."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pyarrow import feather
from safetensors.torch import save_file

from builders import refused
from distillscope.inputs.embeddings import align, read_embeddings

COUNT, DIMS = 40, (6, 4)
RNG = np.random.default_rng(0)
TEACHER, STUDENT = (RNG.normal(size=(COUNT, d)).astype(np.float32) for d in DIMS)
IDS = np.array([f"img/{i:05d}.jpg" for i in RNG.permutation(1000)[:COUNT]])
LABELS = np.arange(COUNT) % 3
ORDER = RNG.permutation(COUNT)
ID_NAMES = ("id", "ids", "ID", "filenames", "filename", "file_name", "FileName", "file-name", "paths", "path", "img_path",
            "image_path", "names",
            "uid", "uuid", "image_id", "ImageId", "image ids", "imageid", "keys", "url", "image_urls", "sample_id", "item id",
            "PatientID")


def columns(z: np.ndarray, ids: np.ndarray, y: np.ndarray, stem: str = "e", start: int = 0, **more: object) -> pd.DataFrame:
    frame = pd.DataFrame({f"{stem}{i + start}": z[:, i] for i in range(z.shape[1])})
    frame.insert(0, "filename", ids)
    return frame.assign(label=y, **more)


def lists(z: np.ndarray, ids: np.ndarray, y: np.ndarray, kind: pa.DataType | None = None) -> pa.Table:
    return pa.table({"image_id": list(ids), "vec": pa.array(z.tolist(), kind or pa.list_(pa.float32())), "class": y})


def ipc(path: Path, table: pa.Table, new) -> None:
    with pa.OSFile(str(path), "wb") as sink, new(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=16)


def saved(path: Path, z: np.ndarray, ids: np.ndarray, y: np.ndarray) -> None:
    import datasets

    datasets.disable_progress_bars()
    datasets.Dataset.from_dict({"file_name": list(ids), "embedding": z.tolist(), "label": y}).save_to_disk(path)


def parts(path: Path, z: np.ndarray, ids: np.ndarray, y: np.ndarray, write) -> None:
    """Twelve parts, sorted by class, so that some hold one class alone, and 10 sorts before 2 as text."""
    path.mkdir()
    order = np.argsort(y, kind="stable")
    for k, rows in enumerate(np.array_split(order, 12)):
        write(path, k, z[rows], ids[rows], y[rows])


def clip(path: Path, z: np.ndarray, ids: np.ndarray, y: np.ndarray) -> None:
    """clip-retrieval's, with numbers padded on one side alone."""
    for folder in ("img_emb", "metadata"):
        (path / folder).mkdir(parents=True)
    for k, rows in enumerate(np.array_split(np.arange(len(z)), 11)):
        np.save(path / "img_emb" / f"img_emb_{k:02d}.npy", z[rows].astype(np.float16))
        pd.DataFrame({"image_path": ids[rows], "caption": "a photo",
                      "label": y[rows]}).to_parquet(path / "metadata" / f"metadata_{k}.parquet")


def hdf5(path: Path, z: np.ndarray, ids: np.ndarray, y: np.ndarray, **how: object) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("embeddings", data=z, **how)
        file["ids"], file["labels"] = ids.tolist(), y


def t(z: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(z))


# name -> how it is written from rows, ids and labels
FORMATS = {
    "a.csv": lambda p, z, i, y: columns(z, i, y).to_csv(p, index=False),
    "index.csv": lambda p, z, i, y: columns(z, i, y, "dim_").to_csv(p),
    "from_one.csv": lambda p, z, i, y: columns(z, i, y, "f", 1, image_width=640,
                                               aesthetic=RNG.normal(size=len(y))).to_csv(p, index=False),
    "mixed_order.csv": lambda p, z, i, y: columns(np.tile(z, 3), i, y)[
        ["e9", "filename", *[f"e{k}" for k in range(9)], "label",
         *[f"e{k}" for k in range(10, 3 * z.shape[1])]]].to_csv(p, index=False),
    "named_index.csv": lambda p, z, i, y: columns(z, i, y).set_index("filename").to_csv(p),
    "unnamed_index.csv": lambda p, z, i, y: pd.DataFrame(z, index=i).assign(label=y).to_csv(p),
    "no_header.csv": lambda p, z, i, y: pd.DataFrame(z).assign(y=[f"c{k}" for k in y]).set_index(i).to_csv(p, header=False),
    "brackets.csv": lambda p, z, i, y: columns(z, i, y, "emb[").rename(columns=lambda c: f"{c}]" if "[" in c
                                                                       else c).to_csv(p, index=False),
    "listed.csv": lambda p, z, i, y: pd.DataFrame({"path": i, "emb": z.tolist(), "y": y}).to_csv(p, index=False),
    "numpy_listed.csv": lambda p, z, i, y: pd.DataFrame({"path": i, "emb": [str(row.tolist()).replace(",", "") for row in z],
                                                         "y": y}).to_csv(p),
    "comment.csv": lambda p, z, i, y: p.write_text("# made by us\n" + columns(z, i, y).to_csv(index=False)),
    "utf16.csv": lambda p, z, i, y: columns(z, i, y).to_csv(p, index=False, encoding="utf-16"),
    "a.tsv": lambda p, z, i, y: columns(z, i, y).to_csv(p, sep="\t", index=False),
    "semicolon.csv": lambda p, z, i, y: columns(z, i, y).to_csv(p, sep=";", decimal=",", index=False),
    "bom.csv": lambda p, z, i, y: columns(z, i, y).to_csv(p, index=False, encoding="utf-8-sig"),
    "quoted.csv": lambda p, z, i, y: columns(z, [f"{k}, x" for k in i], y).to_csv(p, index=False, quoting=1),
    "blank_end.csv": lambda p, z, i, y: p.write_text(columns(z, i, y).to_csv(index=False) + "\n\n"),
    "a.csv.gz": lambda p, z, i, y: columns(z, i, y).to_csv(p, index=False),
    "lightly.csv": lambda p, z, i, y: columns(z, i, y,
                                              "embedding_").rename(columns={"filename": "filenames", "label": "labels"}).assign(
        selected=np.arange(len(y)) % 2, masked=0).to_csv(p, index=False),
    "lists.parquet": lambda p, z, i, y: pq.write_table(lists(z, i, y), p, row_group_size=16),
    "fixed.parquet": lambda p, z, i, y: pq.write_table(lists(z, i, y, pa.list_(pa.float32(), z.shape[1])), p),
    "columns.parquet": lambda p, z, i, y: columns(z, i, y, "embedding_", score=RNG.normal(size=len(y))).to_parquet(p),
    "struct.parquet": lambda p, z, i, y: pq.write_table(pa.table({"out": [{"embedding": row, "norm": 1.0}
                                                                          for row in z.tolist()],
                                                                  "meta": [{"file_name": n, "label": int(k)}
                                                                           for n, k in zip(i, y, strict=True)]}), p),
    "nested.parquet": lambda p, z, i, y: pq.write_table(pa.table({"uid": list(i), "image": [[row] for row in z.tolist()],
                                                                  "label": y}), p),
    "a.feather": lambda p, z, i, y: feather.write_feather(lists(z, i, y), p),
    "file.arrow": lambda p, z, i, y: ipc(p, lists(z, i, y), pa.ipc.new_file),
    "stream.arrow": lambda p, z, i, y: ipc(p, lists(z, i, y), pa.ipc.new_stream),
    "a.jsonl": lambda p, z, i, y: p.write_text("".join(json.dumps(row) + "\n" for row in lists(z, i, y).to_pylist())),
    "a.jsonl.gz": lambda p, z, i, y: p.write_bytes(gzip.compress("".join(json.dumps(row) + "\n"
                                                                         for row in lists(z, i, y).to_pylist()).encode())),
    "records.json": lambda p, z, i, y: p.write_text(json.dumps(lists(z, i, y).to_pylist())),
    "by_id.json": lambda p, z, i, y: p.write_text(json.dumps(dict(zip(i, z.tolist(), strict=True)))),
    "a.h5": hdf5,
    "packed.hdf5": lambda p, z, i, y: hdf5(p, z, i, y, compression="gzip"),
    "saved": saved,
    "parts_parquet": lambda p, z, i, y: parts(p, z, i, y,
                                              lambda f, k, z, i, y: pq.write_table(lists(z, i, y), f / f"part-{k}.parquet")),
    "parts_csv": lambda p, z, i, y: parts(p, z, i, y,
                                          lambda f, k, z, i, y: columns(z, i, y).to_csv(f / f"shard{k}.csv", index=False)),
    "parts_spark": lambda p, z, i, y: parts(p, z, i, y, lambda f, k, z, i, y: pq.write_table(
        lists(z, i, y), f / f"part-{k:05d}-7f3a-c000.snappy.parquet")),
    "clip": clip,
    "a.npz": lambda p, z, i, y: np.savez(p, features=z, filenames=i, targets=y, class_names=np.array(["a", "b", "c"])),
    "packed.npz": lambda p, z, i, y: np.savez_compressed(p, X=z, keys=i, y=y),
    "by_id.npz": lambda p, z, i, y: np.savez(p, **dict(zip(i, z, strict=True))),
    "by_id.safetensors": lambda p, z, i, y: save_file({n: t(row) for n, row in zip(i, z, strict=True)}, p),
    "lightly.pth": lambda p, z, i, y: torch.save({"filenames": i.tolist(), "embeddings": t(z)}, p),
    "dict.pt": lambda p, z, i, y: torch.save({"features": t(z), "labels": t(y), "paths": i.tolist()}, p),
    "nested.pt": lambda p, z, i, y: torch.save({"image": {"embeddings": t(z), "ids": i.tolist()},
                                                "meta": {"model": "vit", "dim": 6}}, p),
    "numpy.pt": lambda p, z, i, y: torch.save({"embeddings": z, "labels": y, "names": i, "scale": np.float32(2)}, p),
    "paths.pt": lambda p, z, i, y: torch.save({"embeddings": t(z), "paths": [Path(n) for n in i]}, p),
    "by_id.pt": lambda p, z, i, y: torch.save({n: t(row.copy()) for n, row in zip(i.tolist(), z, strict=True)}, p),
    "records.pt": lambda p, z, i, y: torch.save([{"id": a, "embedding": t(b.copy()), "label": int(c)} for a, b, c in zip(
        i.tolist(), z, y, strict=True)], p),
    "pairs.pt": lambda p, z, i, y: torch.save([(a, t(b.copy()), int(c)) for a, b, c in zip(i.tolist(), z, y, strict=True)], p),
    "positions.npz": lambda p, z, i, y: np.savez(p, z, i, y),
    "tuple.pt": lambda p, z, i, y: torch.save((t(z), t(y), i.tolist()), p),
    "batches.pt": lambda p, z, i, y: torch.save([{"embeddings": a, "ids": b.tolist(), "labels": t(c)} for a, b, c in zip(
        t(z).split(16), np.array_split(i, [16, 32]), np.array_split(y, [16, 32]), strict=True)], p),
    "grad.pt": lambda p, z, i, y: torch.save({"embeddings": torch.nn.Parameter(t(z)), "id": i.tolist()}, p),
    "long.pt": lambda p, z, i, y: torch.save({"embeddings": t(z)[:, :, None, None], "id": i.tolist()}, p),
}
HALF = {"clip"}
NO_LABELS = {"by_id.json", "by_id.npz", "by_id.safetensors", "lightly.pth", "nested.pt", "paths.pt", "by_id.pt", "grad.pt",
             "long.pt"}


@pytest.mark.parametrize("name", FORMATS)
def test_any_encoding_of_the_pair_is_the_pair(tmp_path, name):
    for side, z, rows in (("t", TEACHER, np.arange(COUNT)), ("s", STUDENT, ORDER)):
        (tmp_path / side).mkdir()
        FORMATS[name](tmp_path / side / name, z[rows], IDS[rows], LABELS[rows])
    teacher, student = (read_embeddings(tmp_path / side / name, where="--teacher") for side in ("t", "s"))
    first, second, pairing = align(teacher, student)
    place = {n.removesuffix(", x"): i for i, n in enumerate(IDS)}
    rows = [place[n.removesuffix(", x")] for n in first.ids]
    tolerance = 1e-3 if name in HALF else 0
    repeat = 3 if name == "mixed_order.csv" else 1
    assert pairing.by == "id" and pairing.matched == COUNT and pairing.dropped == (0, 0)
    assert np.abs(np.asarray(first.rows, np.float64) - np.tile(TEACHER, repeat)[rows]).max() <= tolerance
    assert np.abs(np.asarray(second.rows, np.float64) - np.tile(STUDENT, repeat)[rows]).max() <= tolerance
    assert (first.labels is None) == (name in NO_LABELS)
    if first.labels is not None:
        assert [str(v).lstrip("c") for v in first.labels] == [str(v) for v in LABELS[rows]]
    said = teacher.reading.said()
    assert f"{COUNT} rows of {TEACHER.shape[1] * repeat}" in said and "ids from" in said and "\n" not in said


@pytest.mark.parametrize("name", ID_NAMES)
def test_ids_under_any_usual_name(tmp_path, name):
    np.savez(tmp_path / "t.npz", embeddings=TEACHER, **{name: IDS})
    frame = columns(STUDENT[ORDER], IDS[ORDER], LABELS[ORDER], score=0.5).rename(columns={"filename": name})
    frame.to_csv(tmp_path / "s.csv", index=False)
    first, second, pairing = align(read_embeddings(tmp_path / "t.npz"), read_embeddings(tmp_path / "s.csv"))
    assert pairing.columns == (name, name) and np.allclose(second.rows[:], STUDENT) and first.rows is not None


@pytest.mark.parametrize(("first", "second", "how"), [
    (lambda k: f"{k:03d}", str, "as whole numbers"), (str, lambda k: f"{k:06d}", "as whole numbers"),
    (lambda k: f"img/{k}.png", lambda k: f"./img/{k}.png", "as paths"),
    (lambda k: f"a\\{k}.png", lambda k: f"a/{k}.png", "as paths"),
    (lambda k: f"/data/a/{k}.png", lambda k: f"{k}.png", "by their file names alone"),
    (lambda k: f"x/{k}.png", lambda k: f"y/{k}.jpg", "without suffix"),
    (lambda k: f"caf\u00e9{k}", lambda k: f"cafe\u0301{k}", "as paths"),
])
def test_one_id_in_two_ways_of_writing(tmp_path, first, second, how):
    numbers = np.arange(COUNT)
    columns(TEACHER, [first(k) for k in numbers], LABELS).to_csv(tmp_path / "t.csv", index=False)
    columns(STUDENT[ORDER], [second(k) for k in numbers[ORDER]], LABELS[ORDER]).to_csv(tmp_path / "s.csv", index=False)
    teacher = read_embeddings(tmp_path / "t.csv")
    assert teacher.ids[7] == first(7)  # 007 stays 007
    _, student, pairing = align(teacher, read_embeddings(tmp_path / "s.csv"))
    assert pairing.matched == COUNT and how in pairing.note and np.allclose(student.rows[:], STUDENT)


def test_numbers_that_would_be_ambiguous_are_not_matched_so(tmp_path):
    np.savez(tmp_path / "t.npz", embeddings=TEACHER, ids=[f"{k:03d}" for k in range(COUNT - 1)] + ["0001"])
    np.savez(tmp_path / "s.npz", embeddings=STUDENT, ids=np.arange(COUNT))
    with refused(got="none in common"):
        align(read_embeddings(tmp_path / "t.npz"), read_embeddings(tmp_path / "s.npz"))


def test_a_pickle_is_refused_in_one_line(tmp_path):
    for suffix in (".pkl", ".pickle", ".joblib"):
        (tmp_path / f"a{suffix}").write_bytes(pickle.dumps({"embeddings": TEACHER}))
        with refused(got="a pickle"):
            read_embeddings(tmp_path / f"a{suffix}")
