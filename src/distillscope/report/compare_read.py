"""Paths -> the runs or audits that are compared, each under a label of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from distillscope.errors import UserError
from distillscope.measure.results import Audit, Curve, Value
from distillscope.report.models import Setting, settings_of
from distillscope.report.read import Run, read_run
from distillscope.report.summary import Summary

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
            raise UserError(f"compare {paths[i]}", "another run", f"the same as {paths[places.index(place)]}", "Name each run once.")
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
        raise UserError(f"compare {path}", "a run directory (study.yaml) or an audit (audit.json)", "neither in this folder", MAKE)
    if path.is_file() and path.name == "report.html" and (path.parent / "study.yaml").is_file():
        return path.parent.resolve()
    if path.is_file() and path.suffix in (".json", ".html"):
        return path.resolve()
    raise UserError(f"compare {path}", "a run directory, or an audit's folder, .json or page",
                    "another file" if path.exists() else "nothing there", MAKE)


def read_audit(path: Path) -> Audit:
    """An audit from its .json, or from its page, which holds the values but no curves."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".html":
            found = re.search(r'<script type="application/json" id="distillscope-data">(.*?)</script>', text, re.DOTALL)
            text = found[1] if found else "null"
        held = json.loads(text)
        values = {key: _value(v) for key, v in held["measures"].items()}
        curves = {key: _curve(c) for key, c in held.get("curves", {}).items()}
        return Audit(values, curves, dict(held.get("left_out", {})), list(held.get("notes", [])), dict(held.get("inputs", {})))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"compare {path}", "the values of an audit", "a file without them",
                        "Make it with `distillscope audit ... --json FILE` or --out FOLDER.") from None


def _value(held: dict[str, Any]) -> Value:
    return Value(float(held["value"]), held.get("low"), held.get("high"), int(held["n"]), str(held.get("definition", "")),
                 str(held["unit"]))


def _curve(held: dict[str, Any]) -> Curve:
    def array(name: str) -> np.ndarray | None:
        return None if held.get(name) is None else np.asarray(held[name], np.float64)

    return Curve(array("x"), array("y"), array("low"), array("high"), str(held.get("unit", "")), str(held.get("definition", "")))
