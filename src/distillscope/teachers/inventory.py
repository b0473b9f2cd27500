"""What the cache holds, listed and removed: damaged entries, links and what belongs to others included."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import Timeout

from distillscope import progress
from distillscope.data.known_images import RECORD
from distillscope.errors import UserError
from distillscope.files import locks
from distillscope.files.folders import cache_root
from distillscope.files.json_reader import read_json


def list_entries(root: Path | None = None) -> list[dict[str, Any]]:
    """One record for each entry: name, path, rows, bytes, teacher, precision, perturbation, when used, and any damage.

    Targets that studies made of the embeddings, as `prepare_targets` leaves them, come after those; then images as students
    see them, and what is known of images that were decoded.
    """
    root = root or cache_root()
    return (_listed(root / "embeddings", "", _of_embeddings) + _listed(root / "targets", "target-", _of_targets)
            + _listed(root / "images", "images-", _of_images) + _listed(root / "known_images", "known-", _of_known))


def _listed(folder: Path, prefix: str, read: Callable[[Path, dict], tuple[int, dict[str, Any]]]) -> list[dict[str, Any]]:
    found = []
    for path in sorted(p for p in folder.iterdir() if p.is_dir() or p.is_symlink()) if folder.is_dir() else []:
        record = {"name": prefix + path.name, "path": path, "rows": 0, "bytes": 0, "teacher": "?", "precision": "?",
                  "perturbation": None, "used": path.lstat().st_mtime, "damaged": None}
        try:
            if path.is_symlink():
                raise ValueError(f"a link to {os.readlink(path)}")
            record["bytes"] = sum(f.lstat().st_size for f in path.rglob("*") if f.is_file() and not f.is_symlink())
            record["rows"], said = read(path, read_json(path / "entry.json"))
            record.update(said)
        except UserError as error:
            record["damaged"] = f"entry.json: {error.got}"
        except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, pa.ArrowException) as error:
            record["damaged"] = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        found.append(record)
    return found


def _of_embeddings(path: Path, described: dict) -> tuple[int, dict[str, Any]]:
    said = {"teacher": described["name"], "precision": described["precision"], "perturbation": described.get("perturbation")}
    return sum(pq.read_metadata(m).num_rows for m in path.glob("metadata/metadata_*.parquet")), said


def _of_targets(path: Path, described: dict) -> tuple[int, dict[str, Any]]:
    teacher, target = described["teacher"], {"kind": "target", **described["target"]}
    rows = sum(len(np.load(f, mmap_mode="r", allow_pickle=False)) for f in path.glob("*.npy") if not f.name.startswith("."))
    return rows, {"teacher": teacher.get("name", "?"), "precision": teacher.get("precision", "?"), "perturbation": target}


def _of_images(path: Path, described: dict) -> tuple[int, dict[str, Any]]:
    rows = sum(pq.read_metadata(m).num_rows for m in path.glob("metadata/metadata_*.parquet"))
    return rows, {"perturbation": {**described, "kind": f"images at {described['size']} px"}}


def _of_known(path: Path, described: dict) -> tuple[int, dict[str, Any]]:
    rows = sum(f.stat().st_size // RECORD.itemsize for f in path.glob("*.records") if not f.name.startswith("."))
    return rows, {"perturbation": {"kind": "known images", **described}}


def prune_entries(names: Sequence[str] | None = None, root: Path | None = None) -> tuple[int, int]:
    """Remove the entries named (or all): (how many, how many bytes). Of a link the link alone; what a process fills now stays.

    What may not be removed is said, in one line, once the others are gone.
    """
    entries = list_entries(root)
    known = {e["name"]: e for e in entries}
    for name in names or []:
        if name not in known:
            raise UserError("cache prune", "names that `distillscope cache list` prints", f"'{name}'", "Copy one from there.")
    gone, size, refused = 0, 0, []
    for entry in [known[n] for n in dict.fromkeys(names)] if names else entries:
        try:
            _remove(entry["path"])
            gone, size = gone + 1, size + entry["bytes"]
        except Timeout:
            progress.say(f"cache {entry['name']}: a process is filling it; left")
        except OSError as error:
            refused.append((entry["name"], error.strerror or type(error).__name__))
    if refused:
        name, why = refused[0]
        raise UserError(f"cache prune {name}", "an entry that may be removed",
                        f"{why} ({len(refused)} such; {gone} others are removed)", "Change its permissions, or ask its owner.")
    return gone, size


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
        return
    lock = None
    if (path / ".lock").exists():
        with contextlib.suppress(PermissionError):
            lock = locks.acquire(path / ".lock", timeout=0)
    try:
        shutil.rmtree(path)
    finally:
        if lock:
            lock.release()
