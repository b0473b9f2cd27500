"""What a study is made of: frozen models of named parts and of its noise, each with settings; and what a path stands for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from distillscope.errors import UserError
from distillscope.files.remote import is_url
from distillscope.files.yaml_reader import Refused, parse_plain
from distillscope.registry import Positive

FILE_KINDS = {".parquet": "parquet", ".tar": "webdataset",
              **dict.fromkeys((".csv", ".tsv", ".jsonl", ".ndjson"), "manifest")}
"""Suffix of a file that holds or lists images -> the data set that reads it."""
DESCRIPTION = "student.json"
"""The file of a distilled student's folder that says what the student is."""
WEIGHTS = "weights.safetensors"
"""The file beside it with the student's weights."""
REQUEST = "distill.yaml"
"""In a student's folder: what was asked for when it was begun, precision and fingerprint of images and weights with it."""
TRIAL = "trial.yaml"
"""The same in the folder of a study's trial, which may be copied out of its run."""
READ = "read"
"""There, and in a run's provenance.json for each data set: what names the images that were read (`data.origin`)."""
MODEL_FILES = {".onnx": "onnx", ".ts": "torchscript", ".torchscript": "torchscript", ".pt2": "exported", ".tflite": "tflite",
               ".xml": "openvino", ".pte": "executorch"}
"""Suffix of a file that holds a whole model -> the teacher that runs it."""
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""The channel statistics that CLIP's images are normalised with: the default mean and std of models and of noise."""
INTERPOLATIONS = ("bicubic", "bilinear", "nearest", "nearest-exact")
"""What images are resized by: what torch has for tensors."""


HUB = "hf-hub:"
"""What the name of a student on the Hugging Face Hub begins with: hf-hub:owner/name[@revision]."""
COMMIT = re.compile("[0-9a-f]{40}")


class OnHub(NamedTuple):
    """A student's repository on the Hub, and the revision that is asked for: a branch, a tag or a commit."""

    repo: str
    revision: str | None

    @property
    def title(self) -> str:
        """What tables call it.

        >>> OnHub("ann/digits", "v1").title, OnHub("ann/digits", 40 * "a").title
        ('digits@v1', 'digits@aaaaaaa')
        """
        revision = self.revision or ""
        return self.repo.split("/")[1] + (f"@{revision[:7] if COMMIT.fullmatch(revision) else revision}" if revision else "")


def on_hub(spec: str | Path) -> OnHub | None:
    """The repository that ``spec`` names on the Hub; None where it names none there. Nothing is asked of the Hub.

    >>> on_hub("hf-hub:ann/digits@v1"), on_hub("student")
    (OnHub(repo='ann/digits', revision='v1'), None)
    """
    text = str(spec)
    if not text.startswith(HUB):
        return None
    found = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@(\S+))?", text.removeprefix(HUB), re.ASCII)
    if found is None:
        raise UserError(text, f"{HUB}owner/name or {HUB}owner/name@revision", f"'{text.removeprefix(HUB)}'",
                        f"For instance {HUB}ann/digits-student@main.")
    return OnHub(found[1], found[2])


class Part(BaseModel):
    """``{name, **settings}``: a registered function and what it is to be called with. A bare string is a name."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)
    name: str

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class Dataset(Part):
    """A data set: a registered name, a path, or the name of one on the Hub (``owner/name``)."""

    alias: str | None = None
    train_split: str = "train"
    test_split: str = "test"

    @property
    def title(self) -> str:
        """What the tables call it."""
        return self.alias or (Path(str(self.settings["path"])).name if "path" in self.settings else self.name)

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        value = {"name": value} if isinstance(value, str) else value
        if isinstance(value, Mapping) and isinstance(value.get("name"), str) and value["name"].lstrip().startswith("{"):
            value = {**_mapping(value["name"]), **{k: v for k, v in value.items() if k != "name"}}
        if isinstance(value, Mapping) and "name" not in value and isinstance(value.get("path"), str):
            return {"name": value["path"], **value}  # which data set reads it is looked up by `resolve.resolved`
        return value


def _mapping(text: str) -> Any:
    """``{path: photos, label: none}`` as it is typed on the command line."""
    try:
        return parse_plain(text)
    except Refused as error:
        raise UserError("--data", "plain YAML", str(error.problem), str(error.context)) from None
    except yaml.YAMLError as error:
        raise UserError("--data", "a name, a path, or {path: ..., label: ...} in YAML", f"'{text}'",
                        str(error).splitlines()[0] + ".") from None


class Teacher(Part):
    """A teacher: ``timm/MODEL[:FILE]``, ``open_clip/MODEL:TAG_OR_FILE``, a model file (`model_file`), or a registered name."""

    precision: Literal["float32", "bfloat16", "float16", "float16_on_cuda"] | None = None
    label: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"name": value}
        if isinstance(value, Mapping) and isinstance(value.get("name"), str):
            library, _, model = value["name"].partition("/")
            if model and library in ("timm", "open_clip"):
                architecture, _, file = model.partition(":")
                if file and Path(file).expanduser().is_file():
                    return {"weights": file, **value, "name": library, "model": architecture}
                return {**value, "name": library, "model": model}
            if found := model_file(value["name"]):
                return {**found, **value, "name": found["name"]}
        return value

    @property
    def title(self) -> str:
        """What the tables call it."""
        path = self.settings.get("path")
        return self.label or str(self.settings.get("model") or (Path(str(path)).name if path else self.name))


class Student(Part):
    """A student network, its label in the tables, and what it wants to see."""

    label: str
    image_size: int = Field(32, ge=4, le=4096)
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    @model_validator(mode="before")
    @classmethod
    def _label(cls, value: Any) -> Any:
        value = {"name": value} if isinstance(value, str) else value
        if isinstance(value, Mapping) and isinstance(value.get("name"), str) and "/" in value["name"]:
            library, _, model = value["name"].partition("/")
            value = {**value, "name": library, "model": model}
        if isinstance(value, Mapping) and "label" not in value:
            value = {**value, "label": str(value.get("model") or value.get("name"))}
        if isinstance(value, Mapping) and value.get("name") == "paper_cnn":
            return {"hidden": 512, **value}  # written out: what was stored without it was as wide as its target (`rundir`)
        return value


class Objective(Part):
    """One term of the loss; ``projected=false`` shows it the student's own embeddings where the arm has a projector.

    ``during: [0, 0.5]``: the term counts in the first half of the training alone; without it, in all of it.
    """

    weight: float = Field(1.0, ge=0, allow_inf_nan=False)
    projected: bool = True
    during: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Objective:
        if self.during is not None and not 0 <= self.during[0] < self.during[1] <= 1:
            raise UserError(f"objective {self.name}.during", "a beginning below an end, both from 0 to 1",
                            str(list(self.during)), "For instance during: [0, 0.5].")
        return self


class Stress(Part):
    """One stress, run on the teacher and on every student: ``{name: corruptions, items: 1000}``."""


class Remedy(Part):
    """What is done to every trained student; the outcome is measured like another arm, named ARM+LABEL."""

    label: str | None = None

    @property
    def title(self) -> str:
        return self.label or self.name


def data_kind(text: str) -> str | None:
    """Which data set function reads what a path or a Hub name points to; None where it is neither."""
    if is_url(text):
        return "remote"
    path = Path(text).expanduser()
    suffix = "".join(path.suffixes[-2:] if path.suffix.lower() == ".gz" else path.suffixes[-1:]).lower()
    if path.is_dir():
        return _folder_kind(path)
    kind = FILE_KINDS.get(suffix.removesuffix(".gz"))
    if kind or path.exists():
        return kind
    return "hub" if text.count("/") == 1 and not text.startswith((".", "/", "~")) else None


def _folder_kind(path: Path) -> str:
    if (path / "dataset_dict.json").is_file() or ((path / "state.json").is_file() and (path / "dataset_info.json").is_file()):
        return "saved"
    if any(not f.name.startswith(".") for pattern in ("*.parquet", "data/*.parquet") for f in path.glob(pattern)):
        return "parquet"
    if any(not f.name.startswith(".") for pattern in ("*.tar", "*/*.tar") for f in path.glob(pattern)):
        return "webdataset"
    return "image_folder"


def model_file(text: str) -> dict[str, Any] | None:
    """The teacher that runs the model file that ``text`` names, as plain values; None where it names none.

    FILE:OUTPUT names an output, FILE:OUTPUT@first and FILE:OUTPUT@mean say what to take of its tokens. A `.pt` or `.pth` file
    is held to be TorchScript.

    >>> model_file("clip.onnx:image_embeds")
    {'name': 'onnx', 'path': 'clip.onnx', 'output': 'image_embeds'}
    """
    if on_hub(text) is not None:
        return None
    path, key = Path(text).expanduser(), ""
    head, _, rest = text.partition(":")
    if rest and not path.exists() and Path(head).suffix.lower() in (*MODEL_FILES, ".pt", ".pth"):
        path, key = Path(head).expanduser(), rest
    kind = MODEL_FILES.get(path.suffix.lower())
    if kind is None and path.suffix.lower() in (".pt", ".pth") and path.is_file():
        kind = "torchscript"
    if kind is None:
        return None
    output, at, pool = key.rpartition("@")
    if not at or pool not in ("first", "mean"):
        output, pool = key, ""
    return {"name": kind, "path": str(path), **({"output": output} if output else {}), **({"pool": pool} if pool else {})}


class NoiseSpec(BaseModel):
    """Where noise is added, and in which unit its sigma counts.

    ``where``: "source" adds to the stored image before any resizing, so that teacher and student see the same noisy image;
    "input" adds to the model's own normalised tensor, as the paper does, as strong in pixels whatever its std.
    ``unit``: "pixel" counts in [0, 1] pixel values, "normalised" in units of the per-channel ``std``.
    ``clip`` keeps a noisy source image in [0, 1].

    A part that takes it as a setting has its fields among its own settings, and the study's where it sets none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    where: Literal["source", "input"] = "source"
    unit: Literal["pixel", "normalised"] = "normalised"
    clip: bool = True
    std: tuple[Positive, Positive, Positive] = CLIP_STD

    def both_units(self, sigma: float) -> dict[str, Any]:
        """``sigma`` in pixels ([0, 1], mean over channels) and in units of ``std``, and what is done with it.

        >>> NoiseSpec(std=(0.25, 0.25, 0.25)).both_units(0.1)["sigma_pixel"]
        0.025
        """
        mean_std = sum(self.std) / len(self.std)
        pixel = sigma * mean_std if self.unit == "normalised" else sigma
        return {"sigma_normalised": sigma if self.unit == "normalised" else sigma / mean_std, "sigma_pixel": pixel,
                "sigma_255": pixel * 255, "where": "source pixels" if self.where == "source" else "model input",
                "clipped": self.where == "source" and self.clip}
