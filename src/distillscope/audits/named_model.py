"""Whether an input of an audit names a model or embeddings: told without loading one."""

from __future__ import annotations

import inspect

from distillscope import registry
from distillscope.config.parts import DESCRIPTION, MODEL_FILES
from distillscope.inputs.arrays import is_torchscript
from distillscope.inputs.formats import split_key


def is_model(spec: str, *, with_images: bool = True) -> bool:
    """Whether ``spec`` names a model: timm/MODEL, open_clip/MODEL:WEIGHTS, a teacher, a distilled student's folder, or a
    model file (ONNX, TorchScript, torch.export, LiteRT). A trial's folder holds embeddings too, and is a model only where
    there are images to embed (``with_images``).

    >>> is_model("timm/resnet18"), is_model("student.onnx"), is_model("teacher.npy")
    (True, True, False)
    """
    path = split_key(spec)[0]
    if path.is_dir():
        return (path / DESCRIPTION).is_file() and (with_images or not (path / "embeddings_test").is_dir())
    if path.suffix.lower() in MODEL_FILES:
        return True
    if path.exists():
        return path.suffix.lower() in (".pt", ".pth") and is_torchscript(path)
    return spec.startswith(("timm/", "open_clip/")) or _is_teacher(spec)


def _is_teacher(spec: str) -> bool:
    """A registered teacher that needs no setting."""
    return spec in registry.teachers and all(p.default is not inspect.Parameter.empty
                                             for p in registry.teachers.settings(spec).values())
