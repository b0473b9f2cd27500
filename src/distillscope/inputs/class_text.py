"""Embeddings of the class names from a file, in the order in which the labels number the classes."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from distillscope.errors import UserError
from distillscope.inputs.choosing import Embeddings
from distillscope.inputs.embeddings import read_embeddings
from distillscope.inputs.formats import parse_spec
from distillscope.inputs.ids_and_labels import NO_IDS
from distillscope.inputs.pairing import columns_of_ids, distinct_texts
from distillscope.inputs.reading import Reading
from distillscope.measure.classes import classes
from distillscope.naming import is_index, label_rank

AS_THEY_STAND = "its rows are taken to be the classes 0, 1, ... as they stand"


def read_class_text(path: str | Path, class_names: Sequence[str] | None = None, *,
                    where: str = "--text") -> tuple[np.ndarray, Reading | None]:
    """Embeddings (classes, d), row k of class k, and how they were read.

    The numbers or names of the classes in the file give the order where it has them, names where the data's ``class_names``
    are known; else the rows are taken as they stand, and the reading says so. Columns that give different orders are asked
    about: ``FILE@column`` names the one that counts, ``FILE@none`` takes the rows as they stand.
    """
    found = read_embeddings(path, where=where)
    rows, name = np.asarray(found.rows), f"{where} {path}"
    if found.reading is not None and found.reading.dropped:
        raise UserError(name, "an embedding of every class", f"{found.reading.dropped} rows without one",
                        "Embed their names too: a row's number is its class.")
    order, said = (None, AS_THEY_STAND) if parse_spec(path).ids == NO_IDS else _order(found, class_names, name)
    reading = found.reading and replace(found.reading, remarks=(*found.reading.remarks, said))
    return (rows if order is None else rows[order]), reading


def _order(found: Embeddings, class_names: Sequence[str] | None, where: str) -> tuple[np.ndarray | None, str]:
    """The row of each class, None for the rows as they stand, and what is said of it."""
    orders: list[tuple[str, np.ndarray]] = []
    by_id: list[tuple[str, np.ndarray]] = []
    passed: list[str] = []
    doubts: list[UserError] = []
    for column, values in _columns(found):
        numbers, first = values.dtype.kind == "i", f"'{column}' (first '{np.ma.getdata(values)[0]}')"
        try:
            order = _by_number(column, values, where) if numbers else _by_name(column, values, class_names or (), where)
        except UserError as error:
            if all(column != member.name for member in found.classed):  # a surer column may be compared with nothing
                doubts.append(error)
            passed.append(f"'{column}' does not {'number' if numbers else 'name'} each class once")
            continue
        if order is None:
            lacking = "no class names" if class_names is None else "none of them"
            passed.append(f"{first} does not number the classes from 0" if numbers else
                          f"the names in {first} are not compared, since the data has {lacking}")
        elif numbers and label_rank(column) is None:
            by_id.append((column, order))
        else:
            orders.append((column, order))
    if not any(label_rank(column) is not None for column, _ in orders):  # numbers of rows in order say nothing beside names
        orders += [(column, order) for column, order in by_id
                   if not _in_order(order) or not (orders or (is_index(column) and not found.named))]
    other = next((column for column, order in orders[1:] if not np.array_equal(order, orders[0][1])), None)
    if other is not None:
        raise UserError(where, "one order of the classes", f"'{orders[0][0]}' and '{other}', which give two",
                        f"Write FILE@{orders[0][0]} or FILE@{other} for the one that counts.")
    if orders:
        column, order = orders[0]
        said = f"its rows are the classes in the order of '{column}'{', as they stand' if _in_order(order) else ''}"
        return order, "; ".join([said, *(one for one in passed if "each class once" in one)])
    for doubt in doubts:
        raise UserError(doubt.where, doubt.expected, doubt.got, f"{doubt.todo} FILE@COLUMN names the column that numbers or "
                        "names the classes, and FILE@none takes the rows as they stand.")
    return None, "; ".join([*passed, AS_THEY_STAND])


def _in_order(order: np.ndarray) -> bool:
    return np.array_equal(order, np.arange(len(order)))


def _columns(found: Embeddings) -> list[tuple[str, np.ndarray]]:
    """What may say which class a row is of: the column that the caller named, else labels, then ids; int64 where all are whole
    numbers."""
    columns: list[tuple[str, np.ndarray]] = []
    if found.labels is not None and not found.named:
        columns.append(((found.reading.labels if found.reading else None) or "labels", found.labels))
    for member in () if found.named else found.classed:
        with contextlib.suppress(UserError):  # what cannot be classes names none
            columns.append((member.name, classes(member.load(), member.name)))
    for ids in columns_of_ids(found)[: 1 if found.named else None]:
        texts = distinct_texts(ids)
        if texts is not None and ids.name not in [name for name, _ in columns]:
            whole = all(t.isascii() and t.isdigit() and len(t) < 19 for t in texts)
            columns.append((ids.name, texts.astype(np.int64) if whole else texts.astype(str)))
    return columns


def _by_number(column: str, values: np.ndarray, where: str) -> np.ndarray | None:
    values = _each(column, values, where)
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
    values = _each(column, values, where)
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


def _each(column: str, values: np.ndarray, where: str) -> np.ndarray:
    if np.ma.is_masked(values):
        raise UserError(f"{where}:{column}", "a class for every row", "rows without one", "Drop these rows.")
    return np.ma.getdata(values)


def _plain(name: object) -> str:
    return str(name).strip().lower().replace("_", " ")
