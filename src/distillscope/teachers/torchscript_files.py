"""TorchScript files as teachers. Their preprocessing is not in the file, so it is a setting."""

from __future__ import annotations

import warnings
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from distillscope.errors import UserError
from distillscope.inputs.arrays import is_torchscript
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

SAVE = "Save the model with torch.jit.save(torch.jit.trace(model.eval(), images), FILE), or export it to ONNX."


@teachers.register("torchscript")
def torchscript(*, path: Path, output: str | None = None, pool: Pooling | None = None, size: int | None = None,
                mean: Colour | None = None, std: Colour | None = None, interpolation: str = "bicubic",
                crop_fraction: float = 1.0, unit_norm: bool = False) -> Encoder:
    """A TorchScript file that maps (b, 3, size, size) to (b, dim). Loading runs its program: open only what you trust.

    ``output`` names the embedding where the program gives several (its key, or its place), ``pool`` ("first" or "mean") says
    what to take of tokens.
    """
    path, where = existing(path, "torchscript")
    network = TorchScriptNetwork(path, where, Shown(size, mean, std, interpolation, crop_fraction, output, pool, unit_norm))
    return file_encoder(f"torchscript/{path.name}", network, hash_files([path], *network.mark()), Encoder)


class TorchScriptNetwork(FileNetwork):
    """A script module, which says nothing of its input: what works is found by trying."""

    def __init__(self, path: Path, where: str, shown: Shown) -> None:
        super().__init__(path, where, shown)
        if zipfile.is_zipfile(path) and not is_torchscript(path):
            raise UserError(where, "a TorchScript archive",
                            "another torch file: tensors, or a pickled module, which is never opened", SAVE)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch announces that TorchScript is no longer developed
                self.inner = torch.jit.load(str(path), map_location="cpu").eval()
        except Exception as error:  # a damaged archive: zip, pickle and compiler errors, without a common base
            raise UserError(where, "a TorchScript archive", plain_line(error), SAVE) from None
        kinds = {p.dtype for p in self.inner.parameters() if p.is_floating_point()}
        self.layout = Layout(dtype=kinds.pop() if len(kinds) == 1 else torch.float32)

    def layouts(self) -> list[Layout]:
        last = replace(self.layout, channels_last=True)
        return [*super().layouts(), last, replace(self.layout, dtype=torch.float16)]

    def requires_grad_(self, requires_grad: bool = True) -> TorchScriptNetwork:
        """A script module does not take it; its parameters do."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def run(self, images: torch.Tensor) -> Any:
        return self.inner(images)
