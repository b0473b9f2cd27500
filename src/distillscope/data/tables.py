"""Columns of a table of images: which holds the images, which the labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from distillscope.data.classes import is_whole, numbered, sorted_names
from distillscope.data.missing_split import data_option
from distillscope.errors import UserError


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


def class_labels(values: Sequence[str], every: Sequence[str], where: str,
                 path: Path | str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels (n,) int64 and class names from texts; ``every`` are the texts of all splits, by which classes are numbered."""
    absent = sum(not v for v in values)
    if absent:
        raise UserError(where, "a label for every image, or for none", f"{absent} of {len(values)} without",
                        f"Add them, or take the images without labels: {data_option(path, label='none')}.")
    numbers = [v for v in set(every) if is_whole(v)]
    if len(numbers) == len(set(every)) and any(v.startswith("-") for v in numbers):
        raise UserError(where, "whole numbers from 0, or names", min(numbers, key=int),
                        f"Take unlabelled rows out, or take all without labels: {data_option(path, label='none')}.")
    names = sorted_names(v for v in every if v)
    return numbered(values, names), names
