"""LiteRT (TensorFlow Lite) files as teachers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distillscope.errors import UserError
from distillscope.registry import teachers
from distillscope.teachers.encoder import Encoder, plain_line
from distillscope.teachers.model_files import (
    Colour,
    FileNetwork,
    Layout,
    Pooling,
    Shown,
    existing,
    file_encoder,
    hash_files,
)

IMAGES = {np.float32: torch.float32, np.float16: torch.float16, np.uint8: torch.uint8, np.int8: torch.int8}


@teachers.register("tflite")
def tflite(*, path: Path, output: str | None = None, pool: Pooling | None = None, size: int | None = None,
           mean: Colour | None = None, std: Colour | None = None, interpolation: str = "bicubic", crop_fraction: float = 1.0,
           unit_norm: bool = False) -> Encoder:
    """A LiteRT (TensorFlow Lite) file with one image input, (b, h, w, 3) or (b, 3, h, w), on the CPU (extra tflite).

    uint8 and int8 inputs get the pixel values as they are (int8: less 128); quantised outputs are scaled back.
    """
    path, where = existing(path, "tflite")
    network = LiteNetwork(path, where, Shown(size, mean, std, interpolation, crop_fraction, output, pool, unit_norm))
    return file_encoder(f"tflite/{path.name}", network, hash_files([path], *network.mark()))


class LiteNetwork(FileNetwork):
    """A LiteRT interpreter; its input is made as large as each batch."""

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
        if len(inputs) != 1 or len(inputs[0]["shape"]) != 4 or inputs[0]["dtype"] not in IMAGES:
            raise UserError(where, "one input of images, of four dimensions, float, uint8 or int8",
                            ", ".join(f"{i['name']}: {i['dtype'].__name__} {i['shape'].tolist()}" for i in inputs) or "none",
                            "Convert the image encoder alone.")
        self.given, self.layout = inputs[0], self._layout(inputs[0])

    def _layout(self, given: dict[str, Any]) -> Layout:
        shape, free = given["shape"].tolist(), given["shape_signature"].tolist()
        last = shape[3] == 3
        sides = {n for n in (free[1:3] if last else free[2:]) if n > 0}
        if len(sides) > 1 or 3 not in (shape[1], shape[3]):
            raise UserError(self.where, "square colour images", f"an input of {shape}", "Convert it with such an input.")
        dtype = IMAGES[given["dtype"]]
        scale, zero = given["quantization"]
        span = None
        if scale and not dtype.is_floating_point:
            least = torch.iinfo(dtype).min
            span = (scale * (least - zero), scale * (least + 255 - zero))
        return Layout(dtype, last, None, next(iter(sides), None), span, given["name"])

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
