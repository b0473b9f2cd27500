"""Labels as people keep them -> one class per item, or none: numbers, text, floats, one-hot, categories."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from distillscope.errors import UserError

BLANK = frozenset({"", "nan", "none", "null", "<na>", "nat"})
"""Texts that stand for no label, in any case."""
NOT_AVAILABLE = frozenset({"na", "n/a", "#n/a"})
"""Texts that stand for no label beside numbers, in any case; beside names they may be a class (NA: Namibia, North America)."""
UNLABELLED = -1
KINDS = "whole numbers or text"


def classes(values: Any, where: str = "labels") -> np.ndarray | np.ma.MaskedArray:
    """Labels (n,) as int64 where all are whole numbers, else as text; masked where an item has none.

    ``values`` (n,) or (n, 1) are numbers, texts, bytes or a mixture with None; (n, classes) is one-hot, and an item whose row
    is all zeros has no label. NaN, None and blank text stand for none, and so does NA beside numbers alone, and -1 beside at
    least two classes that are not negative. Anything else is a UserError at ``where``.

    >>> classes([0.0, 2.0, float("nan"), 1.0])
    masked_array(data=[0, 2, --, 1], mask=[False, False,  True, False], fill_value=999999)
    >>> classes(np.eye(3, dtype=int)), classes(["b", "a"])
    (array([0, 1, 2]), array(['b', 'a'], dtype='<U1'))
    """
    given = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else None
    values = np.asarray(np.ma.getdata(values) if given is not None else values)
    if values.ndim == 2 and values.shape[1] == 1:
        values, given = values[:, 0], None if given is None else given[:, 0]
    if values.ndim == 2 and values.dtype.kind in "biuf":
        values, given = _from_one_hot(values, where), None
    if values.ndim != 1:
        raise UserError(where, "shape (items,), or one-hot (items, classes)", f"{values.shape}",
                        "Save one value per item.")
    absent = np.zeros(len(values), bool) if given is None else given.copy()
    if values.dtype.kind == "O":
        values = _from_objects(values, absent, where)
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "backslashreplace")
    if values.dtype.kind in "UT":
        values = _from_texts(values.astype(str), absent)
    elif values.dtype.kind in "biuf":
        values = _from_numbers(values, absent, where)
    else:
        raise UserError(where, KINDS, f"dtype {values.dtype}", "Convert them first.")
    absent |= _minus_one(values, absent)
    if not absent.any():
        return values
    return np.ma.array(np.where(absent, np.zeros(1, values.dtype), values), mask=absent)


def _from_one_hot(values: np.ndarray, where: str) -> np.ndarray:
    """Class numbers as floats, NaN where a row is all zeros."""
    ones = values == 1
    total = ones.sum(axis=1)
    if not (ones | (values == 0)).all() or (total > 1).any():
        raise UserError(where, "one value per item, or one-hot rows", f"{values.dtype} of shape {values.shape}",
                        "Save one value per item: probabilities.argmax(1) of scores, for instance.")
    return np.where(total == 1, ones.argmax(axis=1), np.nan)


def _from_objects(values: np.ndarray, absent: np.ndarray, where: str) -> np.ndarray:
    """What a column of Python objects holds: numbers, or text; None and NaN are absent."""
    import pandas as pd

    absent |= pd.isna(values)
    present = [v.decode("utf-8", "backslashreplace") if isinstance(v, bytes) else v for v in values[~absent].tolist()]
    numbers = [isinstance(v, (bool, int, float, np.bool_, np.integer, np.floating)) for v in present]
    if present and all(numbers):
        out = np.zeros(len(values), float if any(isinstance(v, (float, np.floating)) for v in present) else np.int64)
        out[~absent] = present
        return out
    wrong = next((v for v, number in zip(present, numbers, strict=True) if number or not isinstance(v, str)), None)
    if wrong is not None:
        raise UserError(where, KINDS, f"a mixture, with {wrong!r}" if isinstance(wrong, (int, float)) else repr(wrong)[:60],
                        "Use one kind for all items.")
    out = np.full(len(values), "", object)
    out[~absent] = present
    return out.astype(str)


def _from_texts(values: np.ndarray, absent: np.ndarray) -> np.ndarray:
    """Text without the blanks around it, as int64 where every label is a whole number."""
    values = np.char.strip(values) if len(values) else values
    known, place = np.unique(values, return_inverse=True)
    absent |= np.array([name.lower() in BLANK for name in known], bool)[place] if len(known) else False
    names = [name for name in np.unique(values[~absent]) if name.lower() not in NOT_AVAILABLE]
    if names and all(re.fullmatch(r"-?\d+(\.\d*)?", name) for name in names):
        absent |= np.isin(np.char.lower(values), [*NOT_AVAILABLE])
    left = np.unique(values[~absent])
    if len(left) and all(re.fullmatch(r"-?\d{1,18}", name) for name in left):
        return np.where(absent, "0", values).astype(np.int64)
    absent |= values == str(UNLABELLED)
    return values


def _from_numbers(values: np.ndarray, absent: np.ndarray, where: str) -> np.ndarray:
    if values.dtype.kind == "f":
        absent |= np.isnan(values)
    with np.errstate(invalid="ignore"):
        whole = absent | ((np.abs(values.astype(np.float64)) < 2.0**62) & (values == np.trunc(values)))
    if not whole.all():
        bad = int(np.argmin(whole))
        raise UserError(where, KINDS, f"{values[bad]} in row {bad}",
                        "Leave an item that has none blank, or name another column.")
    return np.where(absent, np.zeros(1, values.dtype), values).astype(np.int64)


def _minus_one(values: np.ndarray, absent: np.ndarray) -> np.ndarray | bool:
    """-1 is no class beside 0, 1, ...; beside one other class, as in {-1, 1}, it is."""
    if values.dtype.kind != "i":
        return False
    found = values == UNLABELLED
    others = np.unique(values[~absent & ~found])
    return found if len(others) >= 2 and others[0] >= 0 else False


def not_available(values: Any, found: np.ndarray) -> str | None:
    """What was made of labels such as NA among ``values`` (n,), whose classes are ``found``; None where there are none.

    >>> raw = np.array(["1", "NA", "0"], object)
    >>> not_available(raw, classes(raw))
    "'NA' stands for no label, since the others are numbers"
    """
    values = np.asarray(values)
    if values.dtype.kind not in "OU" or values.ndim != 1:
        return None
    known = next((v.strip() for v in values.tolist() if isinstance(v, str) and v.strip().lower() in NOT_AVAILABLE), None)
    if known is None:
        return None
    return (f"'{known}' is taken for a class, since others are names" if known in np.ma.compressed(found) else
            f"'{known}' stands for no label, since the others are numbers")


def partitions_agree(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Whether each item (n,) is in the class of ``second`` that most items of its class of ``first`` are in, and the other way.

    All are where the two are the same partition, whatever its classes are called.

    >>> partitions_agree(np.array([0, 0, 1, 1]), np.array(["a", "a", "b", "a"])).tolist()
    [True, True, True, False]
    """
    numbers = [np.unique(labels, return_inverse=True)[1] for labels in (first, second)]
    width = int(numbers[1].max(initial=0)) + 1
    pairs, place, counts = np.unique(numbers[0].astype(np.int64) * width + numbers[1], return_inverse=True, return_counts=True)
    partner: dict[int, int] = {}
    taken: set[int] = set()
    for pair in pairs[np.argsort(-counts, kind="stable")].tolist():  # the largest overlaps first
        a, b = divmod(pair, width)
        if a not in partner and b not in taken:
            partner[a] = b
            taken.add(b)
    fits = np.array([partner.get(pair // width) == pair % width for pair in pairs.tolist()], bool)
    return fits[place]


def refines(fine: np.ndarray, coarse: np.ndarray) -> bool:
    """Whether each class of ``fine`` (n,) lies in one class of ``coarse``, of which there are several.

    >>> refines(np.array([0, 1, 2, 2]), np.array(["cat", "cat", "dog", "dog"]))
    True
    >>> refines(np.array([0, 0, 1]), np.array([0, 1, 1]))
    False
    """
    numbers = np.unique(fine, return_inverse=True)[1], np.unique(coarse, return_inverse=True)[1]
    pairs = np.unique(np.stack(numbers), axis=1).shape[1]
    return len(fine) > 0 and pairs == int(numbers[0].max()) + 1 and int(numbers[1].max()) > 0
