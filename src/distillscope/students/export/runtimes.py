"""What a student can be exported to: each runtime's conversion, in files that are still to be verified."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from distillscope.data.source import Source
from distillscope.errors import UserError
from distillscope.students.export.images import pixels_of
from distillscope.students.export.network import PixelNetwork
from distillscope.students.export.onnx_graph import needed, resizing, signed, traced, with_batch
from distillscope.students.export.quantise import Quantiser, choose, run
from distillscope.students.export.verify import cosines, first_deviation, network_rows
from distillscope.students.load import StudentEncoder
from distillscope.teachers.artefacts import Facts

if TYPE_CHECKING:
    from onnx import ModelProto

DTYPES = {"float32": torch.float32, "float16": torch.float16, "int8": torch.float32}
"""What the network computes in before anything is quantised."""


@dataclass(frozen=True)
class Job:
    """What every conversion is given: the student, its images in three disjoint parts, and the facts of the file to be."""

    student: StudentEncoder
    facts: Facts
    calibration: Source
    choosing: Source
    verification: Source
    min_cosine: float
    own: Source | None = None
    """Images that the student was distilled on, where others were named to calibrate on."""


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
    precisions: tuple[str, ...] = ("float32", "float16", "int8")
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


def onnx_graphs(job: Job, path: Path) -> tuple[list[tuple[Path, ModelProto]], dict[str, Any]]:
    """(where it goes, graph with the exporter's notes): dynamic, and unless raw fixed to batch 1; and what int8 decided."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        needed(package, "onnx")
    seen = job.student.preprocess
    decided: dict[str, Any] = {}
    graph = traced(PixelNetwork(job.student, DTYPES[job.facts.precision]), seen, job.student.name)
    if job.facts.precision == "int8":
        graph, decided = _quantised(job, graph)
    if job.facts.input == "raw":
        return [(path, resizing(graph, seen))], decided
    return [(path, graph), (beside(path), with_batch(graph, 1))], decided


def _quantised(job: Job, graph: ModelProto) -> tuple[ModelProto, dict[str, Any]]:
    """The graph in int8, in the way that `choose` found, and what was tried."""
    seen, name = job.student.preprocess, job.student.name
    pixels = pixels_of(job.choosing, seen)
    quantiser = Quantiser(graph, pixels_of(job.calibration, seen), pixels, network_rows(job.student, pixels), name)
    chosen, tried = choose(quantiser, job.min_cosine, f"export {name}")
    made = quantiser.quantised(chosen.method, chosen.weight_bits, chosen.in_float)
    if job.own is not None:
        pixels = pixels_of(job.own, seen)
        mean = float(np.nanmean(cosines(run(made, pixels, name), network_rows(job.student, pixels))))
        if not mean >= job.min_cosine:
            raise UserError(f"export {name} on {job.calibration.name}", "images like those that the student was distilled on",
                            f"others: on {len(pixels)} images of {job.own.name} the mean cosine is {mean:.4f}, on these "
                            f"{chosen.mean:.4f}", "Name images like them, or leave --calibrate out.")
    counts = {"calibration": len(job.calibration), "choosing": len(job.choosing), "verification": len(job.verification)}
    return made, {"chosen": quantiser.plain(chosen), "tried": [quantiser.plain(p) for p in tried], "num_images": counts}


def to_onnx(job: Job, path: Path) -> list[Converted]:
    found = []
    graphs, decided = onnx_graphs(job, path)
    for place, graph in graphs:
        place.write_bytes(signed(graph, job.facts).SerializeToString())
        found.append(Converted(place, _explains(job, graph), decided))
    return found


def _explains(job: Job, graph: ModelProto) -> Callable[[str, float], str]:
    return lambda item, bound: first_deviation(graph, job.student, job.student.preprocess, job.verification, item, bound)


RUNTIMES = {"onnx": Runtime((".onnx",), to_onnx)}
"""What --to takes."""
