"""The one reader of an audit that was written: its values, curves and stages, and how it was read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from distillscope.errors import UserError
from distillscope.files.json_reader import parse_json, read_bytes
from distillscope.measure.results import Audit, Curve, Stage, Subset, Value

MAKE_AUDIT = "Make it with `distillscope audit ... --json FILE` or --out FOLDER."


def read_audit(path: Path, where: str) -> Audit:
    """An audit from its .json, or from its page, which holds the values but no curves; ``where`` begins what is wrong."""
    content = read_bytes(path, MAKE_AUDIT)
    if path.suffix == ".html":
        found = re.search(rb'<script type="application/json" id="distillscope-data">(.*?)</script>', content, re.DOTALL)
        content = found[1] if found else b"null"
    return audit_of(content, where)


def audit_of(content: bytes | str, where: str) -> Audit:
    """The audit that JSON text holds."""
    try:
        held = parse_json(content, where, _Audit, MAKE_AUDIT)
    except UserError as error:
        raise UserError(error.where, "the values of an audit", f"a file without them ({error.expected}, got {error.got})",
                        MAKE_AUDIT) from None
    curves = {key: Curve(c.x, c.y, c.low, c.high, c.unit, c.definition) for key, c in held.curves.items()}
    stages = [Stage(s.kind, s.name, _values(s.values), s.left_out, s.p, content=s.content) for s in held.stages]
    subsets = [Subset(s.kind, s.classifier, s.name, s.n, _values(s.values)) for s in held.subsets]
    return Audit(_values(held.measures), curves, held.left_out, held.notes, held.inputs, labels=held.labels, doubt=held.doubt,
                 stages=stages, subsets=subsets)


def _values(held: dict[str, _Value]) -> dict[str, Value]:
    return {key: Value(v.value, v.low, v.high, v.n, v.definition, v.unit) for key, v in held.items()}


def _array(value: Any) -> np.ndarray:
    try:
        return np.asarray(value, np.float64)
    except TypeError:
        raise ValueError("numbers") from None


Numbers = Annotated[np.ndarray, BeforeValidator(_array)]


class _Value(BaseModel):
    value: float
    low: float | None = None
    high: float | None = None
    n: int
    definition: str = ""
    unit: str


class _Curve(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    x: Numbers
    y: Numbers
    low: Numbers | None = None
    high: Numbers | None = None
    unit: str = ""
    definition: str = ""

    @model_validator(mode="after")
    def _as_long(self) -> _Curve:
        if any(v.shape[:1] != self.x.shape[:1] for v in (self.y, self.low, self.high) if v is not None):
            raise ValueError("x, y, low and high of one length")
        return self


class _Stage(BaseModel):
    kind: Literal["teacher", "student", "artefact"]
    name: str
    values: dict[str, _Value] = {}
    left_out: dict[str, str] = {}
    p: dict[str, float] = {}
    content: str = ""


class _Subset(BaseModel):
    kind: Literal["class", "subgroup"]
    classifier: str
    name: str
    n: int
    values: dict[str, _Value]


class _Audit(BaseModel):
    """What audit.json holds, as far as it is read again."""

    measures: dict[str, _Value]
    curves: dict[str, _Curve] = {}
    left_out: dict[str, str] = {}
    notes: list[str] = []
    inputs: dict[str, dict[str, Any]] = {}
    labels: dict[str, int | float] = {}
    doubt: str = ""
    stages: list[_Stage] = []
    subsets: list[_Subset] = []
