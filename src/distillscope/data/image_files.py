"""Image files: in folders, or listed in a table (CSV, TSV or JSONL, of paths), with labels and splits where it has them."""

from __future__ import annotations

import csv
import gzip
import itertools
import math
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TextIO

import numpy as np

from distillscope.data.classes import (
    LISTED_LABELS,
    Labels,
    class_labels,
    label_columns,
    need_column,
    not_used,
    numbered,
    pick_column,
    read_labels,
)
from distillscope.data.decode import Decoding, MinSide, files_in, folders_in, is_image, other_kinds, read_file, suffixes
from distillscope.data.source import MissingSplit, Source, data_option, encoded_source, near_splits
from distillscope.errors import UserError
from distillscope.files.folders import state_of
from distillscope.files.json_reader import parse_json
from distillscope.registry import datasets


@datasets.register("image_folder")
def image_folder(split: str, *, path: Path, label: Literal["none"] | None = None, background: str = "white",
                 exif: bool = True, min_side: MinSide = None) -> Source:
    """Image files: FOLDER/{split}/CLASS/x.png with labels, or FOLDER/{split}/x.png, or FOLDER/x.png, without.

    Classes are numbered by name over all splits that share one, so that a class that a split lacks moves no other.
    ``label="none"`` takes class folders for no labels.
    """
    given, top = path, Path(path).expanduser()
    root, flat = top / split, False
    if not root.is_dir():
        flat = any(is_image(f.name) for f in top.glob("*") if not f.is_dir()) and not _with_images(top)
        if not flat:
            raise _no_split(given, top, split)
        root = top
    found = list(files_in(root))
    files = sorted(f for f in found if is_image(f.name))
    if not files:
        raise UserError(str(root), f"image files ({', '.join(sorted(suffixes()))})", other_kinds(found) or "none",
                        "Check the path.")
    own = sorted({f.relative_to(root).parts[0] for f in files if f.parent != root})
    loose = [f for f in files if f.parent == root]
    if own and loose and label != "none":
        raise UserError(str(root), "either one folder per class or images without folders",
                        f"both (first loose: {loose[0].name})",
                        "Move the loose images into a class's folder, or away; or take them all without labels: "
                        f"{data_option(given, label='none')}.")
    classes = None if label == "none" or not own else _classes(top, own) if root.parent == top and root != top else tuple(own)
    labels = numbered([f.relative_to(root).parts[0] for f in files], classes) if classes else None
    ids = np.array([f.relative_to(root).as_posix() if flat else f"{split}/{f.relative_to(root).as_posix()}" for f in files])
    notes = ("a flat folder: every image whatever the split, without labels" if flat else "",
             other_kinds(f for f in found if not is_image(f.name)))
    name = Path(path).name or top.resolve().name
    return encoded_source(name, split, ids, lambda i: read_file(files[i]), Decoding(background, exif, min_side), labels=labels,
                          class_names=classes, note="; ".join(n for n in notes if n), unsplit=flat,
                          file_state=lambda i: state_of(files[i]))


def _with_images(top: Path) -> list[str]:
    """The folders right inside that hold images, at any depth."""
    return [p.name for p in folders_in(top) if any(is_image(f.name) for f in files_in(p))]


def _classes(top: Path, own: list[str]) -> tuple[str, ...]:
    """The class folders of this split and of every other that shares a class with it, directly or by way of a third."""
    others = [{c.name for c in folders_in(s) if any(is_image(f.name) for f in files_in(c))} for s in folders_in(top)]
    found = set(own)
    while grown := [o for o in others if o & found and not o <= found]:
        found = found.union(*grown)
    return tuple(sorted(found))


def _no_split(given: Path, top: Path, split: str) -> UserError:
    if not top.is_dir():
        return UserError(f"data {given}", "a folder", "a file" if top.exists() else "no such folder", "Check the path.")
    there = _with_images(top)
    one_split = bool(there) and all(not _with_images(top / name) for name in there)  # images one level down: maybe classes
    got = f"folders {', '.join(there[:6])}{' ...' if len(there) > 6 else ''}" if there else "no images"
    if not there and (others := other_kinds(files_in(top))):
        got += f" ({others})"
    instead = near_splits(split, there) or (["."] if one_split else there[:4])
    expected = f"a sub-folder '{split}' (with one folder per class, or the images themselves)"
    return MissingSplit(f"data {given}", expected, got, split, instead, "Check the path.")


PATHS = ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "img", "img_path",
         "image_file", "filenames", "paths")
SPLITS = ("split", "subset", "partition", "fold_name")


@datasets.register("manifest")
def manifest(split: str, *, path: Path, image: str | None = None, label: str | None = None, split_column: str | None = None,
             root: Path | None = None, background: str = "white", exif: bool = True, min_side: MinSide = None) -> Source:
    """A CSV, TSV or JSONL file of image paths, with a label column and a split column where it has them.

    Relative paths start at ``root`` (default: the file's own folder) and stay inside it; absolute ones may lie anywhere.
    Classes are numbered by name over all splits. Without a split column every row is read, whatever the split.
    """
    given, path = path, Path(path).expanduser()
    rows, where = _rows(path), f"data {given}"
    image = need_column(list(rows), image, PATHS, "image", where, given)
    columns = [c for c in rows if c != image]
    places = label_columns(columns, label, LISTED_LABELS, where, given)
    sure = [label or "", *(c for c in columns if c.casefold() in LISTED_LABELS[:-2])]
    column = pick_column([c for c in columns if c != (places or [''])[0]], split_column, SPLITS, "split_column", where, given)
    chosen = np.arange(len(rows[image]))
    if column is not None:
        there = list(dict.fromkeys(rows[column]))
        if split not in there:
            raise MissingSplit(where, f"rows of split '{split}' in column '{column}'", f"splits {', '.join(there[:6])}", split,
                               near_splits(split, there) or there[:4])
        chosen = np.flatnonzero(np.array(rows[column]) == split)
    label, labelled, left = read_labels(places, sure, lambda c: _labels(rows[c], chosen, f"{where} column {c}", given),
                                        rows.__getitem__)
    labels, names = labelled or (None, None)
    listed = [rows[image][i] for i in chosen]
    start = path.parent if root is None else Path(root).expanduser()
    if listed and not any((start / name).is_file() for name in listed):
        raise UserError(f"{where} column {image}", f"paths of files, from {start or '.'} on",
                        f"'{listed[0]}', and no file there for any row",
                        f"Name the folder that they start from: {data_option(given, root='FOLDER')}.")
    _check_once(listed, start, where)
    used = [f"paths from column '{image}'", *([f"classes from '{label}'"] if label else ["no labels"]),
            *([f"splits from '{column}'"] if column else ["every row whatever the split"])]
    note = "; ".join(part for part in (", ".join(used), not_used(rows, (image, label, column), left)) if part)

    def read(index: int) -> bytes:
        name = Path(listed[index])
        return read_file(name) if name.is_absolute() else read_file(start / name, start)

    return encoded_source(path.stem, split, np.array(listed, dtype=str), read, Decoding(background, exif, min_side),
                          labels=labels, class_names=names, note=note, unsplit=column is None,
                          file_state=lambda i: state_of(start / listed[i]))


def _labels(texts: list[str], chosen: np.ndarray, where: str, given: Path | str) -> Labels:
    """Of the ``chosen`` rows, numbered over all."""
    if nested := next((v for v in texts if isinstance(v, _Nested)), None):
        raise UserError(where, "a whole number or a name for each image", nested[:40],
                        f"Name another column: {data_option(given, label='COLUMN')}, or none: "
                        f"{data_option(given, label='none')}.")
    return class_labels([texts[i] for i in chosen], texts, where, given)


def _check_once(listed: list[str], start: Path, where: str) -> None:
    """Refuse one file that is listed twice, also in two spellings of its path."""
    seen: dict[str, str] = {}
    for name in listed:
        if (before := seen.setdefault(os.path.normpath(start / name), name)) != name:
            raise UserError(where, "each image once", f"'{before}' and '{name}'", "Take one of the two rows out.")


def _rows(path: Path) -> dict[str, list[str]]:
    """Column -> its texts, "" where a cell is empty; blank lines are passed over."""
    if not path.is_file():
        raise UserError(f"data {path}", "a file that exists", "none there", "Check the path.")
    names = [s.lower() for s in path.suffixes]
    try:
        with (gzip.open if names[-1] == ".gz" else open)(path, "rt", encoding="utf-8-sig", newline="") as file:
            lines = _json_lines(file, path) if {".jsonl", ".ndjson"} & set(names) else _separated(file)
            columns, *rows = lines
    except UserError:
        raise
    except (OSError, EOFError, ValueError, zlib.error, csv.Error) as error:
        raise UserError(f"data {path}", "a CSV, TSV or JSONL file in UTF-8 with a header line or keys",
                        f"{type(error).__name__}: {' '.join(str(error).split())[:120]}", "Fix or save it again.") from None
    if not rows:
        raise UserError(f"data {path}", "at least one image", "no rows", "Check the file.")
    if len(set(columns)) < len(columns):
        raise UserError(f"data {path}", "columns of different names", ", ".join(columns), "Fix its header line.")
    return {column: [row[i] for row in rows] for i, column in enumerate(columns)}


def _separated(file: TextIO) -> Iterator[list[str]]:
    """The rows of a CSV file, its header first; the separator is the one of , ; | and tab that the header has most of."""
    header = file.readline()
    separator = max(",\t;|", key=header.count)
    count = 0
    for number, row in enumerate(csv.reader(itertools.chain([header], file), delimiter=separator, strict=True), start=1):
        if not any(cell.strip() for cell in row):
            continue
        count = count or len(row)
        if len(row) != count:
            raise ValueError(f"row {number} has {len(row)} cells, the header {count}")
        yield [cell.strip() for cell in row]


class _Nested(str):
    """A list or an object of a JSON, which is no label."""

    __slots__ = ()


def _json_lines(file: TextIO, path: Path) -> Iterator[list[str]]:
    """The keys of all lines, then the values of each; null and NaN are blank, and beside whole numbers 1.0 is 1."""
    rows = [parse_json(line, f"data {path}, line {number}", dict, "Fix or drop that line.", nan=True)
            for number, line in enumerate(file, 1) if line.strip()]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    whole = {key for row in rows for key, value in row.items() if type(value) is int}
    yield keys
    for row in rows:
        yield [_json_text(row.get(key), key in whole) for key in keys]


def _json_text(value: Any, whole: bool) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, (list, dict)):
        return _Nested(value)
    return str(int(value) if whole and isinstance(value, float) and value.is_integer() else value).strip()
