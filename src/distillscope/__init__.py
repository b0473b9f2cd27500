"""Distil a large frozen image encoder into a small student, and see exactly what the student lost.

>>> import distillscope
>>> study = distillscope.load_preset("quickstart")
>>> study.name
'quickstart'
>>> from distillscope import audit
>>> audit.__name__, audit is distillscope.audit
('audit', True)
"""

__version__ = "0.1.0"

_PUBLIC = {
    "UserError": "errors",
    "load_preset": "config.load",
    "run_study": "study.run",
    "load_study": "study.run",
    "load_student": "students.load",
    "audit": "measure.audit",
}


def __getattr__(name: str):  # torch is imported when it is needed, so that `distillscope --help` is quick
    if name in _PUBLIC:
        import importlib

        return getattr(importlib.import_module(f"distillscope.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'distillscope' has no attribute '{name}'")


def __dir__():
    return sorted([*globals(), *_PUBLIC])
