"""Frames of pandas and polars, and tables of Arrow, as embeddings: each column must be a dimension, or it is named."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from distillscope.errors import UserError
from distillscope.naming import Run, id_rank, is_coordinate, label_rank, runs


class Column(NamedTuple):
    """A column of a frame by its place, name and dtype; ``kind`` is NumPy's, f and i also of nullable ones, O of all others."""

    place: int
    name: str
    dtype: str
    kind: str


def expect_dimensions(given: Any, name: str) -> None:
    """A frame's ids, labels and whatever else stands beside its dimensions would be measured as dimensions."""
    columns = _columns(given)
    wrong = _no_dimension(columns, given)
    if wrong is None:
        return
    left_out = ("drop(columns={!r})" if hasattr(given, "iloc") else "drop_columns([{!r}])" if hasattr(given, "column_names")
                else "drop({!r})").format(wrong.name)
    raise UserError(name, "a frame whose columns are the dimensions alone", f"a column '{wrong.name}' ({wrong.dtype}) too",
                    f"Pass {name}.{left_out}, or {name}.to_numpy() of float columns where it is a dimension.")


def _columns(given: Any) -> list[Column]:
    """The columns of a frame; [] of anything else."""
    if hasattr(given, "column_names") and hasattr(given, "schema"):
        names, dtypes = given.column_names, given.schema.types
    elif hasattr(given, "columns") and hasattr(given, "dtypes"):
        names, dtypes = given.columns, given.dtypes
    else:
        return []
    titles = [".".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in names]
    return [Column(i, title, str(dtype), _kind(dtype)) for i, (title, dtype) in enumerate(zip(titles, dtypes, strict=True))]


def _kind(dtype: Any) -> str:
    name = str(dtype).lower()
    return "f" if re.match(r"float|double|halffloat", name) else "i" if re.match(r"u?int\d", name) else "O"


def _no_dimension(columns: Sequence[Column], given: Any) -> Column | None:
    """The first column that is no dimension by its name or its dtype, or that stands beside numbered ones (e0, e1, ...)."""
    names = [c.name for c in columns]
    named = next((c for c in columns if not is_coordinate(c.name, names)
                  and (id_rank(c.name) is not None or label_rank(c.name) is not None)), None)
    if named is not None or all(c.kind == "i" for c in columns):
        return named
    numbered = {n: run for run in runs(names) if run.whole and run.named_as_embedding for n in run.names}
    return next((c for c in columns if not _fits(c, numbered, given)), None)


def _fits(column: Column, numbered: dict[str, Run], given: Any) -> bool:
    """Whether a column may be a dimension where some are floats. One of whole numbers may where a stem numbers it with others,
    or where it is all zeros, as a table of text gives them back."""
    run = numbered.get(column.name)
    if column.kind == "f":
        return run is not None or not numbered
    return column.kind == "i" and run is not None and (run.stem != "" or not _values(column, given).any())


def _values(column: Column, given: Any) -> np.ndarray:
    held = given.iloc[:, column.place] if hasattr(given, "iloc") else given[column.name]
    return np.asarray(held)
