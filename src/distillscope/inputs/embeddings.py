"""Embeddings made by anything: read from files and folders, and aligned by id."""

from __future__ import annotations

import difflib
from pathlib import Path

import numpy as np
import pandas as pd

from distillscope import registry
from distillscope.errors import UserError
from distillscope.inputs.folders import read_folder
from distillscope.inputs.formats import EMBEDDINGS, read_members, split_key
from distillscope.inputs.members import IDS, LABELS, Embeddings, called, from_members, plain_labels, readable, strings


def read_embeddings(path: str | Path, *, split: str = "test", where: str = "teacher") -> Embeddings:
    """Embeddings from a file or folder; docs/audit.md lists the formats.

    ``path`` may name one array of a file: ``FILE.npz:key``. ``split`` picks among the splits of a folder that has several.
    ``where`` begins the error messages.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "teacher.npy"
    >>> np.save(file, np.eye(3, dtype=np.float16))
    >>> read_embeddings(file).rows.shape
    (3, 3)
    """
    file, key = split_key(path)
    name = f"{where} {path}"
    if not file.exists():
        close = difflib.get_close_matches(str(path), registry.teachers, n=1)
        raise UserError(name, "a file or folder that exists", "none",
                        (f"Did you mean the model '{close[0]}'?" if close else "Check the path.")
                        + " A model is named timm/MODEL, open_clip/MODEL:WEIGHTS or by its file.")
    if file.is_dir():
        return read_folder(file, split, where)
    with readable(name, "embeddings that can be read"):
        return from_members(read_members(file, name, EMBEDDINGS), key, name, f"{file.name}:{key}" if key else file.stem)


def align(teacher: Embeddings, student: Embeddings) -> tuple[Embeddings, Embeddings, str | None]:
    """Both sides with one row an item: by id where both have ids, else by order; and a note of what a reader must know.

    >>> a = Embeddings(np.eye(3), strings(["x", "y", "z"], "a"), None, "a")
    >>> b = Embeddings(np.eye(2), strings(["z", "x"], "b"), None, "b")
    >>> align(a, b)[2]
    'aligned by id: 2 items in both; dropped 1 of 3 of the teacher, 0 of 2 of the student.'
    """
    first, second, note = _paired(teacher, student)
    if first.labels is not None and second.labels is not None and first.labels.dtype.kind == second.labels.dtype.kind:
        differ = first.labels != second.labels
        if differ.any():
            at = int(differ.argmax())
            raise UserError(f"student {student.name} labels", f"the labels of the teacher {teacher.name}",
                            f"others for {int(differ.sum())} of {len(differ)} items, first in row {at} "
                            f"({second.labels[at]}, not {first.labels[at]})",
                            "The rows are not of the same items: embed them in one order, or give ids.")
    return first, second, note


def _paired(teacher: Embeddings, student: Embeddings) -> tuple[Embeddings, Embeddings, str | None]:
    if teacher.ids is None or student.ids is None:
        if len(teacher) != len(student):
            raise UserError(f"student {student.name}", f"{len(teacher)} rows like the teacher {teacher.name}",
                            str(len(student)), "Embed the same items in the same order, or give ids on both sides.")
        alone = "teacher" if teacher.ids is not None else "student" if student.ids is not None else None
        return teacher, student, f"only the {alone} has ids: rows are taken to be in one order." if alone else None
    _unique(teacher.ids, f"teacher {teacher.name} ids")
    known = _unique(student.ids, f"student {student.name} ids")
    if np.array_equal(teacher.ids, student.ids):
        return teacher, student, None
    at = known.get_indexer(teacher.ids)
    kept = np.flatnonzero(at >= 0)
    if not len(kept):
        raise UserError(f"student {student.name} ids", "ids of the teacher's items",
                        f"none in common (teacher's first '{teacher.ids[0]}', student's first '{student.ids[0]}')",
                        "Embed the same items, or leave the ids out on one side.")
    dropped = len(teacher) - len(kept), len(student) - len(kept)
    note = (f"aligned by id: {len(kept)} items in both; dropped {dropped[0]} of {len(teacher)} of the teacher, "
            f"{dropped[1]} of {len(student)} of the student.")
    rows = at[kept]
    return (teacher if dropped[0] == 0 else teacher.take(kept),
            student if np.array_equal(rows, np.arange(len(student))) else student.take(rows), note)


def positions(ids: np.ndarray, wanted: np.ndarray, where: str, what: str = "an embedding") -> np.ndarray:
    """Row (n,) of each of ``wanted`` among ``ids``; all must be there.

    >>> positions(np.array(["a", "b", "c"]), np.array(["c", "a"]), "x")
    array([2, 0])
    """
    at = _unique(ids, f"{where} ids").get_indexer(wanted)
    missing = at < 0
    if missing.any():
        raise UserError(where, f"{what} for every item",
                        f"{int(missing.sum())} of {len(wanted)} missing (first {wanted[int(missing.argmax())]})",
                        "Add them, or use a part of the data.")
    return at


def _unique(ids: np.ndarray, where: str) -> pd.Index:
    """The ids, for look-ups; each must be there once."""
    index = pd.Index(ids, dtype=object)
    if not index.is_unique:
        repeated = index.duplicated()
        raise UserError(where, "ids that differ", f"{int(repeated.sum())} repeated, first '{ids[int(repeated.argmax())]}'",
                        "Keep one row for each item.")
    return index


def read_labels(path: str | Path, count: int, ids: np.ndarray | None = None, *, where: str = "labels") -> np.ndarray:
    """Labels (count,) from a file (or a folder with a label column): by id where it and ``ids`` have them, else by order."""
    file, key = split_key(path)
    name = f"{where} {path}"
    if not file.exists():
        raise UserError(name, "a file that exists", "none", "Check the path.")
    with readable(name, "labels that can be read"):
        labels, own = _labels(file, key, name)
    if ids is not None and own is not None:
        return labels[positions(own, ids, name, "a label")]
    if len(labels) != count:
        raise UserError(name, f"{count} labels, one an item", str(len(labels)),
                        "Save them in row order, or with the ids of the items.")
    return labels


def _labels(file: Path, key: str | None, where: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Labels of a file and its ids."""
    members = read_members(file, where)
    found = next((m for m in members if m.name == key), None) if key else called(members, LABELS)
    flat = [m for m in members if len(m.shape) == 1] or [m for m in members if m.shape[1:] == (1,)]
    flat = [m for m in flat if m.name.lower() not in IDS] or flat
    if found is None and not key and len(flat) == 1:
        found = flat[0]
    if found is None:
        raise UserError(where, f"an array called {key or 'label'}, of shape (items,)",
                        ", ".join(map(str, members[:6])) or "none", "Name it: FILE:key.")
    ids = called(members, IDS)
    ids = None if ids is None or ids is found else strings(ids.load(), f"{where} {ids.name}")
    labels = plain_labels(found.load(), where)
    if ids is not None and len(ids) != len(labels):
        raise UserError(where, f"{len(labels)} ids, one a label", str(len(ids)), "Save one id for each label.")
    return labels, ids


def read_text(path: str | Path, *, where: str = "text") -> np.ndarray:
    """Embeddings (classes, d) of the class names, from any format of `read_embeddings`, in memory."""
    return np.asarray(read_embeddings(path, where=where).rows)
