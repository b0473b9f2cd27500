"""`distillscope.distill`: one student from what a caller of Python holds, by the checks and the loop of the command."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from distillscope.config.recipe import DEFAULT_RECIPE, one_student
from distillscope.config.resolve import named_dataset
from distillscope.data.given import given_images
from distillscope.data.preprocess import Preprocess
from distillscope.data.source import Source
from distillscope.data.splits import named_split
from distillscope.devices import choose_device
from distillscope.errors import UserError
from distillscope.files.folders import KEEP_GIB
from distillscope.students.card import OWN
from distillscope.students.load import StudentEncoder, load_student
from distillscope.students.own_network import read_network
from distillscope.study.preflight import Work
from distillscope.study.student import Given, distil
from distillscope.teachers.encoder import hash_state
from distillscope.teachers.given import GivenRows, given_teacher, name_of

if TYPE_CHECKING:
    from distillscope.teachers.encoder import TeacherRows

Transform = Preprocess | Mapping[str, Any] | Callable[[Any], torch.Tensor]
"""How a module wants images: a `Preprocess`, ``{"size": 224, "mean": (...), "std": (...)}``, a transform of Pillow images."""


def distill(teacher: str | torch.nn.Module | Callable[[list[Any]], Any] | np.ndarray | torch.Tensor,
            student: str | torch.nn.Module, images: Any, *, out: Path | str | None = None,
            recipe: str | Path | Mapping[str, Any] = DEFAULT_RECIPE, objective: str | None = None, epochs: int | None = None,
            batch_size: int | None = None, lr: float | None = None, dim: int | None = None, image_size: int | None = None,
            teacher_preprocess: Transform | None = None, student_preprocess: Transform | None = None,
            settings: Mapping[str, Any] | None = None, seed: int | None = None, limit: int | None = None,
            corrupt: str = "error", resume: bool = False, device: str = "auto", precision: str | None = None,
            workers: int = 0, keep_images: float = KEEP_GIB) -> StudentEncoder:
    """Distil ``teacher`` into ``student`` on ``images``; the trained student, ready for ``encode(images)``: (b, dim) float32.

    teacher
        A name as on the command line; embeddings (n, d), row i for image i; a function that takes a list of Pillow images (RGB)
        and gives (b, d); or a module that takes (b, 3, h, w) and gives (b, d), with ``teacher_preprocess`` or an attribute
        ``preprocess``. A model of timm needs neither, and its classifier is left out. A module is copied. Each image is
        embedded once and cached.
    student
        ``paper_cnn``, ``timm/MODEL``, or a module that takes (b, 3, size, size) and gives (b, k), with ``student_preprocess``
        as for the teacher. It is copied, with its weights; a linear layer follows where k is not the target's dimension.
    images
        The name of a folder or a data set (its train split); a list of paths, Pillow images, arrays or encoded bytes; uint8 or
        floats in [0, 1], (n, h, w, 3) or (n, 3, h, w); a data set of torch or of the Hub (the first of a pair, or its key
        ``image``); a column of a table. Labels are not needed. A tenth is held out for the figures of the card.
    out
        Where the student goes, with its model card; without it nothing is kept but the cache.
    recipe, objective, epochs, batch_size, lr, dim, image_size, seed, limit, corrupt, resume, device, precision, workers,
    keep_images
        As the options of `distillscope distill`; a recipe may be a mapping too.
    settings
        As ``--set``: ``{"view.sigma": 0.1}``.

    Raises `UserError` with one line for everything that does not fit.

    >>> rng = np.random.default_rng(0)
    >>> images, rows = rng.integers(0, 256, (60, 16, 16, 3), dtype=np.uint8), rng.normal(size=(60, 12))
    >>> student = distill(rows, "paper_cnn", images, epochs=1, image_size=16, device="cpu")
    >>> student.encode(images[:5]).shape
    (5, 12)
    """
    given, names = Given(), set()
    data: dict[str, Any] = {"name": OWN, "alias": "images"}
    if isinstance(images, (str, Path)):
        data = {"name": str(images)}
    else:
        given, names = Given(given_images(images)), {"data"}
    taught, of_teacher = _teacher(teacher, teacher_preprocess, images, given.images, device, precision)
    learns, network = _student(student, student_preprocess, image_size)
    given = Given(given.images, of_teacher, network)
    names |= ({"teacher"} if of_teacher else set()) | ({"students"} if network else set())
    options = {"training.epochs": epochs, "training.batch_size": batch_size, "training.learning_rate": lr, "limit": limit,
               "students.0.image_size": None if network else image_size, **(settings or {})}
    study = one_student("student", taught, data, learns, recipe=recipe, objective=objective, dim=dim, seed=seed,
                        overrides=[f"{path}={_written(path, value)}" for path, value in options.items() if value is not None],
                        corrupt=corrupt, given=names)
    work = Work(study, None, resume, device, precision, workers=workers, keep_images=keep_images, given=frozenset(names))
    with tempfile.TemporaryDirectory(prefix="distillscope-") as temporary:
        folder = Path(temporary) / "student" if out is None else Path(out)
        trained = distil(work, folder, given, command="distillscope.distill(...) in Python")
    if trained is None:
        return load_student(folder, device, precision or "float32", module=network.module if network else None)
    trained.weights_hash = hash_state(trained.module.state_dict().items())
    return trained


def _written(path: str, value: Any) -> str:
    """A setting as `--set` takes it; NumPy's numbers and arrays are numbers and lists."""
    try:
        return json.dumps(value, default=lambda other: other.tolist())
    except (TypeError, ValueError, AttributeError):
        raise UserError(path, "a plain YAML value", type(value).__name__, "Convert it.") from None


def _teacher(teacher: Any, preprocess: Any, images: Any, source: Source | None, device: str,
             precision: str | None) -> tuple[dict[str, Any], Callable[[Source], TeacherRows] | None]:
    """The study's teacher, and what makes it of the images where no name does."""
    if isinstance(teacher, (str, Path)):
        if preprocess is not None and not isinstance(preprocess, Mapping):
            raise UserError("teacher_preprocess", "a mapping (size, mean, std) for a model file, nothing for other names",
                            type(preprocess).__name__, "Leave it out.")
        return {"name": str(teacher), **(preprocess or {})}, None
    if isinstance(teacher, (np.ndarray, torch.Tensor)):
        if source is None:  # ids of all items, before any part of them is taken
            part = named_dataset(str(images), "images")
            source = named_split(part.name, part.settings, part.train_split)
        rows = GivenRows(teacher, source.ids)
        return {"name": OWN, "label": rows.name}, lambda seen: rows
    return ({"name": OWN, "label": name_of(teacher)},
            lambda seen: given_teacher(teacher, preprocess, seen, choose_device(device), precision))


def _student(student: Any, preprocess: Any, image_size: int | None) -> tuple[dict[str, Any], Any]:
    """The study's student, and the caller's own network where no name builds it."""
    if isinstance(student, str):
        if preprocess is None:
            return {"name": student}, None
        known = preprocess.describe() if isinstance(preprocess, Preprocess) else preprocess
        fixed = {"interpolation": "bicubic", "crop_fraction": 1.0, "resize_mode": "shortest"}
        if not isinstance(known, Mapping) or any(fixed.get(k) != known[k] for k in known if k not in ("size", "mean", "std")):
            raise UserError("student_preprocess", "size, mean and std of a student that is named, whose images are resized by "
                            "bicubic and keep their shorter side", f"{known}", "Give a mapping of these, or leave it out.")
        renamed = {"image_size": known.get("size"), "mean": known.get("mean"), "std": known.get("std")}
        return {"name": student, **{k: v for k, v in renamed.items() if v is not None}}, None
    if not isinstance(student, torch.nn.Module):
        raise UserError("student", "a name (paper_cnn, timm/MODEL) or a module", type(student).__name__, "Pass one.")
    network = read_network(student, preprocess, image_size)
    seen = network.preprocess
    return {"name": OWN, "label": network.label, "image_size": seen.size, "mean": seen.mean, "std": seen.std}, network
