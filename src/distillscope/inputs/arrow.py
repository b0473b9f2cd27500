"""Arrow's tables: .parquet, .feather, .arrow (file or stream), JSON lines, and the folder that `datasets` saves.

All are read by columns and in batches; what lies uncompressed on disk stays there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, Field

from distillscope.errors import UserError
from distillscope.files.json_reader import parse_json, read_json
from distillscope.inputs.dimensions import runs_of
from distillscope.inputs.members import Contents, Kept, Member, check_memory, opened
from distillscope.measure.rows import Stored

BATCH = 8192
DEEPEST = 8


@dataclass(frozen=True)
class Table:
    """A table on disk: ``batches(names)`` gives these columns, in the order of the rows; if ``packed``, decoded into memory."""

    schema: Any
    count: int
    batches: Callable[[list[str]], Iterator[Any]]
    packed: bool = False


@dataclass(frozen=True)
class _Leaf:
    """A column, or a field inside columns of structs: its path."""

    path: tuple[str, ...]
    type: Any

    @property
    def name(self) -> str:
        return ".".join(self.path)


def read_parquet(path: Path, where: str) -> Contents:
    """Columns of a parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, memory_map=True) as file:
        schema, count = file.schema_arrow, file.metadata.num_rows

    def batches(names: list[str]) -> Iterator[Any]:
        try:
            with pq.ParquetFile(path, memory_map=True) as file:
                yield from file.iter_batches(BATCH, columns=names)
        except pa.ArrowInvalid as error:
            if "Expected all lists to be of size" not in str(error):
                raise
            raise UserError(where, "a vector in every row, since they are stored at one length, and pyarrow before 26 cannot "
                            "read such a column with a gap", f"rows without one, and pyarrow {pa.__version__}",
                            "pip install 'pyarrow>=26', or save the column as lists of any length.") from None

    return contents_of(Table(schema, count, batches, packed=True), where)


def read_arrow(path: Path, where: str) -> Contents:
    """Columns of an Arrow file or stream, or of a feather file."""
    with open(path, "rb") as handle:
        if handle.read(4) == b"FEA1":
            from pyarrow import feather

            table = feather.read_table(path)
            table.validate(full=True)
            return contents_of(in_memory(table), where)
    return contents_of(joined([_ipc(path)]), where)


def _ipc(path: Path) -> Table:
    import pyarrow as pa

    @contextlib.contextmanager
    def reader(names: list[str] | None = None) -> Iterator[Any]:
        with pa.memory_map(str(path)) as mapped:
            is_file = mapped.read(6) == b"ARROW1"
            mapped.seek(0)
            with _open(mapped, is_file, None) as found:
                places = None if names is None else [found.schema.get_field_index(n) for n in names]
            mapped.seek(0)
            with _open(mapped, is_file, places) as found:
                yield found

    def batches(names: list[str]) -> Iterator[Any]:
        with reader(names) as found:
            is_file = hasattr(found, "get_batch")
            for batch in (found.get_batch(i) for i in range(found.num_record_batches)) if is_file else found:
                chosen = batch.select(names)
                chosen.validate(full=True)  # the format has no checksums, and a damaged offset would lead out of memory
                yield chosen

    with reader() as found:
        schema = found.schema
    narrow = next((f.name for f in schema if not str(f.type).startswith(("list", "fixed", "large_list", "extension"))), None)
    if len(schema) == 0:
        return Table(schema, 0, batches)
    return Table(schema, sum(batch.num_rows for batch in batches([narrow or schema[0].name])), batches)


def _open(mapped: Any, is_file: bool, places: list[int] | None) -> Any:
    from pyarrow import ipc

    options = ipc.IpcReadOptions(included_fields=places) if places else None
    return (ipc.open_file if is_file else ipc.open_stream)(mapped, options=options)


def read_jsonl(path: Path, where: str) -> Contents:
    """Fields of JSON lines, one object per item; gzipped or not."""
    import pyarrow as pa
    from pyarrow import json

    def read(types: dict[str, Any]) -> Any:
        with opened(path, where) as handle:
            # One thread, since a file is one block anyway; with several it crashed more often (see `_check_lines`).
            size = min(2**30, max(2**20, 64 * path.stat().st_size))
            return json.read_json(handle, json.ReadOptions(use_threads=False, block_size=size),
                                  json.ParseOptions(explicit_schema=pa.schema(list(types.items()))))

    _check_lines(path, where)
    table = read({})
    times = {f.name: pa.string() for f in table.schema if pa.types.is_timestamp(f.type)}  # text that looks like a date is an id
    return contents_of(in_memory(read(times) if times else table), where)


def _check_lines(path: Path, where: str) -> None:
    """Refuse what is no JSON before Arrow sees it: its reader crashed the process on random bytes (seen three times in tests,
    pyarrow 26.0.1; once on one thread)."""
    with opened(path, where) as handle:
        for number, line in enumerate(handle, 1):
            if line.strip():
                parse_json(line, f"{where}, line {number}", dict, 'Write {"field": value, ...} on each line.', nan=True)


def in_memory(table: Any) -> Table:
    """An Arrow table that has been read."""
    return Table(table.schema, table.num_rows, lambda names: iter(table.select(names).combine_chunks().to_batches(BATCH)))


def joined(tables: Sequence[Table]) -> Table:
    """Tables of the same columns, one under another."""
    return Table(tables[0].schema, sum(t.count for t in tables), lambda names: (b for t in tables for b in t.batches(names)))


class _Part(BaseModel):
    filename: str


class _State(BaseModel):
    """What the state.json of a saved data set says of its files."""

    data_files: list[_Part] = Field(alias="_data_files")


def read_saved(folder: Path, where: str) -> Contents:
    """The folder that `Dataset.save_to_disk` writes: Arrow streams, in the order of its state.json."""
    names = [part.filename for part in read_json(folder / "state.json", _State, "Save it again with save_to_disk.").data_files]
    outside = next((n for n in names if Path(n).name != n), None)
    if outside is not None or not names:
        raise UserError(f"{where}/state.json", "files of this folder", f"'{outside}'" if names else "none",
                        "Save it again with save_to_disk.")
    tables = [_ipc(folder / n) for n in names]
    odd = next((n for n, t in zip(names, tables, strict=True) if t.schema.names != tables[0].schema.names), None)
    if odd is not None:
        raise UserError(f"{where}/{odd}", f"the columns of {names[0]}", "others", "Save it again with save_to_disk.")
    return contents_of(joined(tables), where)


# -- columns -----------------------------------------------------------------------------------------------------------------


def contents_of(table: Table, where: str) -> Contents:
    """Every column as a member: lists, numbers, text, and runs of numbered columns side by side."""
    leaves = [leaf for field in table.schema for leaf in _leaves((field.name,), field.type, 0)]
    members = [_member(table, leaf, where) for leaf in leaves]
    members += _implied_index(table, [m.name for m in members])
    places = {leaf.name: leaf for leaf in leaves}

    def join(names: Sequence[str]) -> Stored:
        return _side_by_side(table, [places[n] for n in names])

    return Contents([*members, *runs_of(members, join, where)], join)


class _Level(BaseModel):
    """A level of pandas' index that is a range, and so no column of the file."""

    kind: str
    name: Any = None
    start: int
    stop: int
    step: int


class _Pandas(BaseModel):
    """What pandas says of its index in the metadata of a table: names of columns, or ranges."""

    index_columns: list[Any] = []


def _implied_index(table: Table, names: Sequence[str]) -> list[Member]:
    """The numbers of rows that pandas keeps beside a table, where they are as many as its rows: those of another table are not.

    What is called as a column of the file is that column.
    """
    said = (table.schema.metadata or {}).get(b"pandas")
    found: list[Member] = []
    with contextlib.suppress(ValueError):  # a note of another program, which says nothing of the rows
        for i, held in enumerate(_Pandas.model_validate_json(said or b"{}").index_columns):
            if not isinstance(held, dict) or held.get("kind") != "range":
                continue
            level = _Level.model_validate(held)
            title = str(level.name) if level.name is not None else f"__index_level_{i}__"
            numbers = range(level.start, level.stop, level.step or 1)
            if len(numbers) == table.count and title not in names:
                found.append(Member(title, (table.count,), "int64", "i", partial(np.array, numbers, np.int64), implied=True))
    return found


def _leaves(path: tuple[str, ...], kind: Any, depth: int) -> Iterator[_Leaf]:
    import pyarrow as pa

    if pa.types.is_struct(kind) and depth < DEEPEST:
        for field in kind:
            yield from _leaves((*path, field.name), field.type, depth + 1)
    else:
        yield _Leaf(path, kind)


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _stored(kind: Any) -> Any:
    import pyarrow as pa

    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _member(table: Table, leaf: _Leaf, where: str) -> Member:
    import pyarrow as pa

    kind = _stored(leaf.type)
    if _is_list(kind):
        inner, depth = _stored(kind.value_type), 1
        while _is_list(inner):
            inner, depth = _stored(inner.value_type), depth + 1
        width = kind.list_size if depth == 1 and pa.types.is_fixed_size_list(kind) else None
        letter = _letter(inner)
        dtype = f"{'list of ' * depth}{inner}"
        return Member(leaf.name, (table.count, width), dtype, letter, lambda: _lists(table, leaf, where))
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    is_view = getattr(pa.types, "is_string_view", pa.types.is_string)  # of newer versions
    text = pa.types.is_string(value) or pa.types.is_large_string(value) or is_view(value)
    letter = "U" if text else _letter(value)
    return Member(leaf.name, (table.count,), "text" if text else str(value), letter, lambda: _column(table, leaf))


def _letter(kind: Any) -> str:
    import pyarrow as pa

    if pa.types.is_decimal(kind):
        return "f" if kind.scale > 0 else "i"
    return ("f" if pa.types.is_floating(kind) else "i" if pa.types.is_integer(kind) else "b" if pa.types.is_boolean(kind)
            else "O")


def _without_decimals(values: Any) -> Any:
    """Decimals of a database as the numbers that NumPy has."""
    import pyarrow as pa

    if not pa.types.is_decimal(values.type):
        return values
    return values.cast(pa.float64() if values.type.scale > 0 else pa.int64())


def _arrays(table: Table, leaf: _Leaf) -> Iterator[Any]:
    """The column in pieces, taken out of its structs."""
    import pyarrow.compute as pc

    for batch in table.batches([leaf.path[0]]):
        array = batch.column(0)
        if len(leaf.path) > 1:
            array = pc.struct_field(array, list(leaf.path[1:]))
        yield getattr(array, "storage", array)


def _lists(table: Table, leaf: _Leaf, where: str) -> Stored | Kept:
    """A column of lists as (n, d), kept in the pieces in which it is decoded, so that it is never in memory twice."""
    import pyarrow.compute as pc

    parts: list[np.ndarray] = []
    kept: list[np.ndarray] = []
    row, width = 0, 0
    for lists in _arrays(table, leaf):
        lists = _one_level(lists, f"{where}:{leaf.name}")
        lengths = np.asarray(pc.list_value_length(lists).fill_null(0))
        here = np.flatnonzero(lengths)
        if len(here):
            if not width:
                width = int(lengths[here[0]])
                need = table.count * width * 2 if table.packed else 0
                check_memory(need, need, f"{where}:{leaf.name}", "Save it as .npy, which is memory-mapped.")
            wrong = here[lengths[here] != width]
            if len(wrong):
                raise UserError(f"{where}:{leaf.name}", f"{width} values in every row",
                                f"{lengths[wrong[0]]} in row {row + wrong[0]}",
                                "Drop the rows that are of another model, on both sides.")
            parts.append(_numbers(lists.flatten()).reshape(len(here), width))
        kept.append(row + here)
        row += len(lists)
    rows = Stored(parts or [np.empty((0, 0), np.float32)])
    return rows if len(rows) == row else Kept(rows, np.concatenate(kept), row)


def _one_level(lists: Any, where: str) -> Any:
    """Lists of numbers, where each row is a list of one list, or of lists of one number."""
    import pyarrow as pa
    import pyarrow.compute as pc

    while _is_list(lists.type.value_type):
        inner = lists.flatten()
        outer = np.asarray(pc.list_value_length(lists).fill_null(0))
        lengths = np.asarray(pc.list_value_length(inner).fill_null(0))
        if (lengths == 1).all() and not (outer <= 1).all():
            lists = pa.ListArray.from_arrays(np.r_[0, np.cumsum(outer)].astype(np.int32), inner.flatten())
        elif (outer <= 1).all():
            every = np.zeros(len(lists), np.int64)
            every[outer == 1] = lengths
            lists = pa.ListArray.from_arrays(np.r_[0, np.cumsum(every)].astype(np.int32), inner.flatten())
        else:
            raise UserError(where, "one list of numbers in every row", f"{int(outer.max())} lists",
                            "Pool them to one embedding per item first.")
    return lists


def _numbers(values: Any) -> np.ndarray:
    """An Arrow array of numbers; nulls become NaN, which the audit names."""
    return _without_decimals(values).to_numpy(zero_copy_only=False)


def _side_by_side(table: Table, leaves: list[_Leaf]) -> Stored:
    names = list(dict.fromkeys(leaf.path[0] for leaf in leaves))
    import pyarrow.compute as pc

    parts = []
    for batch in table.batches(names):
        columns = []
        for leaf in leaves:
            column = batch.column(batch.schema.get_field_index(leaf.path[0]))
            columns.append(_numbers(pc.struct_field(column, list(leaf.path[1:])) if len(leaf.path) > 1 else column))
        parts.append(np.column_stack(columns))
    return Stored(parts or [np.empty((0, len(leaves)), np.float32)])


def _column(table: Table, leaf: _Leaf) -> np.ndarray:
    """One column of numbers or text; None where it is empty."""
    import pyarrow as pa

    column = pa.chunked_array(list(_arrays(table, leaf)), type=_stored(leaf.type))
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    column = _without_decimals(column)
    return column.to_pandas(integer_object_nulls=True).to_numpy() if column.null_count else column.to_numpy()
