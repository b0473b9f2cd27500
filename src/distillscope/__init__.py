"""Distil a large frozen image encoder into a small student, and see exactly what the student lost.

>>> import distillscope
>>> study = distillscope.load_preset("quickstart")
>>> study.name
'quickstart'
>>> from distillscope import audit
>>> audit.__name__, audit is distillscope.audit
('audit', True)
>>> distillscope.list_projectors()
['linear', 'mlp']
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "UserError": "errors",
    "load_preset": "config.load",
    "distill": "study.in_python",
    "run_study": "study.run",
    "load_study": "study.run",
    "load_student": "students.load",
    "StudentEncoder": "students.load",
    "load_artefact": "students.export.load",
    "export_student": "students.export.write",
    "audit": "measure.audit",
    "list_parts": "registry",
}

if TYPE_CHECKING:
    from distillscope.config.load import load_preset as load_preset
    from distillscope.errors import UserError as UserError
    from distillscope.measure.audit import audit as audit
    from distillscope.registry import list_parts as list_parts
    from distillscope.students.export.load import load_artefact as load_artefact
    from distillscope.students.export.write import export_student as export_student
    from distillscope.students.load import StudentEncoder as StudentEncoder
    from distillscope.students.load import load_student as load_student
    from distillscope.study.in_python import distill as distill
    from distillscope.study.run import load_study as load_study
    from distillscope.study.run import run_study as run_study


def _listing(name: str) -> Callable[[], list[str]] | None:
    """``list_measures()``, ``list_objectives()``, ... for every kind of part."""
    registry, kind = importlib.import_module("distillscope.registry"), name.removeprefix("list_")
    return functools.partial(registry.list_parts, kind) if name.startswith("list_") and kind in registry.KINDS else None


def __getattr__(name: str) -> Any:  # torch is imported when it is needed, so that `distillscope --help` is quick
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"distillscope.{_PUBLIC[name]}"), name)
    if listing := _listing(name):
        return listing
    raise AttributeError(f"module 'distillscope' has no attribute '{name}'")


def __dir__() -> list[str]:
    kinds = importlib.import_module("distillscope.registry").KINDS
    return sorted([*globals(), *_PUBLIC, *(f"list_{kind}" for kind in kinds)])
