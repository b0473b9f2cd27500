"""An exported file, loaded ready to use, and checked against the student that it should be of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from distillscope.config.parts import MODEL_FILES
from distillscope.errors import UserError
from distillscope.registry import teachers
from distillscope.students.load import StudentEncoder, load_student
from distillscope.teachers.artefacts import Artefact
from distillscope.teachers.encoder import hash_state


def load_artefact(path: Path | str, student: StudentEncoder | Path | str | None = None) -> Artefact:
    """The file that `distillscope export` wrote: ``load_artefact(FILE).encode(images)``, by the file's own runtime on the CPU.

    Its preprocessing, dimension and precision stand in its metadata (``.facts``), so nothing is asked. ``student``, loaded or
    its folder: a file that was exported from other weights, or with another preprocessing, is a `UserError`, and
    so is a ``path`` that export did not write.

    >>> load_artefact("student.onnx").encode(["photo.jpg"]).shape   # doctest: +SKIP
    (1, 1280)
    """
    path = Path(path)
    where = f"artefact {path}"
    kind = MODEL_FILES.get(path.suffix.lower())
    if kind is None:
        raise UserError(where, "a file that `distillscope export` wrote (.onnx, .xml, .pte, .tflite)", f"'{path.suffix}'",
                        "Name one of these.")
    settings: dict[str, Any] = {"path": path}
    found = teachers.call(kind, settings, where=where)
    if not isinstance(found, Artefact):
        raise UserError(where, "metadata that `distillscope export` wrote", "none",
                        "Export it, or pass it to `distillscope audit`, whose --teacher and --student may be any model file.")
    if student is not None:
        check_same_student(found, student if isinstance(student, StudentEncoder) else load_student(student, "cpu"), where)
    return found


def name_of_weights(student: StudentEncoder) -> str:
    """The hash that names the student's weights; of a folder older than these, computed."""
    return student.weights_hash or hash_state(student.module.state_dict().items())


def check_same_student(artefact: Artefact, student: StudentEncoder, where: str) -> None:
    """Refuse an artefact whose metadata name other weights or another preprocessing than the student's."""
    facts, own = artefact.facts, name_of_weights(student)
    if facts.weights_hash != own:
        raise UserError(where, f"a file of student {student.name} ({own[:12]})",
                        f"one of {facts.student} ({facts.weights_hash[:12]})", "Export it from this student again.")
    said, seen = (replace(p, mean=tuple(p.mean), std=tuple(p.std)) for p in (facts.preprocessing, student.preprocess))
    if said != seen:
        key = next(k for k, v in vars(seen).items() if getattr(said, k) != v)
        raise UserError(f"{where} preprocessing.{key}", f"{getattr(seen, key)}, the student's", f"{getattr(said, key)}",
                        "Export it from this student again.")
