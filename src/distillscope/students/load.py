"""A distilled student: saved with its preprocessing, loaded ready to use."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distillscope.data.preprocess import Preprocess
from distillscope.data.source import Source, read_batches
from distillscope.devices import kept_memory
from distillscope.errors import UserError
from distillscope.files import write_atomic, write_json
from distillscope.registry import students
from distillscope.students.networks import Transform
from distillscope.teachers.encoder import Encoder, Perturbation, hash_state, load_state, read_state

WEIGHTS, DESCRIPTION = "weights.safetensors", "student.json"


@dataclass
class StudentEncoder(Encoder):
    """An Encoder that was distilled, with what is needed to build it again (``recipe``)."""

    recipe: dict[str, Any] | None = None

    @kept_memory()
    def embed(self, source: Source, perturbation: Perturbation | None = None,
              advance: Callable[[int], None] | None = None, batch_size: int = 256, workers: int = 0) -> np.ndarray:
        """Embeddings (n, dim) float32 of every item, in evaluation mode."""
        was_training = self.module.training
        self.module.eval()
        out = np.empty((len(source), self.dim), dtype=np.float32)
        batches = [np.arange(i, min(i + batch_size, len(source))) for i in range(0, len(source), batch_size)]
        for indices, images in read_batches(source, batches, workers):
            out[indices] = self.encode(images, source.ids[indices], perturbation)
            if advance:
                advance(len(indices))
        self.module.train(was_training)
        return out


def build_student(name: str, settings: dict[str, Any], embedding_dim: int, preprocess: Preprocess, label: str,
                  device: torch.device, precision: str = "float32") -> StudentEncoder:
    """A student with fresh weights, on its device."""
    module = students.call(name, settings, embedding_dim, preprocess.size, where=f"student {label}")
    module = module.to(device=device, memory_format=torch.channels_last)
    recipe = {"name": name, "settings": settings, "embedding_dim": embedding_dim, "preprocess": preprocess.describe()}
    return StudentEncoder(label, module, embedding_dim, preprocess, "", precision, device=device, recipe=recipe)


def check_student(name: str, settings: dict[str, Any], image_size: int, label: str) -> None:
    """Build it once, on no device and from no random stream, so that a wrong value is said before any work starts."""
    if settings.get("projection") == "none":
        return  # whether it fits hangs on the teacher's dimension
    with torch.random.fork_rng(devices=[]):
        students.call(name, {**settings, **({"pretrained": False} if "pretrained" in settings else {})}, 8, image_size,
                      where=f"student {label}")


def save_student(student: StudentEncoder, folder: Path, extra: dict[str, Any] | None = None) -> None:
    """weights.safetensors, and student.json with all that `load_student` needs."""
    from safetensors.torch import save_file

    state = {k: v.detach().cpu().contiguous() for k, v in student.module.state_dict().items()}
    write_atomic(folder / WEIGHTS, lambda p: save_file(state, p))
    write_json(folder / DESCRIPTION, {**(student.recipe or {}), "label": student.name,
                                      "weights_hash": hash_state(state.items()), **(extra or {})})


def with_transform(student: StudentEncoder, last: Transform) -> StudentEncoder:
    """A copy of the student whose embeddings go through ``last``, which is stored with its weights."""
    module = torch.nn.Sequential(copy.deepcopy(student.module), last.to(student.device)).eval()
    dim = len(last.mean) if last.matrix is None else last.matrix.shape[-1]
    return replace(student, module=module, dim=dim, weights_hash="", recipe={**(student.recipe or {}), "transform": last.describe()})


def load_student(folder: Path | str, device: str = "auto", precision: str = "float32") -> StudentEncoder:
    """The student that a folder holds, in evaluation mode: ``load_student(DIR).encode(images, ids)``.

    ``folder`` is what `distillscope distill --out` wrote, or one trial of a study.
    """
    from distillscope.devices import choose_device

    folder = Path(folder)
    description = folder / DESCRIPTION
    if not description.is_file():
        trials = sorted(folder.glob(f"trials/*/{DESCRIPTION}"))
        todo = f"Name a trial, for instance {trials[0].parent}." if trials else "Name what `distillscope distill --out` wrote."
        raise UserError(f"student {folder}", f"a folder with {DESCRIPTION} and {WEIGHTS}", "none there", todo)
    try:
        recipe = json.loads(description.read_text())
        fields = {k: tuple(v) if isinstance(v, list) else v for k, v in recipe["preprocess"].items()}
        preprocess = Preprocess(**fields)
        settings, dim, name = recipe["settings"], recipe["embedding_dim"], recipe["name"]
        last = Transform.empty(recipe["transform"]) if "transform" in recipe else None
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise UserError(str(description), "a student's description", f"{type(error).__name__}: {error}",
                        "Distil it again.") from None
    student = build_student(name, {**settings, **({"pretrained": False} if "pretrained" in settings else {})}, dim,
                            preprocess, recipe.get("label", name), choose_device(device), precision)
    student = student if last is None else with_transform(student, last)
    load_state(student.module, read_state(folder / WEIGHTS, str(folder / WEIGHTS)), str(folder / WEIGHTS))
    student.recipe, student.weights_hash = recipe, recipe.get("weights_hash", "")
    student.module.eval()
    return student
