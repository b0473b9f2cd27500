"""Embeddings of a data set, by a teacher or a distilled student, into the cache or a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distillscope.audits.models import model_teacher
from distillscope.config.resolve import named_dataset
from distillscope.data.splits import load_split
from distillscope.errors import UserError
from distillscope.students.load import load_student
from distillscope.study.saving import save_embeddings
from distillscope.teachers.rows import load_teacher


def embed_dataset(data: str, split: str, *, teacher: str | None = None, student: Path | None = None, out: Path | None = None,
                  limit: int | None = None, corrupt: str = "error", device: str = "auto", precision: str | None = None,
                  workers: int = 0, preprocess: Mapping[str, Any] | None = None) -> str:
    """Embed one split; says where the embeddings are. ``out`` gets clip-retrieval's layout, in float32.

    ``preprocess``: what is known of a model file's size, mean and std.
    """
    if student is None and teacher is None:
        raise UserError("embed", "one of --teacher and --student", "neither", "Name one.")
    if student is not None and teacher is not None:
        raise UserError("embed", "one of --teacher and --student", "both", "Name one.")
    if out is not None and out.exists() and any(out.iterdir()):
        raise UserError(f"--out {out}", "a new or empty directory", "one with files", "Name another.")
    part = named_dataset(data)
    source = load_split(part.name, part.settings, split, limit, corrupt)
    if student is None:
        encoder = load_teacher(model_teacher(str(teacher), preprocess), device, precision)
        rows = encoder.rows(source, workers=workers)
        where = encoder.place
    elif out is None:
        raise UserError("embed --student", "--out FOLDER (the cache keeps teachers only)", "none", "Add --out.")
    else:
        distilled = load_student(student, device, precision or "float32")
        rows = distilled.rows(source, label=f"student {part.title}/{split}", workers=workers)
        where = str(out)
    if out is not None:
        save_embeddings(out, rows, source, np.float32)
        where = str(out)
    return f"{len(rows)} x {rows.shape[1]} embeddings: {where}"
