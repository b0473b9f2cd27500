"""The names in a study, looked up: what is run needs this, and what only reads a run does not. Here the parts are imported."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Container
from typing import Any

from pydantic import ValidationError

from distillscope import registry
from distillscope.config.parts import Dataset, NoiseSpec, Part, data_kind
from distillscope.config.study import Arm, Study
from distillscope.errors import UserError
from distillscope.files.json_reader import problem_of, unreadable


def named_dataset(value: Any, option: str = "--data") -> Dataset:
    """The data set that a name, a path, ``owner/name`` of the Hub, or a mapping stands for; ``option`` is how it was given.

    >>> named_dataset("digits").name, named_dataset("somebody/pictures").settings
    ('digits', {'path': 'somebody/pictures'})
    """
    try:
        found = _read_by(Dataset.model_validate(value))
    except ValidationError as error:
        refused = error.errors()[0].get("ctx", {}).get("error")  # what a validator refuses itself comes wrapped
        if isinstance(refused, UserError):
            raise refused from None
        at, expected, got = problem_of(error)
        raise UserError(f"{option} {at}".strip(), expected, got, "Give a name, a path, or {path: ..., label: ...}.") from None
    except (OSError, RuntimeError) as error:
        raise UserError(option, "a name, or a path that can be looked up", unreadable(error), "Correct the path.") from None
    if found.name not in registry.datasets:
        near = difflib.get_close_matches(found.name, registry.datasets, n=1)
        raise UserError(option, f"images: a folder, a file that lists or holds them, owner/name on the Hub, or one of "
                        f"{', '.join(sorted(registry.datasets))}", f"'{found.name}'", f"Did you mean '{near[0]}'?" if near else
                        "Images go into a folder, or are listed in a .csv or .jsonl file.")
    return found


def _read_by(data: Dataset) -> Dataset:
    """The data set with the name of the function that reads it, where its own is a path."""
    if data.name in registry.datasets and data.settings.get("path") != data.name:
        return data
    found = data_kind(data.name)
    return Dataset.model_validate({"path": data.name, **data.model_dump(), "name": found}) if found else data


def resolved(study: Study) -> Study:
    """The study with every path in place of a data set's name replaced by the name of the function that reads it."""
    return study.model_copy(update={"data": tuple(map(_read_by, study.data))})


def check_parts(study: Study, given: Container[str] = ()) -> None:
    """Check every part's name and settings against the function that it names, before any work starts.

    ``given``: of "data", "teacher" and "students", those that a caller handed over, so that no function is named.
    """
    for where, kind, parts in (("data", registry.datasets, study.data), ("teacher", registry.teachers, study.teacher),
                               ("students", registry.students, study.students), ("target", registry.targets, [study.target])):
        for part in parts if where not in given else ():
            if where in ("teacher", "students"):
                _check_library(kind, part.name, where)
            kind.check(part.name, part.settings, where)
    for stress in study.stresses:
        registry.stresses.check(stress.name, stress.settings, f"stresses.{stress.name}")
    for remedy in study.remedies:
        registry.remedies.check(remedy.name, remedy.settings, f"remedies.{remedy.name}")
    for arm in study.arms:
        check_arm_parts(arm)
        labels = [s.label for s in study.students if arm.student and s.label in (arm.students or [s.label])]
        for spec in (study.student_of(arm, label) for label in labels):
            registry.students.check(spec.name, spec.settings, f"arms.{arm.name}.student")


def check_arm_parts(arm: Arm) -> None:
    """Names, settings and weights, and that a term over two views has them."""
    where = f"arms.{arm.name}"
    if sum(o.weight for o in arm.objective) == 0:
        raise UserError(f"{where}.objective", "weights that sum to more than 0", "0", "Give one term a weight.")
    for objective in arm.objective:
        registry.objectives.check(objective.name, objective.settings, f"{where}.objective")
        if objective.weight and arm.view_target == "mean" and "teacher_logits" in registry.objectives.needs(objective.name):
            raise UserError(f"{where}.view_target", f"same or clean beside {objective.name}, since logits have no mean kept",
                            "mean", f"Set {where}.view_target=same.")
        if objective.weight and arm.view is None and "other" in registry.objectives.needs(objective.name):
            raise UserError(f"{where}.objective", f"a view, since {objective.name} compares two views", "none",
                            f"Set {where}.view=crop_flip.")
    spans = [o.during or (0.0, 1.0) for o in arm.objective if o.weight]
    for at in sorted({0.0, *(end for _, end in spans if end < 1)}):
        if not any(begins <= at < ends for begins, ends in spans):
            raise UserError(f"{where}.objective", "a term that counts at every time of the training",
                            f"none after {100 * at:g} % of it", "Set `during` of its terms so that one follows the other.")
    named = sorted({"name", "model", "label"} & arm.student.keys())
    if named:
        raise UserError(f"{where}.student", "settings of the network", named[0],
                        "Another network is another student: add it to students.")
    for key, kind, part in (("target", registry.targets, arm.target), ("view", registry.views, arm.view),
                            ("student_view", registry.views, arm.student_view),
                            ("projector", registry.projectors, arm.projector)):
        if part:
            kind.check(part.name, part.settings, f"{where}.{key}")
    if arm.view is None and (arm.view_target != "same" or arm.view_bank or arm.student_view):
        raise UserError(f"{where}.view", "a view, since view_target, view_bank or student_view is set", "none",
                        f"Set {where}.view=noise.")
    if arm.view_target == "mean" and (arm.view_bank or 0) < 2:
        raise UserError(f"{where}.view_bank", "2 versions or more, since view_target is their mean",
                        str(arm.view_bank or "none"), f"Set {where}.view_bank=8.")


def _check_library(kind: registry.Registry, name: str, where: str) -> None:
    """A model of timm that is named without its library is no unknown name."""
    if name in set(kind):
        return
    timm = importlib.import_module("timm")  # as the registries import parts: only where a study is to be run
    if timm.is_model(name.split(".")[0]):
        raise UserError(where, f"a known {kind.kind}", f"'{name}', a model of timm", f"Write timm/{name}.")
    if not difflib.get_close_matches(name, kind, n=1) and (near := difflib.get_close_matches(name, timm.list_models(), n=1)):
        raise UserError(where, f"a known {kind.kind}", f"'{name}'", f"Did you mean timm/{near[0]}? Known: {', '.join(kind)}.")


def with_noise(study: Study) -> Study:
    """The study with its own where, unit, clip and std in every stress, remedy and view of noise that does not say otherwise.

    A part of noise is one that takes a `NoiseSpec`. What is run is this; study.yaml keeps what was written.
    """
    arms = tuple(a.model_copy(update={key: _noisy(study, registry.views, part) for key in ("view", "student_view")
                                      if (part := getattr(a, key))}) for a in study.arms)
    return study.model_copy(update={"arms": arms,
                                    "stresses": tuple(_noisy(study, registry.stresses, s) for s in study.stresses),
                                    "remedies": tuple(_noisy(study, registry.remedies, r) for r in study.remedies)})


def _noisy(study: Study, kind: registry.Registry, part: Part) -> Part:
    if not kind.takes(part.name, NoiseSpec):
        return part
    return part.model_copy(update={k: v for k, v in study.noise.spec.model_dump().items() if k not in part.settings})
