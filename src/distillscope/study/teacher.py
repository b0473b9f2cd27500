"""The teacher's part of a study: its embeddings, the targets fitted on them, and its own results."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from distillscope import registry
from distillscope.config.parts import Dataset, Part, Teacher
from distillscope.config.study import Study
from distillscope.data.splits import Splits
from distillscope.errors import UserError
from distillscope.results.rundir import is_complete, read_done, reference_folder
from distillscope.study.fingerprint import fingerprint
from distillscope.study.preflight import check_teacher
from distillscope.study.prepared import Prepared, Untransformed, prepare_targets
from distillscope.study.reference import run_reference
from distillscope.teachers.rows import load_teacher


def run_teacher(study: Study, data: Dataset, teacher: Teacher, splits: Splits, run: Path, device: str,
                precision: str | None) -> dict[str, Prepared]:
    """The teacher's part: embed, fit the targets, measure what there is to lose. Target's YAML -> its embeddings."""
    encoder = load_teacher(teacher, device, precision)
    arms = list(study.arms)
    check_teacher(study, encoder, splits)
    parts = {target_key(part): part for part in (study.target, *map(study.target_of, arms))}
    prepared = {key: prepare_targets(study, encoder, splits, part, [a for a in arms if target_key(study.target_of(a)) == key])
                for key, part in parts.items()}
    _distinct_targets({key: p.target_name for key, p in prepared.items()}, parts)
    common = prepared[target_key(study.target)].folder
    prepared = {key: replace(p, common=common) for key, p in prepared.items()}
    by_name = {p.target_name: p for p in prepared.values()}
    wanted = {"none": Part(name="none"), **{p.target_name: parts[key] for key, p in prepared.items()}}
    for name, part in wanted.items():
        folder = reference_folder(run, data.title, teacher.title, name)
        if is_complete(folder):
            _same_items(folder, fingerprint(encoder, splits))
        else:
            shown = by_name.get(name) or Untransformed(encoder, splits)
            training = next((study.training_of(a) for a in arms if study.target_of(a) == part), study.training)
            run_reference(study, teacher.title, encoder, splits, shown, folder, own=part == study.target, training=training)
    return prepared


def target_key(part: Part) -> str:
    """One text for a target and its settings."""
    return json.dumps(part.model_dump(), sort_keys=True)


def _distinct_targets(names: dict[str, str], parts: dict[str, Part]) -> None:
    """Two targets of one name and other settings would share the teacher's own results."""
    seen: dict[str, dict[str, Any]] = {}
    for key, name in names.items():
        part = parts[key]
        settings = {"name": part.name, **{k: p.default for k, p in registry.targets.settings(part.name).items()}, **part.settings}
        if seen.setdefault(name, settings) != settings:
            differs = next(k for k in settings if settings[k] != seen[name].get(k))
            raise UserError(f"target {name}", "one set of settings for it in a study", f"{differs} {seen[name].get(differs)} and {settings[differs]}",
                            "Run the arms of one of them as another study.")


def _same_items(folder: Path, now: dict[str, str]) -> None:
    """A resumed run goes on with the images and the weights that it was begun with: others under their names are refused."""
    before = read_done(folder).get("fingerprint")
    differs = [k for k, mark in now.items() if isinstance(before, dict) and before.get(k, mark) != mark]
    if differs:
        raise UserError(f"--resume {folder.parents[1]}", f"the {differs[0]} that it was begun with", "other ones under the same name",
                        "Put the old ones back, or run into another --out.")
