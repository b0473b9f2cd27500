"""Tables: .parquet, .csv, and .txt with one label or id a line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from distillscope.errors import UserError
from distillscope.inputs.members import IDS, LABELS, Member, strings
from distillscope.measure.rows import Stored


def read_parquet(path: Path, where: str) -> list[Member]:
    """Columns of a parquet file: lists of floats (one a row), or each dimension a column of floats; ids and labels beside."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, memory_map=True) as file:
        schema, count = file.schema_arrow, file.metadata.num_rows
    members, floats = [], []
    for field in schema:
        kind = field.type.storage_type if isinstance(field.type, pa.BaseExtensionType) else field.type
        if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            width = kind.list_size if pa.types.is_fixed_size_list(kind) else None
            floating = pa.types.is_floating(kind.value_type)
            members.append(Member(field.name, (count, width), f"list of {kind.value_type}", floating,
                                  lambda n=field.name: _lists(path, n, where)))
        else:
            if pa.types.is_floating(kind) and field.name.lower() not in (*IDS, *LABELS):
                floats.append(field.name)
            members.append(Member(field.name, (count,), str(kind), pa.types.is_floating(kind),
                                  lambda n=field.name: _column(path, n, where)))
    if floats and not any(m.is_float and len(m.shape) == 2 for m in members):
        members.append(Member("columns", (count, len(floats)), "float", True, lambda: _columns(path, floats, where)))
    return members


def _lists(path: Path, name: str, where: str) -> Stored:
    """A column of lists as (n, d), kept in the pieces in which it is decoded, so that it is never in memory twice."""
    import pyarrow.parquet as pq

    parts: list[np.ndarray] = []
    row = 0
    with pq.ParquetFile(path, memory_map=True) as file:
        for batch in file.iter_batches(8192, columns=[name]):
            lists = batch.column(0)
            lists = getattr(lists, "storage", lists)
            if not len(lists):
                continue
            lengths = np.asarray(lists.value_lengths().fill_null(0))
            width = parts[0].shape[1] if parts else int(lengths[np.argmax(lengths > 0)])
            if (lengths != width).any():
                wrong = int(np.argmax(lengths != width))
                raise UserError(f"{where}:{name}", f"{width} values in every row", f"{lengths[wrong]} in row {row + wrong}",
                                "Drop the rows without an embedding, on both sides.")
            parts.append(_floats(lists.flatten()).reshape(len(lists), width))
            row += len(lists)
    return Stored(parts or [np.empty((0, 0), np.float32)])


def _floats(values: Any) -> np.ndarray:
    """An Arrow array of floats; nulls become NaN, which the audit names."""
    return values.to_numpy(zero_copy_only=False)


def _columns(path: Path, names: list[str], where: str) -> Stored:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, memory_map=True) as file:
        parts = [np.column_stack([_floats(c) for c in batch.columns]) for batch in file.iter_batches(8192, columns=names)]
    return Stored(parts or [np.empty((0, len(names)), np.float32)])


def _column(path: Path, name: str, where: str) -> np.ndarray:
    """One column of numbers or text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, memory_map=True) as file:
        column = file.read(columns=[name]).column(0)
    if column.null_count:
        raise UserError(f"{where}:{name}", "a value in every row", f"{column.null_count} empty", "Drop these rows.")
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.to_numpy()


def read_csv(path: Path, where: str) -> list[Member]:
    """A .csv: columns of numbers are the embeddings; id and label columns by their names. A header is told by its words."""
    import pandas as pd

    with open(path, encoding="utf-8") as handle:
        first = [cell.strip().strip('"') for cell in handle.readline().split(",")]
    known = {c.lower() for c in first} & {*IDS, *LABELS}
    words = [c for c in first if not _is_number(c)]
    numbered = first == [str(i) for i in range(len(first))]  # the column names that pandas gives
    header = 0 if known or ((words or numbered) and len(first) > 1) else None
    table = pd.read_csv(path, header=header, skipinitialspace=True)
    if header == 0 and not first[0] and (np.asarray(table.iloc[:, 0]) == np.arange(len(table))).all():
        table = table.iloc[:, 1:]  # the row numbers that pandas writes
    names = [str(c) for c in table.columns]
    members = [Member(n, (len(table),), str(d), d.kind == "f", lambda i=i: table.iloc[:, i].to_numpy())
               for i, (n, d) in enumerate(zip(names, table.dtypes, strict=True))]
    rest = [i for i, n in enumerate(names) if n.lower() not in (*IDS, *LABELS)]
    if not rest:
        return members
    kinds = {members[i].dtype for i in rest}
    text = next((names[i] for i in rest if table.dtypes.iloc[i].kind not in "fiu"), None)
    kind = "int64" if kinds == {"int64"} else "float64" if text is None else f"with text in column '{text}'"
    columns = Member("columns", (len(table), len(rest)), kind, kind == "float64",
                     lambda: table.iloc[:, rest].to_numpy(np.float64))
    return [columns, *members]


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?|nan|inf|NaN)", text))


def read_txt(path: Path, where: str) -> list[Member]:
    """One label or id a line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Member("", (len(lines),), "text", False, lambda: strings(lines, where))]
