"""``--set PATH=VALUE``: one grammar for `run` and `distill`."""

from __future__ import annotations

from typing import Any

import yaml

from distillscope.errors import UserError, unknown_name
from distillscope.files.json_reader import shown
from distillscope.files.yaml_reader import Refused, parse_plain

LONGEST_PATH = 20
"""Steps of a dotted path; no setting lies deeper."""

SINGULAR = {"student": ["students"], "arm": ["arms"], "objective": ["arms", "objective"]}
"""What a path may begin with instead of the study's own key: where there is one student or one arm, it needs no name."""


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
