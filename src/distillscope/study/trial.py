"""One trial: a fresh student with its streams of draws is distilled, embeds, and what it lost is measured and written down."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from distillscope.config.parts import READ, TRIAL, Remedy, Student
from distillscope.config.study import Arm, Study
from distillscope.data.preprocess import Preprocess
from distillscope.data.source import stratified
from distillscope.data.splits import Splits
from distillscope.devices import choose_device
from distillscope.files.folders import KEEP_GIB, folder_name, seen_from
from distillscope.files.writing import make_folder, write_json, write_text
from distillscope.registry import remedies, students
from distillscope.results.keys import FIT
from distillscope.results.rows import Row, tidy
from distillscope.results.run_files import Trial
from distillscope.results.rundir import json_object, read_done, write_results
from distillscope.students.card import teacher_id
from distillscope.students.load import StudentEncoder, build_own, build_student, save_student
from distillscope.students.own_network import OwnNetwork
from distillscope.study.measuring import Fitted, evaluate, fit_student, train_rank
from distillscope.study.prepared import Prepared, asks_for_logits, seen_view, target_name
from distillscope.training.health import Health
from distillscope.training.loop import TrainingSet, distill
from distillscope.training.stored_images import seen_by
from distillscope.training.streams import KeyedStreams, NotebookStreams


def run_trial(study: Study, trial: Trial, splits: Splits, prepared: Prepared, folder: Path, *, device: str = "auto",
              precision: str = "float32", track: str | None = None, keep_images: float = KEEP_GIB,
              advance: Callable[[int], None] = lambda count: None) -> None:
    """Everything of one trial, into ``folder``; ``advance`` counts training images, ``keep_images`` GiB (`seen_by`)."""
    began = time.monotonic()
    arm = next(a for a in study.arms if a.name == trial.arm)
    spec = study.student_of(arm, trial.student)
    settings = study.training_of(arm)
    make_folder(folder)
    student, streams = fresh_student(study, arm, spec, trial.seed, prepared, device, precision)
    if splits.whole_train.decoding:
        student.decoding = splits.whole_train.decoding.whole
    seen = seen_by(student.preprocess, splits, arm, keep_images)
    history = distill(student, training_set(arm, trial.seed, seen, prepared), arm, settings, streams, folder,
                      make_health(seen, prepared), track=track, advance=advance)
    taught_by = next((teacher_id(teacher) for teacher in study.teacher if teacher.title == trial.teacher), "")
    save_student(student, folder, {"target": prepared.target_name, "teacher": trial.teacher, "teacher_id": taught_by,
                                   "dataset": trial.dataset, "objective": arm.objective_name, "seed": trial.seed})
    write_text(folder / TRIAL, yaml.safe_dump(_made_of(study, trial, precision, prepared, folder), sort_keys=False,
                                              allow_unicode=True))
    prepared.copy_target(folder)
    fitted = fit_student(study, seen, student, streams)
    rows, curves, skipped = evaluate(study, splits, prepared, student, streams, fitted, folder)
    seconds = [Row.clean("train.seconds", history[-1]["seconds"], 1, "s")]
    head = {"study": study.name, "dataset": trial.dataset, "split": splits.test.split, "teacher": trial.teacher,
            "student": trial.student, "target": prepared.target_name, "objective": arm.objective_name, "seed": trial.seed,
            "arm": trial.arm}
    table = tidy(head, rows + seconds) + tidy({**head, "split": splits.train.split}, train_rank(fitted.train))
    for remedy in study.remedies:
        more, why = apply_remedy(study, remedy, splits, prepared, student, streams, fitted,
                                 folder / "remedies" / folder_name(remedy.title))
        table += tidy({**head, "arm": f"{trial.arm}+{remedy.title}"}, more + seconds if more else [])
        skipped += why
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    write_results(folder, table, curves, {
        "trial": asdict(trial), "seconds": round(time.monotonic() - began, 1), "skipped": skipped, "mapped": FIT,
        "warnings": [w for record in history for w in record["warnings"]]})


def _made_of(study: Study, trial: Trial, precision: str, prepared: Prepared, folder: Path) -> dict[str, Any]:
    """What the run says of the trial's student alone, for a folder that is copied out of it: its part of the study, and what
    names images and weights."""
    run = folder.parent.parent
    kept = json_object(run / "provenance.json").get(READ, {}).get(trial.dataset)
    if isinstance(kept, dict) and isinstance(kept.get("start"), str):
        kept = {**kept, "start": seen_from(folder, run / kept["start"])}
    own = study.model_copy(update={
        "data": tuple(d for d in study.data if d.title == trial.dataset),
        "teacher": tuple(t for t in study.teacher if t.title == trial.teacher),
        "students": tuple(s for s in study.students if s.label == trial.student),
        "arms": tuple(a for a in study.arms if a.name == trial.arm), "seeds": (trial.seed,)})
    marks = read_done(prepared.taught.parent).get("fingerprint") if prepared.taught else None
    return {"settings": own.dump(), "precision": precision, "fingerprint": marks, READ: kept}


def apply_remedy(study: Study, remedy: Remedy, splits: Splits, prepared: Prepared, student: StudentEncoder,
                 streams: KeyedStreams, fitted: Fitted, folder: Path) -> tuple[list[Row], list[str]]:
    """Rows of the student as the remedy leaves it, and what was left out.

    The untouched student's own probes judge it, unless the remedy says that they must be fitted again (``fits_probes``).
    """
    changed = remedies.call(remedy.name, remedy.settings, student, splits.train, streams.seed, where=f"remedies.{remedy.name}")
    if isinstance(changed, str):
        return [], [f"remedy {remedy.title}: {changed}"]
    save_student(changed, folder, {"remedy": remedy.model_dump(mode="json")})
    if remedies.facts(remedy.name).fits_probes:
        fitted = fit_student(study, splits, changed, streams)
    rows, curves, skipped = evaluate(study, splits, prepared, changed, streams, fitted, folder)
    write_json(folder / "curves.json", curves)
    return rows, [f"{remedy.title}: {why}" for why in skipped]


HEALTH_ITEMS, GALLERY_ITEMS = 1000, 4000


def fresh_student(study: Study, arm: Arm, spec: Student, seed: int, prepared: Prepared, device: str, precision: str,
                  own: OwnNetwork | None = None) -> tuple[StudentEncoder, KeyedStreams]:
    """The student with its initial weights, and the streams that its other draws come from; ``own``: a caller's network."""
    dim = prepared.rows("train").shape[1]
    preprocess = Preprocess(spec.image_size, spec.mean, spec.std)
    streams = make_streams(study, arm, spec, seed, dim)
    if own is not None:
        return streams.build(lambda: build_own(own.module, dim, own.preprocess, own.label, choose_device(device),
                                               precision)), streams
    return streams.build(lambda: build_student(spec.name, spec.settings, dim, preprocess, spec.label,
                                               choose_device(device), precision)), streams


def make_streams(study: Study, arm: Arm, spec: Student, seed: int, dim: int) -> KeyedStreams:
    """Keyed draws, or the notebook's two streams, in which S, M and L follow one another."""
    if study.streams == "keyed":
        return KeyedStreams(seed, spec.label, study.noise.per_seed)
    specs = [study.student_of(arm, s.label) for s in study.students]
    makers = [partial(students.call, s.name, s.settings, dim, s.image_size) for s in specs]
    return NotebookStreams(seed, spec.label, makers, specs.index(spec), study.training_of(arm),
                           unseeded=arm.view is not None)


def training_set(arm: Arm, seed: int, splits: Splits, prepared: Prepared) -> TrainingSet:
    """Train images with their targets: those of the clean images for all epochs, or one set for each epoch's view."""
    name = partial(target_name, arm, seed)
    return TrainingSet(splits.train, lambda epoch: prepared.rows(name(epoch)), partial(seen_view, arm, seed),
                       (lambda epoch: prepared.logits(name(epoch))) if asks_for_logits(arm) else None)


def make_health(splits: Splits, prepared: Prepared) -> Health:
    """Held-out images where there are some; else training images, and the records say so."""
    held, targets, split = splits.validation, None, "validation"
    shown = stratified(splits.train, GALLERY_ITEMS, "health gallery")
    if held is not None:
        few = stratified(held, HEALTH_ITEMS, "health")
        held, targets = held.take(few), np.asarray(prepared.rows("validation")[few])
    else:
        few = stratified(splits.train, HEALTH_ITEMS, "health")
        held, targets, split = splits.train.take(few), np.asarray(prepared.rows("train")[few]), "train, not held out"
        shown = np.setdiff1d(shown, few)
    return Health(held, targets, splits.train.take(shown), split, np.asarray(prepared.rows("train")[shown]))
