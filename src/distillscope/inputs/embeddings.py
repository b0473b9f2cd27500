"""Embeddings made by anything: read from files and folders, with what was found in them."""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path

import numpy as np

from distillscope import registry
from distillscope.errors import UserError
from distillscope.files.archives import refuse_archive
from distillscope.inputs.choosing import Asked, Embeddings, from_contents
from distillscope.inputs.folders import read_folder
from distillscope.inputs.formats import EMBEDDINGS, parse_spec, read_contents, suffix_of
from distillscope.inputs.labels import read_column, read_labels
from distillscope.inputs.members import readable, strings
from distillscope.inputs.naming import id_rank
from distillscope.inputs.pairing import align, positions

__all__ = ["Embeddings", "align", "positions", "read_embeddings", "read_labels", "read_text", "with_ids"]


def read_embeddings(path: str | Path, *, split: str = "test", where: str = "teacher", scale: float | None = None) -> Embeddings:
    """Embeddings from a file or folder; docs/audit.md lists the formats.

    ``path`` may name one array, or columns, of a file, and the column of its ids: ``FILE.npz:key``, ``FILE.csv@name``,
    ``FILE.csv:e0..e47@name``. ``split`` picks among the splits of a folder that has several. Whole numbers are divided by
    ``scale``, and refused without one. ``where`` begins the error messages; an option's name tells that --scale is one too.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "teacher.npy"
    >>> np.save(file, np.eye(3, dtype=np.float16))
    >>> read_embeddings(file).rows.shape
    (3, 3)
    """
    spec = parse_spec(path)
    file, name = spec.path, f"{where} {path}"
    if not file.exists():
        close = difflib.get_close_matches(str(path), registry.teachers, n=1)
        refuse_archive(file, name)
        raise UserError(name, "a file or folder that exists", "none",
                        (f"Did you mean the model '{close[0]}'?" if close else "Check the path.")
                        + " A model is named timm/MODEL, open_clip/MODEL:WEIGHTS or by its file.")
    if scale is not None and not (np.isfinite(scale) and scale > 0):
        raise UserError("--scale", "a number above 0", f"{scale:g}", "For instance --scale 127.")
    asked = Asked(spec.key, spec.ids, scale, where.startswith("--"))
    if file.is_dir():
        return read_folder(file, split, where, asked)
    with readable(name, "embeddings that can be read"):
        title = f"{file.name}:{spec.key}" if spec.key else file.name.removesuffix(suffix_of(file)) or file.name
        return from_contents(read_contents(file, name, (*EMBEDDINGS, ".txt")), asked, name, title, file.name)


def with_ids(side: Embeddings, path: str | Path, where: str) -> Embeddings:
    """The rows with the ids of another file, ``FILE`` or ``FILE:column``, one a row."""
    found, column = read_column(path, where, id_rank, "ids")
    ids = strings(found, f"{where} {path}")
    if len(ids) != len(side):
        raise UserError(f"{where} {path}", f"{len(side)} ids, one a row", str(len(ids)), "Write one id for each row.")
    title = f"{Path(path).name}:{column}" if column and ":" not in Path(path).name else Path(path).name
    return replace(side, ids=ids, spare=(), numbered=False).read_as(ids=title)


def read_text(path: str | Path, *, where: str = "text") -> np.ndarray:
    """Embeddings (classes, d) of the class names, from any format of `read_embeddings`, in memory."""
    return np.asarray(read_embeddings(path, where=where).rows)
