"""int8: ranges from the user's images, methods compared on others, and layers that hurt left in float until a bound holds."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distillscope import progress
from distillscope.errors import UserError
from distillscope.students.export.onnx_graph import EMBEDDINGS, IMAGES, bytes_of_graph, needed, quiet, scopes
from distillscope.students.export.verify import BATCH, cosines
from distillscope.teachers.encoder import plain_line

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

METHODS = ("MinMax", "Entropy", "Percentile")
PERCENTILE = 99.99
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
QUANTISED = (*WEIGHTED, "Add", "Mul", "MaxPool", "AveragePool", "GlobalAveragePool", "Relu", "Clip", "Reshape", "Flatten",
             "Transpose", "Squeeze", "Unsqueeze", "Concat")
"""Operators that compute in int8; all others stay in float32."""
TIMES_SMALLER = 3.0
"""Than the float32 file an int8 one must be, or it is not worth what it loses."""


@dataclass(frozen=True)
class Point:
    """One way to quantise: what it gives on the images for choosing, and how large it is."""

    method: str
    weight_bits: int
    in_float: tuple[str, ...]
    mean: float
    worst: float
    size_bytes: int


class BoundMissed(UserError):
    """No int8 file keeps the bound and is small enough; ``frontier`` holds the best tried at each size, as plain values."""

    def __init__(self, where: str, expected: str, got: str, todo: str, frontier: list[dict[str, Any]]) -> None:
        super().__init__(where, expected, got, todo)
        self.frontier = frontier


@dataclass
class Quantiser:
    """Quantises one float32 graph in several ways, calibrated once a method.

    ``calibration`` and ``choosing`` are images at the student's size (n, size, size, 3) uint8, ``rows`` what the network gives
    for the latter.
    """

    graph: ModelProto
    calibration: np.ndarray
    choosing: np.ndarray
    rows: np.ndarray
    name: str
    ranges: dict[str, Any] = field(default_factory=dict)
    points: dict[tuple[str, int, tuple[str, ...]], Point] = field(default_factory=dict)
    """Those that were measured."""
    rounded: dict[tuple[str, int], dict[tuple[str, bytes], dict[str, TensorProto]]] = field(default_factory=dict)
    """(method, weight bits) -> (node, scale of its input) -> its int8 weights and bias, their scales and zero points."""

    def __post_init__(self) -> None:
        import onnx

        needed("onnxruntime", "onnx")
        from onnxruntime.quantization.quant_utils import add_infer_metadata

        inside = scopes(self.graph)
        self.float_bytes = bytes_of_graph(self.graph)
        self.outside = [n.name for n in self.graph.graph.node if n.output[0] not in inside and n.output[0] != EMBEDDINGS]
        held = {t.name: int(np.prod(t.dims)) for t in self.graph.graph.initializer}
        nodes = [n for n in self.graph.graph.node if n.op_type in WEIGHTED and n.name not in self.outside]
        self.layers = {n.name: inside.get(n.output[0], n.name) for n in nodes}
        self.weights = {n.name: sum(held.get(i, 0) for i in n.input[1:]) for n in nodes}
        self.inferred = onnx.shape_inference.infer_shapes(self.graph)
        add_infer_metadata(self.inferred)  # otherwise its shapes are inferred again for each way, and an outline has wrong ones
        self.outline, self.left_out = _outline(self.inferred, set(self.layers))

    def calibrated(self, method: str) -> Any:
        """The range of every tensor by one of METHODS."""
        if method not in self.ranges:
            from onnxruntime.quantization import CalibrationMethod
            from onnxruntime.quantization.calibrate import create_calibrator

            with tempfile.TemporaryDirectory(prefix="distillscope-calibration-") as scratch, quiet():
                path = Path(scratch) / "float.onnx"
                path.write_bytes(self.inferred.SerializeToString())
                calibrator = create_calibrator(str(path), list(QUANTISED), str(Path(scratch) / "augmented.onnx"),
                                               getattr(CalibrationMethod, method),
                                               extra_options={"symmetric": False, "percentile": PERCENTILE})
                for start in range(0, len(self.calibration), BATCH):
                    calibrator.collect_data(_Reader(self.calibration[start : start + BATCH]))
                self.ranges[method] = calibrator.compute_data()
        return self.ranges[method]

    def quantised(self, method: str, weight_bits: int, in_float: tuple[str, ...] = ()) -> ModelProto:
        """The graph with int8 activations (per tensor) and weights (per channel); ``in_float`` names nodes left as they are.

        ONNX Runtime takes seconds to round the weights, channel by channel in Python. They are rounded once; other ways are
        made from an outline of the graph with two channels a layer, and what was rounded is put in its place.
        """
        rounded = self.rounded.setdefault((method, weight_bits), {})
        made = self._made(self.outline, method, weight_bits, in_float)
        wanted = [key for key in _rounded(made) if key[0] in self.layers]
        if not rounded.keys() >= set(wanted):
            made = self._made(self.inferred, method, weight_bits, in_float)
            held = {t.name: t for t in made.graph.initializer}
            rounded |= {key: {n: held[n] for n in names} for key, names in _rounded(made).items()}
        else:
            known = dict(self.left_out)
            for key in wanted:
                known |= rounded[key]
            for tensor in made.graph.initializer:
                if tensor.name in known:
                    tensor.CopyFrom(known[tensor.name])
        return _float_at_the_end(made)

    def _made(self, graph: ModelProto, method: str, weight_bits: int, in_float: tuple[str, ...]) -> ModelProto:
        """``graph`` in int8 by ONNX Runtime."""
        import onnx
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        with quiet():
            made = onnx.ModelProto()
            made.CopyFrom(graph)
            ranges, kept = self.calibrated(method), [*self.outside, *in_float]
            # Activations are uint8: of signed ones ONNX Runtime makes them so itself, but not where a sum reads them too, and
            # leaves the layers there in float32 (12 of 46 of a MobileNetV4).
            quantiser = QDQQuantizer(made, True, weight_bits == 7, QuantType.QInt8, QuantType.QUInt8, ranges, [], kept,
                                     list(QUANTISED), {})
            quantiser.quantize_model()
        return quantiser.model.model

    def point(self, method: str, weight_bits: int, in_float: tuple[str, ...] = ()) -> Point:
        """What one way gives on the images for choosing."""
        key = method, weight_bits, in_float
        if key not in self.points:
            made = self.quantised(method, weight_bits, in_float)
            found = cosines(run(made, self.choosing, self.name), self.rows)
            size = bytes_of_graph(made)
            self.points[key] = Point(*key, float(np.nanmean(found)), float(np.nanmin(found)), size)
        return self.points[key]

    def all_in_int8(self) -> list[Point]:
        """Every method with 8-bit and with 7-bit weights, no layer left in float32."""
        found = []
        with progress.late_task("int8: methods and weights", 2 * len(METHODS), "ways") as advance:
            for method in METHODS:
                for bits in (8, 7):
                    found.append(self.point(method, bits))
                    advance(1)
        return found

    def best(self) -> Point:
        """Of these the one with the highest mean cosine."""
        return max(self.all_in_int8(), key=lambda p: p.mean)

    def plain(self, point: Point) -> dict[str, Any]:
        """Plain values of one way, layers named as in the student's module."""
        return {"method": point.method, "weight_bits": point.weight_bits, "in_float": [self.layers[n] for n in point.in_float],
                "mean_cosine": point.mean, "worst_cosine": point.worst, "bytes": point.size_bytes,
                "times_smaller": self.float_bytes / point.size_bytes}


def _outline(graph: ModelProto, layers: set[str]) -> tuple[ModelProto, dict[str, TensorProto]]:
    """The graph with weights and biases of two channels in place of those that one of ``layers`` alone reads; and these."""
    import onnx

    made = onnx.ModelProto()
    made.CopyFrom(graph)
    readers: dict[str, list[str]] = {}
    for node in made.graph.node:
        for name in node.input[1:] if node.name in layers else node.input:
            readers.setdefault(name, []).append(node.name)
    left_out = {}
    for tensor in made.graph.initializer:
        if len(of := readers.get(tensor.name, [])) == 1 and of[0] in layers:
            left_out[tensor.name] = onnx.TensorProto()
            left_out[tensor.name].CopyFrom(tensor)
            short = np.full((2,) * len(tensor.dims), len(tensor.dims) > 1, np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(short, tensor.name))
    return made, left_out


def _rounded(graph: ModelProto) -> dict[tuple[str, bytes], list[str]]:
    """(node, scale of its input) -> the initializers of its int8 weights: all that its DequantizeLinear nodes read."""
    import onnx

    held = {t.name: t for t in graph.graph.initializer}
    makers = {n.output[0]: n for n in graph.graph.node if n.op_type == "DequantizeLinear"}
    found = {}
    for node in graph.graph.node:
        from_int8 = [makers[i] for i in node.input[1:] if i in makers and makers[i].input[0] in held]
        if node.input and node.input[0] in makers and from_int8:
            scale = held[makers[node.input[0]].input[1]]
            found[node.name, onnx.numpy_helper.to_array(scale).tobytes()] = [n for m in from_int8 for n in m.input]
    return found


class _Reader:
    """One batch for a calibrator, then None."""

    def __init__(self, batch: np.ndarray) -> None:
        self.batches: Iterator[dict[str, np.ndarray]] = iter([{IMAGES: batch}])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


def run(graph: ModelProto, pixels: np.ndarray, name: str) -> np.ndarray:
    """Embeddings (n, dim) of images by ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors derive from Exception alone
        raise UserError(f"export {name}", "operators that ONNX Runtime has in int8", plain_line(error),
                        "Use --precision float16.") from None
    return np.concatenate([session.run(None, {IMAGES: pixels[i : i + BATCH]})[0] for i in range(0, len(pixels), BATCH)])


def _float_at_the_end(graph: ModelProto) -> ModelProto:
    """Embeddings as the last layer gives them, not rounded to int8 once more."""
    makers = {o: n for n in graph.graph.node for o in n.output}
    last = makers[EMBEDDINGS]
    rounded = makers.get(last.input[0]) if last.op_type == "DequantizeLinear" else None
    if rounded is None or rounded.op_type != "QuantizeLinear":
        return graph
    source, parameters = rounded.input[0], {*rounded.input[1:], *last.input[1:]}
    graph.graph.node.remove(last)
    graph.graph.node.remove(rounded)
    parameters -= {name for node in graph.graph.node for name in node.input}
    for tensor in [t for t in graph.graph.initializer if t.name in parameters]:
        graph.graph.initializer.remove(tensor)
    for node in graph.graph.node:
        node.input[:] = [EMBEDDINGS if i == source else i for i in node.input]
        node.output[:] = [EMBEDDINGS if o == source else o for o in node.output]
    return graph


def choose(quantiser: Quantiser, min_cosine: float, where: str) -> tuple[Point, list[Point]]:
    """The smallest way found that keeps the bound on the mean cosine, and every way that was tried.

    Methods are compared with all layers in int8. Where the best misses the bound, each layer alone is left in float, and layers
    are left in float one after another by what they recover a byte; then each of them goes back to int8 if the bound allows.
    """
    tried, best = quantiser.all_in_int8(), quantiser.best()
    least = quantiser.float_bytes / TIMES_SMALLER
    smallest = min(p.size_bytes for p in tried)
    if smallest > least:
        fixed = quantiser.float_bytes - 4 * sum(quantiser.weights.values())
        raise BoundMissed(where, f"an int8 file smaller by {TIMES_SMALLER:g} times than {quantiser.float_bytes / 1000:,.1f} kB",
                          f"{smallest / 1000:,.1f} kB; {fixed / 1000:,.1f} kB of the float32 file are no weights",
                          "Its fixed part dominates: use --precision float32 or float16.",
                          [quantiser.plain(p) for p in frontier(tried)])
    if best.mean >= min_cosine:
        return best, tried
    gains: dict[str, float] = {}
    with progress.task("layers alone in float32", len(quantiser.layers), "layers") as advance:
        for node in quantiser.layers:
            alone = quantiser.point(best.method, best.weight_bits, (node,))
            tried.append(alone)
            gains[node] = (alone.mean - best.mean) / max(quantiser.weights[node], 1)
            advance(1)
    in_float: tuple[str, ...] = ()
    found = best
    for node in sorted(gains, key=lambda n: -gains[n]):
        if gains[node] <= 0 or found.mean >= min_cosine or found.size_bytes > least:
            break
        in_float = (*in_float, node)
        found = quantiser.point(best.method, best.weight_bits, in_float)
        tried.append(found)
    if found.mean >= min_cosine:
        for node in sorted(in_float, key=lambda n: -quantiser.weights[n]):
            fewer = quantiser.point(best.method, best.weight_bits, tuple(n for n in found.in_float if n != node))
            tried.append(fewer)
            found = fewer if fewer.mean >= min_cosine else found
    if found.mean >= min_cosine and found.size_bytes <= least:
        return found, tried
    small = [p for p in tried if p.size_bytes <= least]
    nearest = max(small, key=lambda p: p.mean)
    raise BoundMissed(where, f"mean cosine {min_cosine} in a file smaller by {TIMES_SMALLER:g} times than float32",
                      f"{nearest.mean:.6f} at {nearest.size_bytes / 1000:,.1f} kB, the best of {len(tried)} tried",
                      f"Use --min-cosine {np.floor(nearest.mean * 1e5) / 1e5:g}, or --precision float16.",
                      [quantiser.plain(p) for p in frontier(tried)])


def frontier(points: list[Point]) -> list[Point]:
    """Those that no other beats in both size and mean cosine, the smallest first."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (p.size_bytes, -p.mean)):
        if not kept or point.mean > kept[-1].mean:
            kept.append(point)
    return kept
