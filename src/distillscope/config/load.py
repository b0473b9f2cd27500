"""From a preset or a YAML file, with ``--set PATH=VALUE``, to a checked Study."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ValidationError

from distillscope.config.resolve import check_parts, resolved
from distillscope.config.study import Study, as_written
from distillscope.errors import UserError, unknown_name
from distillscope.files.json_reader import problem_of, shown, unreadable
from distillscope.files.writing import RUN_MARKS
from distillscope.files.yaml_reader import Refused, parse_plain, read_yaml

LONGEST_PATH = 20
"""Steps of a dotted path; no setting lies deeper."""
SINGULAR = {"student": ["students"], "arm": ["arms"],
            **{key: ["arms", key] for key in ("objective", "view", "view_target", "view_bank", "student_view",
                                             "projector")}}
"""What a path may begin with instead of the study's own key: where there is one student or one arm, it needs no name."""


def preset_names() -> list[str]:
    """The presets that come with the package."""
    return names_in("presets")


def names_in(folder: Literal["presets", "recipes"]) -> list[str]:
    """The YAML files of one folder of the package, by their names."""
    files = (resources.files("distillscope.config") / folder).iterdir()
    return sorted(f.name.removesuffix(".yaml") for f in files if f.name.endswith(".yaml"))


def load_preset(name: str, overrides: Sequence[str] = ()) -> Study:
    """A preset by its ``name``, or a YAML file by its path, with ``path=value`` ``overrides``; checked, and nothing is run.

    A name, key or value that is not known is a `UserError` that says where it stands and what was meant.

    >>> load_preset("quickstart", ["seeds=[1, 2]", "training.epochs=1"]).seeds
    (1, 2)
    """
    where, values = read_named(name, "presets")
    if _is_of_a_run(_path(name)):
        values = dict(as_written(values))
    for override in overrides:
        apply_override(values, override)
    return study_from(values, where)


def _is_of_a_run(path: Path) -> bool:
    return any(path.name in marks and all((path.parent / mark).is_file() for mark in marks) for marks in RUN_MARKS)


def preset_description(name: str) -> str:
    """What a preset says of itself; its parts are not looked up.

    >>> preset_description("quickstart")[:1].isupper()
    True
    """
    where, values = read_named(name, "presets")
    return parse_study(values, where).description.strip()


def read_named(name: str, folder: Literal["presets", "recipes"]) -> tuple[str, dict[str, Any]]:
    """The plain values of a preset, a recipe or a YAML file, and what to call it."""
    path, asked, kind = _path(name), {"presets": "run", "recipes": "--recipe"}[folder], folder.removesuffix("s")
    if path.suffix in (".yaml", ".yml") or path.is_file():
        if not path.is_file():
            raise UserError(asked, f"a {kind}'s name or a YAML file that exists", f"'{name}'",
                            f"{folder.capitalize()}: {', '.join(names_in(folder))}.")
        where, values = str(path), read_yaml(path)
    elif name in names_in(folder):
        where = name
        with resources.as_file(resources.files("distillscope.config") / folder / f"{name}.yaml") as file:
            values = read_yaml(file)
    else:
        raise unknown_name(asked, f"{kind} or YAML file", name, names_in(folder))
    if not isinstance(values, dict):
        raise UserError(where, "a mapping (key: value lines)", type(values).__name__,
                        f"Start from a {kind}: `distillscope list {folder}`.")
    return where, values


def parse_study(values: Mapping[str, Any], where: str = "study") -> Study:
    """A Study of the right shape from plain values; what does not fit is said in one line. No part is looked up or imported."""
    try:
        return Study.model_validate(values)
    except ValidationError as error:
        raise one_line(error, where) from None
    except (OSError, RuntimeError) as error:
        raise _no_path(error, where) from None


def study_from(values: Mapping[str, Any], where: str = "study", given: Container[str] = ()) -> Study:
    """A Study to be run, from plain values: its shape, and every name and setting in it, are checked.

    ``given`` as of `resolve.check_parts`.
    """
    study = parse_study(values, where)
    try:
        study = study if "data" in given else resolved(study)
    except (OSError, RuntimeError) as error:
        raise _no_path(error, where) from None
    check_parts(study, given)
    return study


def _no_path(error: OSError | RuntimeError, where: str) -> UserError:
    """A name is looked up as a path: too long, closed, the home of nobody."""
    return UserError(where, "names and paths that can be looked up", unreadable(error), "Correct the path.")


def _path(name: str) -> Path:
    """The path that a name may be; where it can be none (NUL, the home of nobody), one that does not exist."""
    try:
        path = Path(name).expanduser()
        path.is_file()
    except (OSError, RuntimeError, ValueError):
        return Path()
    return path


def one_line(error: ValidationError, where: str) -> UserError:
    """The first thing that does not fit a Study or a part of one."""
    first = error.errors()[0]
    nested = first.get("ctx", {}).get("error")
    if isinstance(nested, UserError):
        return nested
    if first["type"] == "extra_forbidden":
        at = ".".join(str(p) for p in first["loc"])
        owner: type[BaseModel] = Study
        for step in first["loc"][:-1]:
            field = owner.model_fields.get(str(step)) if isinstance(owner, type) and issubclass(owner, BaseModel) else None
            if field is not None:
                owner = _model_in(field.annotation) or owner
        return unknown_name(f"{where} {at}", "key", str(first["loc"][-1]), owner.model_fields)
    at, expected, got = problem_of(error)
    todo = "It has no default." if first["type"] == "missing" else "Correct the value."
    return UserError(f"{where} {at}", expected, got, todo)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _model_in(inner)
        if found:
            return found
    return None


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set one dotted path: ``training.epochs=3``, ``students.0.width=2``, ``students.S.width=2``, ``seeds=[1,2]``.

    A step into a list is an index, or the label or name of an item; into a one-item list, the item's own key:
    ``teacher.weights=FILE``, ``student.width=2``, ``objective.temperature=0.1``.

    >>> values = {"students": [{"name": "paper_cnn"}], "arms": [{"name": "a", "objective": "infonce"}]}
    >>> apply_override(values, "student.width=2"), apply_override(values, "objective.temperature=0.1")
    (None, None)
    >>> values["students"], values["arms"][0]["objective"]
    ([{'name': 'paper_cnn', 'width': 2}], {'name': 'infonce', 'temperature': 0.1})
    """
    path, equals, text = override.partition("=")
    path = path.strip()
    if not equals or not path:
        raise UserError("--set", "path=value", f"'{override}'", "For instance --set training.epochs=3.")
    value = _value(path, text)
    first, *rest = path.split(".")
    steps = [*(SINGULAR.get(first, [first]) if first not in values else [first]), *rest]
    if len(steps) > LONGEST_PATH:
        raise UserError("--set", f"a path of at most {LONGEST_PATH} steps", shown(path, 40), "Shorten the path.")
    here: Any = values
    for step in steps[:-1]:
        here, key = _place(here, step, path)
        child = here[key] if isinstance(here, list) or key in here else {}
        child = {"name": child} if isinstance(child, str) else child
        if not isinstance(child, (dict, list)):
            raise UserError(f"--set {path}", f"a mapping at '{step}'", shown(child), "Shorten the path.")
        here[key] = child
        here = child
    here, key = _place(here, steps[-1], path)
    here[key] = value


def _place(here: Any, step: str, path: str) -> tuple[Any, Any]:
    """The list or mapping that ``step`` leads into, and the index or key there."""
    if not isinstance(here, list):
        return here, step
    names = [i.get("label", i.get("name")) if isinstance(i, dict) else i for i in here]
    if step.isascii() and step.isdigit() and len(step) < 10 and int(step) < len(here):
        return here, int(step)
    if step in names:
        return here, names.index(step)
    if len(here) == 1 and isinstance(here[0], str):
        here[0] = {"name": here[0]}
    if len(here) == 1 and isinstance(here[0], dict):
        return here[0], step
    raise unknown_name(f"--set {path}", "index or name", step, map(str, names))


def _value(path: str, text: str) -> Any:
    """What --set is given: YAML, or, where it is none, the text itself (paths and names hold what YAML has other uses for)."""
    try:
        return parse_plain(text)
    except Refused as error:
        raise UserError(f"--set {path}", "plain YAML", str(error.problem), str(error.context)) from None
    except yaml.YAMLError:
        return text
