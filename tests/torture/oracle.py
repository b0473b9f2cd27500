"""Harmless re-encodings of known embeddings, ids and labels: what is read equals the truth; a refusal is counted as such."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from torture.fuzz import Reader


def readers(work: Path) -> dict[str, Reader]:
    return {"oracle": Reader(10, "known embeddings, ids and labels re-encoded in every format: what is read equals them", make),
            "audit": Reader(3, "arrays of every scale, rank and kind, and labels, to `audit`: finite numbers or a line",
                            audited)}


def make(rng: random.Random, number: int, folder: Path) -> tuple[str, Callable[[], str | None]]:
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
LABELS: dict[str, Callable[[int], object]] = {
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
             rng.choice(list(LABELS)))
    with np.errstate(all="ignore"):
        student = SIDES[names[0]](teacher[:, :6] @ draws.standard_normal((6, 6)), draws)
        teacher = SIDES[names[1]](teacher, draws)
    labels, normalize = LABELS[names[2]](count), rng.choice((None, "l2"))

    def attempt() -> str | None:
        import json

        from distillscope.measure.audit import audit

        found = audit(teacher, student, labels, normalize=normalize, intervals=rng.random() < 0.2)
        json.dumps(found.to_dict(), allow_nan=False)
        odd = [key for key, value in found.values.items() if not np.isfinite(value.value)]
        return f"not finite: {', '.join(odd[:4])}" if odd else None

    return f"{count} rows, student {names[0]}, teacher {names[1]}, labels {names[2]}, normalize {normalize}", attempt


Write = Callable[[Path, np.ndarray, list[str], np.ndarray], object]


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


def _safetensors(path: Path, rows: np.ndarray, ids: list[str], labels: np.ndarray) -> None:
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
    "a.safetensors": _safetensors,
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
