"""Whether a file gives what the network gives, image by image, and where it first does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import torch

from distillscope.data.preprocess import Preprocess
from distillscope.data.source import Source
from distillscope.errors import UserError
from distillscope.students.export.images import enlarged, pixels_of, raw_batches
from distillscope.students.export.network import PixelNetwork
from distillscope.students.export.onnx_graph import HEAD, IMAGES, needed, scopes
from distillscope.students.load import StudentEncoder
from distillscope.teachers.artefacts import Artefact

if TYPE_CHECKING:
    from onnx import ModelProto

BOUNDS = {"float32": 0.9999, "float16": 0.999}
"""The worst cosine that a file of each precision may have; of int8 the user bounds the mean."""
KEPT = {"float32": 0.999, "float16": 0.99, "int8": 0.5}
"""The least R2 of the network's embeddings from a file's, item by item: cosines alone show no wrong scale, and hardly anything
of embeddings that all point one way."""
ROUNDING = 1e-4
"""A difference of this share of an embedding's norm is none between two images."""
BATCH = 32


@dataclass(frozen=True)
class Agreement:
    """Of n images with these ``ids``: ``cosines`` between a file's embeddings and the network's, ``errors``, the squared
    distances between them, and ``spreads``, those of the network's embeddings from their mean."""

    cosines: np.ndarray
    ids: np.ndarray
    errors: np.ndarray
    spreads: np.ndarray

    @classmethod
    def of(cls, found: np.ndarray, rows: np.ndarray, ids: np.ndarray) -> Agreement:
        """Of a file's embeddings ``found`` (n, d), where the network's are ``rows``."""
        exact = rows.astype(np.float64)
        spreads = np.square(exact - exact.mean(0)).sum(1) + ROUNDING**2 * np.square(exact).sum(1)
        return cls(cosines(found, rows), ids, np.square(found - exact).sum(1), spreads)

    @property
    def r2(self) -> float:
        """How much of what differs between the network's embeddings the file's hold: 1 is all of it, a constant gives 0."""
        return 1 - float(self.errors.sum() / self.spreads.sum())

    @property
    def mean(self) -> float:
        return float(self.cosines.mean())

    @property
    def worst(self) -> float:
        return float(self.cosines.min())

    def joined(self, other: Agreement) -> Agreement:
        """Both together."""
        return Agreement(*(np.concatenate([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)))

    def below(self, bound: float) -> list[str]:
        """Ids of the images below a bound, the worst first."""
        order = np.argsort(self.cosines, kind="stable")
        return [str(self.ids[i]) for i in order if not self.cosines[i] >= bound]


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine (n,) of rows (n, d), in float64; NaN where a row is zero or not finite."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


@torch.inference_mode()
def network_rows(student: StudentEncoder, pixels: np.ndarray) -> np.ndarray:
    """Embeddings (n, dim) by the student's own network in torch, of images at its size (n, size, size, 3) uint8."""
    module = student.module.cpu().eval()
    floats = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(255)
    return torch.cat([module(student.preprocess.normalise(part)).float() for part in floats.split(64)]).numpy()


def agreement(artefact: Artefact, source: Source, pixels: np.ndarray, rows: np.ndarray) -> Agreement:
    """``pixels`` of ``source`` (raw files: its images as stored) through the file, against the network's ``rows``."""
    batch = artefact.batch or BATCH
    if artefact.facts.input == "raw":
        found = np.concatenate([artefact.call(image) for image in raw_batches(source)])
    else:
        spare = -len(pixels) % (artefact.batch or 1)
        filled = np.concatenate([pixels, pixels[:1].repeat(spare, axis=0)]) if spare else pixels
        found = np.concatenate([artefact.call(filled[i : i + batch]) for i in range(0, len(filled), batch)])[: len(pixels)]
    return Agreement.of(found, rows, source.ids)


def held(found: Agreement, precision: str, where: str, explain: Callable[[str, float], str]) -> None:
    """Refuse a file that falls below its bound on its worst image: which images, and which layer ``explain`` says it is."""
    bound = BOUNDS[precision]
    bad = found.below(bound)
    advice = "Report the layer." if precision == "float32" else "Export it in float32, or report the layer."
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise UserError(where, f"cosine {bound} to the network or more for each of {len(found.ids)} images",
                        f"{found.worst:.6f} for {', '.join(bad[:3])}{more}; first to deviate: {explain(bad[0], bound)}",
                        f"Nothing was written. {advice}")


def spread_held(found: Agreement, precision: str, where: str) -> None:
    """Refuse a file that does not tell images from one another as the network does, whatever its cosines are."""
    if not found.r2 >= KEPT[precision]:
        advice = {"float32": "Report it.", "float16": "Export it in float32.",
                  "int8": "Use a --min-cosine nearer to 1, or --precision float16."}[precision]
        raise UserError(where, f"R2 {KEPT[precision]} or more of the network's embeddings of {len(found.ids)} images (0: a "
                        "constant)", f"{found.r2:.4f}, at a mean cosine of {found.mean:.6f}", f"Nothing was written. {advice}")


def first_deviation(graph: ModelProto, student: StudentEncoder, preprocess: Preprocess, source: Source, item: str,
                    bound: float) -> str:
    """The first layer whose output for one image differs from torch's by more than a cosine of ``bound`` allows.

    ``graph`` still has the exporter's notes. The layer is named as in the student's module; where each differs by less, the one
    that differs most.
    """
    import onnx

    runtime = needed("onnxruntime", "onnx")
    name = item.removesuffix(" enlarged")
    one = source.take([int(np.flatnonzero(source.ids == name)[0])])
    one = one if name == item else enlarged(one, preprocess.size)
    pixels, raw = pixels_of(one, preprocess), graph.graph.node[0].name.startswith(HEAD)
    shown = onnx.ModelProto()
    shown.CopyFrom(graph)
    modules = scopes(graph)
    known = {o.name for o in graph.graph.output}
    wanted = [name for name in modules if name not in known]
    shown.graph.output.extend(onnx.helper.make_empty_tensor_value_info(n) for n in [*wanted, *([f"{HEAD}/sized"] * raw)])
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    session = runtime.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    found = dict(zip(names, session.run(names, {IMAGES: raw_batches(one)[0] if raw else pixels}), strict=True))
    if raw and np.abs(found[f"{HEAD}/sized"].astype(int) - pixels).max() > 2:
        return "the resizing"
    theirs = {module: found[name] for name, module in modules.items() if name in found}  # the last output of each module
    allowed, worst = np.sqrt(2 * (1 - bound)), ("none", 0.0)
    for name, ours in _outputs(PixelNetwork(student), pixels):
        if name not in theirs or theirs[name].size != ours.size:
            continue
        off = float(np.linalg.norm(theirs[name].astype(np.float64).ravel() - ours.ravel()) / max(np.linalg.norm(ours), 1e-30))
        if not off <= allowed:
            return f"layer {name} (off by {off:.1%})"
        worst = max(worst, (f"layer {name} (off by {off:.1%}, the most)", off), key=lambda w: w[1])
    return worst[0]


@torch.inference_mode()
def _outputs(network: PixelNetwork, pixels: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """(module, output) of every innermost module, in the order in which they run."""
    found: list[tuple[str, np.ndarray]] = []

    def keep(name: str, out: object) -> None:
        if isinstance(out, torch.Tensor):
            found.append((name, out.double().numpy()))

    for name, module in network.network.named_modules():
        if not list(module.children()):
            module.register_forward_hook(lambda module, given, out, name=name: keep(name, out))
    network(torch.from_numpy(pixels))
    return found
