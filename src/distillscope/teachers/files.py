"""Models that come as one file: TorchScript and ONNX. Their preprocessing is not in the file, so it is a setting."""

from __future__ import annotations

import hashlib
import mmap
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distillscope import progress
from distillscope.data.preprocess import CLIP_MEAN, CLIP_STD, Preprocess
from distillscope.errors import UserError
from distillscope.registry import teachers
from distillscope.teachers.encoder import Encoder

DEFAULT_SIZE = 224
LAYOUT = "Set the image size that it was made for (--image-size, or teacher.size), and look at what it gives."


@teachers.register("torchscript")
def torchscript(*, path: Path, size: int = DEFAULT_SIZE, mean: tuple[float, float, float] = CLIP_MEAN,
                std: tuple[float, float, float] = CLIP_STD, interpolation: str = "bicubic", crop_fraction: float = 1.0,
                unit_norm: bool = False) -> Encoder:
    """A TorchScript file that maps (b, 3, size, size) to (b, dim). Loading runs its program: open only what you trust."""
    path, where = _existing(path, "torchscript")
    preprocess = Preprocess(size, mean, std, interpolation, crop_fraction)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch announces that TorchScript is no longer developed
            module = _Wrapped(torch.jit.load(str(path), map_location="cpu")).eval()
    except Exception as error:  # a damaged archive: zip, pickle and compiler errors, without a common base
        raise UserError(where, "a TorchScript archive", _line(error), "Save it again with torch.jit.save.") from None
    return Encoder(f"torchscript/{path.name}", module, _dim(module, size, where), preprocess, hash_files([path]),
                   unit_norm=unit_norm)


class _Wrapped(torch.nn.Module):
    """A script module does not take requires_grad_; one that holds it does."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.inner(images)


@teachers.register("onnx")
def onnx(*, path: Path, output: str | None = None, size: int | None = None, mean: tuple[float, float, float] = CLIP_MEAN,
         std: tuple[float, float, float] = CLIP_STD, interpolation: str = "bicubic", crop_fraction: float = 1.0,
         unit_norm: bool = False) -> Encoder:
    """An ONNX file with one image input, (b, 3, h, w) or (b, h, w, 3), run by onnxruntime (extra onnx).

    ``output`` names the embedding where the file has several outputs. ``size`` is known where the file fixes it.
    """
    path, where = _existing(path, "onnx")
    network = OnnxNetwork(path, output, where)
    if size is not None and network.size not in (None, size):
        raise UserError(where, f"{network.size} px, the size that the file is fixed to", f"{size}", "Leave the size out.")
    size = network.size or size or DEFAULT_SIZE
    preprocess = Preprocess(size, mean, std, interpolation, crop_fraction)
    fingerprint = hash_files([path, *external_data(path)], network.output)
    return OnnxEncoder(f"onnx/{path.name}", network, _dim(network, size, where), preprocess, fingerprint, unit_norm=unit_norm)


class OnnxNetwork(torch.nn.Module):
    """An onnxruntime session that takes and gives tensors, without gradients. ``size`` is the fixed input size, or None."""

    def __init__(self, path: Path, output: str | None, where: str) -> None:
        super().__init__()
        self.path, self.where = path, where
        self.open(["CPUExecutionProvider"])
        inputs, outputs = self.session.get_inputs(), [o.name for o in self.session.get_outputs()]
        if len(inputs) != 1 or len(inputs[0].shape or ()) != 4 or inputs[0].type not in ("tensor(float)", "tensor(float16)"):
            raise UserError(where, "one input of float images, of four dimensions",
                            ", ".join(f"{i.name}: {i.type} {i.shape}" for i in inputs), "Export the image encoder alone.")
        if output is None and len(outputs) > 1:
            raise UserError(where, "one output", f"{len(outputs)} ({', '.join(outputs[:6])})",
                            f"Name the one that is meant: FILE.onnx:{outputs[0]}.")
        if output is not None and output not in outputs:
            raise UserError(where, f"an output called {' or '.join(outputs[:6])}", f"'{output}'", "Name one of these.")
        self.output = output or outputs[0]
        self.input, shape = inputs[0].name, inputs[0].shape
        self.dtype = np.float16 if inputs[0].type == "tensor(float16)" else np.float32
        self.channels_last = shape[3] == 3 and shape[1] != 3
        self.batch = shape[0] if isinstance(shape[0], int) else None
        sides = {n for n in (shape[1:3] if self.channels_last else shape[2:]) if isinstance(n, int)}
        if len(sides) > 1:
            raise UserError(where, "square images", f"an input of {shape}", "Export it with a square input.")
        self.size = next(iter(sides), None)

    def open(self, providers: list[str]) -> None:
        """Make the session."""
        try:
            import onnxruntime
        except ImportError:
            raise UserError(self.where, "the package onnxruntime", "not installed",
                            "pip install 'distillscope[onnx]'.") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4  # what goes wrong is raised, and said in one line
        try:
            self.session = onnxruntime.InferenceSession(str(self.path), options, providers=providers)
        except Exception as error:  # onnxruntime's errors derive from Exception alone
            raise UserError(self.where, "an ONNX model", _line(error), "Export or fetch it again.") from None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        given = images.permute(0, 2, 3, 1) if self.channels_last else images
        array = np.ascontiguousarray(given.cpu().numpy(), self.dtype)
        if self.batch is None:
            return torch.from_numpy(self._run(array))
        spare = -len(array) % self.batch  # a file with a fixed batch: the last one is filled up, and cut again
        array = np.concatenate([array, np.zeros((spare, *array.shape[1:]), array.dtype)])
        parts = [self._run(array[i : i + self.batch]) for i in range(0, len(array), self.batch)]
        return torch.from_numpy(np.concatenate(parts)[: len(images)])

    def _run(self, array: np.ndarray) -> np.ndarray:
        return self.session.run([self.output], {self.input: array})[0]


@dataclass
class OnnxEncoder(Encoder):
    """An Encoder on onnxruntime: it computes in the precision of its file."""

    def to(self, device: torch.device, precision: str | None = None) -> Encoder:
        """Onto CUDA where onnxruntime has it, else onto the CPU, and says so."""
        if precision not in (None, "float32"):
            raise UserError(self.name, "no --precision, since an ONNX file fixes its own", precision, "Leave it out.")
        import onnxruntime

        provider = "CUDAExecutionProvider"
        if device.type == "cuda" and provider in onnxruntime.get_available_providers():
            self.module.open([(provider, {"device_id": device.index or 0}), "CPUExecutionProvider"])
            self.batch_size = max(self.batch_size, 256)
        elif device.type != "cpu":
            progress.say(f"{self.name}: onnxruntime has no {device.type} here; it runs on the CPU")
        self.device = torch.device("cpu")  # tensors go in and come out through NumPy
        return self


def external_data(path: Path) -> list[Path]:
    """The files beside an ONNX file that hold its weights, found by the key "location" of its protobuf."""
    with open(path, "rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
        named = set()
        for match in re.finditer(rb"\x0a\x08location\x12([\x01-\x7f]|[\x80-\xff][\x01-\x7f])", data):
            length = match[1][0] & 0x7F | (match[1][1] << 7 if len(match[1]) == 2 else 0)
            named.add(data[match.end() : match.end() + length].decode("utf-8", "replace"))
    return [f for f in (path.parent / name for name in sorted(named)) if f.is_file()]


def hash_files(paths: list[Path], *more: str) -> str:
    """A hex name for the contents of files: what keeps embeddings of one model apart from another's in the cache."""
    digest = hashlib.blake2b("|".join(more).encode(), digest_size=16)
    for path in paths:
        with open(path, "rb") as handle:
            while block := handle.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()


def _existing(path: Path, kind: str) -> tuple[Path, str]:
    path = Path(path).expanduser()
    where = f"{kind} {path}"
    if not path.is_file() or not path.stat().st_size:
        raise UserError(where, "a model file", "an empty file" if path.is_file() else "none there", "Check the path.")
    return path, where


def _dim(module: torch.nn.Module, size: int, where: str) -> int:
    """The dimension that it gives for two grey images; anything but (2, dim) floats is refused."""
    try:
        with torch.inference_mode():
            out: Any = module(torch.zeros(2, 3, size, size))
    except Exception as error:  # whatever the program in the file raises
        raise UserError(where, f"a network that takes images (2, 3, {size}, {size})", _line(error), LAYOUT) from None
    if not isinstance(out, torch.Tensor) or out.ndim != 2 or len(out) != 2 or not out.is_floating_point():
        got = f"{out.dtype} {tuple(out.shape)}" if isinstance(out, torch.Tensor) else type(out).__name__
        raise UserError(where, "embeddings (2, dim) for two images", got, "Export a network that ends in the embedding.")
    return out.shape[1]


def _line(error: Exception) -> str:
    """The last line of an error: what TorchScript and onnxruntime put their reason in."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1][:160].rstrip('.') if lines else ''}"
