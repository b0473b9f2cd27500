"""Files that `distillscope export` wrote: what they say of themselves, and an Encoder that needs to be told nothing more."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from distillscope.data.decode import Decoding
from distillscope.data.preprocess import Names, Preprocess, gathered
from distillscope.data.source import Images, Source
from distillscope.errors import UserError
from distillscope.files.json_reader import parse_json
from distillscope.teachers.encoder import Encoder, Perturbation
from distillscope.teachers.model_files import FileNetwork, HostEncoder, file_encoder

MARK = "distillscope"
"""The key of a file's metadata by which it is known to be an artefact; its value is the version that wrote it."""


class Facts(BaseModel):
    """What an artefact says of itself, as text values under these names in the file's own metadata.

    ``input``: "sized" takes images at the student's size, "raw" of any size, resized in the file as in training. Both take
    uint8 (b, h, w, 3) and give float32 (b, dimension). ``weights_hash`` names the student's weights, ``fine_tuning`` says
    how they were moved before they were rounded. ``background`` and ``exif`` are how its images were decoded (`Decoding`).
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    distillscope: str
    student: str
    teacher: str = ""
    dataset: str = ""
    weights_hash: str
    licence: str
    dimension: int = Field(ge=1)
    precision: Literal["float32", "float16", "int8"]
    input: Literal["sized", "raw"]
    layout: Literal["NHWC", "RGB image"] = "NHWC"
    batch: Literal["any", "1"] = "any"
    fine_tuning: str = "none"
    background: str = "white"
    exif: bool = True
    preprocessing: Preprocess

    def but(self, **changes: Any) -> Facts:
        """The same with some changed."""
        return self.model_copy(update=changes)

    def text(self) -> dict[str, str]:
        """Every value as text, as metadata hold it."""
        usual = {k for k in ("background", "exif") if getattr(self, k) == Facts.model_fields[k].default}
        plain = {k: str(v) for k, v in self.model_dump(exclude={"preprocessing", *usual}).items()}
        return {**plain, "preprocessing": json.dumps(self.preprocessing.describe())}

    @classmethod
    def read(cls, told: Mapping[str, str], where: str) -> Facts | None:
        """The facts in a file's metadata; None where it is not one of ours, a `UserError` where they are damaged."""
        if MARK not in told:
            return None
        try:
            seen = parse_json(told.get("preprocessing", "null"), f"{where} preprocessing", dict, "Export it again.")
            return cls.model_validate({**told, "preprocessing": seen})
        except ValidationError as error:
            first = error.errors()[0]
            raise UserError(where, "the metadata that `distillscope export` wrote",
                            f"{'.'.join(map(str, first['loc']))}: {first['msg']}", "Export it again.") from None


@dataclass
class Artefact(HostEncoder):
    """An exported file as an Encoder: ``encode(images)`` and ``rows(source)``, preprocessed as its metadata say.

    ``encode`` takes uint8 images of any size (arrays, tensors, PIL images, paths) and makes batches itself; floats are refused,
    since the file takes pixel values. ``call`` is one call of the runtime, as a device makes it.
    """

    facts: Facts = None  # type: ignore[assignment]  # always given; fields with defaults stand before it
    path: Path = Path()

    @property
    def batch(self) -> int | None:
        """The batch that the file is fixed to; None where it takes any."""
        return self.module.layout.batch

    @property
    def size_bytes(self) -> int:
        """Of the file, and of the one beside it that holds its weights where its format has two."""
        return sum(p.stat().st_size for p in self.module.files())

    def rows(self, source: Source, perturbation: Perturbation | None = None, *, label: str | None = None,
             workers: int = 0) -> np.ndarray:
        return super().rows(source, perturbation, label=label or f"{self.path.name}, {source.name}/{source.split}",
                            workers=workers)

    def encode(self, images: Any, ids: Names | None = None, perturbation: Perturbation | None = None) -> NDArray[np.float32]:
        items = gathered(images)
        parts = [items] if isinstance(items, torch.Tensor) else items
        if perturbation is None and any(_dtype(p).startswith("float") for p in (images, *parts)):
            raise UserError(self.name, "uint8 images, which the file takes", "floats",
                            "Pass pixel values from 0 to 255 as uint8.")
        return super().encode(items, ids, perturbation)

    def _encode(self, images: Images, ids: Names, perturbation: Perturbation | None) -> np.ndarray:
        if self.facts.input == "sized":
            return super()._encode(images, ids, perturbation)
        if perturbation is not None and perturbation.where != "source":
            raise UserError(self.name, "noise on the images as they are stored",
                            "noise on the network's own input, which is made in the file",
                            "Set where: source, or export a file whose input is sized.")
        if perturbation is not None:
            images = perturbation(images, ids)
        batches = [images] if isinstance(images, torch.Tensor) else [image[None] for image in images]
        out = torch.cat([self.module(b.float().div(255) if b.dtype == torch.uint8 else b) for b in batches]).numpy()
        if not np.isfinite(out).all():
            bad = int(np.flatnonzero(~np.isfinite(out).all(axis=1))[0])
            raise UserError(self.name, "finite embeddings", f"NaN or infinity, first for {ids[bad]}", "Export it in float32.")
        return out

    def call(self, images: np.ndarray) -> np.ndarray:
        """Embeddings (b, dimension) float32 by one call of the runtime; ``images`` uint8 (b, h, w, 3), as it wants them."""
        layout, size = self.module.layout, self.facts.preprocessing.size
        wanted = f"uint8 images ({layout.batch or 'b'}, {'h, w' if self.facts.input == 'raw' else f'{size}, {size}'}, 3)"
        given = np.asarray(images)
        shape = given.shape
        if given.dtype != np.uint8:
            raise UserError(self.name, wanted, f"{given.dtype}", "Pass pixel values from 0 to 255 as uint8.")
        if given.ndim != 4 or shape[3] != 3 or (self.facts.input == "sized" and shape[1:3] != (size, size)):
            raise UserError(self.name, wanted, f"shape {shape}", "Resize them as its metadata say, or use `encode`.")
        if layout.batch not in (None, shape[0]):
            raise UserError(self.name, wanted, f"a batch of {shape[0]}",
                            f"It is fixed to batch {layout.batch}: use the file with a dynamic batch, or `encode`.")
        return self.module.choose(self.module.run(torch.from_numpy(np.array(given)))).float().numpy()


def _dtype(value: Any) -> str:
    return str(getattr(value, "dtype", "")).removeprefix("torch.")


def opened(name: str, network: FileNetwork, fingerprint: str) -> Encoder:
    """The Encoder of a file: an `Artefact` where its metadata say that `distillscope export` wrote it."""
    facts = Facts.read(network.told(), network.where)
    if facts is None:
        return file_encoder(name, network, fingerprint)
    shown, layout, own = network.shown, network.layout, facts.preprocessing
    defaults = replace(shown, output=None, pool=None, unit_norm=False)
    if defaults != type(shown)(size=shown.size if shown.size in (None, own.size) else None):
        raise UserError(network.where, f"no preprocessing, since the file says its own ({own.size} px, {own.interpolation})",
                        "some", "Leave it out.")
    if layout.dtype != torch.uint8 or not layout.channels_last:
        raise UserError(network.where, "an input of uint8 (b, h, w, 3), as its metadata say", f"{layout.dtype}",
                        "Export it again.")
    if facts.batch == "1":
        layout.batch = 1
    preprocess = replace(own, mean=(0.0,) * 3, std=(1.0,) * 3)
    with torch.inference_mode():
        tried = network(torch.zeros(layout.batch or 2, 3, own.size, own.size))
    if tried.shape[1] != facts.dimension:
        raise UserError(network.where, f"{facts.dimension}-d embeddings, as its metadata say", f"{tried.shape[1]}-d ones",
                        "Export it again.")
    made = Artefact(name, network, facts.dimension, preprocess, fingerprint, unit_norm=shown.unit_norm, facts=facts,
                    path=network.path, decoding=Decoding(facts.background, facts.exif))
    how = "any size, resized in the file" if facts.input == "raw" else f"resized to {own.size} px"
    made.reading = (f"{name}: exported from student {facts.student} ({facts.weights_hash[:12]}) in {facts.precision}; images "
                    f"{how} ({own.interpolation}, crop {own.crop_fraction:g}), mean and std in the file")
    return made


