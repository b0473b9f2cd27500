"""Model files of runtimes for devices, as teachers: OpenVINO's IR and ExecuTorch's programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from distillscope.errors import UserError
from distillscope.files.json_reader import parse_json
from distillscope.registry import teachers
from distillscope.teachers.artefacts import MARK, opened
from distillscope.teachers.encoder import Encoder, plain_line
from distillscope.teachers.model_files import Colour, FileNetwork, Layout, Pooling, Shown, existing, hash_files

ELEMENTS = {"u8": torch.uint8, "f32": torch.float32, "f16": torch.float16}
"""OpenVINO's name of an element type -> torch's."""
SCALARS = {0: torch.uint8, 5: torch.float16, 6: torch.float32}
"""ExecuTorch's number of an element type -> torch's."""


@teachers.register("openvino")
def openvino(*, path: Path, output: str | None = None, pool: Pooling | None = None, size: int | None = None,
             mean: Colour | None = None, std: Colour | None = None, interpolation: str = "bicubic", crop_fraction: float = 1.0,
             unit_norm: bool = False) -> Encoder:
    """An OpenVINO IR (.xml with its .bin) with one input of images, on the CPU (extra openvino)."""
    path, where = existing(path, "openvino")
    network = OpenVinoNetwork(path, where, Shown(size, mean, std, interpolation, crop_fraction, output, pool, unit_norm))
    return opened(f"openvino/{path.name}", network, hash_files(network.files(), *network.mark()))


class OpenVinoNetwork(FileNetwork):
    """A model compiled for the CPU, computing in float32 where its weights are float16."""

    runtime = "openvino"

    def __init__(self, path: Path, where: str, shown: Shown) -> None:
        super().__init__(path, where, shown)
        try:
            import openvino as library
        except ImportError:
            raise UserError(where, "the package openvino", "not installed", "pip install 'distillscope[openvino]'.") from None
        try:
            core = library.Core()
            self.model = core.read_model(str(path))
            self.compiled = core.compile_model(self.model, "CPU", {
                "INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": "f32"})
        except Exception as error:  # OpenVINO raises RuntimeError and its own
            raise UserError(where, "an OpenVINO IR, its .bin beside it", plain_line(error), "Convert it again.") from None
        inputs, outputs = self.model.inputs, self.model.outputs
        shapes = [[d.get_length() if d.is_static else None for d in i.get_partial_shape()] for i in inputs]
        if len(inputs) != 1 or len(shapes[0]) != 4 or inputs[0].get_element_type().to_string() not in ELEMENTS:
            raise UserError(where, "one input of images, of four dimensions, float or uint8",
                            ", ".join(str(i.get_partial_shape()) for i in inputs) or "none", "Convert only the image encoder.")
        self.names = [o.get_any_name() if o.get_names() else "" for o in outputs]
        last = shapes[0][3] == 3 and shapes[0][1] != 3
        self.layout = Layout(ELEMENTS[inputs[0].get_element_type().to_string()], last, shapes[0][0],
                             shapes[0][1 if last else 2], name="images")

    def told(self) -> dict[str, str]:
        facts = self.model.get_rt_info([MARK]).astype(dict) if self.model.has_rt_info([MARK]) else {}
        return {str(k): str(getattr(v, "value", v)) for k, v in facts.items()}

    def files(self) -> list[Path]:
        return [self.path, *(p for p in [self.path.with_suffix(".bin")] if p.is_file())]

    def open_on(self, device: torch.device) -> bool:
        return device.type == "cpu"

    def run(self, images: torch.Tensor) -> Any:
        found = self.compiled([np.ascontiguousarray(images.numpy())])
        return {name: torch.from_numpy(np.array(found[i])) for i, name in enumerate(self.names)}


@teachers.register("executorch")
def executorch(*, path: Path, output: str | None = None, pool: Pooling | None = None, size: int | None = None,
               mean: Colour | None = None, std: Colour | None = None, interpolation: str = "bicubic",
               crop_fraction: float = 1.0, unit_norm: bool = False) -> Encoder:
    """An ExecuTorch program (.pte) with one input of images, fixed to its batch and size (extra executorch)."""
    path, where = existing(path, "executorch")
    network = ExecuTorchNetwork(path, where, Shown(size, mean, std, interpolation, crop_fraction, output, pool, unit_norm))
    return opened(f"executorch/{path.name}", network, hash_files([path], *network.mark()))


class ExecuTorchNetwork(FileNetwork):
    """A program's method "forward". The runtime has one pool of threads for all programs, of the processor's cores by itself:
    it is made as large as torch's whenever one is opened."""

    runtime = "executorch"

    def __init__(self, path: Path, where: str, shown: Shown) -> None:
        super().__init__(path, where, shown)
        try:
            from executorch.extension.pybindings import portable_lib
            from executorch.runtime import Runtime
        except ImportError:
            raise UserError(where, "the package executorch", "not installed",
                            "pip install 'distillscope[executorch]'.") from None
        try:
            portable_lib._unsafe_reset_threadpool(torch.get_num_threads())  # unsafe while a program runs; none does here
            self.program = Runtime.get().load_program(path.read_bytes())
            self.method = self.program.load_method("forward")
            given = self.method.metadata.input_tensor_meta(0)
            shape, dtype = list(given.sizes()), SCALARS.get(given.dtype())
        except Exception as error:  # the runtime raises RuntimeError for all
            raise UserError(where, "an ExecuTorch program with a method forward", plain_line(error),
                            "Export it again.") from None
        if len(shape) != 4 or dtype is None:
            raise UserError(where, "an input of images, of four dimensions, float or uint8", f"{shape}", "Export it again.")
        last = shape[3] == 3 and shape[1] != 3
        self.layout = Layout(dtype, last, shape[0], shape[1 if last else 2], name="images")

    def told(self) -> dict[str, str]:
        if MARK not in self.program.method_names:
            return {}
        return parse_json(self.program.load_method(MARK).execute([])[0], self.where, dict[str, str], "Export it again.")

    def open_on(self, device: torch.device) -> bool:
        return device.type == "cpu"

    def run(self, images: torch.Tensor) -> Any:
        return [out.clone() for out in self.method.execute([images.contiguous()])][0]
