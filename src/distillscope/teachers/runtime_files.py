"""Model files that their own runtime runs, as teachers: ONNX by onnxruntime, TensorFlow Lite by LiteRT."""

from __future__ import annotations

import contextlib
import mmap
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distillscope.errors import UserError
from distillscope.files.json_reader import parse_json
from distillscope.registry import teachers
from distillscope.teachers.artefacts import MARK, opened
from distillscope.teachers.encoder import Encoder, plain_line
from distillscope.teachers.model_files import (
    OUTPUT_ADVICE,
    Colour,
    FileNetwork,
    Layout,
    Pooling,
    Shown,
    existing,
    hash_files,
)

IMAGES = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16, "tensor(double)": torch.float64,
          "tensor(uint8)": torch.uint8}
FILLED = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64, "tensor(int64)": np.int64,
          "tensor(int32)": np.int32, "tensor(bool)": np.bool_, "tensor(uint8)": np.uint8, "tensor(int8)": np.int8}


@teachers.register("onnx")
def onnx(*, path: Path, output: str | None = None, pool: Pooling | None = None, size: int | None = None,
         mean: Colour | None = None, std: Colour | None = None, interpolation: str = "bicubic", crop_fraction: float = 1.0,
         unit_norm: bool = False) -> Encoder:
    """An ONNX file with an image input, (b, 3, h, w) or (b, h, w, 3), run by onnxruntime (extra onnx).

    ``output`` names the embedding where the file has several outputs, ``pool`` ("first" or "mean") says what to take of
    tokens. ``size`` is known where the file fixes it. uint8 inputs get the pixel values as they are. Other inputs (a text, a
    mask) are filled where the output does not depend on them.
    """
    path, where = existing(path, "onnx")
    network = OnnxNetwork(path, where, Shown(size, mean, std, interpolation, crop_fraction, output, pool, unit_norm))
    fingerprint = hash_files(network.files(), *network.mark())
    return opened(f"onnx/{path.name}", network, fingerprint)


class OnnxNetwork(FileNetwork):
    """An onnxruntime session that takes and gives tensors, without gradients."""

    runtime = "onnxruntime"

    def __init__(self, path: Path, where: str, shown: Shown) -> None:
        super().__init__(path, where, shown)
        self.open(["CPUExecutionProvider"])
        self.image = self._image_input()
        self.others = [i for i in self.session.get_inputs() if i.name != self.image.name]
        self.output = self._output(shown.output)
        self.layout = self._layout()
        self.fill = np.zeros
        if self.others:
            self.fill = self._fill_others()
            names = ", ".join(i.name for i in self.others)
            how = {np.zeros: "zeros", np.ones: "ones"}.get(self.fill, "0 and 1 by turns")
            self.layout.facts.append(f"input '{self.image.name}' takes the images; {names} filled with {how}, since the output "
                                     "does not depend on it")

    def open(self, providers: list[Any]) -> None:
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
            self.session = onnxruntime.InferenceSession(str(self.path), options, providers=providers, enable_fallback=0)
        except Exception as error:  # onnxruntime's errors derive from Exception alone
            raise UserError(self.where, "an ONNX model", plain_line(error), "Export or fetch it again.") from None

    def open_on(self, device: torch.device) -> bool:
        """Onto CUDA where onnxruntime has it; False where it stays on the CPU."""
        import onnxruntime

        provider = "CUDAExecutionProvider"
        if device.type != "cuda" or provider not in onnxruntime.get_available_providers():
            return False
        self.open([(provider, {"device_id": device.index or 0}), "CPUExecutionProvider"])
        return True

    def told(self) -> dict[str, str]:
        return dict(self.session.get_modelmeta().custom_metadata_map)

    def files(self) -> list[Path]:
        return [self.path, *external_data(self.path)]

    def _image_input(self) -> Any:
        inputs = self.session.get_inputs()
        images = [i for i in inputs if len(i.shape or ()) == 4 and i.type in IMAGES]
        if len(images) != 1 or (set(images[0].shape[1::2]) & {1, 4} and 3 not in images[0].shape[1:]):
            raise UserError(self.where, "one input of colour images: four dimensions, float or uint8",
                            ", ".join(f"{i.name}: {i.type} {i.shape}" for i in inputs) or "none",
                            "Export only the image encoder.")
        return images[0]

    def _output(self, asked: str | None) -> str:
        outputs = self.session.get_outputs()
        names = [o.name for o in outputs]
        if asked is not None and asked not in names:
            raise UserError(self.where, f"an output called {' or '.join(names[:6])}", f"'{asked}'", "Name one of these.")
        if asked is None and len(names) > 1:
            likely = min(outputs, key=lambda o: (len(o.shape or ()) != 2, "image" not in o.name, "emb" not in o.name)).name
            listed = ", ".join(f"{o.name} {_shape(o.shape)}" for o in outputs[:6])
            raise UserError(self.where, "one output", f"{len(names)} ({listed})", f"{OUTPUT_ADVICE} {self.path}:{likely}.")
        chosen = outputs[names.index(asked)] if asked is not None else outputs[0]
        if (chosen.type not in IMAGES and chosen.type != "tensor(bfloat16)") or chosen.type == "tensor(uint8)":
            raise UserError(self.where, "embeddings of floats", f"'{chosen.name}' {chosen.type} {_shape(chosen.shape)}",
                            "Quantise it with float outputs (a DequantizeLinear at its end), or name a float output.")
        return chosen.name

    def _layout(self) -> Layout:
        shape = self.image.shape
        last = shape[3] == 3 and shape[1] != 3
        sides = {n for n in (shape[1:3] if last else shape[2:]) if isinstance(n, int) and n > 0}
        if len(sides) > 1:
            raise UserError(self.where, "square images", f"an input of {shape}", "Export it with a square input.")
        batch = shape[0] if isinstance(shape[0], int) and shape[0] > 0 else None
        return Layout(IMAGES[self.image.type], last, batch, next(iter(sides), None), name=self.image.name)

    def layouts(self) -> list[Layout]:
        told = 3 in (self.image.shape[1], self.image.shape[3])
        return super().layouts() + ([] if told else [replace(self.layout, channels_last=True)])

    def run(self, images: torch.Tensor) -> Any:
        return {self.output: torch.from_numpy(self._run(images, self.fill))}

    def _run(self, images: torch.Tensor, fill: Any) -> np.ndarray:
        given = {self.image.name: np.ascontiguousarray(images.cpu().numpy())}
        for i in self.others:
            free = {self.image.shape[0]: len(images)}  # a name that stands for the batch; what else is free is 1 long
            given[i.name] = fill([d if isinstance(d, int) and d > 0 else free.get(d, 1) for d in i.shape], dtype=FILLED[i.type])
        return self.session.run([self.output], given)[0]

    def _fill_others(self) -> Any:
        """What to fill inputs with that are not the image: the output must stay the same to the bit under all fillings."""
        listed = ", ".join(f"{i.name}: {i.type} {_shape(i.shape)}" for i in self.others)
        todo = "Name an output of the image alone after a colon, or export the image encoder alone."
        if any(i.type not in FILLED for i in self.others):
            raise UserError(self.where, "one input of images", f"others that cannot be filled ({listed})", todo)
        size, batch = self.layout.size or self.shown.size or 224, self.layout.batch or 2
        images = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
        images = images.permute(0, 2, 3, 1) if self.layout.channels_last else images
        images = (images * 255 if self.layout.pixels else images).to(self.layout.dtype)
        found: dict[Any, np.ndarray] = {}
        failed: list[Exception] = []
        for fill in (np.zeros, np.ones, _by_turns):
            try:
                found[fill] = self._run(images, fill)
            except Exception as error:  # a filling may be none that the graph can take
                failed.append(error)
        if len(found) < 2:
            raise UserError(self.where, f"other inputs ({listed}) that can be filled", plain_line(failed[0]), todo)
        first = next(iter(found))
        if not all(np.array_equal(found[first], other, equal_nan=True) for other in found.values()):
            raise UserError(self.where, f"an output that depends on '{self.image.name}' alone",
                            f"'{self.output}', which changes with the other inputs ({listed})", todo)
        return first


def _by_turns(shape: list[int], dtype: Any) -> np.ndarray:
    """0, 1, 0, 1, ... of a shape."""
    return (np.arange(int(np.prod(shape))) % 2).reshape(shape).astype(dtype)


def _shape(shape: Any) -> str:
    return "(" + ", ".join(str(d if d is not None else "?") for d in shape or ()) + ")"


def external_data(path: Path) -> list[Path]:
    """The files beside an ONNX file that hold its weights, found by the key "location" of its protobuf."""
    with open(path, "rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
        named = set()
        for match in re.finditer(rb"\x0a\x08location\x12([\x01-\x7f]|[\x80-\xff][\x01-\x7f])", data):
            length = match[1][0] & 0x7F | (match[1][1] << 7 if len(match[1]) == 2 else 0)
            named.add(data[match.end() : match.end() + length].decode("utf-8", "replace"))
    return [f for f in (path.parent / name for name in sorted(named)) if f.is_file()]


DTYPES = {np.float32: torch.float32, np.float16: torch.float16, np.uint8: torch.uint8, np.int8: torch.int8}


@teachers.register("tflite")
def tflite(*, path: Path, output: str | None = None, pool: Pooling | None = None, size: int | None = None,
           mean: Colour | None = None, std: Colour | None = None, interpolation: str = "bicubic", crop_fraction: float = 1.0,
           unit_norm: bool = False) -> Encoder:
    """A LiteRT (TensorFlow Lite) file with one image input, (b, h, w, 3) or (b, 3, h, w), on the CPU (extra tflite).

    uint8 and int8 inputs get the pixel values as they are (int8: less 128); quantised outputs are scaled back.
    """
    path, where = existing(path, "tflite")
    network = LiteNetwork(path, where, Shown(size, mean, std, interpolation, crop_fraction, output, pool, unit_norm))
    return opened(f"tflite/{path.name}", network, hash_files([path], *network.mark()))


class LiteNetwork(FileNetwork):
    """A LiteRT interpreter; its input is made as large as each batch."""

    runtime = "litert"

    def __init__(self, path: Path, where: str, shown: Shown) -> None:
        super().__init__(path, where, shown)
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            raise UserError(where, "the package ai-edge-litert", "not installed",
                            "pip install 'distillscope[tflite]', or convert the model to ONNX.") from None
        if path.read_bytes()[4:8] != b"TFL3":
            raise UserError(where, "a LiteRT (TensorFlow Lite) file", "one without its mark TFL3", "Fetch or convert it again.")
        try:
            with _quiet():
                self.lite = Interpreter(model_path=str(path), num_threads=torch.get_num_threads())
                self.lite.allocate_tensors()
        except Exception as error:  # a damaged file, or an operation that it lacks
            raise UserError(where, "a LiteRT (TensorFlow Lite) file", plain_line(error),
                            "Convert it again, or convert the model to ONNX.") from None
        inputs, self.made = self.lite.get_input_details(), self.lite.get_output_details()
        if len(inputs) != 1 or len(inputs[0]["shape"]) != 4 or inputs[0]["dtype"] not in DTYPES:
            raise UserError(where, "one input of images, of four dimensions, float, uint8 or int8",
                            ", ".join(f"{i['name']}: {i['dtype'].__name__} {i['shape'].tolist()}" for i in inputs) or "none",
                            "Convert only the image encoder.")
        self.given, self.layout = inputs[0], self._layout(inputs[0])

    def _layout(self, given: dict[str, Any]) -> Layout:
        shape, free = given["shape"].tolist(), given["shape_signature"].tolist()
        last = shape[3] == 3
        sides = {n for n in (free[1:3] if last else free[2:]) if n > 0}
        if len(sides) > 1 or 3 not in (shape[1], shape[3]):
            raise UserError(self.where, "square colour images", f"an input of {shape}", "Convert it with such an input.")
        dtype = DTYPES[given["dtype"]]
        scale, zero = given["quantization"]
        span = None
        if scale and not dtype.is_floating_point:
            least = torch.iinfo(dtype).min
            span = (scale * (least - zero), scale * (least + 255 - zero))
        return Layout(dtype, last, None, next(iter(sides), None), span, given["name"])

    def told(self) -> dict[str, str]:
        from ai_edge_litert import schema_py_generated as schema

        model = schema.Model.GetRootAsModel(self.path.read_bytes(), 0)
        entries = [model.Metadata(i) for i in range(model.MetadataLength())]
        ours = next((e for e in entries if e.Name() == MARK.encode()), None)
        if ours is None:
            return {}
        return parse_json(model.Buffers(ours.Buffer()).DataAsNumpy().tobytes(), self.where, dict[str, str], "Export it again.")

    def open_on(self, device: torch.device) -> bool:
        """It stays on the CPU."""
        return False

    def run(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        array = np.ascontiguousarray(images.numpy())
        if tuple(self.lite.get_input_details()[0]["shape"]) != array.shape:
            with _quiet():
                self.lite.resize_tensor_input(self.given["index"], array.shape)
                self.lite.allocate_tensors()
        self.lite.set_tensor(self.given["index"], array)
        self.lite.invoke()
        found = {}
        for made in self.made:
            values, (scale, zero) = self.lite.get_tensor(made["index"]), made["quantization"]
            if scale and values.dtype.kind in "iu":
                values = (values.astype(np.float32) - zero) * np.float32(scale)
            found[made["name"]] = torch.from_numpy(values)
        return {"": next(iter(found.values()))} if len(found) == 1 and self.output is None else found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """LiteRT writes its news to the terminal past Python; errors are raised besides."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
