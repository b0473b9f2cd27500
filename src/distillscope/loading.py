"""From a preset or a YAML file, with path=value overrides, to a checked Study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from distillscope.config import Study
from distillscope.errors import UserError, unknown_name


def preset_names() -> list[str]:
    """The presets that come with the package."""
    folder = resources.files("distillscope") / "presets"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def load_preset(name: str, overrides: Sequence[str] = ()) -> Study:
    """A preset by its name, or a YAML file by its path, with ``path=value`` overrides.

    >>> load_preset("quickstart", ["seeds=[1, 2]", "training.epochs=1"]).seeds
    (1, 2)
    """
    path = Path(name).expanduser()
    if path.suffix in (".yaml", ".yml") or path.is_file():
        if not path.is_file():
            raise UserError("run", "a preset's name or a YAML file that exists", f"'{name}'",
                            f"Presets: {', '.join(preset_names())}.")
        where = str(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(where, "a text file in UTF-8", type(error).__name__, "Save it as UTF-8.") from None
    elif name in preset_names():
        where, text = name, (resources.files("distillscope") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
    else:
        raise unknown_name("run", "preset or YAML file", name, preset_names())
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(where, "YAML", " ".join(str(error).split())[:200], "Mend that line.") from None
    if not isinstance(values, dict):
        raise UserError(where, "a mapping (key: value lines)", type(values).__name__,
                        "Start from a preset: `distillscope list presets`.")
    for override in overrides:
        apply_override(values, override)
    return study_from(values, where)


def study_from(values: Mapping[str, Any], where: str = "study") -> Study:
    """A checked Study from plain values; what does not fit is said in one line."""
    try:
        study = Study.model_validate(values)
    except ValidationError as error:
        raise _one_line(error, where) from None
    study.check_parts()
    return study


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set one dotted path: ``training.epochs=3``, ``students.0.width=2``, ``students.S.width=2``, ``seeds=[1,2]``.

    A step into a list is an index, or the label or name of an item; into a one-item list, the item's own key
    (``teacher.weights=FILE``).
    """
    path, equals, text = override.partition("=")
    if not equals or not path.strip():
        raise UserError("--set", "path=value", f"'{override}'", "For instance --set training.epochs=3.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    *steps, last = path.strip().split(".")
    here: Any = values
    for depth, step in enumerate([*steps, last]):
        if isinstance(here, list):
            names = [i.get("label", i.get("name")) if isinstance(i, dict) else i for i in here]
            if step.isdigit() and int(step) < len(here):
                here, index = here, int(step)
            elif step in names:
                index = names.index(step)
            elif len(here) == 1 and isinstance(here[0], dict):
                here, index = here[0], step
            else:
                raise unknown_name(f"--set {path}", "index or name", step, map(str, names))
        else:
            index = step
        if depth == len(steps):
            here[index] = value
            return
        child = here[index] if isinstance(index, int) or index in here else {}
        if isinstance(child, str):
            child = {"name": child}
        if not isinstance(child, (dict, list)):
            raise UserError(f"--set {path}", f"a mapping at '{step}'", repr(child), "Shorten the path.")
        here[index] = child
        here = child


def _one_line(error: ValidationError, where: str) -> UserError:
    first = error.errors()[0]
    nested = first.get("ctx", {}).get("error")
    if isinstance(nested, UserError):
        return nested
    at = ".".join(str(p) for p in first["loc"])
    if first["type"] == "extra_forbidden":
        owner = Study
        for step in first["loc"][:-1]:
            field = owner.model_fields.get(str(step)) if isinstance(owner, type) and issubclass(owner, BaseModel) else None
            if field is not None:
                owner = _model_in(field.annotation) or owner
        return unknown_name(f"{where} {at}", "key", str(first["loc"][-1]), owner.model_fields)
    todo = "It has no default." if first["type"] == "missing" else "Mend the value."
    got = "nothing" if first["type"] == "missing" else repr(first["input"])[:80]
    expected = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return UserError(f"{where} {at}", "a value" if first["type"] == "missing" else expected, got, todo)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _model_in(inner)
        if found:
            return found
    return None


