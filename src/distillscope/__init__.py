"""Distil a large frozen image encoder into a small student, and see exactly what the student lost.

>>> import distillscope
>>> study = distillscope.load_preset("quickstart")
>>> study.name
'quickstart'
>>> from distillscope import audit
>>> audit.__name__, audit is distillscope.audit
('audit', True)
"""

import sys
import types

__version__ = "0.1.0"

_PUBLIC = {
    "UserError": "errors",
    "load_preset": "loading",
    "run_study": "study",
    "load_study": "study",
    "load_student": "students.load",
    "audit": "audit",
}


def __getattr__(name: str):  # torch is imported when it is needed, so that `distillscope --help` is quick
    if name in _PUBLIC:
        import importlib

        return getattr(importlib.import_module(f"distillscope.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'distillscope' has no attribute '{name}'")


class _Package(types.ModuleType):
    def __setattr__(self, name: str, value: object) -> None:  # importing the module `audit` must not hide its function
        super().__setattr__(name, getattr(value, name) if name == "audit" and isinstance(value, types.ModuleType) else value)


sys.modules[__name__].__class__ = _Package


def __dir__():
    return sorted([*globals(), *_PUBLIC])
