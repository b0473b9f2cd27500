"""Ids and labels of rows in files of their own: --ids FILE, and {split}_ids.txt, {split}_labels.npy beside a split."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from distillscope.errors import UserError
from distillscope.inputs.choosing import Asked, Embeddings
from distillscope.inputs.formats import EMBEDDINGS, suffix_of
from distillscope.inputs.ids_and_labels import too_few
from distillscope.inputs.labels import first_line, match_labels, read_column
from distillscope.inputs.members import strings
from distillscope.inputs.pairing import names_of_rows, positions_of
from distillscope.inputs.reading import Reading
from distillscope.measure.classes import partitions_agree
from distillscope.naming import id_rank, label_rank

OF_IDS, OF_LABELS = (0, 1, 2, 3), (0, 2, 4)
"""Ranks of names that mean ids and labels when a file is called so: test_images.npy and test_class_names.txt are neither."""


def with_ids(side: Embeddings, path: str | Path, where: str) -> Embeddings:
    """The rows with the ids of another file, ``FILE`` or ``FILE:column``, one per row."""
    ids, title = _ids_of(side, path, where)
    return replace(side, ids=ids, spare=(), numbered=False, named=True, ids_given=str(path)).read_as(ids=title)


def with_ids_asked(side: Embeddings, asked: Asked) -> Embeddings:
    """The rows with the ids of the file that the caller named, if it did."""
    return side if asked.ids_file is None else with_ids(side, asked.ids_file[1], asked.ids_file[0])


def _ids_of(side: Embeddings, path: str | Path, where: str) -> tuple[np.ndarray, str]:
    """Ids (n,) and how their file, or column of it, is called."""
    found, column = read_column(path, where, id_rank, "ids")
    ids = strings(found, f"{where} {path}")
    if len(ids) != len(side):
        todo = first_line(ids, path) if column is None and len(ids) == len(side) + 1 else "Write one id for each row."
        raise UserError(f"{where} {path}", f"{len(side)} ids, one per row", str(len(ids)), todo)
    return ids, f"{Path(path).name}:{column}" if column and ":" not in Path(path).name else Path(path).name


def with_files_beside(found: Embeddings, file: Path, split: str, where: str, asked: Asked) -> Embeddings:
    """The rows of ``file`` with the ids and labels that other files of the split hold; further files of it are named.

    Of those that may be ids, {split}_ids comes first. It alone blocks the rows where it cannot be used: of others it is said
    why they were left. None is read where the caller has ids, or named a column of them.
    """
    of_ids: list[tuple[int, Path]] = []
    of_labels: list[tuple[int, Path]] = []
    unused: list[Path] = []
    for other in sorted(file.parent.glob("*")):
        words = re.split(r"[_\-. ]", other.name.removesuffix(suffix_of(other)))
        if other != file and split in words and suffix_of(other) in (*EMBEDDINGS, ".txt") and other.is_file():
            rest = "_".join(w for w in words if w != split) or file.stem
            ids, labels = id_rank(rest), label_rank(rest)
            if ids in OF_IDS and asked.ids is None and asked.ids_file is None:
                of_ids.append((ids or 0, other))
            elif labels in OF_LABELS and asked.items is None:
                of_labels.append((labels or 0, other))
            else:
                unused.append(other)
    found = _ids_beside(with_ids_asked(found, asked), sorted(of_ids), unused, split, where, asked)
    found = _labels_beside(found, [path for _, path in sorted(of_labels)], unused, split, where, asked)
    return found.read_as(unused=(*(found.reading.unused if found.reading else ()), *(f"file {f.name}" for f in sorted(unused))))


def _ids_beside(found: Embeddings, files: Sequence[tuple[int, Path]], unused: list[Path], split: str, where: str,
                asked: Asked) -> Embeddings:
    sure = [path for rank, path in files if rank == 0]
    taken: list[tuple[Path, np.ndarray, str]] = []
    for path in (path for _, path in files):
        if sure and path not in sure:
            unused.append(path)
            continue
        try:
            ids, title = _ids_of(found, path, where)
            if not sure and asked.items is not None:
                _expect_items(ids, asked.items, f"{where} {path}")
        except UserError as error:
            if sure:
                todo = f"{error.todo} {_without(path, where, asked)}"
                raise UserError(error.where, error.expected, error.got, todo) from None
            found = _remarked(found, f"the file {path.name} is not taken as ids: expected {error.expected}, got {error.got}")
            continue
        taken.append((path, ids, title))
    if not taken:
        return found
    path, ids, title = taken[0]
    if any(not np.array_equal(positions_of(ids, other)[0], np.arange(len(found))) for _, other, _ in taken[1:]):
        raise UserError(where, f"one file of ids for split '{split}'", ", ".join(path.name for path, _, _ in taken),
                        f"Remove those that are older, or call the one that is meant {split}_ids.")
    unused += [other for other, _, _ in taken[1:]]
    return replace(found, ids=ids, spare=(), numbered=False, ids_given=str(path)).read_as(ids=title)


def _expect_items(ids: np.ndarray, items: np.ndarray, where: str) -> None:
    """A file of names that a study does not need is one of ids where it names an image."""
    if len(set(ids)) < len(ids) or not (positions_of(items, ids)[0] >= 0).any():
        raise UserError(where, f"names of the images (first '{items[0]}')", f"others (first '{ids[0]}')")


def _without(path: Path, where: str, asked: Asked) -> str:
    """How to read the rows without a file of ids."""
    folder = where.partition(" ")[2] or path.parent
    return f"{folder}@none leaves ids out." if asked.options else f"Without {path.name} the rows are taken in order."


def _labels_beside(found: Embeddings, files: Sequence[Path], unused: list[Path], split: str, where: str,
                   asked: Asked) -> Embeddings:
    """Labels of the first file that has classes. Others that differ are asked about, unless the caller has labels."""
    if found.labels is not None:
        unused += files
        return found
    names, index = names_of_rows(found)
    taken: list[tuple[Path, np.ndarray, Reading]] = []
    for path in files:
        try:
            labels, reading = match_labels(path, len(found), names, index=index, where=where)
            why = too_few(labels)
        except UserError as error:
            why = f"expected {error.expected}, got {error.got}"
        if why:
            found = _remarked(found, f"the file {path.name} is not taken as labels: {why}")
        else:
            taken.append((path, labels, reading))
    if not taken:
        return found
    path, labels, reading = taken[0]
    if all(_same_classes(labels, others) for _, others, _ in taken[1:]):
        unused += [other for other, _, _ in taken[1:]]
        found = replace(found, labels=labels).read_as(labels=path.name, unlabelled=reading.unlabelled)
        return _remarked(found, *reading.remarks)
    if not asked.labelled:
        raise UserError(where, f"one file of labels for split '{split}'", ", ".join(path.name for path, _, _ in taken),
                        "Remove those that are older" + (", or name one: --labels FILE." if asked.options else "."))
    unused += [path for path, _, _ in taken]
    return found


def _same_classes(first: np.ndarray, second: np.ndarray) -> bool:
    known = ~np.ma.getmaskarray(first)
    return np.array_equal(known, ~np.ma.getmaskarray(second)) and bool(
        partitions_agree(np.ma.getdata(first)[known], np.ma.getdata(second)[known]).all())


def _remarked(found: Embeddings, *remarks: str) -> Embeddings:
    return found.read_as(remarks=(*(found.reading.remarks if found.reading else ()), *remarks))
