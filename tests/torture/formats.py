"""Embeddings written in every format as people write them: (path, rows (n, d), ids, labels) -> a file."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

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
