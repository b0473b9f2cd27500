"""Paths -> the runs or audits that are compared, each under a label of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from distillscope.errors import UserError
from distillscope.files.json_reader import parse_json, read_bytes
from distillscope.measure.results import Audit, Curve, Value
from distillscope.results.models import Setting, settings_of
from distillscope.results.run import Run, read_run
from distillscope.results.summary import Summary

MAKE_AUDIT = "Make it with `distillscope audit ... --json FILE` or --out FOLDER."
MAKE = "Name folders that `distillscope run` or `distillscope audit --out` made."


@dataclass(frozen=True)
class StudySide:
    """One study of a comparison, with what a report derives of it."""

    label: str
    run: Run = field(repr=False)

    @cached_property
    def settings(self) -> list[Setting]:
        return settings_of(self.run)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The study as plain values, every default filled in."""
        return self.run.study.dump()

    @cached_property
    def summary(self) -> Summary:
        return Summary.of(self.run)


@dataclass(frozen=True)
class AuditSide:
    """One audit of a comparison. ``path`` is the file that was read."""

    label: str
    path: Path
    audit: Audit = field(repr=False)


def unique_labels(paths: Sequence[Path]) -> list[str]:
    """The folders' names; where several are equal, with as many parents in front as tell them apart.

    >>> unique_labels([Path("/runs/a/long"), Path("/runs/b/long"), Path("/runs/short")])
    ['a/long', 'b/long', 'short']
    """
    parts, depth = [Path(p).parts for p in paths], [1] * len(paths)
    while True:
        labels = ["/".join(p[-d:]) for p, d in zip(parts, depth, strict=True)]
        twice = [i for i, label in enumerate(labels) if labels.count(label) > 1 and depth[i] < len(parts[i])]
        if not twice:
            return labels
        for i in twice:
            depth[i] += 1


def read_sides(paths: Sequence[Path]) -> list[StudySide] | list[AuditSide]:
    """Read what is to be compared; the first is what the others are compared with.

    Two runs or more, all of them studies or all of them audits, none of them twice: a `UserError` says which is not so.
    """
    paths = [Path(p) for p in paths]
    if len(paths) < 2:
        raise UserError("compare", "two runs or more", str(len(paths)), "Name them all: distillscope compare DIR_A DIR_B.")
    places = [_place(p) for p in paths]
    for i, place in enumerate(places):
        if place in places[:i]:
            raise UserError(f"compare {paths[i]}", "another run", f"the same as {paths[places.index(place)]}",
                            "Name each run once.")
    kinds = ["study" if (p / "study.yaml").is_file() else "audit" for p in places]
    if len(set(kinds)) > 1:
        other = next(i for i, kind in enumerate(kinds) if kind != kinds[0])
        raise UserError(f"compare {paths[other]}", f"{_kind(kinds[0])}, as {paths[0]} is", _kind(kinds[other]),
                        "Compare studies with studies, and audits with audits.")
    named = [p if p.is_dir() else p.parent if p.stem in ("audit", "report") else p.with_suffix("") for p in places]
    labels = unique_labels(named if len(set(named)) == len(named) else places)
    if kinds[0] == "study":
        return [StudySide(label, read_run(p)) for label, p in zip(labels, places, strict=True)]
    return [AuditSide(label, p, read_audit(p)) for label, p in zip(labels, places, strict=True)]


def _kind(kind: str) -> str:
    return "a study" if kind == "study" else "an audit"


def _place(path: Path) -> Path:
    """The run directory, or the file that holds the audit's values."""
    if path.is_dir():
        if (path / "study.yaml").is_file():
            return path.resolve()
        if (path / "audit.json").is_file():
            return (path / "audit.json").resolve()
        raise UserError(f"compare {path}", "a run directory (study.yaml) or an audit (audit.json)", "neither in this folder",
                        MAKE)
    if path.is_file() and path.name == "report.html" and (path.parent / "study.yaml").is_file():
        return path.parent.resolve()
    if path.is_file() and path.suffix in (".json", ".html"):
        return path.resolve()
    raise UserError(f"compare {path}", "a run directory, or an audit's folder, .json or page",
                    "another file" if path.exists() else "nothing there", MAKE)


def read_audit(path: Path) -> Audit:
    """An audit from its .json, or from its page, which holds the values but no curves."""
    content = read_bytes(path, MAKE_AUDIT)
    if path.suffix == ".html":
        found = re.search(rb'<script type="application/json" id="distillscope-data">(.*?)</script>', content, re.DOTALL)
        content = found[1] if found else b"null"
    try:
        held = parse_json(content, f"compare {path}", _Audit, MAKE_AUDIT)
    except UserError as error:
        raise UserError(error.where, "the values of an audit", f"a file without them ({error.expected}, got {error.got})",
                        MAKE_AUDIT) from None
    values = {key: Value(v.value, v.low, v.high, v.n, v.definition, v.unit) for key, v in held.measures.items()}
    curves = {key: Curve(c.x, c.y, c.low, c.high, c.unit, c.definition) for key, c in held.curves.items()}
    return Audit(values, curves, held.left_out, held.notes, held.inputs)


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


class _Audit(BaseModel):
    """What audit.json holds, as far as it is compared."""

    measures: dict[str, _Value]
    curves: dict[str, _Curve] = {}
    left_out: dict[str, str] = {}
    notes: list[str] = []
    inputs: dict[str, dict[str, Any]] = {}
