"""Join runs of one study that were made apart, on other machines or on other days."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from distillscope import progress
from distillscope.config.load import parse_study
from distillscope.config.parts import READ
from distillscope.errors import UserError
from distillscope.files.folders import is_archive, seen_from
from distillscope.files.writing import write_json
from distillscope.results.archive import provenance_of, read_archive, unpack
from distillscope.results.run_files import COMPLETE, KINDS, Record
from distillscope.results.rundir import (
    drop_if_unused,
    had_no_labels,
    is_complete,
    load_config,
    open_run,
    read_done,
    unlabelled,
)
from distillscope.results.same_study import Unlike, item_name, united, unlike


def merge_runs(run_dirs: Sequence[Path], out: Path) -> Path:
    """Copy every finished trial and reference of ``run_dirs`` into ``out``, which is returned.

    An archive gives what it holds: numbers and curves, no weights. The runs must be one study (`same_study.unlike`) on the
    same images and weights. A trial that several runs finished is taken from the first.
    """
    configs = [load_config(Path(d)) for d in run_dirs]
    if len(configs) < 2:
        raise UserError("merge", "at least two run directories", str(len(configs)), "Name them all.")
    none = {item_name("data", item) for config in configs for item in config.get("data") or ()
            if isinstance(item, dict) and item.get("label") == "none"}
    configs = [{**config, "data": unlabelled(config.get("data"), none)} for config in configs]  # not all need say so: see below
    joined = configs[0]
    for folder, config in zip(run_dirs[1:], configs[1:], strict=True):
        for found in unlike(joined, config):
            raise _refused(found, folder, run_dirs[0])
        joined = united(joined, config)
    study = parse_study(joined, "merge")
    _expect_same_items([Path(d) for d in run_dirs])
    open_run(study, out, resume=False, taken="Name another.")
    try:
        _fill(out, run_dirs)
    except BaseException:  # half a joined run would stand in the way of the next try
        for kind in KINDS:
            shutil.rmtree(out / kind, ignore_errors=True)
        drop_if_unused(out, folder=False)
        raise
    return out


def _fill(out: Path, run_dirs: Sequence[Path]) -> None:
    """The trials and references of the runs, and what they say of how they were made."""
    records = []
    for folder in map(Path, run_dirs):
        if said := provenance_of(folder):
            records.append({**said, READ: _read_from(said.get(READ), folder, out)})
        for kind, packed in read_archive(folder).items() if is_archive(folder) else ():
            for name, record in packed:
                if isinstance(record, Record) and not (out / kind / name).exists():
                    unpack(record, out / kind / name)
        for part in sorted([*folder.glob("references/*/"), *folder.glob("trials/*/")]):
            target = out / part.parent.name / part.name
            if not is_complete(part):
                progress.say(f"{part}: not finished, left out")
            elif not target.exists():
                shutil.copytree(part, target, ignore=shutil.ignore_patterns(COMPLETE))
                shutil.copy2(part / COMPLETE, target)  # last: until then the copy does not count
    if records:
        commands = "; ".join(dict.fromkeys(filter(None, (r.get("command") for r in records))))
        conditions = {k: v for r in records for k, v in (r.get("conditions") or {}).items()}
        read: dict[str, Any] = {}
        for title, kept in (item for r in records for item in r[READ].items()):
            if title not in read or (_starts(kept, out) and not _starts(read[title], out)):
                read[title] = kept
        write_json(out / "provenance.json", {**records[0], "command": commands, "conditions": conditions, "merged": records,
                                             "seconds": sum(r.get("seconds") or 0 for r in records), READ: read})


def _read_from(kept: Any, folder: Path, out: Path) -> dict[str, Any]:
    """What a run keeps of the images of each data set, for the folder ``out``: relative paths start where they did.

    An archive lies elsewhere than its run did, so that it does not know where that was.
    """
    found = {}
    for title, said in kept.items() if isinstance(kept, dict) else ():
        said = dict(said) if isinstance(said, dict) else {}
        start = said.pop("start", None)
        if isinstance(start, str) and not is_archive(folder):
            said["start"] = seen_from(out, Path(os.path.normpath(folder.resolve() / start)))
        found[title] = said
    return found


def _starts(kept: dict[str, Any], out: Path) -> bool:
    return "start" in kept and (out / kept["start"]).is_dir()


def _expect_same_items(folders: Sequence[Path]) -> None:
    """The references of one data set and teacher were made of the same images and weights, as far as they say of which."""
    known: dict[tuple[str, str, str], tuple[str, Path]] = {}
    for folder in folders:
        packed = [dict(record.complete) for _, record in read_archive(folder).get("references", ())
                  if isinstance(record, Record)] if is_archive(folder) else []
        for done in filter(None, [*packed, *map(read_done, folder.glob("references/*/"))]):
            labels = "none" if had_no_labels(done) else "some"
            before, first = known.setdefault((done.get("dataset", ""), "", "labels"), (labels, folder))
            if before != labels:
                raise UserError(f"{folder} labels of {done.get('dataset')}", f"{before} as in {first}", labels,
                                "Only runs with the same labels can be joined: run one again, with label: none in its data "
                                "or without.")
            for what, mark in (done.get("fingerprint") or {}).items():
                before, first = known.setdefault((done.get("dataset", ""), done.get("teacher", ""), what), (mark, folder))
                if before != mark:
                    raise UserError(f"{folder} {what} (fingerprint)", f"{before} as in {first}", mark,
                                    "Only runs on the same images and weights can be joined.")


def _refused(found: Unlike, folder: Path, first: Path) -> UserError:
    if found.name is None:
        return UserError(f"{folder} {found.key}", f"{json.dumps(found.first)[:120]} as in {first}",
                         json.dumps(found.second)[:120], "Only runs of one study can be joined.")
    shown = [yaml.safe_dump(value, default_flow_style=True, width=1000).strip()[:120] for value in found.apart]
    return UserError(f"{folder} {found.key} '{found.name}'", shown[0], shown[1], "Give it another name.")
