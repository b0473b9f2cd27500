"""The folders of an invented run, written as a study writes them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from distillscope.results.rundir import COMPLETE, write_results


def write_study(run: Path, study: Mapping[str, Any], *, sort_keys: bool = False) -> Path:
    """study.yaml as given: invented names need not be ones that the program knows."""
    run.mkdir(parents=True, exist_ok=True)
    (run / "study.yaml").write_text(yaml.safe_dump(dict(study), sort_keys=sort_keys))
    return run


def write_folder(folder: Path, rows: Iterable[Mapping[str, Any]], curves: Mapping[str, Any], done: Mapping[str, Any] | None,
                 epochs: Iterable[Mapping[str, Any]] = ()) -> Path:
    """A folder of trials/ or references/; without ``done`` it is not complete. ``epochs`` are the lines of metrics.jsonl."""
    folder.mkdir(parents=True)
    write_results(folder, rows, curves, done or {})
    if done is None:
        (folder / COMPLETE).unlink()
    if lines := [json.dumps(dict(epoch)) + "\n" for epoch in epochs]:
        (folder / "metrics.jsonl").write_text("".join(lines))
    return folder
