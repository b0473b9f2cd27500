"""Join runs of one study that were made apart, on other machines or on other days."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import yaml

from distillscope import progress
from distillscope.config.load import study_from
from distillscope.errors import UserError
from distillscope.files.archives import is_archive
from distillscope.files.json_reader import read_json
from distillscope.files.writing import write_json
from distillscope.results.archive import read_archive, unpack
from distillscope.results.run_files import Record
from distillscope.results.rundir import GROWING, is_complete, item_name, load_config, open_run


def merge_runs(run_dirs: Sequence[Path], out: Path) -> Path:
    """Copy every finished trial and reference of ``run_dirs`` into ``out``, and write the report: its page's path.

    An archive gives what it holds: numbers and curves, no weights. The runs must be one study: everything but the grid's axes (seeds, students, arms, data, teacher) must be equal, and
    so must what stands under one name. A trial that several runs finished is taken from the first.
    """
    configs = [load_config(Path(d)) for d in run_dirs]
    if len(configs) < 2:
        raise UserError("merge", "at least two run directories", str(len(configs)), "Name them all.")
    joined = dict(configs[0])
    for folder, config in zip(run_dirs[1:], configs[1:], strict=True):
        for key in sorted({*joined, *config} - {"description", "published"}):
            if key in GROWING:
                joined[key] = _union(key, joined.get(key, []), config.get(key, []), f"{folder} {key}")
            elif joined.get(key) != config.get(key):
                raise UserError(f"{folder} {key}", f"{json.dumps(joined.get(key))[:120]} as in {run_dirs[0]}",
                                json.dumps(config.get(key))[:120], "Only runs of one study can be joined.")
    study = study_from(joined, "merge")
    open_run(study, out, resume=False)
    records = []
    for folder in map(Path, run_dirs):
        if (folder / "provenance.json").exists():
            records.append(read_json(folder / "provenance.json"))
        for kind, found in read_archive(folder).items() if is_archive(folder) else ():
            for name, record in found:
                if isinstance(record, Record) and not (out / kind / name).exists():
                    unpack(record, out / kind / name)
        for part in sorted([*folder.glob("references/*/"), *folder.glob("trials/*/")]):
            target = out / part.parent.name / part.name
            if not is_complete(part):
                progress.say(f"{part}: not finished, left out")
            elif not target.exists():
                shutil.copytree(part, target)
    if records:
        commands = "; ".join(dict.fromkeys(r.get("command", "") for r in records))
        conditions = {k: v for r in records for k, v in r.get("conditions", {}).items()}
        write_json(out / "provenance.json", {**records[0], "command": commands, "conditions": conditions, "merged": records,
                                             "seconds": sum(r.get("seconds", 0) for r in records)})
    from distillscope.report.write import write_report

    return write_report(out)


def _union(key: str, first: list, second: list, where: str) -> list:
    """Items of both, in order; two that share a name must be equal."""
    name = partial(item_name, key)
    known = {name(i): i for i in first}
    for item in second:
        other = known.get(name(item), item)
        if other != item:
            differs = [k for k in {**other, **item} if other.get(k) != item.get(k)]
            shown = [yaml.safe_dump({k: i.get(k) for k in differs}, default_flow_style=True, width=1000).strip()[:120]
                     for i in (other, item)]
            raise UserError(f"{where} '{name(item)}'", *shown, "Give it another name.")
    return [*first, *(i for i in second if name(i) not in known)]
