"""Embeddings of the class names from a file, in the order in which the labels number the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from distillscope.errors import UserError
from distillscope.inputs.choosing import Embeddings
from distillscope.inputs.embeddings import read_embeddings
from distillscope.inputs.pairing import columns_of_ids, distinct_texts
from distillscope.inputs.reading import Reading
from distillscope.naming import is_index


def read_class_text(path: str | Path, class_names: Sequence[str] | None = None, *,
                    where: str = "--text") -> tuple[np.ndarray, Reading | None]:
    """Embeddings (classes, d), row k of class k, and how they were read.

    The numbers or names of the classes in the file give the order where it has them, names where the data's ``class_names``
    are known; else the rows are taken as they stand, and the reading says so.
    """
    found = read_embeddings(path, where=where)
    rows, name = np.asarray(found.rows), f"{where} {path}"
    if found.reading is not None and found.reading.dropped:
        raise UserError(name, "an embedding of every class", f"{found.reading.dropped} rows without one",
                        "Embed their names too: a row's number is its class.")
    order, said = _order(found, class_names, name)
    reading = found.reading and replace(found.reading, remarks=(*found.reading.remarks, said))
    return (rows if order is None else rows[order]), reading


def _order(found: Embeddings, class_names: Sequence[str] | None, where: str) -> tuple[np.ndarray | None, str]:
    """The row of each class, None for the rows as they stand, and what is said of it."""
    passed: list[str] = []
    for column, values in _columns(found, where):
        numbers, first = values.dtype.kind == "i", f"'{column}' (first '{values[0]}')"
        order = _by_number(column, values, where) if numbers else _by_name(column, values, class_names or (), where)
        same = order is not None and np.array_equal(order, np.arange(len(order)))
        if same and is_index(column):
            continue
        if order is not None:
            return order, f"its rows are the classes in the order of '{column}'{', as they stand' if same else ''}"
        lacking = "no class names" if class_names is None else "none of them"
        passed.append(f"{first} does not number the classes from 0" if numbers else
                      f"the names in {first} are not compared, since the data has {lacking}")
    return None, "; ".join([*passed, "its rows are taken to be the classes 0, 1, ... as they stand"])


def _columns(found: Embeddings, where: str) -> list[tuple[str, np.ndarray]]:
    """What may say which class a row is of: labels, then ids; int64 where all are whole numbers."""
    columns: list[tuple[str, np.ndarray]] = []
    if found.labels is not None:
        column = (found.reading.labels if found.reading else None) or "labels"
        if np.ma.is_masked(found.labels):
            raise UserError(f"{where}:{column}", "a class for every row", "rows without one", "Drop these rows.")
        columns.append((column, np.ma.getdata(found.labels)))
    for ids in columns_of_ids(found):
        texts = distinct_texts(ids)
        if texts is not None:
            whole = all(t.isascii() and t.isdigit() and len(t) < 19 for t in texts)
            columns.append((ids.name, texts.astype(np.int64) if whole else texts.astype(str)))
    return columns


def _by_number(column: str, values: np.ndarray, where: str) -> np.ndarray | None:
    order = np.argsort(values, kind="stable")
    if np.array_equal(values[order], np.arange(len(values))):
        return order
    if (np.diff(values) > 0).all():
        return None
    twice = len(np.unique(values)) < len(values)
    raise UserError(f"{where}:{column}", f"each of the numbers 0 to {len(values) - 1} once, the classes of the rows",
                    f"{values[0]}, {values[1]}, ... " + ("with repeats" if twice else "in another order"),
                    "Save one row for each class, numbered as the labels are, or without that column in their order.")


def _by_name(column: str, values: np.ndarray, class_names: Sequence[str], where: str) -> np.ndarray | None:
    """The rows of the data's classes by their names, then those of further classes."""
    if not class_names:
        return None
    place = {_plain(value): i for i, value in enumerate(values)}
    missing = [name for name in class_names if _plain(name) not in place]
    if len(missing) == len(class_names):
        return None
    if missing or len(place) < len(values):
        raise UserError(f"{where}:{column}", f"each of the data's {len(class_names)} class names once",
                        f"none called '{missing[0]}'" if missing else "a name twice", "Write the names as the data does.")
    first = [place[_plain(name)] for name in class_names]
    return np.array([*first, *(i for i in range(len(values)) if i not in set(first))])


def _plain(name: object) -> str:
    return str(name).strip().lower().replace("_", " ")
