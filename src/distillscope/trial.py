"""One trial: distil a student, embed with it, measure what it lost, write it down."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from distillscope.audit import audit, prepare
from distillscope.config import Arm, Student, Study
from distillscope.data.preprocess import Preprocess
from distillscope.data.source import Source, stratified
from distillscope.data.splits import Splits
from distillscope.devices import choose_device
from distillscope.distill.health import Health
from distillscope.distill.loop import TrainingSet, distill
from distillscope.distill.prepared import Prepared, noise_conditions, view_name, view_of
from distillscope.distill.streams import KeyedStreams, NotebookStreams
from distillscope.files import write_atomic
from distillscope.measure.neighbours import knn_accuracy
from distillscope.measure.probe import LinearProbe, linear_probe, tuned_probe
from distillscope.registry import students
from distillscope.rundir import Trial, write_results
from distillscope.students.load import StudentEncoder, build_student, save_student
from distillscope.students.networks import capacity

GROUPS = {"spectrum", "alignment", "contrastive", "paper", "similarity"}
HEALTH_ITEMS, GALLERY_ITEMS = 1000, 4000
PROBES = {"paper": "paper.probe", "tuned": "probe"}
"""Probe -> the head of its keys: the paper's setting stands under paper.*, the tuned one under probe.*."""


def run_trial(study: Study, trial: Trial, splits: Splits, prepared: Prepared, folder: Path, *, device: str = "auto",
              precision: str = "float32", track: str | None = None, workers: int = 0,
              advance: Callable[[int], None] = lambda count: None) -> None:
    """Everything of one trial, into ``folder``; ``advance`` counts training images."""
    began = time.monotonic()
    arm = next(a for a in study.arms if a.name == trial.arm)
    spec = next(s for s in study.students if s.label == trial.student)
    settings = study.training_of(arm)
    folder.mkdir(parents=True, exist_ok=True)
    student, streams = fresh_student(study, arm, spec, trial.seed, prepared, device, precision)
    history = distill(student, training_set(arm, trial.seed, splits, prepared), arm, settings, streams, folder,
                      make_health(splits, prepared), track=track, workers=workers, advance=advance)
    save_student(student, folder, {"target": prepared.target_name, "teacher": trial.teacher, "dataset": trial.dataset,
                                   "objective": arm.objective_name, "seed": trial.seed})
    (folder / "target.safetensors").unlink(missing_ok=True)
    if (prepared.folder / "target.safetensors").exists():
        write_atomic(folder / "target.safetensors",
                     lambda p: p.write_bytes((prepared.folder / "target.safetensors").read_bytes()))
    rows, curves, skipped = evaluate(study, splits, prepared, student, streams, settings.batch_size, folder)
    rows += [("capacity.parameters", "clean", None, capacity(student.module, spec.image_size)["parameters"], 1, "parameters"),
             ("capacity.multiply_adds", "clean", None, capacity(student.module, spec.image_size)["multiply_adds"], 1,
              "multiply-adds an image"),
             ("train.seconds", "clean", None, history[-1]["seconds"], 1, "s")]
    head = {"study": study.name, "dataset": trial.dataset, "split": splits.test.split, "teacher": trial.teacher,
            "student": trial.student, "target": prepared.target_name, "objective": arm.objective_name, "seed": trial.seed,
            "arm": trial.arm}
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    write_results(folder, tidy(head, rows), curves, {
        "trial": asdict(trial), "seconds": round(time.monotonic() - began, 1), "skipped": skipped,
        "warnings": [w for record in history for w in record["warnings"]]})


def fresh_student(study: Study, arm: Arm, spec: Student, seed: int, prepared: Prepared, device: str,
                  precision: str) -> tuple[StudentEncoder, KeyedStreams]:
    """The student with its initial weights, and the streams that its other draws come from."""
    dim = prepared.rows("train").shape[1]
    preprocess = Preprocess(spec.image_size, spec.mean, spec.std)
    streams = make_streams(study, arm, spec, seed, dim)
    return streams.build(lambda: build_student(spec.name, spec.settings, dim, preprocess, spec.label,
                                               choose_device(device), precision)), streams


def tidy(head: Mapping[str, Any], rows: list[tuple]) -> list[dict[str, Any]]:
    """(measure, condition, draw, value, n, unit) with the columns that they share."""
    names = ("measure", "condition", "draw", "value", "n", "unit")
    return [{**head, **dict(zip(names, row, strict=True))} for row in rows]


def make_streams(study: Study, arm: Arm, spec: Student, seed: int, dim: int) -> KeyedStreams:
    """Keyed draws, or the notebook's two streams, in which S, M and L follow one another."""
    if study.streams == "keyed":
        return KeyedStreams(seed, spec.label)
    makers = [partial(students.call, s.name, s.settings, dim, s.image_size) for s in study.students]
    return NotebookStreams(seed, spec.label, makers, list(study.students).index(spec), study.training_of(arm).epochs,
                           unseeded=arm.view is not None)


def training_set(arm: Arm, seed: int, splits: Splits, prepared: Prepared) -> TrainingSet:
    """Train images with their targets: those of the clean images for all epochs, or one set for each epoch's view."""
    if arm.view is None or arm.view_target == "clean":
        return TrainingSet(splits.train, lambda epoch: prepared.rows("train"), partial(view_of, arm, seed))
    return TrainingSet(splits.train, lambda epoch: prepared.rows(view_name(arm, seed, epoch)), partial(view_of, arm, seed))


def make_health(splits: Splits, prepared: Prepared) -> Health:
    """Held-out images where there are some; else training images, and the records say so."""
    held, targets, split = splits.validation, None, "validation"
    gallery = splits.train.take(stratified(splits.train, GALLERY_ITEMS, "health gallery"))
    if held is not None:
        few = stratified(held, HEALTH_ITEMS, "health")
        held, targets = held.take(few), np.asarray(prepared.rows("validation")[few])
    else:
        few = stratified(splits.train, HEALTH_ITEMS, "health")
        held, targets, split = splits.train.take(few), np.asarray(prepared.rows("train")[few]), "train, not held out"
        gallery = splits.train.take(np.setdiff1d(stratified(splits.train, GALLERY_ITEMS, "health gallery"), few))
    return Health(held, targets, gallery, split)


def evaluate(study: Study, splits: Splits, prepared: Prepared, student: StudentEncoder, streams: KeyedStreams,
             batch_size: int, folder: Path) -> tuple[list[tuple], dict[str, Any], list[str]]:
    """Rows (measure, condition, draw, value, n, unit), curves, and what was left out with the reason."""
    clean = student.embed(splits.test)
    save_embeddings(folder / "embeddings_test", clean, splits.test)
    found = audit(prepare(np.asarray(prepared.rows("test")), normalize="l2"), clean, splits.test.labels, normalize="l2",
                  groups=GROUPS, intervals=False)
    rows = [(key, "clean", None, v.value, v.n, v.unit) for key, v in found.values.items() if not key.startswith("teacher.")]
    curves = {key: curve for key, curve in found.to_dict()["curves"].items() if not key.startswith("teacher.")}
    skipped = [f"{key}: {why}" for key, why in found.left_out.items()]
    if not splits.labelled:
        return rows, curves, [*skipped, "probe, knn and accuracy under noise: the data has no labels"]
    train = student.embed(splits.train)
    chosen = streams.probe_items(len(splits.train), batch_size)
    validation = None if splits.validation is None else student.embed(splits.validation)
    probes, missing = fit_probes(study, train, splits, validation, chosen)
    conditions = noise_conditions(study)
    noises = dict(zip(conditions, streams.noise(list(conditions.values()), len(splits.test)), strict=True))
    embeddings = {("clean", None): clean}
    predictions: dict[tuple, np.ndarray] = {}
    for key in [("clean", None), *conditions]:
        z = embeddings.get(key)
        z = student.embed(splits.test, noises[key]) if z is None else z
        predictions.update({(name, *key): probe.predict(z) for name, probe in probes.items()})
    rows += probe_rows(probes, predictions, splits.test.labels, "student")
    rows.append(("knn.student.accuracy", "clean", None, knn_accuracy(train, splits.train.labels, clean, splits.test.labels),
                 len(splits.test), "fraction"))
    save_predictions(folder / "predictions.parquet", predictions, splits.test)
    return rows, curves, [*skipped, *missing]


def fit_probes(study: Study, train: np.ndarray, splits: Splits, validation: np.ndarray | None,
               chosen: np.ndarray) -> tuple[dict[str, LinearProbe], list[str]]:
    """The probes that the study asks for, fitted on clean train embeddings; and what could not be fitted."""
    probes, missing = {}, []
    labels = splits.train.labels
    if study.probes.paper:
        probes["paper"] = linear_probe(train[chosen], labels[chosen], max_iter=study.probes.max_iter)
    if study.probes.tuned and validation is None:
        missing.append("probe (tuned): no validation part; set validation=1000")
    elif study.probes.tuned:
        probes["tuned"] = tuned_probe(train, labels, validation, splits.validation.labels, cs=study.probes.cs,
                                      max_iter=study.probes.max_iter)
    return probes, missing


def probe_rows(probes: Mapping[str, LinearProbe], predictions: Mapping[tuple, np.ndarray], labels: np.ndarray,
               side: str) -> list[tuple]:
    """Accuracy under every condition; the certificate and C of each fit."""
    rows = [(f"{PROBES[name]}.{side}.accuracy", condition, draw, float((predicted == labels).mean()), len(labels), "fraction")
            for (name, condition, draw), predicted in predictions.items()]
    for name, probe in probes.items():
        head = f"{PROBES[name]}.{side}"
        rows += [(f"{head}.gradient_norm", "clean", None, probe.gradient_norm, len(labels), "norm of the mean loss's gradient"),
                 (f"{head}.c", "clean", None, probe.c, len(labels), "inverse penalty")]
    return rows


def save_embeddings(folder: Path, embeddings: np.ndarray, source: Source, dtype: type = np.float16) -> None:
    """clip-retrieval's layout, with ids (and labels); float16 unless asked otherwise."""
    write_atomic(folder / "img_emb" / "img_emb_0.npy", lambda p: np.save(p, embeddings.astype(dtype), allow_pickle=False))
    table = {"image_path": source.ids} | ({} if source.labels is None else {"label": source.labels})
    write_atomic(folder / "metadata" / "metadata_0.parquet", lambda p: pd.DataFrame(table).to_parquet(p, index=False))


def save_predictions(path: Path, predictions: Mapping[tuple, np.ndarray], source: Source) -> None:
    """One column for each probe, condition and draw, beside id and label."""
    columns: dict[str, Any] = {"id": source.ids, "label": source.labels.astype(np.int32)}
    for (probe, condition, draw), predicted in predictions.items():
        columns[f"{probe}|{condition}|{'' if draw is None else draw}"] = predicted.astype(np.int32)
    write_atomic(path, lambda p: pd.DataFrame(columns).to_parquet(p, index=False))


