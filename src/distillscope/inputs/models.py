"""Models as inputs of an audit: named or in a file, they embed images; teachers and model files go through the cache."""

from __future__ import annotations

import inspect

from distillscope import progress, registry
from distillscope.config import MODEL_FILES, Dataset, Teacher
from distillscope.data.preprocess import Preprocess
from distillscope.data.source import Source
from distillscope.data.splits import load_split
from distillscope.distill.prepared import load_teacher, teacher_rows
from distillscope.errors import UserError
from distillscope.inputs.arrays import is_torchscript
from distillscope.inputs.embeddings import Embeddings
from distillscope.inputs.formats import split_key
from distillscope.inputs.members import strings
from distillscope.students.load import DESCRIPTION, load_student


def is_model(spec: str, *, with_images: bool = True) -> bool:
    """Whether ``spec`` names a model: timm/MODEL, open_clip/MODEL:WEIGHTS, a teacher, a distilled student's folder, or a
    TorchScript or ONNX file. A trial's folder holds embeddings too, and is a model only ``with_images`` to embed.

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


def embed_model(spec: str, data: str | Source, split: str = "test", *, limit: int | None = None, device: str = "auto",
                precision: str | None = None, workers: int = 0, preprocess: Preprocess | None = None) -> Embeddings:
    """Embeddings (n, d) float32 of one split of ``data`` by the model ``spec``, with the ids and labels of the images.

    ``preprocess`` is for TorchScript and ONNX files, which carry none: by default 224 px (an ONNX file's own size where it
    is fixed) with CLIP's mean and std, and it is said. Every other model keeps its own. Loading a TorchScript file runs
    the program in it, so open only what you trust.
    """
    source = data if isinstance(data, Source) else load_images(data, split, limit)
    path = split_key(spec)[0]
    if path.is_dir():
        student = load_student(path, device, precision or "float32")
        with progress.task(f"{path.name}, {source.name}/{split}", len(source)) as advance:
            rows = student.embed(source, advance=advance, workers=workers)
    else:
        teacher = _teacher(spec, preprocess)
        encoder = load_teacher(teacher, device, precision)
        if teacher.name in MODEL_FILES.values() and preprocess is None:
            p = encoder.preprocess
            progress.say(f"{path.name} does not say what it wants to see: images at {p.size} px, mean {_short(p.mean)}, "
                         f"std {_short(p.std)} are taken")
        rows = teacher_rows(encoder, source, label=f"{path.name}, {source.name}/{split}", workers=workers)
    return Embeddings(rows, strings(source.ids, f"{source.name}/{split} ids"), source.labels, path.name)


def load_images(data: str, split: str, limit: int | None, corrupt: str = "error", option: str = "--split") -> Source:
    """One split of the data set, folder or file that ``data`` names; ``option`` is how the command calls a split."""
    part = Dataset.model_validate(data)
    return load_split(part.name, part.settings, split, limit, corrupt, option)


def _teacher(spec: str, preprocess: Preprocess | None) -> Teacher:
    """The registered teacher that ``spec`` stands for."""
    path, key = split_key(spec)
    kind = MODEL_FILES.get(path.suffix.lower()) or ("torchscript" if path.is_file() else None)
    if kind is None:
        return Teacher.model_validate(spec)
    settings = {} if preprocess is None else preprocess.describe()
    if key is not None:
        if kind != "onnx":
            raise UserError(spec, "a file", f"a name after it ('{key}')", "Only outputs of ONNX files can be named so.")
        settings["output"] = key
    return Teacher.model_validate({"name": kind, "path": path, **settings})


def _short(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{v:.3g}" for v in values) + ")"
