"""Files of embeddings and labels, damaged or made to harm: every format, swapped suffixes, bombs, pickles, odd arrays."""

from __future__ import annotations

import functools
import io
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from torture.fuzz import Reader
from torture.mutate import HOSTILE_NAMES, damaged, nested_json
from torture.oracle import readable_formats, suffix_of

ROWS = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)
IDS, LABELS = [f"id{i}" for i in range(40)], np.arange(40) % 3


def readers(work: Path) -> dict[str, Reader]:
    return {"embeddings": Reader(26,
                                 "files of embeddings in every format: bytes damaged, suffixes swapped, bombs, "
                                  "pickles, odd arrays",
                                 embeddings),
            "labels": Reader(5, "the same files as labels", labels)}


@functools.cache
def whole(name: str) -> bytes:
    """A good file of a format."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        readable_formats()[name](path, ROWS, IDS, LABELS)
        return path.read_bytes()


def embeddings(rng: random.Random, number: int, folder: Path) -> tuple[str, Callable[[], str | None]]:
    title, path = _file(rng, number, folder)
    return title, functools.partial(read, path)


def labels(rng: random.Random, number: int, folder: Path) -> tuple[str, Callable[[], str | None]]:
    from distillscope.inputs.embeddings import read_labels

    title, path = _file(rng, 10**6, folder)

    def attempt() -> str | None:
        read_labels(path, 40)
        read_labels(path, 40, np.array(IDS))

    return title, attempt


def read(path: Path) -> str | None:
    from distillscope.inputs.embeddings import read_embeddings

    found = read_embeddings(path)
    rows = np.asarray(found.rows[:], dtype=np.float64)
    if rows.ndim != 2 or len(rows) != len(found) or (found.ids is not None and len(found.ids) != len(rows)):
        return f"rows of shape {rows.shape}, said to be {len(found)}, with {None if found.ids is None else len(found.ids)} ids"
    return None


def _file(rng: random.Random, number: int, folder: Path) -> tuple[str, Path]:
    """The fixed list first, then damage of every kind."""
    fixed = list(FIXED)
    if number < len(fixed):
        path = folder / f"fixed{suffix_of(fixed[number].split(' ')[-1])}"
        FIXED[fixed[number]](path)
        return fixed[number], path
    name = rng.choice(list(readable_formats()))
    kind = rng.random()
    if kind < 0.1:
        path = folder / f"swapped{suffix_of(rng.choice(list(readable_formats())))}"
        path.write_bytes(whole(name))
        return f"{name} called {path.name}", path
    if kind < 0.2 and name.endswith((".csv", ".tsv", ".jsonl")):
        lines = whole(name).decode().splitlines()
        at = rng.randrange(len(lines))
        cells = lines[at].split(",")
        cells[rng.randrange(len(cells))] = rng.choice((*HOSTILE_NAMES, "9" * 400, "1e999", "inf", nested_json(rng)))
        lines[at] = ",".join(cells)
        path = folder / f"cell{suffix_of(name)}"
        path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
        return f"{name}, a cell made hostile", path
    path = folder / f"damaged{suffix_of(name)}"
    path.write_bytes(damaged(whole(name), rng))
    return f"{name} damaged", path


class Evil:
    """Unpickled, it runs a command; the watch of the case sees the call."""

    def __reduce__(self) -> tuple:
        return os.system, ("true",)


def _save(array: np.ndarray, **options: bool) -> Callable[[Path], None]:
    return lambda path: np.save(path, array, **options)


def _tensor(make: Callable) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        import torch

        torch.save(make(torch), path)

    return write


def _header(shape: tuple) -> bytes:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return head.getvalue()


def _zip(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, data in members:
                archive.writestr(name, data)

    return write


def _bomb(path: Path) -> None:
    """3.6 GB of zeros in 3.6 MB."""
    with zipfile.ZipFile(path, "w",
                         zipfile.ZIP_DEFLATED) as archive, archive.open("embeddings.npy", "w", force_zip64=True) as member:
        member.write(_header((900 << 20, 1)))
        for _ in range(225):
            member.write(b"\0" * (16 << 20))


def _safetensors(header: bytes, body: bytes = b"\0" * 64, length: int | None = None) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + body)


def _column(column: Callable[[], pa.Array]) -> Callable[[Path], None]:
    return lambda path: pq.write_table(pa.table({"embedding": column()}), path)


def _bytes(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data)


_ENTRY = b'{"embeddings":{"dtype":"F32","shape":[%s],"data_offsets":[%s]}}'
FIXED: dict[str, Callable[[Path], None]] = {
    **{f"array of {kind} .npy": _save(array) for kind, array in {
        "whole numbers": np.arange(12).reshape(3, 4), "truth values": np.ones((3, 4), bool),
        "complex": np.ones((3, 4), complex), "text": np.array([["a", "b"]]),
        "fields": np.zeros(3, [("a", "f4"), ("b", "f4")]), "three axes": np.ones((2, 3, 4)), "one axis": np.ones(4),
        "no axis": np.float64(3), "no rows": np.ones((0, 4)),
        "no columns": np.ones((4, 0)), "dates": np.zeros((3, 2), "M8[s]"), "raw bytes": np.zeros((3, 2), "V4"),
        "long doubles": np.ones((3, 4), np.longdouble)}.items()},
    "array of objects .npy": _save(np.array([Evil()], dtype=object), allow_pickle=True),
    **{f"pickle called {suffix}": (lambda path: path.write_bytes(pickle.dumps(Evil())))
       for suffix in (".npy", ".npz", ".pt", ".pth", ".bin", ".safetensors", ".csv", ".parquet")},
    "pickle in torch's archive .pt": _tensor(lambda torch: {"embeddings": torch.ones(4, 4), "x": Evil()}),
    **{f"tensor {kind} .pt": _tensor(make) for kind, make in {
        "expanded": lambda t: t.zeros(1).expand(1 << 20, 1 << 12), "sparse": lambda t: t.ones(4, 4).to_sparse(),
        "complex": lambda t: t.ones(3, 3, dtype=t.complex64).conj(),
        "of 8 bits": lambda t: t.zeros(4, 4, dtype=t.float8_e4m3fn), "in a list of one axis": lambda t: [t.ones(3)],
        "under the key 1": lambda t: {1: t.ones(4, 4)},
        "short of an id": lambda t: {"embeddings": t.ones(4, 4), "ids": [1, 2, 3]},
        "in itself": lambda t: (lambda d: d.update(d=d) or d)({}), "nested": lambda t: {"a": {"b": {"c": t.ones(4, 4)}}},
        "of none": lambda t: {"embeddings": None}, "meta": lambda t: t.ones(4, 4, device="meta")}.items()},
    "bomb of 3.6 GB .npz": _bomb,
    "short bomb .npz": _zip(("embeddings.npy", _header((4 << 28, 1)) + b"\0" * (1 << 26))),
    "upward path .npz": _zip(("../../../../../x.npy", _header((2, 2)) + b"\0" * 16)),
    "the same name twice .npz": _zip(("embeddings.npy", _header((2, 2)) + b"\0" * 16), ("embeddings.npy", b"")),
    "lzma .npz": _zip(("embeddings.npy", _header((2, 2)) + b"\0" * 16), method=zipfile.ZIP_LZMA),
    "deep header .safetensors": _safetensors(b"[" * 100_000),
    "header longer than the file .safetensors": _safetensors(b"{}", length=2**63),
    "huge shape .safetensors": _safetensors(_ENTRY % (b"1099511627776,4", b"0,64")),
    "negative shape .safetensors": _safetensors(_ENTRY % (b"-4,-4", b"0,64")),
    "offsets beyond .safetensors": _safetensors(_ENTRY % (b"4,4", b"64,128")),
    "offsets backwards .safetensors": _safetensors(_ENTRY % (b"4,4", b"64,0")),
    **{f"column {kind} .parquet": _column(column) for kind, column in {
        "of lists in lists": lambda: pa.array([[[1.0]]] * 4), "of structs": lambda: pa.array([{"a": 1.0}] * 4),
        "ragged": lambda: pa.array([[1.0], [1.0, 2.0]]),
        "with an empty row": lambda: pa.array([[1.0, 2.0], None]),
        "all empty": lambda: pa.array([None] * 4, pa.list_(pa.float32())),
        "of no values": lambda: pa.array([[]] * 4, pa.list_(pa.float32())),
        "of decimals": lambda: pa.array([[1]] * 4, pa.list_(pa.decimal128(5, 2))), "of nothing": lambda: pa.nulls(4),
        "of no rows": lambda: pa.array([], pa.list_(pa.float32())),
        "of maps": lambda: pa.array([[("a", 1.0)]] * 4, pa.map_(pa.string(), pa.float64())),
        "fixed with an empty row": lambda: pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2))}.items()},
    **{f"{kind} .csv": _bytes(data) for kind, data in {
        "ragged": b"a,b\n1,2\n3,4,5\n", "decimal commas": b"a;b\n1,5;2,5\n", "thousands": b'a,b\n"1,000.5",2\n3,4\n',
        "NUL": b"a,b\n1.5,\x002\n3,4\n", "UTF-16": "a,b\n1.5,2\n".encode("utf-16"),
        "open quote": b'a,b\n"1.5,2\n3,4\n', "a field of 30 MB": b"a,b\n" + b"x" * 30_000_000 + b",1\n",
        "the id column twice": b"id,id,a\nx,y,1.5\n", "one column": b"a\n1.5\n",
        "10,000 columns": b",".join([b"1"] * 10_000) + b"\n",
        "digits": b"9" * 10**6, "no line": b"\n\n\n", "only a header": b"id,a,b\n",
        "another dash": b"a,b\n\xe2\x88\x921.5,2\n"}.items()},
}
