"""Name -> function, for every kind of part.

A part is one function in one file of its kind's folder, registered by a decorator::

    @objectives.register("mse", family="regression")
    def mse(student, teacher, *, reduction: str = "mean"):
        "Mean squared error of the raw embeddings."

What the program hands over is positional, what the user sets is keyword-only; so YAML's ``{name: mse, reduction: sum}``
can be checked against the signature before any work starts. The first docstring line is what ``distillscope list``
prints. All files of the folder are imported at the first look-up: dropping a file in is all it takes.

What the program must know of a part is said where it is registered, as the facts of its kind (`facts`); a misspelt one is an
error. `declared` reads them from the files without importing these, for readers that must not import torch.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import inspect
import pkgutil
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from distillscope.errors import UserError, unknown_name
from distillscope.facts import (
    ClaimFacts,
    CurveFacts,
    Facts,
    MeasureFacts,
    ObjectiveFacts,
    RemedyFacts,
    StressFacts,
    StudentFacts,
    TargetFacts,
    ViewFacts,
)
from distillscope.files.json_reader import shown

Seed = Annotated[int, Field(gt=-(2**63), lt=2**63)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Strength = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Size = Annotated[int, Field(ge=1)]
"""Ranges that a setting may be annotated with; they are checked with its type."""


F = TypeVar("F", bound=Facts)
Function = Callable[..., Any]


@dataclass(frozen=True)
class Declared(Generic[F]):
    """What a part says of itself in its file: its facts, as far as they are plain values, and what it is handed."""

    facts: F
    needs: tuple[str, ...]


class Registry(Generic[F]):
    """The parts of one kind. ``package`` is the folder whose files register them, ``kind_of_facts`` what they may say."""

    def __init__(self, kind: str, package: str, kind_of_facts: type[F]) -> None:
        self.kind, self.package, self.kind_of_facts = kind, package, kind_of_facts
        self._parts: dict[str, Function] = {}
        self._facts: dict[str, F] = {}
        self._loaded = False

    @property
    def plural(self) -> str:
        """What the kind is called where there are several, as the registry itself is named.

        >>> objectives.plural, remedies.plural, stresses.plural
        ('objectives', 'remedies', 'stresses')
        """
        return f"{self.kind[:-1]}ies" if self.kind.endswith("y") else f"{self.kind}{'es' if self.kind.endswith('s') else 's'}"

    def register(self, name: str, **facts: Any) -> Callable[[Function], Function]:
        """Register the decorated function under ``name`` with facts of its kind; a name that is taken raises."""
        where, fields = f"@{self.plural}.register('{name}')", self.kind_of_facts.model_fields
        for key in facts:
            if key not in fields:
                raise unknown_name(where, f"fact of a {self.kind}", key, fields)
        try:
            said = self.kind_of_facts(**facts)
        except ValidationError as error:
            wrong = error.errors()[0]
            raise UserError(f"{where} {wrong['loc'][0]}", "a value of its type", shown(facts.get(str(wrong["loc"][0]))),
                            f"{wrong['msg']}.") from None

        def add(function: Function) -> Function:
            known = self._parts.get(name, function)
            if (known.__module__, known.__qualname__) != (function.__module__, function.__qualname__):
                raise ValueError(f"{self.kind} '{name}' is registered twice: {known.__module__} and {function.__module__}")
            self._parts[name], self._facts[name] = function, said
            return function

        return add

    def _load(self) -> None:
        if not self._loaded:
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{self.package}.{module.name}")
            self._loaded = True

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._parts))

    def __getitem__(self, name: str) -> Function:
        return self.get(name)

    def get(self, name: str, where: str | None = None) -> Function:
        """The function of that name, or a UserError that lists the known ones."""
        self._load()
        if not isinstance(name, str) or name not in self._parts:
            raise unknown_name(where or self.kind, self.kind, str(name), self._parts)
        return self._parts[name]

    def facts(self, name: str) -> F:
        """What was said of the part where it is registered."""
        self.get(name)
        return self._facts[name]

    def declared(self, name: str) -> Declared[F] | None:
        """What a part says, read from its file's text without importing it; None where no file of the folder registers it.

        Only facts that are plain values can be read so; the others have their defaults.

        >>> objectives.declared("infonce_views")
        Declared(facts=ObjectiveFacts(further=None, family='contrastive'), needs=('student', 'other'))
        """
        if name in self._parts:
            return Declared(self._facts[name], tuple(positional(self._parts[name])))
        return self._in_files.get(name)

    @functools.cached_property
    def _in_files(self) -> dict[str, Declared[F]]:
        spec, found = importlib.util.find_spec(self.package), {}
        files = [f for folder in (spec and spec.submodule_search_locations) or () for f in sorted(Path(folder).glob("*.py"))]
        functions = [n for f in files for n in ast.parse(f.read_text("utf-8")).body if isinstance(n, ast.FunctionDef)]
        for function in functions:
            for call in (d for d in function.decorator_list if isinstance(d, ast.Call)):
                if ast.unparse(call.func) == f"{self.plural}.register" and isinstance(call.args[0], ast.Constant):
                    said: dict[str, Any] = {k.arg: k.value.value for k in call.keywords
                                            if k.arg and isinstance(k.value, ast.Constant)}
                    needs = tuple(a.arg for a in (*function.args.posonlyargs, *function.args.args))
                    found[str(call.args[0].value)] = Declared(self.kind_of_facts(**said), needs)
        return found

    @property
    def names_in_files(self) -> list[str]:
        """The names that the folder's files register, read without importing these.

        >>> students.names_in_files
        ['paper_cnn', 'timm']
        """
        return sorted(self._in_files)

    def summary(self, name: str) -> str:
        """First line of the part's docstring."""
        return (inspect.getdoc(self.get(name)) or "").split("\n")[0]

    def settings(self, name: str) -> dict[str, inspect.Parameter]:
        """What a user may set: the keyword-only parameters; one whose type is a pydantic model stands for its fields."""
        found, models = {}, self._models(name)
        for key, parameter in keyword_only(self.get(name)).items():
            if key in models:
                found.update({field: parameter.replace(name=field, default=getattr(parameter.default, field))
                              for field in models[key].model_fields})
            else:
                found[key] = parameter
        return found

    def _models(self, name: str) -> dict[str, type[BaseModel]]:
        hints = typing.get_type_hints(self.get(name))
        taken = {k: hints.get(k) for k in keyword_only(self.get(name))}
        return {k: hint for k, hint in taken.items() if inspect.isclass(hint) and issubclass(hint, BaseModel)}

    def takes(self, name: str, model: type[BaseModel]) -> bool:
        """Whether the fields of ``model`` are among the part's settings."""
        return any(issubclass(m, model) for m in self._models(name).values())

    def needs(self, name: str) -> list[str]:
        """The positional parameters: what the program hands over."""
        return positional(self.get(name))

    def check(self, name: str, given: Mapping[str, Any], where: str | None = None) -> dict[str, Any]:
        """``given`` with each value checked and converted to its annotated type; nothing is called."""
        where = where or self.kind
        function, known = self.get(name, f"{where}.name"), self.settings(name)
        own, rest = {k: v for k, v in given.items() if k in known}, {k: v for k, v in given.items() if k not in known}
        if further := self.facts(name).further:
            setting, other = further
            chosen = own.get(setting, known[setting].default)
            other.get(chosen, f"{where}.{setting}")
            rest = other.check(chosen, rest, where)
        elif rest:
            key = next(iter(rest))
            raise unknown_name(f"{where}.{key}", f"setting of {self.kind} '{name}'", key, known or ["(none)"])
        missing = [k for k, p in known.items() if p.default is p.empty and k not in own]
        if missing:
            raise UserError(f"{where}.{missing[0]}", f"a value ({self.kind} '{name}' needs it)", "nothing",
                            f"Set {where}.{missing[0]}=...")
        hints, plain = ({k: h for thing in (function, *self._models(name).values())
                         for k, h in typing.get_type_hints(thing, include_extras=extras).items()} for extras in (True, False))
        return {**{k: _checked(v, hints.get(k, Any), plain.get(k, Any), f"{where}.{k}") for k, v in own.items()}, **rest}

    def arguments(self, name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Checked settings as the function takes them: those that are fields of a model, gathered in it."""
        found = dict(settings)
        for key, model in self._models(name).items():
            given = {field: found.pop(field) for field in model.model_fields if field in found}
            if given:
                found[key] = model(**{**keyword_only(self.get(name))[key].default.model_dump(), **given})
        return found

    def call(self, name: str, given: Mapping[str, Any], *context: Any, where: str | None = None) -> Any:
        """Check the settings, then call the part with the context and them."""
        checked = self.check(name, given, where)
        return self.get(name)(*context, **self.arguments(name, checked))


def positional(function: Function) -> list[str]:
    """Names of the parameters that the program hands over."""
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind not in (p.KEYWORD_ONLY, p.VAR_KEYWORD)]


def keyword_only(function: Function) -> dict[str, inspect.Parameter]:
    """The parameters that a user may set."""
    return {p.name: p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY}


def _checked(value: Any, hint: Any, plain: Any, where: str) -> Any:
    """``value`` as the type says, or the line that says what was expected."""
    try:
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)).validate_python(value)
    except ValidationError as error:
        said = error.errors()[0]["msg"]
        if said.startswith(("Input should be greater", "Input should be less")):  # the type is right
            raise UserError(where, f"{_in_words(plain)} {said.removeprefix('Input should be ')}", shown(value)) from None
        raise UserError(where, _in_words(plain), shown(value), f"{said}.") from None


def _in_words(hint: Any) -> str:
    """A type as a user may read it.

    >>> _in_words(int), _in_words(float | None), _in_words(int | Literal["target"]), _in_words(tuple[int, ...])
    ('int', 'float or none', "int or 'target'", 'tuple[int, ...]')
    """
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return " or ".join(map(repr, parts))
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(map(_in_words, parts))
    return "none" if hint is type(None) else hint.__name__ if inspect.isclass(hint) and not parts else str(hint)


datasets = Registry("dataset", "distillscope.data", Facts)
views = Registry("view", "distillscope.data", ViewFacts)
teachers = Registry("teacher", "distillscope.teachers", Facts)
students = Registry("student", "distillscope.students", StudentFacts)
objectives = Registry("objective", "distillscope.objectives", ObjectiveFacts)
targets = Registry("target", "distillscope.targets", TargetFacts)
projectors = Registry("projector", "distillscope.objectives", Facts)
stresses = Registry("stress", "distillscope.stress", StressFacts)
corruptions = Registry("corruption", "distillscope.data", Facts)
remedies = Registry("remedy", "distillscope.remedies", RemedyFacts)
measures = Registry("measure", "distillscope.measure", MeasureFacts)
curves = Registry("curve", "distillscope.measure", CurveFacts)
claims = Registry("claim", "distillscope.claims", ClaimFacts)

KINDS: dict[str, Registry[Any]] = {
    r.plural: r for r in (datasets, views, teachers, students, objectives, targets, projectors, stresses, corruptions, remedies,
                          measures, curves, claims)
}


def list_parts(kind: str) -> list[str]:
    """Names of the registered parts of a ``kind`` ("objectives", ...), as `distillscope list` shows them; another kind is a
    `UserError`.

    >>> list_parts("projectors")
    ['linear', 'mlp']
    """
    if kind not in KINDS:
        raise unknown_name("list", "kind", kind, KINDS)
    return list(KINDS[kind])
