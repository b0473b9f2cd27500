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
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# No telemetry: without this the Hub's client counts each request of timm and datasets by machine and version.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")

_PUBLIC = {
    "Audit": "measure.results",
    "EmbeddingHealth": "measure.health",
    "Run": "study.run",
    "Study": "config.study",
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
    from distillscope.config.study import Study as Study
    from distillscope.errors import UserError as UserError
    from distillscope.measure.audit import audit as audit
    from distillscope.measure.health import EmbeddingHealth as EmbeddingHealth
    from distillscope.measure.results import Audit as Audit
    from distillscope.registry import list_parts as list_parts
    from distillscope.students.export.load import load_artefact as load_artefact
    from distillscope.students.export.write import export_student as export_student
    from distillscope.students.load import StudentEncoder as StudentEncoder
    from distillscope.students.load import load_student as load_student
    from distillscope.study.in_python import distill as distill
    from distillscope.study.run import Run as Run
    from distillscope.study.run import load_study as load_study
    from distillscope.study.run import run_study as run_study

    _Names = Callable[[], list[str]]
    list_claims: _Names
    list_corruptions: _Names
    list_curves: _Names
    list_datasets: _Names
    list_measures: _Names
    list_objectives: _Names
    list_projectors: _Names
    list_remedies: _Names
    list_stresses: _Names
    list_students: _Names
    list_targets: _Names
    list_teachers: _Names
    list_views: _Names
else:  # a type checker that saw this would take every misspelt name for one of them
    def __getattr__(name: str) -> Any:  # torch is imported when it is needed, so that `distillscope --help` is quick
        if name in _PUBLIC:
            return getattr(importlib.import_module(f"distillscope.{_PUBLIC[name]}"), name)
        if name.startswith("list_") and (kind := name.removeprefix("list_")) in _kinds():
            return functools.partial(importlib.import_module("distillscope.registry").list_parts, kind)
        raise AttributeError(f"module 'distillscope' has no attribute '{name}'", name=name, obj=sys.modules[__name__])


def _kinds() -> list[str]:
    return list(importlib.import_module("distillscope.registry").KINDS)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC, *(f"list_{kind}" for kind in _kinds())])
