"""What a study is: frozen models of its shape. No part is looked up here: see `config.resolve`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from distillscope.config.parts import Dataset, NoiseSpec, Objective, Part, Remedy, Stress, Student, Teacher
from distillscope.errors import UserError, unknown_name
from distillscope.files.json_reader import problem_of
from distillscope.registry import Positive, Seed, Strength


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Training(_Frozen):
    """How a student is trained."""

    epochs: int = Field(5, ge=1, le=1_000_000)
    batch_size: int = Field(64, ge=2, le=2**20)
    optimizer: Literal["adam", "adamw", "sgd", "muon"] = "adam"
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["constant", "cosine", "one_cycle"] = "constant"
    drop_last: bool = True
    accumulate: int | None = Field(None, ge=1, le=2**20, description="parts of a batch that go through the network in turn")
    average: float | None = Field(None, gt=0, lt=1, description="decay of the running mean of the weights, which is kept")
    recompute: bool | None = Field(None, description="keep less of a forward pass, compute it again in the backward pass")

    def in_whole_batches(self, count: int) -> int:
        """How many of ``count`` images fill whole batches.

        >>> Training(batch_size=64).in_whole_batches(50_000)
        49984
        """
        return count // self.batch_size * self.batch_size

    def num_parts(self, size: int) -> int:
        """Into how many parts a batch of ``size`` images is cut, none smaller than those of a whole batch.

        >>> Training(batch_size=64, accumulate=4).num_parts(64), Training(batch_size=64, accumulate=4).num_parts(47)
        (4, 2)
        """
        return max(1, size * (self.accumulate or 1) // self.batch_size)

    def num_steps(self, count: int) -> int:
        """Steps of one epoch over ``count`` images: the last, smaller batch may be left out.

        >>> Training(batch_size=32).num_steps(100), Training(batch_size=32, drop_last=False).num_steps(100)
        (3, 4)
        """
        return count // self.batch_size if self.drop_last else math.ceil(count / self.batch_size)

    def num_seen(self, count: int) -> int:
        """Images that a student sees in all epochs, of a train set of ``count``.

        >>> Training(epochs=2, batch_size=32).num_seen(100), Training(epochs=2, batch_size=32, drop_last=False).num_seen(100)
        (192, 200)
        """
        return self.epochs * (self.in_whole_batches(count) if self.drop_last else count)


class Arm(_Frozen):
    """One way to train: the students named in ``students`` (default all) with the seeds in ``seeds`` (default all).

    ``view_target``: the student of a view is shown the teacher's embedding of the "same" view, of the "clean" image, or the
    "mean" of its embeddings of all versions in the view's bank.
    ``student_view``: a further view on top of ``view`` that the student alone sees, drawn again in each epoch.
    ``view_bank``: only so many versions of each image, over all seeds and epochs, so that the teacher embeds few.
    ``training``: what differs from the study's; the settings left out are the study's.
    ``student``: settings of the network that this arm's students have otherwise, as ``{blur_pool: true}``; the label stays, and
    with it the order, the noise and, where shapes allow, the initial weights.
    """

    name: str
    objective: tuple[Objective, ...] = (Objective(name="cosine"),)
    target: Part | None = None
    view: Part | None = None
    view_target: Literal["same", "clean", "mean"] = "same"
    student_view: Part | None = None
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


class NoiseSweep(NoiseSpec):
    """Gaussian noise at test time. Sigma 0 is the clean condition and always measured.

    ``per_seed``: students of another seed are tested on other draws, so that an interval over seeds holds over draws too; the
    students of one seed share theirs. ``decides``: the sigma at which claims are judged, one of ``sigmas``, set before the run.
    """

    sigmas: tuple[Strength, ...] = (0.05, 0.1, 0.2)
    draws: int = Field(3, ge=1, le=10_000)
    seed: Seed = 0
    per_seed: bool = False
    decides: Strength | None = None

    @model_validator(mode="after")
    def _measured(self) -> NoiseSweep:
        if self.decides is not None and self.decides not in self.sigmas:
            known = ", ".join(f"{s:g}" for s in self.sigmas) or "of which there are none"
            raise UserError("noise.decides", f"one of noise.sigmas ({known})", f"{self.decides:g}", "Add it to noise.sigmas.")
        return self

    @property
    def spec(self) -> NoiseSpec:
        """Where and in which unit; what parts that add noise of their own take over where they set nothing else."""
        return NoiseSpec(**{key: getattr(self, key) for key in NoiseSpec.model_fields})


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

    @model_validator(mode="before")
    @classmethod
    def _training_of_arms(cls, values: Any) -> Any:
        """An arm's `training` says what differs from the study's: what it leaves out is the study's."""
        if not isinstance(values, Mapping) or not isinstance(values.get("arms"), (list, tuple)):
            return values
        common = values.get("training") or {}
        common = common.model_dump() if isinstance(common, Training) else common
        if not isinstance(common, Mapping):
            return values
        return {**values, "arms": [
            {**arm, "training": {**common, **arm["training"]}}
            if isinstance(arm, Mapping) and isinstance(arm.get("training"), Mapping) else arm for arm in values["arms"]]}

    @field_validator("seeds", mode="before")
    @classmethod
    def _one_seed(cls, value: Any) -> Any:
        return [value] if isinstance(value, int) else value

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        for what, names in (("students' labels", [s.label for s in self.students]),
                            ("arms' names", [a.name for a in self.arms]),
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
            seeds = arm.seeds or ()
            if len(set(seeds)) != len(seeds):
                raise UserError(f"arms.{arm.name}.seeds", "each seed once", str(list(seeds)), "Take the repeated one out.")
            for label in arm.students or ():
                if label not in [s.label for s in self.students]:
                    raise unknown_name(f"arms.{arm.name}.students", "student's label", label, [s.label for s in self.students])
        return self

    def target_of(self, arm: Arm) -> Part:
        """What the arm's students are trained towards: its own target, else the study's."""
        return arm.target or self.target

    def student_of(self, arm: Arm, label: str) -> Student:
        """The student of that label as the arm trains it."""
        spec = next(s for s in self.students if s.label == label)
        try:
            return Student.model_validate({**spec.model_dump(), **arm.student}) if arm.student else spec
        except ValidationError as error:
            at, expected, got = problem_of(error)
            raise UserError(f"arms.{arm.name}.student.{at}", expected, got, "Correct the value.") from None

    def training_of(self, arm: Arm) -> Training:
        """How the arm's students are trained: its own settings, else the study's."""
        return arm.training or self.training

    def dump(self) -> dict[str, Any]:
        """Plain values, every default written out; null stands only where an arm switches off what the study has on."""
        plain = self.model_dump(mode="json", exclude_none=True)
        common, networks = self.training.model_dump(), [s.model_dump() for s in self.students]
        for arm, written in zip(self.arms, plain["arms"], strict=True):
            if arm.training:
                written["training"].update(_switched_off(arm.training.model_dump(), common))
            written["student"].update(_switched_off(arm.student, *networks))
        return plain


def _switched_off(own: Mapping[str, Any], *common: Mapping[str, Any]) -> dict[str, None]:
    """The settings that are null in an arm and would not be if they were left out."""
    return {key: None for key, value in own.items() if value is None and any(c.get(key) is not None for c in common)}


def as_written(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Plain values of a study as this program wrote them (`Study.dump`), with what older versions left out: the nulls.

    They wrote all other settings of an arm's training, and there a setting that is not among them is off.
    """
    common, arms = values.get("training"), values.get("arms")
    if not isinstance(common, Mapping) or not isinstance(arms, list):
        return values
    fields = Training.model_fields
    off, always = dict.fromkeys(k for k in common if k in fields and fields[k].default is None), {
        k for k, field in fields.items() if field.default is not None}

    def whole(own: Any) -> bool:
        return isinstance(own, Mapping) and always <= own.keys()

    return {**values, "arms": [{**arm, "training": {**off, **arm["training"]}}
                               if isinstance(arm, Mapping) and whole(arm.get("training")) else arm for arm in arms]}
