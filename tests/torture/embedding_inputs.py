"""Files of embeddings and labels, damaged or made to harm: every format, swapped suffixes, bombs, pickles, odd arrays.

And harmless re-encodings of known embeddings, ids and labels: what is read equals the truth; a refusal is counted as such.
"""

from __future__ import annotations

import functools
import gzip
import io
import json
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from torture.fuzz import HOSTILE_NAMES, Reader, damaged, nested_json

ROWS = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)
IDS, CLASSES = [f"id{i}" for i in range(40)], np.arange(40) % 3
Write = Callable[[Path, np.ndarray, list[str], np.ndarray], object]


def readers(work: Path) -> dict[str, Reader]:
    return {"embeddings": Reader(26, "files of embeddings in every format: bytes damaged, suffixes swapped, bombs, "
                                     "pickles, odd arrays", embeddings),
            "labels": Reader(5, "the same files as labels", labels),
            "oracle": Reader(10, "known embeddings, ids and labels re-encoded in every format: what is read equals them",
                             known),
            "audit": Reader(3, "arrays of every scale, rank and kind, and labels, to `audit`: finite numbers or a line",
                            audited)}


@functools.cache
def whole(name: str) -> bytes:
    """A good file of a format."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        readable_formats()[name](path, ROWS, IDS, CLASSES)
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


def known(rng: random.Random, number: int, folder: Path) -> tuple[str, Callable[[], str | None]]:
    """Random rows of random shape and scale, ids that are text, numbers or padded, in a random format."""
    names = list(readable_formats())
    name = names[number % len(names)]
    draws = np.random.default_rng(rng.getrandbits(32))
    count, dim = rng.randint(3, 60), rng.randint(2, 20)
    dtype = rng.choice((np.float32, np.float64))
    rows = (draws.standard_normal((count, dim)) * 10.0 ** rng.randint(-6, 6) + 0.5).astype(dtype)
    kind = rng.choice(("text", "padded", "files", "other scripts"))
    ids = [{"text": f"item {i}", "padded": f"{i:05d}", "files": f"a/b_{i}.png", "other scripts": f"小{i}é"}[kind]
           for i in draws.permutation(count)]
    labels = draws.integers(0, 5, count)
    labels[:2] = (0, 1)
    path = folder / name
    readable_formats()[name](path, rows, ids, labels)
    return f"{name}, {count} x {dim} {dtype.__name__}, ids {kind}", partial(equals, path, rows, ids, labels)


def equals(path: Path, rows: np.ndarray, ids: list[str], labels: np.ndarray) -> str | None:
    from distillscope.inputs.embeddings import read_embeddings

    found = read_embeddings(path)
    got = np.asarray(found.rows[:], dtype=np.float64)
    if got.shape != rows.shape:
        return f"shape {got.shape}, not {rows.shape}"
    if not np.allclose(got, rows.astype(np.float64), rtol=1e-6 if rows.dtype == np.float32 else 1e-14, atol=0):
        return f"other numbers, first {got.ravel()[0]} for {rows.ravel()[0]}"
    if found.ids is not None and [str(i) for i in found.ids] != ids:
        return f"other ids, first {found.ids[0]!r} for {ids[0]!r}"
    if found.labels is not None and len(set(zip(map(str, found.labels), labels.tolist(),
                                                strict=True))) != len(set(labels.tolist())):
        return f"other labels, first {found.labels[0]!r} for {labels[0]}"
    return None


SIDES: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "as it is": lambda z, g: z, "constant": lambda z, g: np.ones_like(z), "zeros": lambda z, g: z * 0,
    "a zero row": lambda z, g: np.vstack([z[:-1], z[:1] * 0]),
    "a NaN": lambda z, g: np.where(np.arange(z.size).reshape(z.shape) == 7, np.nan, z),
    "an infinity": lambda z, g: np.where(np.arange(z.size).reshape(z.shape) == 7, np.inf, z),
    "times 1e200": lambda z, g: z * 1e200, "times 1e-300": lambda z, g: z * 1e-300,
    "float32 times 1e30": lambda z, g: (z * 1e30).astype(np.float32),
    "subnormal float32": lambda z, g: (z * 1e-40).astype(np.float32),
    "rank 1": lambda z, g: z[:, :1] @ np.ones((1, z.shape[1])), "one dimension": lambda z, g: z[:, :1],
    "repeated rows": lambda z, g: np.repeat(z[:5], len(z) // 5 + 1, 0)[: len(z)], "float16": lambda z, g: z.astype(np.float16),
    "float16 near its top": lambda z, g: (z * 1.5e4).astype(np.float16),
    "columns of other scales": lambda z, g: z * np.logspace(-150, 150, z.shape[1]), "far from zero": lambda z, g: z + 1e8,
    "at the top": lambda z, g: np.full_like(z, 1e308),
    "a constant column": lambda z, g: np.hstack([z[:, 1:], np.full((len(z), 1), 3.0)]), "negated": lambda z, g: -z,
    "wider than long": lambda z, g: g.standard_normal((len(z), 3 * len(z))),
    "text": lambda z, g: z.astype(str), "whole numbers": lambda z, g: (z * 10).astype(int),
    "complex": lambda z, g: z.astype(complex), "objects": lambda z, g: z.astype(object),
    "one row short": lambda z, g: z[:-1], "flat": lambda z, g: z.ravel(), "three axes": lambda z, g: z[:, :, None],
}
LABELLINGS: dict[str, Callable[[int], object]] = {
    "none": lambda n: None, "two classes": lambda n: np.arange(n) % 2, "one class": lambda n: np.zeros(n, int),
    "each its own": np.arange, "text": lambda n: np.array(["a", "b", "c"] * n)[:n],
    "some unlabelled": lambda n: np.arange(n) % 3 - 1, "huge": lambda n: (np.arange(n) % 2) * 2**60,
    "one rare": lambda n: (np.arange(n) == 0).astype(int), "one short": lambda n: np.arange(n - 1) % 2,
    "NaN": lambda n: np.where(np.arange(n) == 3, np.nan, np.arange(n) % 2),
    "objects": lambda n: np.array([None, {}, "x"] * n, object)[:n], "two axes": lambda n: np.zeros((n, 2)),
}


def audited(rng: random.Random, number: int, folder: Path) -> tuple[str, Callable[[], str | None]]:
    draws = np.random.default_rng(rng.getrandbits(32))
    count = rng.choice((1, 2, 3, 4, 8, 30, 60))
    teacher = draws.standard_normal((count, 12))
    names = (list(SIDES)[number % len(SIDES)], rng.choice(list(SIDES)) if rng.random() < 0.3 else "as it is",
             rng.choice(list(LABELLINGS)))
    with np.errstate(all="ignore"):
        student = SIDES[names[0]](teacher[:, :6] @ draws.standard_normal((6, 6)), draws)
        teacher = SIDES[names[1]](teacher, draws)
    labels, normalize = LABELLINGS[names[2]](count), rng.choice((None, "l2"))

    def attempt() -> str | None:
        import json

        from distillscope.measure.audit import audit

        found = audit(teacher, student, labels, normalize=normalize, intervals=rng.random() < 0.2)
        json.dumps(found.to_dict(), allow_nan=False)
        odd = [key for key, value in found.measured.items() if not np.isfinite(value.value)]
        return f"not finite: {', '.join(odd[:4])}" if odd else None

    return f"{count} rows, student {names[0]}, teacher {names[1]}, labels {names[2]}, normalize {normalize}", attempt


def _table(rows: np.ndarray, ids: list[str], labels: np.ndarray) -> pa.Table:
    lists = pa.array(rows.tolist(), pa.list_(pa.float32() if rows.dtype == np.float32 else pa.float64()))
    return pa.table({"id": ids, "embedding": lists, "label": labels})


def _columns(rows: np.ndarray, ids: list[str], labels: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=[f"d{i}" for i in range(rows.shape[1])]).assign(id=ids, label=labels)


def _npz(path: Path, rows: np.ndarray, ids: list[str], labels: np.ndarray, save=np.savez) -> None:
    save(path, embeddings=rows, ids=np.array(ids), labels=labels)


def _torch(path: Path, rows: np.ndarray, ids: list[str], labels: np.ndarray, **options: bool) -> None:
    import torch

    torch.save({"embeddings": torch.from_numpy(rows), "ids": ids, "labels": torch.from_numpy(labels)}, path, **options)


def _as_safetensors(path: Path, rows: np.ndarray, ids: list[str], labels: np.ndarray) -> None:
    from safetensors.numpy import save_file

    save_file({"embeddings": np.ascontiguousarray(rows), "labels": labels}, path)


def _json_lines(path: Path, rows: np.ndarray, ids: list[str], labels: np.ndarray) -> None:
    path.write_text("".join(json.dumps({"id": i, "embedding": r, "label": int(n)}) + "\n"
                            for i, r, n in zip(ids, rows.tolist(), labels, strict=True)))


def _feather(path: Path, rows: np.ndarray, ids: list[str], labels: np.ndarray, **options: str) -> None:
    import pyarrow.feather

    pyarrow.feather.write_feather(_table(rows, ids, labels), path, **options)


def _arrow(path: Path, rows: np.ndarray, ids: list[str], labels: np.ndarray) -> None:
    table = _table(rows, ids, labels)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as out:
        out.write_table(table)


FORMATS: dict[str, Write] = {
    "a.npy": lambda p, z, i, n: np.save(p, z),
    "fortran.npy": lambda p, z, i, n: np.save(p, np.asfortranarray(z)),
    "big-endian.npy": lambda p, z, i, n: np.save(p, z.astype(z.dtype.newbyteorder(">"))),
    "a.npz": _npz,
    "packed.npz": lambda p, z, i, n: _npz(p, z, i, n, np.savez_compressed),
    "a.safetensors": _as_safetensors,
    "a.pt": _torch,
    "old.pth": lambda p, z, i, n: _torch(p, z, i, n, _use_new_zipfile_serialization=False),
    "lists.parquet": lambda p, z, i, n: pq.write_table(_table(z, i, n), p),
    "packed.parquet": lambda p, z, i, n: pq.write_table(_table(z, i, n), p, compression="zstd", row_group_size=7,
                                                        data_page_version="2.0"),
    "columns.parquet": lambda p, z, i, n: _columns(z, i, n).to_parquet(p, index=False),
    "a.csv": lambda p, z, i, n: _columns(z, i, n).to_csv(p, index=False),
    "quoted.csv": lambda p, z, i, n: _columns(z, i, n).to_csv(p, index=False, quoting=1, lineterminator="\r\n"),
    "a.tsv": lambda p, z, i, n: _columns(z, i, n).to_csv(p, index=False, sep="\t"),
    "semicolons.csv": lambda p, z, i, n: _columns(z, i, n).to_csv(p, index=False, sep=";"),
    "a.csv.gz": lambda p, z, i, n: p.write_bytes(gzip.compress(_columns(z, i, n).to_csv(index=False).encode())),
    "a.jsonl": _json_lines,
    "a.feather": _feather,
    "packed.feather": lambda p, z, i, n: _feather(p, z, i, n, compression="zstd"),
    "a.arrow": _arrow,
}


def suffix_of(name: str) -> str:
    """What the reader goes by: the name after its first dot."""
    return "." + name.partition(".")[2]


def readable_formats() -> dict[str, Write]:
    """The formats that this version reads."""
    from distillscope.inputs.formats import READERS

    return {name: write for name, write in FORMATS.items() if f".{name.split('.')[1]}" in READERS}
