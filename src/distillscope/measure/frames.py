"""Frames of pandas and polars, and tables of Arrow, as embeddings: each column must be a dimension, or it is named."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from distillscope.errors import UserError
from distillscope.naming import Run, id_rank, is_coordinate, label_rank, runs

MOST_DROPPED = 20
"""So many columns may be listed for a caller to drop."""


class Column(NamedTuple):
    """A column of a frame by its place, what it is called there (``key``) and in words, and its dtype; ``kind`` is NumPy's, f
    and i also of nullable, sparse and Arrow's ones, O of all others."""

    place: int
    key: Any
    name: str
    dtype: str
    kind: str


def expect_dimensions(given: Any, name: str) -> None:
    """A frame's ids, labels and whatever else stands beside its dimensions would be measured as dimensions."""
    if hasattr(given, "collect_schema") and not hasattr(given, "to_numpy"):
        raise UserError(name, "a frame with its values", "a lazy one of polars", f"Pass {_called(name)}.collect().")
    columns = _columns(given)
    wrong = _no_dimensions(columns, given)
    if wrong:
        raise UserError(name, "a frame whose columns are the dimensions alone",
                        f"a column '{wrong[0].name}' ({wrong[0].dtype}) too", _advice(columns, wrong, given, name))


def as_floats(given: Any, name: str, dtype: str = "float32") -> str:
    """How a caller writes what it ``given`` as floats, whatever its kind.

    >>> as_floats(np.arange(3), "teacher"), as_floats([1, 2], "teacher")
    ("teacher.astype('float32')", "numpy.array(teacher, 'float32')")
    """
    called = _called(name)
    if hasattr(given, "detach"):
        return f"{called}.float()"
    if _columns(given):
        return f"{called}{'.to_pandas()' if _is_arrow(given) else ''}.to_numpy().astype('{dtype}')"
    return f"{called}.astype('{dtype}')" if hasattr(given, "astype") else f"numpy.array({called}, '{dtype}')"


def _called(name: str) -> str:
    """The argument of `audit`, as its caller can write it."""
    kind, _, key = name.partition(" ")
    return f"artefacts[{key!r}]" if kind == "artefact" else name


def _is_arrow(given: Any) -> bool:
    return hasattr(given, "column_names") and hasattr(given, "schema")


def _columns(given: Any) -> list[Column]:
    """The columns of a frame; [] of anything else."""
    if _is_arrow(given):
        names, dtypes = given.column_names, given.schema.types
    elif hasattr(given, "columns") and hasattr(given, "dtypes"):
        names, dtypes = given.columns, given.dtypes
    else:
        return []
    titles = [".".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in names]
    return [Column(i, name, title, str(dtype), _kind(dtype))
            for i, (name, title, dtype) in enumerate(zip(names, titles, dtypes, strict=True))]


def _kind(dtype: Any) -> str:
    name = str(dtype).lower().removeprefix("sparse[")
    return "f" if re.match(r"float|double|halffloat", name) else "i" if re.match(r"u?int\d", name) else "O"


def _no_dimensions(columns: Sequence[Column], given: Any) -> list[Column]:
    """The columns that are no dimension: by their name, these first, or their dtype, or since they stand beside numbered ones
    (e0, e1, ...)."""
    names = [c.name for c in columns]
    named = [c for c in columns if not is_coordinate(c.name, names) and _is_named(c, given)]
    if all(c.kind == "i" for c in columns):
        return named
    numbered = {n: run for run in runs(names) if run.whole and run.named_as_embedding for n in run.names}
    floats = [c.place for c in columns if c.kind == "f"]
    return [*named, *(c for c in columns if c not in named and not _fits(c, numbered, floats, given))]


def _is_named(column: Column, given: Any) -> bool:
    """Whether a name says that a column holds ids or classes. Fractions are neither: where they are called key, hash or y, they
    are a feature, and only of an id or a label the name is believed."""
    of_ids, of_labels = id_rank(column.name), label_rank(column.name)
    if of_ids is None and of_labels is None:
        return False
    if column.kind != "f" or of_ids == 0 or (of_labels is not None and of_labels % 6 == 0):
        return True
    values = _values(column, given).astype(np.float64)
    values = values[np.isfinite(values)]
    return bool((values == np.trunc(values)).all())


def _fits(column: Column, numbered: dict[str, Run], floats: Sequence[int], given: Any) -> bool:
    """Whether a column may be a dimension where some are floats. One of whole numbers may where a stem numbers it with others;
    where a number is all its name, if it stands between ``floats`` or is all zeros, as a table of text gives them back: at the
    ends of a table it may be an id or a class."""
    run = numbered.get(column.name)
    if column.kind == "f":
        return run is not None or not numbered
    if column.kind != "i" or run is None:
        return False
    between = bool(floats) and floats[0] < column.place < floats[-1]
    return run.stem != "" or between or not _values(column, given).any()


def _values(column: Column, given: Any) -> np.ndarray:
    return np.asarray(given.iloc[:, column.place] if hasattr(given, "iloc") else given[column.key])


# -- what to pass instead ----------------------------------------------------------------------------------------------------


def _advice(columns: Sequence[Column], wrong: Sequence[Column], given: Any, name: str) -> str:
    """What a caller can write instead, each of which is taken."""
    called = _called(name)
    for column in columns:
        if column.kind == "O" and (said := _as_vectors(column, given, f"{called}[{_written(column.key)}]")):
            return said
    rest = [c for c in columns if c not in wrong]
    ways = [f"{called}.{_without(wrong, rest, given)}"] if len(rest) > 1 and len(wrong) <= MOST_DROPPED else []
    if all(_are_numbers(c, given) for c in wrong):
        what = "it is a dimension" if len(wrong) == 1 else "all are dimensions"
        ways.append(f"{as_floats(given, name, 'float64')} where {what}")
    return f"Pass {', or '.join(ways)}." if ways else "Pass a frame of floats, with a column for each dimension."


def _without(wrong: Sequence[Column], rest: Sequence[Column], given: Any) -> str:
    keys = [_written(c.key) for c in wrong]
    if not hasattr(given, "iloc"):
        return f"drop_columns([{', '.join(keys)}])" if _is_arrow(given) else f"drop({', '.join(keys)})"
    if {*keys} & {_written(c.key) for c in rest}:  # a name that two columns have
        places = {c.place for c in wrong}
        return f"iloc[:, {[c.place for c in rest]}]" if len(rest) <= MOST_DROPPED else (
            f"iloc[:, [i for i in range({len(rest) + len(wrong)}) if i not in {places}]]")
    return f"drop(columns={keys[0] if keys[0][0] not in '(' and len(keys) == 1 else '[' + ', '.join(keys) + ']'})"


def _written(key: Any) -> str:
    """A column's name as it is typed."""
    if isinstance(key, tuple):
        return f"({', '.join(map(_written, key))}{',' if len(key) == 1 else ''})"
    return repr(key.item() if isinstance(key, np.generic) else key)


def _as_vectors(column: Column, given: Any, called: str) -> str:
    """What to pass of a column ``called`` so, where it holds vectors, also as text; "" of others."""
    if column.dtype != "object" and not re.match(r"(large_|fixed_size_)?list|array\(|str|object", column.dtype.lower()):
        return ""
    values = _values(column, given)
    first = next((value for value in values if value is not None), None)
    if isinstance(first, str) and first.startswith("[") and not _is_arrow(given):
        with contextlib.suppress(ValueError):
            first = json.loads(first)
            called = f"numpy.array([json.loads(text) for text in {called}])"
    if first is None or isinstance(first, str) or np.ndim(first) != 1 or np.asarray(first).dtype.kind not in "fiu":
        return ""
    lengths = {len(value) if hasattr(value, "__len__") else -1 for value in values}
    gaps = "" if len(lengths) == 1 or isinstance(values[0], str) else ", with one of the same length in every row"
    return f"Pass {called}, the column of vectors{gaps}."


def _are_numbers(column: Column, given: Any) -> bool:
    """Whether all its values are numbers, be it as objects or as text."""
    values = _values(column, given)
    if values.dtype.kind in "mMc":
        return False
    try:
        return bool(np.isfinite(values.astype(object).astype(np.float64)).any())
    except (TypeError, ValueError):
        return False
