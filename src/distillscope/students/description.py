"""student.json, checked: what a student is built of, and whether its weights can be those of such a network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from distillscope.data.preprocess import Preprocess
from distillscope.errors import UserError
from distillscope.files.json_reader import read_json
from distillscope.registry import Positive
from distillscope.students.networks import Transform

AGAIN = "Distil it again, or take the whole folder from where it was made."
Length = Annotated[int, Field(ge=1, le=2**20)]
Colours = Annotated[list[float], Field(min_length=3, max_length=3)]


class Shapes(BaseModel):
    """The tensors of a transform: mean (d,), matrix (d, k) or (d,), offset (k,)."""

    model_config = ConfigDict(strict=True, extra="forbid")
    mean: Annotated[list[Length], Field(min_length=1, max_length=1)]
    matrix: Annotated[list[Length], Field(min_length=1, max_length=2)] | None = None
    offset: Annotated[list[Length], Field(min_length=1, max_length=1)] | None = None

    @model_validator(mode="after")
    def _fit(self) -> Shapes:
        given = self.matrix or self.mean
        if given[0] != self.mean[0] or (self.offset or given[-1:]) != given[-1:] or self.mean[0] * given[-1] > 2**28:
            raise ValueError("shapes that fit each other: mean (d,), matrix (d, k) or (d,), offset (k,)")
        return self


class Last(BaseModel):
    """A transform as a student's last layer."""

    model_config = ConfigDict(strict=True, extra="forbid")
    shapes: Shapes
    wave: bool


class Seen(BaseModel):
    """How a student wants its images; what came later is checked by `Preprocess` itself."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)
    size: Annotated[int, Field(ge=1, le=4096)]
    mean: Colours
    std: Annotated[list[Positive], Field(min_length=3, max_length=3)]
    interpolation: Literal["nearest", "nearest-exact", "bilinear", "bicubic"] = "bicubic"
    crop_fraction: Annotated[float, Field(ge=0.1, le=10)] = 1.0


class Decoded(BaseModel):
    """How the images that a student was distilled on were decoded, where that was not as usual."""

    model_config = ConfigDict(strict=True, extra="forbid")
    background: str = "white"
    exif: bool = True


class Description(BaseModel):
    """What student.json holds, as far as it is needed to build the student."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)
    name: str
    settings: dict[str, Any]
    embedding_dim: Length
    preprocess: Seen
    label: str | None = None
    transform: Last | None = None
    decoding: Decoded = Decoded()
    weights_hash: str = ""
    teacher: str = ""
    teacher_id: str = ""
    card: dict[str, str] = {}

    @model_validator(mode="after")
    def _fit(self) -> Description:
        if self.transform and self.transform.shapes.mean[0] != self.embedding_dim:
            raise ValueError(f"a transform of {self.embedding_dim}-d embeddings")
        return self

    def seen(self, where: str) -> Preprocess:
        """The preprocessing; a setting that this version does not know is a `UserError`."""
        dumped = self.preprocess.model_dump()
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in dumped.items()}
        unknown = sorted(fields.keys() - Preprocess.__dataclass_fields__.keys())
        if unknown:
            raise UserError(f"{where} preprocess", "settings that this version knows", unknown[0],
                            "Update distillscope, or distil it again.")
        return Preprocess(**fields)

    def last(self) -> Transform | None:
        """The transform that comes last, all zero, before its weights are loaded."""
        return Transform.empty(self.transform.model_dump(exclude_none=True)) if self.transform else None


def read_description(path: Path) -> tuple[Description, dict[str, Any]]:
    """student.json, checked, and as it stands; a `UserError` names the key that is wrong."""
    return read_json(path, Description, AGAIN), read_json(path, dict, AGAIN)


def stored_shapes(path: Path) -> dict[str, torch.Size]:
    """Names and shapes of a .safetensors file's tensors, from its head alone."""
    from safetensors import safe_open

    try:
        with safe_open(path, "pt") as file:
            return {name: torch.Size(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping
    except Exception as error:  # safetensors raises its own, of several kinds
        got = "no file" if not path.exists() else f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
        raise UserError(str(path), "a student's weights", got, AGAIN) from None
