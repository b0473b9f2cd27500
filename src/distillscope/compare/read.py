"""Paths -> the runs or audits that are compared, each under a label of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from distillscope.errors import UserError
from distillscope.measure.results import Audit
from distillscope.results.audit_file import read_audit
from distillscope.results.models import Setting, settings_of
from distillscope.results.run import Run, read_run
from distillscope.results.summary import Summary

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
    """The folders' names; where several are equal, with as many parents in front as distinguish them.

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
    return [AuditSide(label, p, read_audit(p, f"compare {p}")) for label, p in zip(labels, places, strict=True)]


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
