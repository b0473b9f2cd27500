"""The teacher's part of a study: its embeddings, the targets fitted on them, and its own results."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from distillscope.config.parts import Dataset, Part, Teacher
from distillscope.data.splits import Splits
from distillscope.results.rundir import is_complete, reference_folder
from distillscope.study.preflight import Work, check_teacher
from distillscope.study.prepared import Prepared, Untransformed, prepare_targets
from distillscope.study.reference import run_reference
from distillscope.teachers.rows import load_teacher


def run_teacher(work: Work, data: Dataset, teacher: Teacher, splits: Splits, run: Path) -> dict[str, Prepared]:
    """The teacher's part: embed, fit the targets, measure what there is to lose. Target's YAML -> its embeddings."""
    encoder = load_teacher(teacher, work.device, work.precision)
    check_teacher(work, splits, encoder, teacher.title)
    study, arms = work.study, list(work.study.arms)
    parts = {target_key(part): part for part in (study.target, *map(study.target_of, arms))}
    prepared = {key: prepare_targets(study, encoder, splits, part, [a for a in arms if target_key(study.target_of(a)) == key])
                for key, part in parts.items()}
    common = prepared[target_key(study.target)].folder
    prepared = {key: replace(p, common=common) for key, p in prepared.items()}
    by_name = {p.target_name: p for p in prepared.values()}
    wanted = {"none": Part(name="none"), **{p.target_name: parts[key] for key, p in prepared.items()}}
    for name, part in wanted.items():
        folder = reference_folder(run, data.title, teacher.title, name)
        if not is_complete(folder):
            shown = by_name.get(name) or Untransformed(encoder, splits)
            training = next((study.training_of(a) for a in arms if study.target_of(a) == part), study.training)
            run_reference(study, teacher.title, encoder, splits, shown, folder, own=part == study.target, training=training)
    return prepared


def target_key(part: Part) -> str:
    """One text for a target and its settings."""
    return json.dumps(part.model_dump(), sort_keys=True)
