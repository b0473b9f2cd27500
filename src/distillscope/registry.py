"""Name -> function, for every kind of part.

A part is one function in one file of its kind's folder, registered by a decorator::

    @objectives.register("mse")
    def mse(student, teacher, *, reduction: str = "mean"):
        "Mean squared error of the raw embeddings."

What the program hands over is positional, what the user sets is keyword-only; so YAML's ``{name: mse, reduction: sum}``
can be checked against the signature before any work starts. The first docstring line is what ``distillscope list``
prints. All files of the folder are imported at the first look-up: dropping a file in is all it takes.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from distillscope.errors import UserError, unknown_name
from distillscope.files.json_reader import shown

Seed = Annotated[int, Field(gt=-(2**63), lt=2**63)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Strength = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Size = Annotated[int, Field(ge=1)]
"""Ranges that a setting may be annotated with; they are checked with its type."""


class Registry:
    """The parts of one kind. ``package`` is the folder whose files register them."""

    def __init__(self, kind: str, package: str) -> None:
        self.kind, self.package = kind, package
        self._parts: dict[str, Callable[..., Any]] = {}
        self._further: dict[str, tuple[str, Registry]] = {}
        self._loaded = False

    def register(self, name: str, *, further: tuple[str, Registry] | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register the decorated function under ``name``; a name that is taken raises.

        ``further=("target", targets)``: the function takes ``**settings``, which are those of the target that its own setting
        ``target`` names, and are checked as that target's.
        """

        def add(function: Callable[..., Any]) -> Callable[..., Any]:
            known = self._parts.get(name)
            if known is not None and (known.__module__, known.__qualname__) != (function.__module__, function.__qualname__):
                raise ValueError(f"{self.kind} '{name}' is registered twice: {known.__module__} and {function.__module__}")
            self._parts[name] = function
            if further:
                self._further[name] = further
            return function

        return add

    def _load(self) -> None:
        if not self._loaded:
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{self.package}.{module.name}")
            self._loaded = True

    def __iter__(self):
        self._load()
        return iter(sorted(self._parts))

    def __getitem__(self, name: str) -> Callable[..., Any]:
        return self.get(name)

    def get(self, name: str, where: str | None = None) -> Callable[..., Any]:
        """The function of that name, or a UserError that lists the known ones."""
        self._load()
        if not isinstance(name, str) or name not in self._parts:
            raise unknown_name(where or self.kind, self.kind, str(name), self._parts)
        return self._parts[name]

    def summary(self, name: str) -> str:
        """First line of the part's docstring."""
        return (inspect.getdoc(self.get(name)) or "").split("\n")[0]

    def settings(self, name: str) -> dict[str, inspect.Parameter]:
        """The keyword-only parameters: what a user may set."""
        parameters = inspect.signature(self.get(name)).parameters.values()
        return {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}

    def needs(self, name: str) -> list[str]:
        """The positional parameters: what the program hands over."""
        parameters = inspect.signature(self.get(name)).parameters.values()
        return [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]

    def check(self, name: str, given: Mapping[str, Any], where: str | None = None) -> dict[str, Any]:
        """``given`` with each value checked and converted to its annotated type; nothing is called."""
        where = where or self.kind
        function, known = self.get(name, f"{where}.name"), self.settings(name)
        plain, hints = typing.get_type_hints(function), typing.get_type_hints(function, include_extras=True)
        if name in self._further:
            setting, other = self._further[name]
            chosen = given.get(setting, known[setting].default)
            other.get(chosen, f"{where}.{setting}")
            rest = other.check(chosen, {k: v for k, v in given.items() if k not in known}, where)
            given = {k: v for k, v in given.items() if k in known}
        else:
            rest = {}
        for key in given:
            if key not in known:
                raise unknown_name(f"{where}.{key}", f"setting of {self.kind} '{name}'", key, known or ["(none)"])
        missing = [k for k, p in known.items() if p.default is p.empty and k not in given]
        if missing:
            raise UserError(f"{where}.{missing[0]}", f"a value ({self.kind} '{name}' needs it)", "nothing",
                            f"Set {where}.{missing[0]}=...")
        checked = {}
        for key, value in given.items():
            try:
                adapter = TypeAdapter(hints.get(key, Any), config=ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False))
                checked[key] = adapter.validate_python(value)
            except ValidationError as error:
                raise UserError(f"{where}.{key}", str(plain[key]).replace("<class '", "").replace("'>", ""),
                                shown(value), error.errors()[0]["msg"] + ".") from None
        return {**checked, **rest}

    def call(self, name: str, given: Mapping[str, Any], *context: Any, where: str | None = None) -> Any:
        """Check the settings, then call the part with the context and them."""
        checked = self.check(name, given, where)
        return self.get(name)(*context, **checked)


datasets = Registry("dataset", "distillscope.data")
views = Registry("view", "distillscope.data")
teachers = Registry("teacher", "distillscope.teachers")
students = Registry("student", "distillscope.students")
objectives = Registry("objective", "distillscope.objectives")
targets = Registry("target", "distillscope.targets")
projectors = Registry("projector", "distillscope.objectives")
stresses = Registry("stress", "distillscope.stress")
corruptions = Registry("corruption", "distillscope.data")
remedies = Registry("remedy", "distillscope.remedies")
measures = Registry("measure", "distillscope.measure")
claims = Registry("claim", "distillscope.claims")

KINDS: dict[str, Registry] = {
    "remedies" if r is remedies else f"{r.kind}{'es' if r.kind.endswith('s') else 's'}": r
    for r in (datasets, views, teachers, students, objectives, targets, projectors, stresses, corruptions, remedies, measures,
              claims)
}
