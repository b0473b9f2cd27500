"""Recipes: how one student is trained, as a piece of a study's YAML; and the study of one student that follows one."""

from __future__ import annotations

import copy
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from distillscope import registry
from distillscope.config.load import apply_override, names_in, one_line, parse_study, read_named, study_from
from distillscope.config.parts import Student
from distillscope.config.study import Arm, Study
from distillscope.errors import UserError, unknown_name

DEFAULT_RECIPE = "robust"
"""What `distill` follows where no recipe is named."""
FIRST_RECIPE = "paper"
"""What `distill` did before there were recipes."""
OF_AN_ARM = ("objective", "view", "view_target", "view_bank", "student_view", "projector")
OF_A_STUDY = ("target", "training")
SEED = 42


@dataclass(frozen=True)
class Recipe:
    """A checked recipe: its keys are those of a study's arm, and ``target`` and ``training``, as a study's YAML has them."""

    name: str
    description: str
    written: Mapping[str, Any]

    @property
    def arm(self) -> Arm:
        """The arm that it is, its target and training written out."""
        return Arm.model_validate({"name": self.name, "target": "none", "training": {}, **self.written})

    def of_a_study(self) -> dict[str, Any]:
        """Plain values of a study with this one arm."""
        values = copy.deepcopy(dict(self.written))  # overrides are written into them
        arm = {key: values.pop(key) for key in OF_AN_ARM if key in values}
        return {"arms": [{"name": self.name, **arm}], **values}


def recipe_names() -> list[str]:
    """The recipes that come with the package.

    >>> DEFAULT_RECIPE in recipe_names(), FIRST_RECIPE in recipe_names()
    (True, True)
    """
    return names_in("recipes")


def read_recipe(name: str | Path | Mapping[str, Any]) -> Recipe:
    """A recipe by its name, a YAML file by its path, or its values: they are checked, parts are not looked up.

    >>> read_recipe("paper").arm.objective_name, read_recipe("paper").arm.training.learning_rate
    ('cosine', 0.001)
    """
    name = str(name) if isinstance(name, Path) else name
    if not isinstance(name, (str, Mapping)):
        raise UserError("recipe", "a name, a YAML file or a mapping", type(name).__name__, f"For instance {DEFAULT_RECIPE!r}.")
    where, values = read_named(name, "recipes") if isinstance(name, str) else ("recipe", dict(name))
    known = ("name", "description", *OF_AN_ARM, *OF_A_STUDY)
    for key in values:
        if key in Study.model_fields and key not in known:
            raise UserError(f"{where} {key}", f"what a recipe says: {', '.join(known[2:])}", f"'{key}', a study's key",
                            "Leave it to the command line (--student, --data, --seed), or `distillscope run` the whole study.")
        if key not in known:
            raise unknown_name(f"{where} {key}", "key of a recipe", str(key), known)
    called = values.get("name", Path(name).stem if isinstance(name, str) else "own")
    for key, text in (("name", called), ("description", values.get("description", ""))):
        if not isinstance(text, str):
            raise UserError(f"{where} {key}", "text", repr(text), "Put it in quotes.")
    found = Recipe(called, str(values.get("description", "")).strip(),
                   {key: value for key, value in values.items() if key not in ("name", "description") and value is not None})
    try:
        Arm.model_validate({"name": called, **found.written})
    except ValidationError as error:
        raise one_line(error, where) from None
    return found


def one_student(name: str, teacher: Any, data: Any, student: Any = "paper_cnn", *,
                recipe: str | Path | Mapping = DEFAULT_RECIPE, objective: str | None = None, dim: int | None = None,
                seed: int | None = None, corrupt: str = "error", overrides: Sequence[str] = (),
                given: Container[str] = ()) -> Study:
    """A checked study of one teacher, data set, arm, student and seed, without noise; ``overrides`` as of `--set`.

    The arm is the recipe, with ``objective`` and ``overrides`` in place of its own. ``dim``: embeddings of so many dimensions,
    by the target's own setting, or towards the teacher's leading principal directions. What a student sees where nothing is
    said is its network's own (`facts.StudentFacts`). The description says what was changed and what was assumed.
    ``given`` as of `resolve.check_parts`.

    >>> study = one_student("mine", "efficientnet_lite0", "digits", overrides=["student.width=2", "training.epochs=1"])
    >>> study.students[0].settings["width"], study.training.epochs, study.seeds
    (2, 1, (42,))
    >>> study.description
    'robust, but for its training.epochs'
    """
    followed = read_recipe(recipe)
    data, teacher, student = ({"name": part} if isinstance(part, str) else dict(part) for part in (data, teacher, student))
    values = {"name": name, "data": [data], "teacher": [teacher], "students": [student],
              **followed.of_a_study(), "seeds": [SEED if seed is None else seed], "corrupt": corrupt, "noise": {"sigmas": []}}
    if objective is not None:
        values["arms"][0]["objective"] = [{"name": objective}]
    for override in overrides:
        apply_override(values, override)
    _check_target(values.get("target"))
    _check_single(parse_study(values, "distill"))
    assumed = []
    if dim is not None:
        values["target"] = _target_of(values.get("target"), dim)
        if values["target"] == {"name": "pca", "dim": dim}:
            assumed.append(f"{dim} dimensions: the teacher's leading principal directions on train (target.safetensors)")
    values["students"] = [_as_mapping(values["students"])]
    assumed += _own_input(values["students"][0])
    study = study_from(values, "distill", given)
    changed = _changed(followed.arm, study)
    said = followed.name + (f", but for its {', '.join(changed)}" if changed else "")
    return study.model_copy(update={"description": "; ".join([said, *assumed])})


def _check_single(study: Study) -> None:
    """One student is trained, and nothing is measured beside it: what else is asked for would be left out in silence."""
    for key in ("data", "teacher", "students", "arms", "seeds"):
        if len(getattr(study, key)) > 1:
            raise UserError(f"distill {key}", "one", str(len(getattr(study, key))), "Name one, or `distillscope run` a study.")
    for key in ("stresses", "remedies"):
        if asked := getattr(study, key):
            raise UserError(f"distill {key}", "none, since only a study measures them", asked[0].name,
                            "Leave it out, or `distillscope run` a study.")


def _check_target(target: Any) -> None:
    """A setting of the target where the recipe has none lacks the name."""
    if isinstance(target, Mapping) and target and "name" not in target:
        key, value = next(iter(target.items()))
        raise UserError(f"target.{key}", "a target's name too, since the recipe has no target", f"{value} alone",
                        f"Write target={{name: pca, {key}: {value}}}, or give the dimension by itself (--dim, dim=).")


def _as_mapping(students: Any) -> dict[str, Any]:
    """The only student's own values: `--set students=NAME` gives a name in place of a list."""
    student = students if isinstance(students, (str, Mapping)) else students[0]
    return {"name": student} if isinstance(student, str) else dict(student)


def _target_of(target: Any, dim: int) -> dict[str, Any]:
    """The target with ``dim`` dimensions: its own setting, or, where nothing is done to the embeddings, `pca`."""
    target = {"name": target} if isinstance(target, str) else dict(target or {"name": "none"})
    if target.get("name") == "none":
        return {"name": "pca", "dim": dim}
    if "dim" not in registry.targets.settings(str(target.get("name"))):
        raise UserError("--dim", "a target with a setting `dim`, or none", f"the target {target.get('name')}",
                        "Leave --dim out, or --set target=pca.")
    return {**target, "dim": dim}


def _own_input(student: dict[str, Any]) -> list[str]:
    """Fill in what the network was made to see where the student's values do not say it; in words, what was filled in."""
    named = Student.model_validate(student)
    own = registry.students.facts(named.name).own_input if named.name in registry.students else None
    filled = {key: value for key, value in (own(named.settings) if own else {}).items() if key not in student}
    student.update(filled)
    words = [f"{value} px" if key == "image_size" else key for key, value in filled.items()]
    return [f"{named.label} sees its own {', '.join(words)}, since nothing else was said"] if words else []


def _changed(recipe: Arm, study: Study) -> list[str]:
    """Which of the recipe's settings the study has otherwise."""
    arm = study.arms[0].model_copy(update={"target": study.target_of(study.arms[0])})
    training = study.training_of(study.arms[0])
    return [*(key for key in (*OF_AN_ARM, "target") if getattr(arm, key) != getattr(recipe, key)),
            *(f"training.{key}" for key in type(training).model_fields
              if recipe.training is None or getattr(training, key) != getattr(recipe.training, key))]
