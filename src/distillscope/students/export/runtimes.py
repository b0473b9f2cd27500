"""What a student can be exported to: each runtime's conversion, in files that are still to be verified."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from distillscope.data.source import Source
from distillscope.errors import UserError
from distillscope.students.export.network import PixelNetwork
from distillscope.students.export.onnx_graph import needed, resizing, signed, traced, with_batch
from distillscope.students.export.verify import first_deviation
from distillscope.students.load import StudentEncoder
from distillscope.teachers.artefacts import Facts

if TYPE_CHECKING:
    from onnx import ModelProto

DTYPES = {"float32": torch.float32, "float16": torch.float16}
"""What the network computes in."""


@dataclass(frozen=True)
class Job:
    """What every conversion is given: the student, its images in three disjoint parts, and the facts of the file to be."""

    student: StudentEncoder
    facts: Facts
    calibration: Source
    choosing: Source
    verification: Source
    min_cosine: float


@dataclass(frozen=True)
class Converted:
    """A file to be verified. ``explain(id, bound)`` says which layer deviates first for an image; ``decided`` is to be said."""

    path: Path
    explain: Callable[[str, float], str]
    decided: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Runtime:
    """A kind of file: its suffixes, the precisions and inputs that it can have, and what makes it."""

    suffixes: tuple[str, ...]
    convert: Callable[[Job, Path], list[Converted]]
    precisions: tuple[str, ...] = ("float32", "float16")
    inputs: tuple[str, ...] = ("sized", "raw")

    def check(self, precision: str, images: str) -> None:
        """Refuse what it cannot have before any work starts."""
        for option, given, known in (("--precision", precision, self.precisions), ("--input", images, self.inputs)):
            if given not in known:
                raise UserError(f"{option} {given}", f"{' or '.join(known)} in a {self.suffixes[0]} file", given,
                                "Choose one of these, or --to onnx.")


def beside(path: Path) -> Path:
    """The file of batch 1 beside a dynamic one."""
    return path.with_name(f"{path.stem}.batch1{path.suffix}")


def onnx_graphs(job: Job, path: Path) -> list[tuple[Path, ModelProto]]:
    """(where it goes, graph with the exporter's notes): dynamic, and unless raw fixed to batch 1."""
    seen = job.student.preprocess
    graph = traced(PixelNetwork(job.student, DTYPES[job.facts.precision]), seen, job.student.name)
    if job.facts.input == "raw":
        return [(path, resizing(graph, seen))]
    return [(path, graph), (beside(path), with_batch(graph, 1))]


def to_onnx(job: Job, path: Path) -> list[Converted]:
    needed("onnxruntime", "onnx")
    found = []
    for place, graph in onnx_graphs(job, path):
        place.write_bytes(signed(graph, job.facts).SerializeToString())
        found.append(Converted(place, _explains(job, graph)))
    return found


def _explains(job: Job, graph: ModelProto) -> Callable[[str, float], str]:
    return lambda item, bound: first_deviation(graph, job.student, job.student.preprocess, job.verification, item, bound)


RUNTIMES = {"onnx": Runtime((".onnx",), to_onnx)}
"""What --to takes."""
