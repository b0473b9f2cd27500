"""One clear line for each thing that is wrong with a file; nothing pickled is executed, nothing huge is allocated."""

from __future__ import annotations

import io
import json
import pickle
import re
import struct
import tracemalloc
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from builders import refused
from builders.made import COUNT, FORMATS, IDS, LABELS, embeddings, written
from distillscope.errors import UserError
from distillscope.inputs.embeddings import read_embeddings, read_labels


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def pickles(folder, payload):
    """Each way in which a pickle could come in."""
    objects = np.array([payload, payload], dtype=object)
    np.save(folder / "objects.npy", objects, allow_pickle=True)
    np.savez(folder / "objects.npz", z=objects)
    np.savez(folder / "ids.npz", z=embeddings(), ids=np.array([payload] * COUNT, dtype=object))
    (folder / "plain.npy").write_bytes(pickle.dumps(payload))
    (folder / "plain.npz").write_bytes(pickle.dumps(payload))
    (folder / "plain.pt").write_bytes(pickle.dumps(payload))
    torch.save(payload, folder / "zip.pt")
    torch.save({"z": torch.from_numpy(embeddings()), "extra": payload}, folder / "beside.bin")
    torch.save(payload, folder / "old.pth", _use_new_zipfile_serialization=False)
    return sorted(folder.iterdir())


def test_nothing_pickled_is_executed(tmp_path):
    canary = tmp_path / "executed"
    (tmp_path / "files").mkdir()
    files = pickles(tmp_path / "files", Payload(canary))
    assert len(files) == 9
    for file in files:
        for read in (read_embeddings, lambda f: read_labels(f, 2)):
            with pytest.raises(UserError) as caught:
                read(file)
            assert not canary.exists(), file
        assert "\n" not in str(caught.value)
    pickle.loads((tmp_path / "files" / "plain.pt").read_bytes())  # the payload does what it claims
    assert canary.exists()


def test_what_is_said_of_pickles(tmp_path):
    pickles(tmp_path, Payload(tmp_path / "executed"))
    with refused(got="pickled objects"):
        read_embeddings(tmp_path / "objects.npy")
    with refused(where="objects.npz:z", got="pickled objects"):
        read_embeddings(tmp_path / "objects.npz")
    with refused(where="ids.npz:ids", got="pickled objects"):
        read_embeddings(tmp_path / "ids.npz")
    with refused(where="plain.npy", got="a pickle"):
        read_embeddings(tmp_path / "plain.npy")
    for name in ("plain.pt", "zip.pt", "beside.bin", "old.pth"):
        with refused(got="pickled objects"):
            read_embeddings(tmp_path / name)


@pytest.mark.parametrize("name", FORMATS)
def test_a_truncated_file_is_named(tmp_path, name):
    path = written(tmp_path, name)
    whole = path.read_bytes()
    if name.endswith((".csv", ".tsv")):
        lines, comma = whole.rstrip().split(b"\n"), {"a.tsv": b"\t", "semicolon.csv": b";"}.get(name, b",")
        path.write_bytes(b"\n".join([*lines[:-1], comma.join(lines[-1].split(comma)[:3])]))  # a row that ends too early
        rows = np.asarray(read_embeddings(path).rows) if name != "a.csv" else None
        assert rows is None or np.isnan(rows[-1]).any()  # which the audit refuses
        return
    for kept in (len(whole) - 100, len(whole) // 2, 9, 1):
        if name == "stream.arrow" and kept == len(whole) - 100:
            continue
        path.write_bytes(whole[:kept])
        with pytest.raises(UserError, match=re.escape(str(path))):
            read_embeddings(path)


def test_a_cut_npy_says_how_much_is_missing(tmp_path):
    path = written(tmp_path, "a.npy")
    path.write_bytes(path.read_bytes()[:-4])
    with refused(expected=("480", "24", "5"), got="476"):
        read_embeddings(path)


def npy_header(shape: tuple[int, ...], dtype: str = "<f4") -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue()


def write_huge(folder):
    """Headers that claim some 4 TB or more, in every format whose header states a size."""
    shape = (10**12, 512)
    (folder / "a.npy").write_bytes(npy_header(shape) + b"\0" * 64)
    for name, compression in (("a.npz", zipfile.ZIP_STORED), ("b.npz", zipfile.ZIP_DEFLATED), ("c.npz", zipfile.ZIP_BZIP2)):
        with zipfile.ZipFile(folder / name, "w", compression) as archive:
            archive.writestr("z.npy", npy_header(shape) + b"\0" * 64)
    header = json.dumps({"z": {"dtype": "F32", "shape": shape, "data_offsets": [0, 64]}}).encode()
    (folder / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 64)
    (folder / "b.safetensors").write_bytes(struct.pack("<Q", 10**15) + header)
    torch.save(torch.zeros(1).expand(10**9, 512), folder / "a.pt")  # strides of 0: one number, claimed many times
    return sorted(folder.iterdir())


def test_a_header_that_claims_more_than_the_file_holds_allocates_nothing(tmp_path):
    files = write_huge(tmp_path)
    read_embeddings(written(tmp_path, "alone.pth"))  # imports
    tracemalloc.start()
    for file in files:
        with pytest.raises(UserError) as caught:
            read_embeddings(file)
        assert "in memory" not in str(caught.value)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()
    with refused(expected="2,048,000,000,000,000", got="64"):
        read_embeddings(tmp_path / "a.npy")
    with refused(expected="2,048,000,000,000", got="4"):
        read_embeddings(tmp_path / "a.pt")


def test_a_false_size_in_a_zip_is_refused(tmp_path):
    """Both sizes in the directory of the zip are made larger than deflate can give."""
    np.savez_compressed(tmp_path / "a.npz", z=np.zeros((100, 100), np.float32))
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        size = archive.infolist()[0].file_size
    data = bytearray((tmp_path / "a.npz").read_bytes())
    at = data.rindex(struct.pack("<I", size))
    data[at : at + 4] = struct.pack("<I", 2**31)
    (tmp_path / "a.npz").write_bytes(data)
    with refused(got="another compression"):
        read_embeddings(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.arange(20).reshape(10, 2), r"an array of floats, got int64 of shape \(10, 2\)"),
        (np.zeros((10, 2), bool), "an array of floats, got bool"),
        (np.zeros((10, 2), complex), "an array of floats, got complex128"),
        (np.array([["a", "b"]]), "an array of floats, got <U1"),
        (np.zeros(10, [("x", "f4")]), r"an array of floats, got \[\('x', '<f4'\)\]"),
        (np.zeros(10), r"shape \(items, dimensions\), got shape \(10,\)"),
        (np.zeros((10, 2, 3)), r"shape \(items, dimensions\), got shape \(10, 2, 3\)"),
        (np.zeros(()), r"shape \(items, dimensions\), got shape \(\)"),
        (np.zeros((0, 3)), r"at least one row and one column, got shape \(0, 3\)"),
        (np.zeros((3, 0)), r"at least one row and one column, got shape \(3, 0\)"),
    ],
)
def test_arrays_that_are_no_embeddings(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", z=array)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(UserError, match=message):
            read_embeddings(tmp_path / name)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_tensors_that_are_no_embeddings(tmp_path):
    torch.save({"a": torch.zeros(3, dtype=torch.int64), "note": "x"}, tmp_path / "a.pt")
    with refused(where="a.pt", got="int64"):
        read_embeddings(tmp_path / "a.pt")
    torch.save(torch.eye(3).to_sparse(), tmp_path / "sparse.pt")
    with refused(got="a torch.sparse_coo one on cpu"):
        read_embeddings(tmp_path / "sparse.pt")
    torch.save({"model": {"weight": torch.eye(3)}}, tmp_path / "state.pt")
    with refused(got="the weights of a model"):
        read_embeddings(tmp_path / "state.pt")
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "script.pt")
    with refused(got="a TorchScript model", advice="--data"):
        read_embeddings(tmp_path / "script.pt")


def test_tables_that_are_no_embeddings(tmp_path):
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    frame.assign(file=["x", "y"]).to_csv(tmp_path / "loose.csv", index=False)
    with refused(got="a, b", advice="FILE:a,b"):
        read_embeddings(tmp_path / "loose.csv")
    for named in ("a,b", "a..b"):
        assert read_embeddings(f"{tmp_path / 'loose.csv'}:{named}").rows.tolist() == [[1.0, 3.0], [2.0, 4.0]]
    with refused(got="'file', text"):
        read_embeddings(f"{tmp_path / 'loose.csv'}:a,file")
    frame.set_axis(["d0", "d1"], axis=1).astype(int).to_csv(tmp_path / "whole.csv", index=False)
    with refused(got="int64 of shape (2, 2)", advice="--scale 127"):
        read_embeddings(tmp_path / "whole.csv", where="--teacher")
    assert read_embeddings(tmp_path / "whole.csv", scale=2).rows[:].tolist() == [[0.5, 1.5], [1.0, 2.0]]
    frame.set_axis(["d3", "d7"], axis=1).to_csv(tmp_path / "gaps.csv", index=False)
    with refused(expected=("0", "1"), got="2 from 3 to 7", advice="FILE:d3..d7"):
        read_embeddings(tmp_path / "gaps.csv")
    assert read_embeddings(f"{tmp_path / 'gaps.csv'}:d3..d7").rows.shape == (2, 2)
    pq.write_table(pa.table({"e": [[1, 2], [3, 4]]}), tmp_path / "whole.parquet")
    with refused(got="list of int64"):
        read_embeddings(tmp_path / "whole.parquet")
    pq.write_table(pa.table({"e": [[1.0, 2.0], [3.0]]}), tmp_path / "ragged.parquet")
    with refused(where="ragged.parquet:e", expected="2", got="1 in row 1"):
        read_embeddings(tmp_path / "ragged.parquet")
    pq.write_table(pa.table({"e": [[1.0, 2.0], None]}), tmp_path / "none.parquet")
    with refused(got="1 empty rows, first row 1, and no ids"):
        read_embeddings(tmp_path / "none.parquet")
    pq.write_table(pa.table({"a": [[1.0]], "b": [[2.0]]}), tmp_path / "two.parquet")
    with refused(where="two.parquet", got="2"):
        read_embeddings(tmp_path / "two.parquet")
    pq.write_table(pa.table({"id": ["x", None], "e": [[1.0], [2.0]]}), tmp_path / "id.parquet")
    with refused(where="id.parquet:id", got="1 empty"):
        read_embeddings(tmp_path / "id.parquet")


def test_ids_and_labels_of_another_length(tmp_path):
    np.savez(tmp_path / "ids.npz", z=embeddings(), ids=np.array(IDS[1:]))
    with refused(where="ids.npz ids", expected="24", got="23"):
        read_embeddings(tmp_path / "ids.npz")
    np.savez(tmp_path / "labels.npz", z=embeddings(), labels=LABELS[1:])
    with refused(where="labels.npz labels", expected="24", got="23"):
        read_embeddings(tmp_path / "labels.npz")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.arange(9), "expected 10 labels, one per item, got 9. Save them in row order, or with the ids"),
        (np.full(10, 0.5), "whole numbers or text, got 0.5 in row 0"),
        (np.r_[np.arange(9.0), np.inf], "whole numbers or text, got inf in row 9"),
        (np.full(10, 1e300), "got 1e.300 in row 0"),
        (np.full((10, 2), 0.5), "expected one value per item, or one-hot rows"),
        (np.zeros(10, "M8[s]"), "whole numbers or text"),
    ],
)
def test_labels_that_are_none(tmp_path, labels, message):
    np.save(tmp_path / "l.npy", labels)
    with pytest.raises(UserError, match=message):
        read_labels(tmp_path / "l.npy", 10)


def test_paths_that_lead_nowhere(tmp_path):
    with refused(where="--student none.npy"):
        read_embeddings("none.npy", where="--student")
    with refused(where="labels none.npy"):
        read_labels("none.npy", 3)
    (tmp_path / "a.mat").write_bytes(b"x")
    with refused(where="a.mat", got="'.mat'"):
        read_embeddings(tmp_path / "a.mat")
    (tmp_path / "a.onnx").write_bytes(b"x")
    with refused(got="a model", advice="--data"):
        read_embeddings(tmp_path / "a.onnx")
    for suffix in (".npy", ".npz", ".pt", ".parquet", ".csv", ".safetensors"):
        (tmp_path / f"a{suffix}").touch()
        with refused(got="an empty file"):
            read_embeddings(tmp_path / f"a{suffix}")
    np.savez(tmp_path / "zip.npz", z=embeddings())
    (tmp_path / "zip.npz").rename(tmp_path / "zip.npy")
    with refused(got="a zip archive"):
        read_embeddings(tmp_path / "zip.npy")
    (tmp_path / "text.parquet").write_text("hello")
    with refused(got="ArrowInvalid"):
        read_embeddings(tmp_path / "text.parquet")


def test_a_damaged_offset_in_an_arrow_file_leads_nowhere(tmp_path):
    import pyarrow as pa

    table = pa.table({"id": [f"item{i}" for i in range(40)], "embedding": [[0.5, float(i)] for i in range(40)]})
    path = tmp_path / "a.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as out:
        out.write_table(table)
    data, offsets = bytearray(path.read_bytes()), np.cumsum([0, 5, 5]).astype("<i4").tobytes()
    at = data.index(offsets)
    data[at + 4 : at + 8] = (2**30).to_bytes(4, "little")
    path.write_bytes(data)
    with refused(where="a.arrow"):
        read_embeddings(path)


def test_an_id_given_twice_in_one_json_object(tmp_path):
    (tmp_path / "z.json").write_text('{"a.jpg": [1.0, 2.0], "b.jpg": [2.0, 1.0], "a.jpg": [3.0, 3.0]}')
    with refused(where="z.json", got="the key 'a.jpg' twice"):
        read_embeddings(tmp_path / "z.json")
