"""The files of a run directory, each checked: study.yaml, provenance.json, complete.json, curves.json, metrics.jsonl and
results.csv; and the grid of trials that it holds.

A `Record` is what one folder of trials/ or references/ holds, read from there or from an archive.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from distillscope import progress
from distillscope.config.load import parse_study
from distillscope.config.study import Study, as_written
from distillscope.errors import UserError
from distillscope.files.folders import folder_name
from distillscope.files.json_reader import parse_json, read_bytes, read_json, unreadable
from distillscope.files.yaml_reader import read_yaml
from distillscope.results.rows import COLUMNS

COMPLETE = "complete.json"
"""Of a trial or reference: written last, so that it is complete where this is there."""
KINDS = ("references", "trials")
"""The folders of a run that hold its records."""
EVERY = "every "
"""What the names in a reference's fingerprint begin with that are of all images of a split, and not of 32 of them."""
RESTORE = "Restore the file, or run the study again into another --out."
LARGEST = 2**53
"""Of whole numbers in results.csv: beyond it floats skip some."""

Whole = Annotated[int, Field(gt=-(2**63), lt=2**63)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class _Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class _Condition(_Open):
    sigma_pixel: Number | list[Number] | None = None
    sigma_normalised: Number | list[Number] | None = None
    where: str | None = None
    clipped: bool | None = None


class _Provenance(_Open):
    distillscope: str | None = None
    versions: dict[str, str] | None = None
    commit: str | None = None
    command: str | None = None
    seconds: Annotated[float, Field(ge=0, le=1e12)] | None = None
    conditions: dict[str, _Condition] | None = None


@dataclass(frozen=True)
class Record:
    """What one complete folder of trials/ or references/ (``kind`` is which) holds, each file as it was checked."""

    kind: str
    folder: str
    results: pd.DataFrame
    complete: Complete
    curves: dict[str, dict[str, Any]] = field(default_factory=dict)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    broken_lines: int = 0  # of metrics.jsonl


class Complete(_Open):
    """complete.json: how long it took, what was left out, what must be said, and of which data and teacher it is."""

    seconds: Annotated[float, Field(ge=0, le=1e12)] | None = None
    warnings: list[str] | None = None
    fingerprint: dict[str, str] | None = None
    mapped: str | None = None


class Curve(_Open):
    """One curve: y, and where known its interval, at each x."""

    x: list[Number]
    y: list[Number | None]
    low: list[Number | None] | None = None
    high: list[Number | None] | None = None

    @model_validator(mode="after")
    def _as_long(self) -> Curve:
        if any(len(v) != len(self.x) for v in (self.y, self.low, self.high) if v is not None):
            raise ValueError("x, y, low and high of one length")
        return self


class _Epoch(_Open):
    epoch: Annotated[int, Field(ge=1, le=10**9)]
    loss: float | None = None
    cosine: float | None = None
    effective_rank: float | None = None
    knn_accuracy: float | None = None
    teacher_r2: float | None = None


EPOCH = TypeAdapter(_Epoch)


def study_of(run_dir: Path) -> Path:
    """The study.yaml of a run directory or an archive."""
    config = run_dir / "study.yaml"
    if not config.exists():
        raise UserError(str(run_dir), "a run directory with study.yaml", "none there" if run_dir.is_dir() else "no folder",
                        "Name the folder that `distillscope run ... --out DIR` made.")
    return config


def read_written(path: Path) -> dict[str, Any]:
    """The plain values of study.yaml as they stand there."""
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise UserError(str(path), "a mapping", type(values).__name__, RESTORE)
    return values


def as_study(values: Mapping[str, Any], path: Path) -> Study:
    """The study that a run was begun with; keys that have come since it was written stand at their defaults.

    Where a student's `hidden` is not written, its trials were trained with that layer as wide as their target.
    """
    values = as_written(values)
    given = values.get("students")
    if isinstance(given, list):
        narrow = [isinstance(s, dict) and s.get("name") == "paper_cnn" for s in given]
        values = {**values, "students": [{"hidden": "target", **s} if n else s for s, n in zip(given, narrow, strict=True)]}
    try:
        return parse_study(values, str(path))
    except UserError as error:
        where = error.where if error.where.startswith(str(path)) else f"{path} {error.where}"
        raise UserError(where, error.expected, error.got, RESTORE) from None


def read_provenance(path: Path) -> dict[str, Any]:
    """The plain values of provenance.json; empty where there is none."""
    return parse_provenance(read_bytes(path, RESTORE), str(path)) if path.exists() else {}


def parse_provenance(content: bytes, where: str) -> dict[str, Any]:
    """The plain values of provenance.json once they are checked; ``where`` names it in an error."""
    parse_json(content, where, _Provenance, RESTORE)
    return parse_json(content, where, dict, RESTORE)


def records_in(path: Path) -> list[tuple[str, Record | Exception | None]]:
    """The folders in trials/ or references/ by name, with what each holds: None where not complete, or why it is unreadable."""
    try:
        folders = sorted(Path(entry.path) for entry in os.scandir(path) if entry.is_dir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(str(path), "a folder that can be read", unreadable(error), "Restore it.") from None
    found: list[tuple[str, Record | Exception | None]] = []
    with progress.late_task(f"reading {path}", len(folders), path.name) as advance:
        for folder in folders:
            try:
                found.append((folder.name, read_record(folder)))
            except (UserError, OSError, ValueError, KeyError) as error:
                found.append((folder.name, error))
            advance(1)
    return found


def read_record(folder: Path) -> Record | None:
    """What a folder of trials/ or references/ holds; None where its trial is not complete."""
    if not (folder / COMPLETE).exists():
        return None
    results, complete = read_results(folder / "results.csv"), read_complete(folder / COMPLETE)
    curves = read_curves(folder / "curves.json")
    return Record(folder.parent.name, folder.name, results, complete, curves, *read_epochs(folder / "metrics.jsonl"))


def read_complete(path: Path) -> Complete:
    """complete.json; an empty one says no more than that the trial is complete."""
    content = read_bytes(path, RESTORE)
    return parse_json(content if content.strip() else b"{}", str(path), Complete, RESTORE)


def read_curves(path: Path) -> dict[str, dict[str, Any]]:
    """The curves that have any point; none where there is no file."""
    if not path.exists():
        return {}
    read_json(path, dict[str, Curve], RESTORE)
    return {name: curve for name, curve in read_json(path, dict, RESTORE).items() if curve["x"]}


def read_epochs(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The records of metrics.jsonl, and how many lines are none: a kill in the middle of a line leaves half of one."""
    if not path.exists():
        return [], 0
    rows, broken = [], 0
    for line in read_bytes(path, RESTORE).decode("utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
            EPOCH.validate_python(row)
        except (ValueError, RecursionError):  # pydantic's error is a ValueError
            broken += bool(line.strip())
            continue
        rows.append(row)
    return rows, broken


def read_results(path: Path) -> pd.DataFrame:
    """A tidy results.csv with typed columns; raises ValueError, which names what is wrong."""
    return typed(read_cells(read_bytes(path, RESTORE)))


def read_cells(content: bytes) -> pd.DataFrame:
    """The cells of a CSV file, all of them text: a student called "NA" must stay a student; ValueError where it is none."""
    if b"\0" in content:
        raise ValueError("results.csv holds a NUL byte")
    return pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)


def typed(frame: pd.DataFrame) -> pd.DataFrame:
    """The cells of a results.csv as numbers where they are numbers; ValueError names what is wrong.

    float() round-trips where pandas' fast parser may differ in the last digit.
    """
    absent = [c for c in COLUMNS if c not in frame.columns and c != "arm"]
    if absent:
        raise ValueError(f"column {absent[0]!r} is missing")
    if "arm" not in frame.columns:
        frame["arm"] = ""
    frame = frame[list(COLUMNS)].fillna("")
    for column in ("dataset", "teacher", "student", "measure"):
        if "" in frame[column].tolist():
            raise ValueError(f"column {column!r} has an empty cell")
    numbers: dict[str, Any] = {"value": [_float("value", v) if v.strip() else math.nan for v in frame["value"].tolist()]}
    for column, least in (("seed", -LARGEST), ("draw", 0), ("n", 0)):
        read = {v: _whole(column, v, least) if v.strip() else pd.NA for v in dict.fromkeys(frame[column].tolist())}
        numbers[column] = pd.array([read[v] for v in frame[column].tolist()], dtype="Int64")
    return frame.assign(**numbers)


def _float(column: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"column {column!r} has {text[:40]!r}, which is no number") from None


def _whole(column: str, text: str, least: int) -> int:
    value = _float(column, text)
    if not (value.is_integer() and least <= value <= LARGEST):
        raise ValueError(f"column {column!r} has {text[:40]!r}, which is no whole number from {least} up")
    return int(value)


@dataclass(frozen=True)
class Trial:
    """One student, trained one way, with one seed."""

    dataset: str
    teacher: str
    arm: str
    student: str
    seed: int

    @property
    def parts(self) -> tuple[str, ...]:
        return self.dataset, self.teacher, self.arm, self.student, f"seed{self.seed}"

    @property
    def id(self) -> str:
        return folder_name(*self.parts)


def trials_of(study: Study) -> list[Trial]:
    """The grid, in the order of the config; an arm may name the students or the seeds that it is limited to."""
    return [
        Trial(data.title, teacher.title, arm.name, student.label, seed)
        for data in study.data for teacher in study.teacher for arm in study.arms for seed in arm.seeds or study.seeds
        for student in study.students if arm.students is None or student.label in arm.students
    ]
