"""ONNX graphs of a student: exported, given a head that resizes, fixed to one batch, and signed with what they are."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from distillscope.data.preprocess import Preprocess
from distillscope.errors import UserError
from distillscope.students.export.network import PixelNetwork
from distillscope.teachers.artefacts import Facts
from distillscope.teachers.encoder import plain_line

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 18
"""The first whose Resize has an antialiasing filter, which training resizes with."""
IMAGES, EMBEDDINGS = "images", "embeddings"
HEAD = "resize"
"""What the names of the nodes that resize begin with."""


def needed(module: str, extra: str, where: str = "export") -> Any:
    """The module of an extra, imported; where it is absent, a `UserError` that says what to install."""
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError(where, f"the package {module.partition('.')[0]}", "not installed",
                        f"pip install 'distillscope[{extra}]'.") from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Exporters print what they do and log what users cannot act on; what goes wrong is raised besides."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def traced(network: PixelNetwork, preprocess: Preprocess, name: str) -> ModelProto:
    """The network as an ONNX graph, images (batch, size, size, 3) uint8 to embeddings (batch, dim) float32, batch dynamic."""
    images = torch.zeros(2, preprocess.size, preprocess.size, 3, dtype=torch.uint8)
    try:
        with quiet(), torch.no_grad():
            program: Any = torch.onnx.export(network, (images,), dynamo=True, opset_version=OPSET, external_data=False,
                                             input_names=[IMAGES], output_names=[EMBEDDINGS], verbose=False,
                                             dynamic_shapes=({0: torch.export.Dim("batch")},))
            graph = program.model_proto
    except Exception as error:  # torch.export and the translation to ONNX raise their own, of many kinds
        raise UserError(f"export {name}", "a network that torch.onnx.export can translate", plain_line(error),
                        "Give it a forward of plain tensor operations.") from None
    found = {o.domain: o.version for o in graph.opset_import}
    if found.get("", 0) < OPSET:
        raise UserError(f"export {name}", f"an ONNX graph of opset {OPSET} or later", f"{found}",
                        "Update torch and onnxscript.")
    return graph


def resizing(graph: ModelProto, preprocess: Preprocess) -> ModelProto:
    """The same graph before which images of any size (batch, height, width, 3) are resized and cropped as in training.

    ONNX Runtime resizes uint8 in two passes that each round and clamp to uint8, as PIL and torch do; measured on random and
    smooth images, at most 2 % of values differ from torch's, by one level.
    """
    from onnx import ModelProto

    smooth, mode = preprocess.interpolation in ("bicubic", "bilinear"), preprocess.resize_mode
    if not smooth or preprocess.crop_fraction > 1 or mode != "shortest":
        raise UserError("export --input raw", "a student whose images are resized bicubic or bilinear by their shorter side, "
                        "crop_fraction up to 1", f"{preprocess.interpolation}, {mode}, {preprocess.crop_fraction:g}",
                        "Use --input sized.")
    head = _resize_and_crop(preprocess, graph.ir_version)
    made = ModelProto()
    made.CopyFrom(graph)
    names = {IMAGES: IMAGES, "": ""}

    def named(name: str) -> str:
        return names.get(name, f"{HEAD}/{name}")

    nodes = []
    for i, node in enumerate(head.graph.node):
        node.name = f"{HEAD}/{i}_{node.op_type}"
        node.input[:], node.output[:] = [named(n) for n in node.input], [named(n) for n in node.output]
        nodes.append(node)
    for tensor in head.graph.initializer:
        tensor.name = named(tensor.name)
        made.graph.initializer.append(tensor)
    for node in made.graph.node:
        node.input[:] = [named("sized") if n == IMAGES else n for n in node.input]
    nodes += list(made.graph.node)
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    made.graph.input[0].CopyFrom(head.graph.input[0])
    return made


def _resize_and_crop(preprocess: Preprocess, ir_version: int) -> ModelProto:
    """The graph from images of any size (b, h, w, 3) to the network's size, both uint8."""
    import onnx.parser

    shorter = preprocess.side
    mode = {"bicubic": "cubic", "bilinear": "linear"}[preprocess.interpolation]
    # A side is floor(side x shorter / min), as torchvision counts; the crop starts at round(spare / 2), halves to even.
    return onnx.parser.parse_model(f"""
      <ir_version: {ir_version}, opset_import: ["" : {OPSET}]>
      head (uint8[batch, height, width, 3] images) => (uint8[batch, {preprocess.size}, {preprocess.size}, 3] sized)
      <int64[1] c0 = {{0}}, int64[1] c2 = {{2}}, int64[1] c4 = {{4}}, int64[1] shorter = {{{shorter}}},
       int64[2] size = {{{preprocess.size}, {preprocess.size}}}, float half = {{0.5}}, int64[2] places = {{2, 3}}>
      {{
        first = Transpose<perm = [0, 3, 1, 2]>(images)
        shape = Shape(first)
        outer = Slice(shape, c0, c2)
        sides = Slice(shape, c2, c4)
        smallest = ReduceMin<keepdims = 1>(sides)
        longer = Mul(sides, shorter)
        scaled = Div(longer, smallest)
        sizes = Concat<axis = 0>(outer, scaled)
        resized = Resize<mode = "{mode}", antialias = 1, exclude_outside = 1, cubic_coeff_a = -0.5,
                         coordinate_transformation_mode = "half_pixel">(first, , , sizes)
        spare = Sub(scaled, size)
        spare_float = Cast<to = 1>(spare)
        halves = Mul(spare_float, half)
        rounded = Round(halves)
        start = Cast<to = 7>(rounded)
        stop = Add(start, size)
        cropped = Slice(resized, start, stop, places)
        sized = Transpose<perm = [0, 2, 3, 1]>(cropped)
      }}""")


def with_batch(graph: ModelProto, batch: int) -> ModelProto:
    """The same graph fixed to a batch, its shapes computed beforehand: accelerators want them static."""
    import onnx
    import onnxscript.optimizer

    made = onnx.ModelProto()
    made.CopyFrom(graph)
    del made.graph.value_info[:]
    for value in (*made.graph.input, *made.graph.output):
        value.type.tensor_type.shape.dim[0].Clear()
        value.type.tensor_type.shape.dim[0].dim_value = batch
    with quiet():
        return onnxscript.optimizer.optimize(onnx.shape_inference.infer_shapes(made))


def signed(graph: ModelProto, facts: Facts) -> ModelProto:
    """The same graph with the facts as its metadata, in place of the exporter's own notes."""
    made = _plain(graph)
    made.producer_name, made.producer_version = "distillscope", facts.distillscope
    for key, value in facts.text().items():
        made.metadata_props.add(key=key, value=value)
    return made


def bytes_of_graph(graph: ModelProto) -> int:
    """Bytes of the file that a graph becomes, but for its metadata: the exporter's notes do not go along."""
    return len(_plain(graph).SerializeToString())


def _plain(graph: ModelProto) -> ModelProto:
    """The same graph without notes."""
    from onnx import ModelProto

    made = ModelProto()
    made.CopyFrom(graph)
    del made.metadata_props[:]
    for holder in (made.graph, *made.graph.node, *made.graph.input, *made.graph.output, *made.graph.value_info,
                   *made.graph.initializer):
        del holder.metadata_props[:]
    return made


def scopes(graph: ModelProto) -> dict[str, str]:
    """Output of a node -> the module of the student that it belongs to, the innermost; what the exporter noted."""
    import ast

    found = {}
    for node in graph.graph.node:
        noted = {p.key: p.value for p in node.metadata_props}.get("pkg.torch.onnx.name_scopes")
        modules = [m.removeprefix("network").removeprefix(".") for m in ast.literal_eval(noted)[1:-1]] if noted else []
        if modules and modules[-1] and node.output:
            found[node.output[0]] = modules[-1]
    return found
