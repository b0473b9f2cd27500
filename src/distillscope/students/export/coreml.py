"""A Core ML package of a student: made and read back here, but run only by Apple's systems."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from distillscope.errors import UserError
from distillscope.students.export.network import PixelNetwork
from distillscope.students.export.onnx_graph import EMBEDDINGS, IMAGES, needed
from distillscope.teachers.artefacts import MARK, Facts

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
