"""Teachers that a caller of Python hands over: a module with its preprocessing, a function of images, or ready embeddings."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from distillscope.data.preprocess import Names, Preprocess
from distillscope.data.source import Images, Source
from distillscope.errors import UserError
from distillscope.inputs.pairing import positions
from distillscope.teachers.encoder import Encoder, Perturbation, TeacherRows, hash_state, plain_line
from distillscope.teachers.models import plain_timm

PROBED = 8
"""Images whose embeddings are part of a module's or a function's name in the cache: other weights or code give others."""
HOW = ("a Preprocess, {'size': 224, 'mean': (r, g, b), 'std': (r, g, b)}, or a transform of Pillow images "
       "(torchvision's, timm's)")


class GivenRows(TeacherRows):
    """Ready embeddings (n, d), row i for item i of the images that they were given with."""

    def __init__(self, rows: np.ndarray | torch.Tensor, ids: Sequence[str] | np.ndarray, name: str = "embeddings") -> None:
        rows = rows.detach().float().cpu().numpy() if isinstance(rows, torch.Tensor) else rows
        if rows.ndim != 2 or len(rows) != len(ids) or rows.dtype.kind not in "fiu":
            raise UserError("teacher", f"embeddings ({len(ids)}, d), a row for each image in order",
                            f"{rows.dtype} {rows.shape}", "Embed the same images in the same order.")
        self._rows, self._ids = np.ascontiguousarray(rows, dtype=np.float32), np.asarray(ids)
        bad = ~np.isfinite(self._rows).all(axis=1)
        if bad.any():
            raise UserError("teacher", "finite embeddings", f"NaN or infinity in {int(bad.sum())} rows, first "
                            f"{self._ids[int(bad.argmax())]}", "Embed those items again.")
        self.name, self.dim = name, self._rows.shape[1]
        self._hash = hashlib.blake2b(self._rows.tobytes(), digest_size=16).hexdigest()

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "dim": self.dim, "weights": self._hash}

    def lookup(self, source: Source) -> np.ndarray:
        return self._rows[positions(self._ids, source.ids, "teacher")]


@dataclass(frozen=True)
class PillowPreprocess:
    """A transform of Pillow images, as torchvision and timm have them, for batches of decoded ones."""

    transform: Callable[[Any], Any]

    def __call__(self, images: Images) -> torch.Tensor:
        """(b, 3, h, w) float32, of uint8 images or floats in [0, 1], which are rounded to 8 bits."""
        return torch.stack([torch.as_tensor(self.transform(image)) for image in pillow_images(images)]).float()

    def describe(self) -> dict[str, Any]:
        return {"transform": str(self.transform)}


def pillow_images(images: Images) -> list[Any]:
    """Pillow images of a batch (b, 3, h, w), or of a list of (3, h, w), in 8 bits."""
    from PIL import Image

    bits = [image if image.dtype == torch.uint8 else image.mul(255).round().clamp(0, 255).to(torch.uint8) for image in images]
    return [Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy()) for image in bits]


@dataclass
class GivenTeacher(Encoder):
    """A network, or a ``function`` of Pillow images, that no file or library names; ``probe`` tells it from others."""

    function: Callable[[list[Any]], Any] | None = None
    probe: str = ""

    def describe(self) -> dict[str, Any]:
        named = super().describe()
        return {**({k: v for k, v in named.items() if k != "weights"} if self.function else named), "probe": self.probe}

    def _encode(self, images: Images, ids: Names, perturbation: Perturbation | None) -> np.ndarray:
        if perturbation is not None and perturbation.where == "input" and not isinstance(self.preprocess, Preprocess):
            raise UserError(f"teacher {self.name}", "noise on the source", "noise on the network's own input",
                            "Set the view's where=source, or a view_target of clean.")
        if self.function is None:
            return super()._encode(images, ids, perturbation)
        if perturbation is not None:
            images = perturbation(images, ids)
        found = self.function(pillow_images(images))
        rows = found.detach().float().cpu().numpy() if isinstance(found, torch.Tensor) else np.asarray(found)
        rows = rows.detach().float().cpu().numpy() if isinstance(rows, torch.Tensor) else rows
        if rows.ndim != 2 or len(rows) != len(images) or rows.dtype.kind not in "fiu":
            raise UserError(f"teacher {self.name}", f"embeddings ({len(images)}, d) of a list of {len(images)} Pillow images",
                            f"{rows.dtype} of shape {rows.shape}", "Return one row per image.")
        rows = rows.astype(np.float32)
        if not np.isfinite(rows).all():
            bad = ids[int((~np.isfinite(rows).all(axis=1)).argmax())]
            raise UserError(f"teacher {self.name}", "finite embeddings", f"NaN or infinity, first for {bad}",
                            "Check that image.")
        return rows


def given_teacher(model: Any, preprocess: Any, source: Source, device: torch.device, precision: str | None) -> TeacherRows:
    """The teacher that ``model`` is: (n, d) embeddings, a module with its ``preprocess``, or a function of Pillow images.

    A module is copied, so that the caller's keeps its mode and weights. Its embeddings are cached as a named teacher's are;
    what it gives for a few of the images of ``source`` is part of its name there.
    """
    if isinstance(model, (np.ndarray, torch.Tensor)):
        return GivenRows(model, source.ids)
    name = name_of(model)
    if isinstance(model, torch.nn.Module):
        module, own, reading = plain_timm(copy.deepcopy(model))
        seen = seen_by(preprocess if preprocess is not None else getattr(model, "preprocess", None) or own, f"teacher {name}")
        found = GivenTeacher(name, module, 0, seen, hash_state(module.state_dict().items()), reading=reading)  # type: ignore[arg-type]
    elif callable(model):
        found = GivenTeacher(name, torch.nn.Identity(), 0, Preprocess(1), "", function=model)
    else:
        raise UserError("teacher", "a name, a module, a function of images, or embeddings (n, d)", type(model).__name__,
                        "Convert it.")
    found.to(device, precision)
    rows = _probed(found, source)
    probe = hashlib.blake2b(f"{found.module}".encode() + rows.tobytes(), digest_size=16).hexdigest()
    found.dim, found.probe = rows.shape[1], probe
    return found


def _probed(teacher: GivenTeacher, source: Source) -> np.ndarray:
    """Embeddings (n, d) of a few images; what a module cannot take, or gives in another shape, is a `UserError`."""
    few, where, size = range(min(PROBED, len(source))), f"teacher {teacher.name}", getattr(teacher.preprocess, "size", "size")
    images = source.read(few), source.ids[list(few)]
    if teacher.function is not None:
        return teacher.encode(*images)
    try:
        rows = teacher.encode(*images)
    except UserError:
        raise
    except Exception as error:  # a caller's code: it may raise anything
        raise UserError(where, f"a module that takes images (b, 3, {size}, {size})", plain_line(error),
                        "Say what it sees: teacher_preprocess={'size': ...}.") from None
    if rows.ndim != 2:
        raise UserError(where, "a module that gives embeddings (b, d)", f"shape {rows.shape}", "Pool and flatten its output.")
    return rows


def name_of(model: Any) -> str:
    """What tables call a module or a function.

    >>> name_of(lambda images: images), name_of(torch.nn.Identity())
    ('function', 'Identity')
    """
    name = str(getattr(model, "__qualname__", type(model).__name__)).rpartition(".")[2]
    return name if name.isidentifier() else "function"


def seen_by(preprocess: Any, where: str) -> Preprocess | PillowPreprocess:
    """How a module wants its images, of what a caller says."""
    if isinstance(preprocess, Preprocess):
        return preprocess
    if isinstance(preprocess, Mapping):
        unknown = sorted(preprocess.keys() - Preprocess.__dataclass_fields__.keys())
        if unknown or "size" not in preprocess:
            raise UserError(f"{where} preprocess", f"size, and of {', '.join(Preprocess.__dataclass_fields__)} what is known",
                            unknown[0] if unknown else "no size", f"Give {HOW}.")
        try:
            return Preprocess(**preprocess)
        except UserError as error:
            raise UserError(f"{where} {error.where}", error.expected, error.got, error.todo) from None
    if callable(preprocess):
        return PillowPreprocess(preprocess)
    raise UserError(f"{where} preprocess", HOW, "none" if preprocess is None else type(preprocess).__name__,
                    "Give teacher_preprocess= or student_preprocess=, or the module an attribute `preprocess`.")
