"""From a preset or a YAML file, with path=value overrides, to a checked Study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from distillscope.config.overrides import apply_override
from distillscope.config.resolve import check_parts, resolved
from distillscope.config.study import Study
from distillscope.errors import UserError, unknown_name
from distillscope.files.json_reader import problem_of, unreadable
from distillscope.files.yaml_reader import read_yaml


def preset_names() -> list[str]:
    """The presets that come with the package."""
    folder = resources.files("distillscope.config") / "presets"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def load_preset(name: str, overrides: Sequence[str] = ()) -> Study:
    """A preset by its name, or a YAML file by its path, with ``path=value`` overrides.

    >>> load_preset("quickstart", ["seeds=[1, 2]", "training.epochs=1"]).seeds
    (1, 2)
    """
    where, values = _written(name)
    for override in overrides:
        apply_override(values, override)
    return study_from(values, where)


def preset_description(name: str) -> str:
    """What a preset says of itself; its parts are not looked up.

    >>> preset_description("quickstart")[:1].isupper()
    True
    """
    where, values = _written(name)
    return parse_study(values, where).description.strip()


def _written(name: str) -> tuple[str, dict[str, Any]]:
    """The plain values of a preset or a YAML file, and what to call it."""
    path = _path(name)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        if not path.is_file():
            raise UserError("run", "a preset's name or a YAML file that exists", f"'{name}'",
                            f"Presets: {', '.join(preset_names())}.")
        where, values = str(path), read_yaml(path)
    elif name in preset_names():
        where = name
        with resources.as_file(resources.files("distillscope.config") / "presets" / f"{name}.yaml") as file:
            values = read_yaml(file)
    else:
        raise unknown_name("run", "preset or YAML file", name, preset_names())
    if not isinstance(values, dict):
        raise UserError(where, "a mapping (key: value lines)", type(values).__name__,
                        "Start from a preset: `distillscope list presets`.")
    return where, values


def parse_study(values: Mapping[str, Any], where: str = "study") -> Study:
    """A Study of the right shape from plain values; what does not fit is said in one line. No part is looked up or imported."""
    try:
        return Study.model_validate(values)
    except ValidationError as error:
        raise _one_line(error, where) from None
    except (OSError, RuntimeError) as error:
        raise _no_path(error, where) from None


def study_from(values: Mapping[str, Any], where: str = "study") -> Study:
    """A Study to be run, from plain values: its shape, and every name and setting in it, are checked."""
    study = parse_study(values, where)
    try:
        study = resolved(study)
    except (OSError, RuntimeError) as error:
        raise _no_path(error, where) from None
    check_parts(study)
    return study


def _no_path(error: OSError | RuntimeError, where: str) -> UserError:
    """A name is looked up as a path: too long, closed, the home of nobody."""
    return UserError(where, "names and paths that can be looked up", unreadable(error), "Mend the path.")


def _path(name: str) -> Path:
    """The path that a name may be; where it can be none (NUL, the home of nobody), one that does not exist."""
    try:
        path = Path(name).expanduser()
        path.is_file()
    except (OSError, RuntimeError, ValueError):
        return Path()
    return path


def _one_line(error: ValidationError, where: str) -> UserError:
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
    return UserError(f"{where} {at}", expected, got, "It has no default." if first["type"] == "missing" else "Mend the value.")


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _model_in(inner)
        if found:
            return found
    return None


