"""Dicts, lists and tuples, as torch, JSON and HDF5 files hold them -> arrays with a path for a name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from distillscope.errors import UserError
from distillscope.files.json_reader import parse_json
from distillscope.inputs.arrays import kind_of
from distillscope.inputs.arrow import contents_of, in_memory
from distillscope.inputs.members import Contents, Member, check_memory, size_of
from distillscope.inputs.records import Records, by_two_keys, is_either, records_of
from distillscope.measure.rows import Stored
from distillscope.naming import are_weights

Leaf = Callable[[Any, str], "Member | None"]
BATCHES = 3
"""A tuple of fewer equal parts may be two things; a list of any number is one, in parts."""


def members_of(value: Any, leaf: Leaf) -> Contents:
    """The arrays of ``value``; ``leaf(value, name)`` makes a member of what is an array already."""
    return Contents(_members(value, "", leaf, False))


def _members(value: Any, name: str, leaf: Leaf, unnamed: bool) -> list[Member]:
    found = leaf(value, name)
    if found is not None:
        return [_unnamed(found) if unnamed else found]
    if isinstance(value, dict):
        return _of_dict(value, name, leaf)
    if isinstance(value, (list, tuple)) and len(value):
        return _of_sequence(value, name, leaf, unnamed)
    dtype = "text" if isinstance(value, str) else type(value).__name__
    return [Member(name, (), dtype, "O", lambda: np.array(value, object), unnamed=unnamed)]


def _of_dict(value: dict, name: str, leaf: Leaf) -> list[Member]:
    table = by_two_keys(value) if len({frozenset(v) for v in value.values() if isinstance(v, dict)}) == 1 else None
    if table is not None:
        columns = [_members(column, f"{name}.{key}" if name else key, leaf, False) for key, column in table.columns.items()]
        if all(len(c) == 1 and c[0].shape and c[0].shape[0] == len(table.index or []) for c in columns):
            return [*(c[0] for c in columns), *_index(table)]
    parts = {str(key): _members(v, f"{name}.{key}" if name else str(key), leaf, False) for key, v in value.items()}
    single = [p[0] for p in parts.values() if len(p) == 1 and _vector(p[0])]
    if len(single) == len(parts) >= 3 and len({_vector(m) for m in single}) == 1 and not are_weights(parts):
        return [*_stacked(single, name, "each array is one item's, called by its id"),
                Member(f"{name}.ids" if name else "ids", (len(parts),), "text", "U", lambda: np.array(list(parts)))]
    return [m for p in parts.values() for m in p]


def _of_sequence(value: Sequence, name: str, leaf: Leaf, unnamed: bool) -> list[Member]:
    if all(isinstance(v, (str, bytes, bool, int, float, type(None))) for v in value):
        array = np.array(value) if len({type(v) for v in value}) == 1 else np.array(value, object)
        kind = {"S": "U"}.get(array.dtype.kind, array.dtype.kind)
        return [Member(name, array.shape, f"list of {type(value[0]).__name__}", kind, lambda: array, unnamed=unnamed)]
    if all(isinstance(v, (list, tuple)) and v and all(isinstance(x, (int, float)) for x in v) for v in value):
        return [_numbers(value, name, unnamed)]
    parts = [_members(v, str(i), leaf, True) for i, v in enumerate(value)]
    alone = [p[0] for p in parts if len(p) == 1]
    if len(alone) == len(parts) and all(leaf(v, "") is not None for v in value):
        if len(alone) >= BATCHES and len({_vector(m) for m in alone} - {None}) == 1 and all(map(_vector, alone)):
            return _stacked(alone, name, f"a list of {len(alone):,} vectors")
        batches = isinstance(value, list) or len(value) >= BATCHES
        if batches and all(m.shape == () for m in alone):
            return [replace(alone[0], name=name, shape=(len(alone),), unnamed=unnamed, load=partial(_items, alone))]
        if batches and all(len(m.shape) == 1 for m in alone) and len({m.kind for m in alone}) == 1:
            count = sum(m.shape[0] or 0 for m in alone)
            return [replace(alone[0], name=name, shape=(count,), unnamed=unnamed, load=partial(_one_list, alone))]
        if batches and len({m.table[1] for m in alone if m.table}) == 1 and all(m.table for m in alone):
            return [_joined(alone, name, unnamed)]
    if isinstance(value, list) and all(isinstance(v, (dict, tuple, list)) for v in value):
        return _merged(value, name, leaf)
    return [m for i, v in enumerate(value) for m in _members(v, f"{name}.{i}" if name else str(i), leaf, True)]


def _merged(value: Sequence, name: str, leaf: Leaf) -> list[Member]:
    """A list of batches that each hold the same things: dicts with the same keys, or tuples alike."""
    parts = [_members(v, name, leaf, False) for v in value]
    names = [[m.name for m in p] for p in parts]
    if any(n != names[0] for n in names):
        raise UserError(name or "the list", "batches that hold the same arrays", f"{names[0][:4]} and others",
                        "Join them before saving.")
    found: list[Member] = []
    items = not any(len(m.shape) == 2 for m in parts[0])  # one item each, not batches
    for same in zip(*parts, strict=True):
        first = same[0]
        if items and len(same) >= BATCHES and len({_vector(m) for m in same}) == 1 and _vector(first):
            found += [replace(m, unnamed=first.unnamed) for m in _stacked(same, first.name, f"a list of {len(same):,} items")]
        elif first.table is not None:
            found.append(_joined(same, first.name, first.unnamed))
        elif len(first.shape) == 1:
            found.append(replace(first, shape=(sum(m.shape[0] or 0 for m in same),), load=partial(_one_list, same)))
        else:
            values = [np.asarray(m.load()).item() for m in same]
            array = np.array(values) if len({type(v) for v in values}) == 1 else np.array(values, object)
            found.append(replace(first, shape=(len(same),), kind=array.dtype.kind, load=partial(np.asarray, array)))
    return found


def _items(members: Sequence[Member]) -> np.ndarray:
    return np.array([np.asarray(m.load()).item() for m in members])


def _one_list(members: Sequence[Member]) -> np.ndarray:
    return np.concatenate([np.asarray(m.load()) for m in members])


def _numbers(value: Sequence, name: str, unnamed: bool) -> Member:
    widths = {len(v) for v in value}
    if len(widths) > 1:
        raise UserError(name or "the list", "rows of one length", f"{min(widths)} and {max(widths)} values",
                        "Drop the odd rows.")
    array = np.array(value)
    kind = array.dtype.kind if array.dtype.kind in "fb" else "i"
    return Member(name, array.shape, f"list of {array.dtype}", kind, lambda: array, unnamed=unnamed)


def _vector(member: Member) -> int | None:
    """Values of one float vector, (d,) or (1, d)."""
    if member.kind != "f" or not member.shape or len(member.shape) > 2 or (len(member.shape) == 2 and member.shape[0] != 1):
        return None
    return member.shape[-1] if member.shape[-1] and member.shape[-1] > 1 else None


def _stacked(members: Sequence[Member], name: str, remark: str) -> list[Member]:
    width = _vector(members[0])
    return [Member(name, (len(members), width), members[0].dtype, "f",
                   lambda: np.stack([_row(m) for m in members]), remark=remark)]


def _row(member: Member) -> np.ndarray:
    return np.asarray(member.load()).reshape(-1)


def _joined(members: Sequence[Member], name: str, unnamed: bool) -> Member:
    """Batches under one another, never joined in memory."""
    widths = {m.dims for m in members}
    if len(widths) > 1 or None in widths:
        raise UserError(name or "the list", "batches of one width", f"{sorted(map(str, widths))}",
                        "Save embeddings of one model.")

    def load() -> Stored:
        parts: list[np.ndarray] = []
        for m in members:
            rows = m.load()
            parts += rows.parts if isinstance(rows, Stored) else [np.asarray(rows).reshape(m.table)]
        return Stored(parts)

    remark = f"{len(members):,} batches are joined" if len(members) > 1 else None
    shape = sum(m.items for m in members), widths.pop()
    return Member(name, shape, members[0].dtype, members[0].kind, load, remark=remark, unnamed=unnamed)


def _unnamed(member: Member) -> Member:
    return replace(member, unnamed=True)


def read_json(path: Path, where: str) -> Contents:
    """The lists of a JSON file. An id given twice is refused: JSON itself would keep its last embedding alone."""
    held = parse_json(path.read_bytes(), where, Any, "Fix it, or save it again.", nan=True)
    found = records_of(held, where)
    if found is not None:
        import pyarrow as pa

        contents = contents_of(in_memory(pa.table(found.columns)), where)
        contents = replace(contents, members=[*contents.members, *_index(found)])
        if isinstance(held, dict) and isinstance(next(iter(held.values())), list) and is_either(held):
            return replace(contents, by_item=members_of(held, lambda value, name: None))
        return contents
    return members_of(held, lambda value, name: None)


def _index(found: Records) -> list[Member]:
    """The names of the rows; where they only count them, no column of the file."""
    if found.index is None:
        return []
    counted = found.index == list(range(len(found.index)))
    array = np.array(found.index)
    name = "index" if "index" not in found.columns else "__index_level_0__"
    return [Member(name, array.shape, "text" if array.dtype.kind == "U" else "int", array.dtype.kind, lambda: array,
                   implied=counted)]


def read_hdf5(path: Path, where: str) -> Contents:
    """The data sets of a file, called by their paths; memory-mapped where they are neither packed nor in chunks.

    Links out of the file are not followed, and data that lie elsewhere are not read.
    """
    try:
        import h5py
    except ImportError:
        raise UserError(where, "h5py, which reads HDF5", "an installation without it",
                        "pip install 'distillscope[hdf5]'") from None
    found: list[Member] = []

    def visit(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        if item.external is not None or item.is_virtual:
            found.append(Member(name, item.shape or (), "kept in another file", "O", lambda: _refuse(where, name)))
            return
        text = h5py.check_string_dtype(item.dtype) is not None
        dtype, kind = ("text", "U") if text else (str(item.dtype), kind_of(item.dtype))
        found.append(Member(name, item.shape or (), dtype, kind, lambda: _load(path, name, where)))

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return Contents(found, by_name=True)


def _refuse(where: str, name: str) -> np.ndarray:
    raise UserError(f"{where}:{name}", "data in the file itself", "a link to another file", "Copy the data into one file.")


def _load(path: Path, name: str, where: str) -> np.ndarray:
    import h5py

    with h5py.File(path, "r") as file:
        data = file[name]
        offset = data.id.get_offset()
        need = size_of(data.shape, data.dtype.itemsize)
        if offset is not None and data.dtype.kind in "fiu" and need and path.stat().st_size >= offset + need:
            return np.memmap(path, data.dtype, "r", offset, data.shape)
        check_memory(need, max(1, data.id.get_storage_size()), f"{where}:{name}", "Save it without compression.")
        return data[()]
