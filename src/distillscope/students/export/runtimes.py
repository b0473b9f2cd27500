"""What a student can be exported to: each runtime's conversion, in files that are still to be verified."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from distillscope.data.source import Source
from distillscope.errors import UserError
from distillscope.students.export.fine_tune import Tuning, fine_tuned
from distillscope.students.export.images import pixels_of
from distillscope.students.export.network import PixelNetwork
from distillscope.students.export.onnx_graph import needed, quiet, resizing, signed, traced, with_batch
from distillscope.students.export.quantise import Quantiser, choose, run
from distillscope.students.export.verify import cosines, first_deviation, network_rows
from distillscope.students.load import StudentEncoder
from distillscope.teachers.artefacts import MARK, Facts
from distillscope.teachers.encoder import plain_line

if TYPE_CHECKING:
    from onnx import ModelProto

import io

from distillscope.students.export.onnx_graph import EMBEDDINGS, IMAGES

DTYPES = {"float32": torch.float32, "float16": torch.float16, "int8": torch.float32}
"""What the network computes in before anything is quantised."""


PRECISIONS = tuple(DTYPES)
INPUTS = ("sized", "raw")


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
    tuning: Tuning | None = None
    """Of int8: whether, and how, the weights are tuned to being rounded."""


@dataclass(frozen=True)
class Converted:
    """A file to be verified. ``explain(id, bound)`` says which layer deviates first for an image; ``decided`` is to be said."""

    path: Path
    explain: Callable[[str, float], str]
    decided: dict[str, Any] = field(default_factory=dict)
    source: Callable[[np.ndarray], np.ndarray] | None = None
    """Of a file that nothing here can run: what embeds images (n, size, size, 3) as that does which it was made from."""


@dataclass(frozen=True)
class Runtime:
    """A kind of file: its suffixes, the precisions and inputs that it can have, and what makes it."""

    suffixes: tuple[str, ...]
    convert: Callable[[Job, Path], list[Converted]]
    precisions: tuple[str, ...] = PRECISIONS
    inputs: tuple[str, ...] = INPUTS
    dynamic: bool = True

    def places(self, out: Path, images: str) -> list[Path]:
        """The files that will be made: one, and beside a dynamic one of sized images that of batch 1."""
        both = (out, beside(out)) if self.dynamic and images == "sized" else (out,)
        return [place.with_suffix(suffix) for place in both for suffix in self.suffixes]

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
    fine_tuning: dict[str, Any] = {}
    if job.tuning is not None:
        quantiser, fine_tuning = _tuned(job, job.tuning, quantiser)
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
    return made, {"chosen": quantiser.plain(chosen), "tried": [quantiser.plain(p) for p in tried], "num_images": counts,
                  **fine_tuning}


def _tuned(job: Job, tuning: Tuning, static: Quantiser) -> tuple[Quantiser, dict[str, Any]]:
    """The student's weights tuned to being rounded, where that is better on the images for choosing, else as they were.

    Both are compared with all layers in int8, and shown on the images for verification, which decide nothing here.
    """
    seen, name = job.student.preprocess, job.student.name
    before = static.best()
    network = fine_tuned(job.student, tuning, static.calibration, before.weight_bits)
    tuned = Quantiser(traced(network, seen, name), static.calibration, static.choosing, static.rows, name)
    after = tuned.best()
    kept = after.mean > before.mean
    pixels = pixels_of(job.verification, seen)
    rows = network_rows(job.student, pixels)
    shown = {"float32": rows, "int8": run(static.quantised(before.method, before.weight_bits), pixels, name),
             "int8, fine-tuned": run(tuned.quantised(after.method, after.weight_bits), pixels, name)}
    figures = [{"numbers": numbers, "mean_cosine": float(cosines(found, rows).mean()),
                "worst_cosine": float(cosines(found, rows).min()),
                "teacher_cosine": None if tuning.teacher is None else float(cosines(found, tuning.teacher).mean())}
               for numbers, found in shown.items()]
    images = f"{len(tuning.images)} images of {tuning.images.name}/{tuning.images.split}"
    said = f"{tuning.steps} steps, rounded to int8, towards the float student's embeddings of {images}"
    return tuned if kept else static, {"fine_tuning": {"kept": kept, "said": said, "without_teacher": tuning.without_teacher,
                                                       "figures": figures}}


def to_onnx(job: Job, path: Path) -> list[Converted]:
    found = []
    graphs, decided = onnx_graphs(job, path)
    for place, graph in graphs:
        place.write_bytes(signed(graph, _of(job, decided, place, path)).SerializeToString())
        found.append(Converted(place, _explains(job, graph), decided))
    return found


def _of(job: Job, decided: dict[str, Any], place: Path, dynamic: Path) -> Facts:
    """The facts of a file: that it is fixed to batch 1 where it is not the dynamic one, and how its weights were tuned."""
    tuning = decided.get("fine_tuning", {"kept": False})
    return job.facts.but(batch="any" if place == dynamic else "1", fine_tuning=tuning["said"] if tuning["kept"] else "none")


def _explains(job: Job, graph: ModelProto) -> Callable[[str, float], str]:
    return lambda item, bound: first_deviation(graph, job.student, job.student.preprocess, job.verification, item, bound)


@contextlib.contextmanager
def _uncounted() -> Iterator[None]:
    """OpenVINO tells its makers of each conversion, by processes that post it, unless the environment says CI."""
    before = os.environ.get("CI")
    os.environ["CI"] = "true"
    try:
        yield
    finally:
        os.environ.pop("CI") if before is None else os.environ.__setitem__("CI", before)


def to_openvino(job: Job, path: Path) -> list[Converted]:
    """OpenVINO's IR of the same graphs; float16 keeps weights in 16 bits and computes in float32 on a CPU."""
    library = needed("openvino", "openvino")
    half = job.facts.precision == "float16"
    graphs, decided = onnx_graphs(replace(job, facts=job.facts.but(precision="float32")) if half else job, path)
    found = []
    for place, graph in graphs:
        source = place.with_suffix(".onnx")
        source.write_bytes(graph.SerializeToString())
        with converting("OpenVINO", job), _uncounted():
            model = library.convert_model(str(source))
            for key, value in _of(job, decided, place, path).text().items():
                model.set_rt_info(value, [MARK, key])
            library.save_model(model, str(place), compress_to_fp16=half)
        source.unlink()
        found.append(Converted(place, _explains(job, graph), decided))
    return found


def to_executorch(job: Job, path: Path) -> list[Converted]:
    """An ExecuTorch program for XNNPACK, fixed to batch 1."""
    needed("executorch.exir", "executorch")
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    network, images = _fixed(job)
    with converting("ExecuTorch", job):
        program = torch.export.export(network, (images,))
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()],
                                              constant_methods={MARK: json.dumps(job.facts.but(batch="1").text())})
        path.write_bytes(lowered.to_executorch().buffer)
    return [Converted(path, _unknown_layer)]


def to_litert(job: Job, path: Path) -> list[Converted]:
    """A LiteRT (TensorFlow Lite) file, fixed to batch 1."""
    library = needed("litert_torch", "litert")
    network, images = _fixed(job)
    with converting("LiteRT", job):
        library.convert(network, (images,)).export(str(path))
        path.write_bytes(_with_metadata(path.read_bytes(), job.facts.but(batch="1")))
    return [Converted(path, _unknown_layer)]


def to_coreml(job: Job, path: Path) -> list[Converted]:
    """A Core ML package with an image as its input, fixed to batch 1; nothing here runs it."""
    needed("coremltools", "coreml")
    with converting("Core ML", job):
        source = save_package(_fixed(job)[0], job.facts.but(batch="1", layout="RGB image"), path)
    return [Converted(path, _unknown_layer, {"not_run": NOT_RUN}, source)]


def _fixed(job: Job) -> tuple[PixelNetwork, torch.Tensor]:
    """The network, and one image for it."""
    size = job.student.preprocess.size
    return PixelNetwork(job.student, DTYPES[job.facts.precision]), torch.zeros(1, size, size, 3, dtype=torch.uint8)


def _with_metadata(content: bytes, facts: Facts) -> bytes:
    """A LiteRT file with the facts as one of its metadata."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    held, entry = schema.BufferT(), schema.MetadataT()
    held.data = np.frombuffer(json.dumps(facts.text()).encode(), np.uint8)
    model.buffers.append(held)
    entry.name, entry.buffer = MARK, len(model.buffers) - 1
    model.metadata = [*(model.metadata or []), entry]
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _unknown_layer(item: str, bound: float) -> str:
    return "unknown (this runtime shows no layer's output; export to onnx to see)"


@contextlib.contextmanager
def converting(name: str, job: Job) -> Iterator[None]:
    """What a converter raises, in one line: mostly an operator that its runtime lacks."""
    try:
        with quiet(), torch.no_grad():
            yield
    except UserError:
        raise
    except Exception as error:  # every converter raises its own, without a common base
        raise UserError(f"export {job.student.name}", f"operators that {name} has", plain_line(error),
                        "Use --to onnx.") from None


RUNTIMES = {
    "onnx": Runtime((".onnx",), to_onnx),
    # Its reader of ONNX ignores Resize's antialiasing without a word: pixels were off by up to 158 levels of 255.
    "openvino": Runtime((".xml", ".bin"), to_openvino, inputs=("sized",)),
    "executorch": Runtime((".pte",), to_executorch, ("float32",), ("sized",), dynamic=False),
    "litert": Runtime((".tflite",), to_litert, ("float32",), ("sized",), dynamic=False),
    "coreml": Runtime((".mlpackage",), to_coreml, ("float32",), ("sized",), dynamic=False),
}
"""What --to takes."""


NOT_RUN = ("not run: no Core ML is called here. Verified: the program that the converter was given, and the package's input, "
           "output and metadata, read back")


class ImageNetwork(torch.nn.Module):
    """A Core ML image, which comes as floats (1, 3, size, size) from 0 to 255, to embeddings (1, dim)."""

    def __init__(self, network: PixelNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.network(image.permute(0, 2, 3, 1))


def save_package(network: PixelNetwork, facts: Facts, path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Write an ML program for one RGB image to ``path``; gives what embeds images (n, size, size, 3) uint8 as its source does.

    coremltools 9 has no uint8 tensors (KeyError: torch.uint8), so the input is an image, whose pixels the system hands over.
    """
    library, size = needed("coremltools", "coreml"), facts.preprocessing.size
    shape = (1, 3, size, size)
    program = torch.export.export(ImageNetwork(network).eval(), (torch.zeros(shape),)).run_decompositions({})
    with contextlib.redirect_stderr(io.StringIO()):  # bars of its progress
        image = library.ImageType(name=IMAGES, shape=shape, color_layout=library.colorlayout.RGB)
        made = library.convert(program, inputs=[image], outputs=[library.TensorType(name=EMBEDDINGS)], convert_to="mlprogram",
                               compute_precision=library.precision.FLOAT32, minimum_deployment_target=library.target.iOS16)
        made.license = facts.licence
        for key, value in facts.text().items():
            made.user_defined_metadata[f"{MARK}.{key}"] = value
        made.save(str(path))
        read_back(path, facts)
    module = program.module()

    def embed(pixels: np.ndarray) -> np.ndarray:
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().contiguous()
        with torch.no_grad():
            return torch.cat([module(one) for one in images.split(1)]).numpy()

    return embed


def read_back(path: Path, facts: Facts) -> None:
    """Refuse a package whose input, output or metadata are not those that were meant."""
    library = needed("coremltools", "coreml")
    described = library.models.MLModel(str(path), skip_model_load=True).get_spec().description
    image, found = described.input[0].type.imageType, described.output[0].type.multiArrayType
    told = {k.removeprefix(f"{MARK}."): v for k, v in described.metadata.userDefined.items() if k.startswith(f"{MARK}.")}
    wanted = (facts.preprocessing.size, facts.preprocessing.size, [1, facts.dimension], facts.text())
    got = (image.width, image.height, list(found.shape), told)
    if got != wanted or [i.name for i in (*described.input, *described.output)] != [IMAGES, EMBEDDINGS]:
        raise UserError(f"export {path.name}", f"an image of {wanted[0]} px as its input and {facts.dimension} numbers as its "
                        "output", f"{got[:3]}", "Use --to onnx.")
