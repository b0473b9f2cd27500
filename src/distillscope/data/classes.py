"""Columns of a table of images, and classes by name: the same name has the same number in every split."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from distillscope.data.source import Source, data_option
from distillscope.errors import UserError
from distillscope.measure.classes import BLANK

LABELS = ("label", "labels", "fine_label", "cls", "class", "class_name", "classname", "category", "target")
"""What holds labels where no name is given, in any case: a column of a table, a key of a JSON. The first that is there."""
SURE_LABELS = LABELS[:4]
"""Those that hold labels and nothing else in a table of images: what is no label there is refused, not passed over."""
LISTED_LABELS = (*(name for name in LABELS if name not in ("fine_label", "cls")), "fine_label", "cls")
"""The same as `LABELS` for tables that list files, where the last two are the ones that are not sure."""

Labels = tuple[np.ndarray, tuple[str, ...] | None]
"""Labels (n,) int64, and the names of the classes where they have some."""

MISSING = BLANK | {"na", "n/a"}
"""What tables write where a value is missing, in any case."""


def sorted_names(names: Iterable[str]) -> tuple[str, ...]:
    """Each name once: whole numbers by their value, anything else as text.

    >>> sorted_names(["10", "9", "9"]), sorted_names(["b", "a", "10"])
    (('9', '10'), ('10', 'a', 'b'))
    """
    found = set(names)
    return tuple(sorted(found, key=int) if all(is_whole(n) and not n.startswith("-") for n in found) else sorted(found))


def is_whole(text: str) -> bool:
    """Whether a label's text is a whole number that int64 holds; a longer row of digits is a name.

    >>> is_whole("-1"), is_whole("9" * 5000)
    (True, False)
    """
    return re.fullmatch(r"-?[0-9]{1,18}", text) is not None


def numbered(names: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """(n,) int64: the place of each name among ``classes``.

    >>> numbered(["b", "a", "b"], ("a", "b")).tolist()
    [1, 0, 1]
    """
    place = {name: i for i, name in enumerate(classes)}
    return np.array([place[name] for name in names], dtype=np.int64)


def name_classes(train: Source, test: Source) -> tuple[Source, Source, str]:
    """Both with the numbers and names of train's classes, those that only test has after them; and which of them train lacks,
    in words that stand in test's note too."""
    if train.labels is None or test.labels is None:
        return train, test, ""
    labels, seen = test.labels, train.labels
    if train.class_names and test.class_names and train.class_names != test.class_names:
        names = (*train.class_names, *(n for n in test.class_names if n not in train.class_names))
        labels = numbered([test.class_names[i] for i in test.labels], names)
        test, train = replace(test, labels=labels, class_names=names), replace(train, class_names=names)
    unknown = np.setdiff1d(labels, seen)
    said = ""
    if len(unknown):
        count = int(np.isin(labels, unknown).sum())
        listed = ", ".join(test.class_names[i] if test.class_names else str(i) for i in unknown[:5])
        classes = f"{len(unknown)} class{'es' if len(unknown) > 1 else ''}"
        said = (f"{classes} without an image in {train.split}, which no probe can name: "
                f"{listed}{' ...' if len(unknown) > 5 else ''} ({count:,} of {len(test):,} images)")
        test = replace(test, note="; ".join(s for s in (test.note, said) if s))
    return train, test, said


def read_labels(columns: Sequence[str], sure: Collection[str], read: Callable[[str], Labels | None],
                every: Callable[[str], Iterable[Any]]) -> tuple[str | None, Labels | None, dict[str, str]]:
    """The first of ``columns`` that has labels, those that ``read`` makes of it, and why those before it have none.

    A column that is not ``sure`` was found by its name alone and may hold anything: what is refused there is left, and so is
    what most images have each for itself (a caption, a measured value), in this split and among ``every`` value of the column.
    """
    left: dict[str, str] = {}
    for column in columns:
        try:
            found = read(column)
        except UserError as error:
            if column in sure:
                raise
            left[column] = error.got.removesuffix(" values")
            continue
        why = "" if found is None or column in sure else _no_classes(found[0], partial(every, column))
        if not why:
            return column, found, left
        left[column] = why
    return None, None, left


def _no_classes(labels: np.ndarray, every: Callable[[], Iterable[Any]]) -> str:
    """Why whole numbers are hardly classes; "" where they may be."""
    if len(labels) and labels.min() < 0:
        return "numbers below 0"
    return "another value for most images" if _mostly_once(labels.tolist()) and _mostly_once(list(every())) else ""


def _mostly_once(values: Sequence[Any]) -> bool:
    return 2 * sum(count == 1 for count in Counter(values).values()) > len(values)


def label_columns(columns: Sequence[str], asked: str | None, usual: Sequence[str], where: str, path: Path | str) -> list[str]:
    """Where labels may be: the column that was asked for, or all of the usual names in any case, in their order.

    >>> label_columns(["Target", "x", "label"], None, LABELS, "d/train", "d")
    ['label', 'Target']
    """
    if asked:
        return [column for column in [pick_column(columns, asked, usual, "label", where, path)] if column]
    return [column for name in usual if (column := _usual(columns, (name,)))]


def pick_column(columns: Sequence[str], asked: str | None, usual: Sequence[str], setting: str, where: str,
                path: Path | str) -> str | None:
    """The column that was asked for, or the first of the usual names in any case; None if there is none or "none" was asked.

    ``setting`` is what asks for it: image, label, split_column. A column that was asked for by another name must be there.

    >>> pick_column(["Image", "breed"], None, ("img", "image"), "image", "d/train", "d")
    'Image'
    """
    if asked == "none":
        return None
    if asked:
        return need_column(columns, asked, usual, setting, where, path)
    return _usual(columns, usual)


def need_column(columns: Sequence[str], asked: str | None, usual: Sequence[str], setting: str, where: str,
                path: Path | str) -> str:
    """As `pick_column`, where there must be one."""
    found = _usual(columns, usual) if not asked else asked if asked in columns else None
    if found is None:
        kind = setting.removesuffix("_column")
        expected = f"a{'n' if kind == 'image' else ''} {kind} column " + (f"'{asked}'" if asked else f"({' or '.join(usual)})")
        raise UserError(where, expected, f"columns {', '.join(columns)}",
                        f"Name it: {data_option(path, **{setting: 'COLUMN'})}.")
    return found


def _usual(columns: Sequence[str], usual: Sequence[str]) -> str | None:
    folded = {c.casefold(): c for c in reversed(columns)}
    return next((folded[u] for u in usual if u in folded), None)


def not_used(names: Iterable[str], used: Iterable[str | None], why: Mapping[str, str] | None = None) -> str:
    """What of a table is not read, for a note: those with a reason ``why`` and the first others, eight; "" where all is.

    >>> not_used(["image", "label", "width"], ("image", "label")), not_used(["image"], ("image", None))
    ('not used: width', '')
    >>> not_used(["width", "target"], (), {"target": "Image"})
    'not used: target (Image), width'
    """
    why = why or {}
    left = [name for name in names if name not in {*used, *why}]
    left = [*(f"{name} ({reason})" for name, reason in why.items()), *left]
    return f"not used: {', '.join(left[:8])}{' ...' if len(left) > 8 else ''}" if left else ""


def columns_said(columns: Sequence[str], image: str, label: str | None, why: Mapping[str, str]) -> str:
    """What is read from which column of a table of images, for a note; "" where there is nothing but images and `label`."""
    if set(columns) <= {image, label} and label in (None, "label"):
        return ""
    used = f"images from '{image}', " + (f"classes from '{label}'" if label else "no labels")
    return "; ".join(part for part in (used, not_used(columns, (image, label), why)) if part)


def blanks(texts: Iterable[str]) -> frozenset[str]:
    """Those of the texts that stand for no label: "", and beside numbers alone what tables write where a value is missing.

    >>> sorted(blanks(["0", "1", "NA", ""])), sorted(blanks(["NA", "EU", ""]))
    (['', 'NA'], [''])
    """
    found = set(texts) - {""}
    missing = {text for text in found if text.casefold() in MISSING}
    return frozenset({"", *(missing if all(map(_is_number, found - missing)) else ())})


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?[0-9]+([.][0-9]*)?", text) is not None


def check_alike(texts: Iterable[str], where: str, path: Path | str) -> None:
    """Where all labels are numbers, refuse two ways to write one of them: 001 and 1, 0 and 0.0 may be two classes or one."""
    found = sorted(set(texts))
    if not all(map(_is_number, found)):
        return
    written: dict[Decimal, str] = {}
    for text in found:
        if (before := written.setdefault(Decimal(text), text)) != text:
            raise UserError(where, "numbers that are written alike, or names", f"'{before}' and '{text}'",
                            f"Write them alike, or take the images without labels: {data_option(path, label='none')}.")


def class_labels(values: Sequence[str], every: Sequence[str], where: str,
                 path: Path | str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels (n,) int64 and class names from texts; ``every`` are the texts of all splits, by which classes are numbered."""
    blank = blanks(every)
    if absent := [v for v in values if v in blank]:
        text = next((f", '{v}'" for v in absent if v), "")
        raise UserError(where, "a label for every image, or for none", f"{len(absent)} of {len(values)} without{text}",
                        f"Add them, or take the images without labels: {data_option(path, label='none')}.")
    found = set(every) - blank
    if all(map(is_whole, found)) and any(v.startswith("-") for v in found):
        raise UserError(where, "whole numbers from 0, or names", min(found, key=int),
                        f"Take unlabelled rows out, or take all without labels: {data_option(path, label='none')}.")
    check_alike(found, where, path)
    names = sorted_names(found)
    return numbered(values, names), names
