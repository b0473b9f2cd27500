"""What a study is: frozen models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from distillscope import registry
from distillscope.data.preprocess import CLIP_MEAN, CLIP_STD
from distillscope.errors import UserError, unknown_name
from distillscope.registry import Positive, Seed, Strength


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


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
        if isinstance(value, str):
            value = _mapping(value) if value.lstrip().startswith("{") else {"name": value}
        if isinstance(value, Mapping) and "name" not in value and isinstance(value.get("path"), str):
            return {**value, "name": data_kind(value["path"]) or value["path"]}
        if isinstance(value, Mapping) and isinstance(value.get("name"), str) and value["name"] not in registry.datasets:
            name, rest = value["name"], {k: v for k, v in value.items() if k != "name"}
            found = data_kind(name)
            return {"name": found, "path": name, **rest} if found else value
        return value


def _mapping(text: str) -> Any:
    """``{path: photos, label: none}`` as it is typed on the command line."""
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError("--data", "a name, a path, or {path: ..., label: ...} in YAML", f"'{text}'", str(error).splitlines()[0] + ".") from None


def data_kind(text: str) -> str | None:
    """Which data set function reads what a path or a Hub name points to; None where it is neither."""
    path = Path(text).expanduser()
    suffix = "".join(path.suffixes[-2:] if path.suffix.lower() == ".gz" else path.suffixes[-1:]).lower()
    if path.is_dir():
        return _folder_kind(path)
    kind = FILE_KINDS.get(suffix.removesuffix(".gz"))
    if kind or path.exists():
        return kind
    return "hub" if text.count("/") == 1 and not text.startswith((".", "/", "~")) else None


FILE_KINDS = {".parquet": "parquet", ".tar": "webdataset", ".csv": "manifest", ".tsv": "manifest", ".jsonl": "manifest", ".ndjson": "manifest"}
"""Suffix of a file that holds or lists images -> the data set that reads it."""


def _folder_kind(path: Path) -> str:
    if (path / "dataset_dict.json").is_file() or ((path / "state.json").is_file() and (path / "dataset_info.json").is_file()):
        return "saved"
    if any(not f.name.startswith(".") for pattern in ("*.parquet", "data/*.parquet") for f in path.glob(pattern)):
        return "parquet"
    if any(not f.name.startswith(".") for pattern in ("*.tar", "*/*.tar") for f in path.glob(pattern)):
        return "webdataset"
    return "image_folder"


MODEL_FILES = {".onnx": "onnx", ".ts": "torchscript", ".torchscript": "torchscript", ".pt2": "exported", ".tflite": "tflite"}
"""Suffix of a file that holds a whole model -> the teacher that runs it."""


def model_file(text: str) -> dict[str, Any] | None:
    """The teacher that runs the model file that ``text`` names, as plain values; None where it names none.

    FILE:OUTPUT names an output, FILE:OUTPUT@first and FILE:OUTPUT@mean say what to take of its tokens. A `.pt` or `.pth` file is held to
    be TorchScript.

    >>> model_file("clip.onnx:image_embeds")
    {'name': 'onnx', 'path': 'clip.onnx', 'output': 'image_embeds'}
    """
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
        if isinstance(value, str):
            library, _, model = value.partition("/")
            value = {"name": library, "model": model} if model else {"name": value}
        if isinstance(value, Mapping) and "label" not in value:
            value = {**value, "label": str(value.get("model") or value.get("name"))}
        if isinstance(value, Mapping) and value.get("name") == "paper_cnn":
            return {"hidden": 512, **value}  # written out: what was stored without it was as wide as its target (`rundir.load_config`)
        return value


class Objective(Part):
    """One term of the loss; ``projected=false`` shows it the student's own embeddings where the arm has a projector."""

    weight: float = Field(1.0, ge=0, allow_inf_nan=False)
    projected: bool = True


class Training(_Frozen):
    """How a student is trained."""

    epochs: int = Field(5, ge=1, le=1_000_000)
    batch_size: int = Field(64, ge=2, le=2**20)
    optimizer: Literal["adam", "adamw", "sgd", "muon"] = "adam"
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["constant", "cosine", "one_cycle"] = "constant"
    drop_last: bool = True


class Arm(_Frozen):
    """One way to train: the students named in ``students`` (default all) with the seeds in ``seeds`` (default all).

    ``view_target``: the student of a view is shown the teacher's embedding of the "same" view, or of the "clean" image.
    ``view_bank``: only so many versions of each image, over all seeds and epochs, so that the teacher embeds few.
    ``student``: settings of the network that this arm's students have otherwise, as ``{blur_pool: true}``; the label stays, and
    with it the order, the noise and, where shapes allow, the initial weights.
    """

    name: str
    objective: tuple[Objective, ...] = (Objective(name="cosine"),)
    target: Part | None = None
    view: Part | None = None
    view_target: Literal["same", "clean"] = "same"
    view_bank: int | None = Field(None, ge=1, description="so many versions of each image, shared by all seeds and epochs")
    projector: Part | None = None
    student: dict[str, Any] = {}
    students: tuple[str, ...] | None = None
    seeds: tuple[Seed, ...] | None = None
    training: Training | None = None

    @field_validator("objective", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return [value] if isinstance(value, (str, Mapping)) else value

    @property
    def objective_name(self) -> str:
        """The terms and their weights, as the tables show them."""
        return " + ".join(o.name if o.weight == 1 else f"{o.weight:g} {o.name}" for o in self.objective)

    def check(self) -> None:
        """Check names, settings and weights, and that a term over two views has them."""
        where = f"arms.{self.name}"
        if sum(o.weight for o in self.objective) == 0:
            raise UserError(f"{where}.objective", "weights that sum to more than 0", "0", "Give one term a weight.")
        for objective in self.objective:
            registry.objectives.check(objective.name, objective.settings, f"{where}.objective")
            if objective.weight and self.view is None and "other" in registry.objectives.needs(objective.name):
                raise UserError(f"{where}.objective", f"a view, since {objective.name} compares two views", "none",
                                f"Set {where}.view=crop_flip.")
        named = sorted({"name", "model", "label"} & self.student.keys())
        if named:
            raise UserError(f"{where}.student", "settings of the network", named[0], "Another network is another student: add it to students.")
        for key, kind, part in (("target", registry.targets, self.target), ("view", registry.views, self.view),
                                ("projector", registry.projectors, self.projector)):
            if part:
                kind.check(part.name, part.settings, f"{where}.{key}")
        if self.view is None and (self.view_target != "same" or self.view_bank):
            raise UserError(f"{where}.view", "a view, since view_target or view_bank is set", "none", f"Set {where}.view=noise.")


class NoiseSweep(_Frozen):
    """Gaussian noise at test time. Sigma 0 is the clean condition and always measured."""

    sigmas: tuple[Strength, ...] = (0.05, 0.1, 0.2)
    draws: int = Field(3, ge=1, le=10_000)
    where: Literal["source", "input"] = "source"
    unit: Literal["pixel", "normalised"] = "normalised"
    clip: bool = True
    std: tuple[Positive, Positive, Positive] = CLIP_STD
    seed: Seed = 0


class Stress(Part):
    """One stress, run on the teacher and on every student: ``{name: corruptions, items: 1000}``."""


class Remedy(Part):
    """What is done to every trained student; the outcome is measured like another arm, named ARM+LABEL."""

    label: str | None = None

    @property
    def title(self) -> str:
        return self.label or self.name


class Probes(_Frozen):
    """Which linear probes are fitted: the paper's (C 1, unit norm), and one tuned on a validation part of train."""

    paper: bool = True
    tuned: bool = False
    max_iter: int = Field(2000, ge=1, le=10_000_000)
    cs: tuple[Positive, ...] = (0.001, 0.01, 0.1, 1.0)


class Published(_Frozen):
    """A figure that a paper printed, shown beside the measured one."""

    student: str
    measure: str
    value: float
    condition: str = "clean"
    arm: str | None = None
    std: float | None = None


class Study(_Frozen):
    """A grid of trials: every data set x teacher x arm x student x seed."""

    name: str
    description: str = ""
    data: tuple[Dataset, ...]
    teacher: tuple[Teacher, ...]
    students: tuple[Student, ...]
    arms: tuple[Arm, ...] = (Arm(name="cosine"),)
    seeds: tuple[Seed, ...] = (42, 123, 456)
    target: Part = Part(name="none")
    training: Training = Training()
    noise: NoiseSweep = NoiseSweep()
    stresses: tuple[Stress, ...] = ()
    remedies: tuple[Remedy, ...] = ()
    probes: Probes = Probes()
    streams: Literal["keyed", "notebook"] = "keyed"
    spread: Literal["sample", "population"] = "sample"
    validation: int = Field(1000, ge=0, description="items of train held out for health, kNN and tuning")
    screen: int = Field(0, ge=0, description="items of train in place of the test split, to choose settings on")
    limit: int | None = Field(None, ge=2, description="a stratified part of train")
    limit_test: int | None = Field(None, ge=2)
    corrupt: Literal["error", "skip"] = "error"
    published: tuple[Published, ...] = ()

    @field_validator("data", "teacher", "students", "arms", "stresses", "remedies", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return [value] if isinstance(value, (str, Mapping)) else value

    @field_validator("seeds", mode="before")
    @classmethod
    def _one_seed(cls, value: Any) -> Any:
        return [value] if isinstance(value, int) else value

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        for what, names in (("students' labels", [s.label for s in self.students]), ("arms' names", [a.name for a in self.arms]),
                            ("teachers' titles", [t.title for t in self.teacher]), ("seeds", list(self.seeds)),
                            ("remedies' labels", [r.title for r in self.remedies])):
            if not names and what != "remedies' labels":
                raise UserError(what, "at least one", "none", "Name one.")
            if len(set(names)) != len(names):
                if what == "seeds":
                    raise UserError(what, "each seed once", str(names), "Take the repeated one out.")
                key = "name" if what == "arms' names" else "label"
                raise UserError(what, "each name once", str(names), f"Give them different names ({key}: ...).")
        for arm in self.arms:
            if len(set(arm.seeds or ())) != len(arm.seeds or ()):
                raise UserError(f"arms.{arm.name}.seeds", "each seed once", str(list(arm.seeds)), "Take the repeated one out.")
            for label in arm.students or ():
                if label not in [s.label for s in self.students]:
                    raise unknown_name(f"arms.{arm.name}.students", "student's label", label, [s.label for s in self.students])
        return self

    def target_of(self, arm: Arm) -> Part:
        return arm.target or self.target

    def student_of(self, arm: Arm, label: str) -> Student:
        """The student of that label as the arm trains it."""
        spec = next(s for s in self.students if s.label == label)
        return Student.model_validate({**spec.model_dump(), **arm.student}) if arm.student else spec

    def training_of(self, arm: Arm) -> Training:
        return arm.training or self.training

    def check_parts(self) -> None:
        """Check every part's name and settings against the function that it names, before any work starts."""
        for where, kind, parts in (("data", registry.datasets, self.data), ("teacher", registry.teachers, self.teacher),
                                   ("students", registry.students, self.students), ("target", registry.targets, [self.target])):
            for part in parts:
                if where in ("teacher", "students"):
                    _check_library(kind, part.name, where)
                kind.check(part.name, part.settings, where)
        for part in self.stresses:
            registry.stresses.check(part.name, part.settings, f"stresses.{part.name}")
        for part in self.remedies:
            registry.remedies.check(part.name, part.settings, f"remedies.{part.name}")
        for arm in self.arms:
            arm.check()
            for spec in (self.student_of(arm, s.label) for s in self.students if arm.student and s.label in (arm.students or [s.label])):
                registry.students.check(spec.name, spec.settings, f"arms.{arm.name}.student")

    def with_noise(self) -> Study:
        """The study with its own where, unit, clip and std in every stress, remedy and view of noise that does not say otherwise.

        Of noise is a part that takes both `where` and `unit`. What is run is this; study.yaml keeps what was written.
        """
        arms = tuple(a.model_copy(update={"view": self._noisy(registry.views, a.view)}) if a.view else a for a in self.arms)
        return self.model_copy(update={"arms": arms, "stresses": tuple(self._noisy(registry.stresses, s) for s in self.stresses),
                                       "remedies": tuple(self._noisy(registry.remedies, r) for r in self.remedies)})

    def _noisy(self, kind: registry.Registry, part: Part) -> Part:
        known = kind.settings(part.name)
        if not {"where", "unit"} <= set(known):
            return part
        declared = {key: getattr(self.noise, key) for key in ("where", "unit", "clip", "std") if key in known}
        return part.model_copy(update={key: value for key, value in declared.items() if key not in part.settings})

    def dump(self) -> dict[str, Any]:
        """Plain values, every default written out."""
        return self.model_dump(mode="json", exclude_none=True)


def _check_library(kind: registry.Registry, name: str, where: str) -> None:
    """A model of timm that is named without its library is no unknown name."""
    if name in set(kind):
        return
    import timm

    if timm.is_model(name.split(".")[0]):
        raise UserError(where, f"a known {kind.kind}", f"'{name}', a model of timm", f"Write timm/{name}.")
