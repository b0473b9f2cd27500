"""A run directory: what a study writes, so that reports and later audits need no model.

::

    study.yaml          the resolved config          provenance.json   versions, commit, hardware, command
    references/ID/      the teacher's own results     trials/ID/        one trial
    results.csv, summary.json, tables/, figures/, report.html          made from those by the report

A reference or trial counts once its ``complete.json`` exists, which is written last.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from filelock import FileLock, Timeout
from pydantic import ValidationError

import distillscope
from distillscope.config import Study
from distillscope.errors import UserError
from distillscope.files import write_atomic, write_json, write_text
from distillscope.yaml_files import read_yaml

COLUMNS = ("study", "dataset", "split", "teacher", "student", "target", "objective", "seed", "condition", "draw",
           "measure", "value", "n", "unit", "arm")
COMPLETE = "complete.json"
GROWING = ("seeds", "students", "arms", "data", "teacher")
"""Axes of the grid: a resumed study may add items to them, since trials do not depend on one another."""


@dataclass(frozen=True)
class Trial:
    """One student, trained one way, with one seed."""

    dataset: str
    teacher: str
    arm: str
    student: str
    seed: int

    @property
    def id(self) -> str:
        return slug(self.dataset, self.teacher, self.arm, self.student, f"seed{self.seed}")


def slug(*parts: str) -> str:
    """A folder's name."""
    return "--".join(re.sub(r"[^A-Za-z0-9_.+-]+", "_", p) for p in parts)


def trials_of(study: Study) -> list[Trial]:
    """The grid, in the order of the config."""
    return [
        Trial(data.title, teacher.title, arm.name, student.label, seed)
        for data in study.data for teacher in study.teacher for arm in study.arms for seed in arm.seeds or study.seeds
        for student in study.students if arm.students is None or student.label in arm.students
    ]


def is_complete(folder: Path) -> bool:
    return (folder / COMPLETE).is_file()


def trial_folder(run: Path, trial: Trial) -> Path:
    return run / "trials" / trial.id


def open_run(study: Study, run: Path, resume: bool) -> None:
    """Make the directory, or check that the one there holds the same study and may go on."""
    config = run / "study.yaml"
    if run.exists() and not run.is_dir():
        raise UserError(f"--out {run}", "a new or empty directory", "a file", "Name another.")
    if run.exists() and any(run.iterdir()) and not resume:
        raise UserError(f"--out {run}", "a new or empty directory", "one with files",
                        "Add --resume to go on with it, or name another.")
    if config.exists():
        before, now = load_config(run), study.dump()
        for key in sorted({*before, *now} - {"published", "description"}):
            old, new = before.get(key), now.get(key)
            if old != new and not (key in GROWING and _grows(old, new)):
                raise UserError(f"{run} {key}", f"{json.dumps(old)[:120]} as when it was begun", json.dumps(new)[:120],
                                "Run it with the old value, or into another --out.")
    elif resume and run.exists() and any(run.iterdir()):
        raise UserError(f"--resume {run}", "a study's directory (with study.yaml)", "another one", "Name another --out.")
    write_text(config, yaml.safe_dump(study.dump(), sort_keys=False, allow_unicode=True))


def hold_run(run: Path) -> FileLock:
    """The run's lock, taken: two processes that train the same trials would write over each other. It ends with its process."""
    lock = FileLock(run / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"--out {run}", "a run that no process is at work on", "one that is going on",
                        "Wait for it or end it, then add --resume; `distillscope report DIR --serve` watches it.") from None
    return lock


def _grows(old: list, new: list) -> bool:
    def name(item: Any) -> Any:
        return item.get("label", item.get("name")) if isinstance(item, dict) else item

    known = {json.dumps(name(i)): i for i in old}
    return all(known.get(json.dumps(name(i)), i) == i for i in new)


def load_config(run: Path) -> dict[str, Any]:
    """The resolved config of a run directory; keys that have come since it was written stand at their defaults."""
    config = Path(run) / "study.yaml"
    if not config.is_file():
        raise UserError(str(run), "a study's run directory (with study.yaml)", "none", "Make one with `distillscope run quickstart`.")
    values = read_yaml(config)
    if not isinstance(values, dict):
        raise UserError(str(config), "a mapping", type(values).__name__, "Restore the file; `run` wrote it.")
    try:
        return Study.model_validate(values).dump()
    except (ValidationError, UserError):
        return values  # whoever needs a study of it says what is wrong


def write_results(folder: Path, rows: Iterable[Mapping[str, Any]], curves: Mapping[str, Any], done: Mapping[str, Any]) -> None:
    """results.csv, curves.json, and complete.json last."""
    frame = pd.DataFrame(list(rows), columns=list(COLUMNS))
    write_atomic(folder / "results.csv", lambda p: frame.to_csv(p, index=False, float_format="%.10g"))
    write_json(folder / "curves.json", curves)
    write_json(folder / COMPLETE, done)


def provenance(command: str | None, conditions: Mapping[str, Any], device: str, threads: int) -> dict[str, Any]:
    """Who made these numbers: versions, commit, hardware, command."""
    packages = ("torch", "torchvision", "timm", "open_clip_torch", "numpy", "scipy", "scikit-learn", "accelerate",
                "datasets", "pandas", "plotly", "pillow")
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {"distillscope": distillscope.__version__, "versions": versions, "commit": _commit(), "device": device,
            "threads": threads, "hardware": hardware(), "command": command or " ".join(sys.argv),
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"), "seconds": 0.0, "conditions": dict(conditions)}


def hardware() -> str:
    """Processor, cores, memory and accelerators, in one line."""
    import os

    import torch

    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = re.findall(r"model name\s*:\s*(.+)", cpuinfo.read_text())
        model = names[0] if names else model
    memory = f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB" if hasattr(os, "sysconf") else ""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return f"{model}, {os.cpu_count()} cores{memory}" + (f", {', '.join(gpus)}" if gpus else ", no GPU")


def _commit() -> str | None:
    """The commit of the source checkout that runs, if it is one."""
    folder = Path(__file__).resolve().parent
    try:
        head = subprocess.run(["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"],
                              capture_output=True, text=True, timeout=5)
        own = subprocess.run(["git", "-C", str(folder), "ls-files", "--error-unmatch", __file__],
                             capture_output=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return head.stdout.strip() if head.returncode == 0 and own.returncode == 0 else None


