"""One trial: distil a student, embed with it, measure what it lost, write it down."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from distillscope.config.parts import Remedy, Student
from distillscope.config.study import Arm, Study
from distillscope.data.preprocess import Preprocess
from distillscope.data.source import Source, stratified
from distillscope.data.splits import Splits
from distillscope.devices import choose_device
from distillscope.distill.health import Health
from distillscope.distill.loop import TrainingSet, distill
from distillscope.distill.streams import KeyedStreams, NotebookStreams
from distillscope.files.folder_names import folder_name
from distillscope.files.writing import make_folder, write_atomic, write_json
from distillscope.measure.audit import audit, prepare
from distillscope.measure.moments import Accumulator
from distillscope.measure.neighbours import knn_accuracy
from distillscope.measure.probe import LinearProbe, linear_probe, tuned_probe
from distillscope.measure.rows import unit
from distillscope.measure.spectrum import effective_rank
from distillscope.registry import remedies, students
from distillscope.results.keys import FIT, TRAIN_RANK
from distillscope.results.rows import CLEAN, Row, tidy
from distillscope.results.rundir import Trial, write_results
from distillscope.stress.run import run_stresses
from distillscope.stress.subject import Subject
from distillscope.students.load import StudentEncoder, build_student, save_student
from distillscope.students.networks import capacity
from distillscope.study.mapped import mapped_measures
from distillscope.study.prepared import Prepared, noise_conditions, view_name, view_of

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
    spec = study.student_of(arm, trial.student)
    settings = study.training_of(arm)
    make_folder(folder)
    student, streams = fresh_student(study, arm, spec, trial.seed, prepared, device, precision)
    history = distill(student, training_set(arm, trial.seed, splits, prepared), arm, settings, streams, folder,
                      make_health(splits, prepared), track=track, workers=workers, advance=advance)
    save_student(student, folder, {"target": prepared.target_name, "teacher": trial.teacher, "dataset": trial.dataset,
                                   "objective": arm.objective_name, "seed": trial.seed})
    (folder / "target.safetensors").unlink(missing_ok=True)
    if (prepared.folder / "target.safetensors").exists():
        write_atomic(folder / "target.safetensors",
                     lambda p: p.write_bytes((prepared.folder / "target.safetensors").read_bytes()))
    fitted = fit_student(study, splits, student, streams, settings.batch_size)
    rows, curves, skipped = evaluate(study, splits, prepared, student, streams, fitted, folder)
    seconds = [Row.clean("train.seconds", history[-1]["seconds"], 1, "s")]
    head = {"study": study.name, "dataset": trial.dataset, "split": splits.test.split, "teacher": trial.teacher,
            "student": trial.student, "target": prepared.target_name, "objective": arm.objective_name, "seed": trial.seed,
            "arm": trial.arm}
    table = tidy(head, rows + seconds) + tidy({**head, "split": splits.train.split}, [train_rank(fitted.train)])
    for remedy in study.remedies:
        more, why = apply_remedy(study, remedy, splits, prepared, student, streams, fitted, folder / "remedies" / folder_name(remedy.title),
                                 settings.batch_size)
        table += tidy({**head, "arm": f"{trial.arm}+{remedy.title}"}, more + seconds if more else [])
        skipped += why
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    write_results(folder, table, curves, {
        "trial": asdict(trial), "seconds": round(time.monotonic() - began, 1), "skipped": skipped, "mapped": FIT,
        "warnings": [w for record in history for w in record["warnings"]]})


def apply_remedy(study: Study, remedy: Remedy, splits: Splits, prepared: Prepared, student: StudentEncoder, streams: KeyedStreams,
                 fitted: Fitted, folder: Path, batch_size: int) -> tuple[list[Row], list[str]]:
    """Rows of the student as the remedy leaves it, and what was left out.

    The untouched student's own probes judge it, unless the remedy says that they must be fitted anew (``fits_probes``).
    """
    changed = remedies.call(remedy.name, remedy.settings, student, splits.train, streams.seed, where=f"remedies.{remedy.name}")
    if isinstance(changed, str):
        return [], [f"remedy {remedy.title}: {changed}"]
    save_student(changed, folder, {"remedy": remedy.model_dump(mode="json")})
    if remedies.facts(remedy.name).fits_probes:
        fitted = fit_student(study, splits, changed, streams, batch_size)
    rows, curves, skipped = evaluate(study, splits, prepared, changed, streams, fitted, folder)
    write_json(folder / "curves.json", curves)
    return rows, [f"{remedy.title}: {why}" for why in skipped]


def fresh_student(study: Study, arm: Arm, spec: Student, seed: int, prepared: Prepared, device: str,
                  precision: str) -> tuple[StudentEncoder, KeyedStreams]:
    """The student with its initial weights, and the streams that its other draws come from."""
    dim = prepared.rows("train").shape[1]
    preprocess = Preprocess(spec.image_size, spec.mean, spec.std)
    streams = make_streams(study, arm, spec, seed, dim)
    return streams.build(lambda: build_student(spec.name, spec.settings, dim, preprocess, spec.label,
                                               choose_device(device), precision)), streams


def make_streams(study: Study, arm: Arm, spec: Student, seed: int, dim: int) -> KeyedStreams:
    """Keyed draws, or the notebook's two streams, in which S, M and L follow one another."""
    if study.streams == "keyed":
        return KeyedStreams(seed, spec.label)
    specs = [study.student_of(arm, s.label) for s in study.students]
    makers = [partial(students.call, s.name, s.settings, dim, s.image_size) for s in specs]
    return NotebookStreams(seed, spec.label, makers, specs.index(spec), study.training_of(arm).epochs,
                           unseeded=arm.view is not None)


def training_set(arm: Arm, seed: int, splits: Splits, prepared: Prepared) -> TrainingSet:
    """Train images with their targets: those of the clean images for all epochs, or one set for each epoch's view."""
    if arm.view is None or arm.view_target == "clean":
        return TrainingSet(splits.train, lambda epoch: prepared.rows("train"), partial(view_of, arm, seed))
    return TrainingSet(splits.train, lambda epoch: prepared.rows(view_name(arm, seed, epoch)), partial(view_of, arm, seed))


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


@dataclass(frozen=True)
class Fitted:
    """What was fitted to a student's clean train embeddings: the probes by name, and why others could not be."""

    train: np.ndarray
    probes: dict[str, LinearProbe]
    missing: list[str]


def fit_student(study: Study, splits: Splits, student: StudentEncoder, streams: KeyedStreams, batch_size: int) -> Fitted:
    """The probes of a student; none where the data has no labels."""
    train = student.embed(splits.train)
    if not splits.labelled:
        return Fitted(train, {}, ["probe, knn and accuracy under noise: the data has no labels"])
    validation = None if splits.validation is None else student.embed(splits.validation)
    return Fitted(train, *fit_probes(study, train, splits, validation, streams.probe_items(len(train), batch_size)))


def train_rank(train: np.ndarray) -> Row:
    """The row of the effective rank on train images: what the student can fill where it was fitted."""
    total = Accumulator()
    for i in range(0, len(train), 8192):
        total.add(unit(train[i : i + 8192].astype(np.float64)))
    eigenvalues = np.linalg.eigvalsh(total.result().scatter)[::-1].clip(min=0)
    return Row.clean(TRAIN_RANK, float(effective_rank(eigenvalues)), len(train), "dims")


def evaluate(study: Study, splits: Splits, prepared: Prepared, student: StudentEncoder, streams: KeyedStreams,
             fitted: Fitted, folder: Path) -> tuple[list[Row], dict[str, Any], list[str]]:
    """Rows, curves, and what was left out with the reason."""
    clean, size = student.embed(splits.test), capacity(student.module, student.preprocess.size)
    save_embeddings(folder / "embeddings_test", clean, splits.test)
    found = audit(prepare(np.asarray(prepared.rows("test")), normalize="l2"), clean, splits.test.labels, normalize="l2",
                  groups=GROUPS, intervals=False)
    rows = [Row.clean("capacity.parameters", size["parameters"], 1, "parameters"),
            Row.clean("capacity.multiply_adds", size["multiply_adds"], 1, "multiply-adds an image")]
    rows += [Row.clean(key, v.value, v.n, v.unit) for key, v in found.values.items() if not key.startswith("teacher.")]
    curves = {key: curve for key, curve in found.to_dict()["curves"].items() if not key.startswith("teacher.")}
    skipped = [f"{key}: {why}" for key, why in found.left_out.items()]
    rows += mapped_measures(clean, prepared.common_rows("test"))
    skipped += fitted.missing
    if splits.labelled:
        rows += accuracies(study, splits, student, streams, fitted, clean, folder)
    probes = fitted.probes
    model = Subject("student", lambda items, perturbation, label: student.embed(items, perturbation), heads(probes), splits.train,
                    refit(study, probes), student.module, student.preprocess, student.device)
    stressed = run_stresses(study.stresses, model, splits.test, study.noise.seed, folder)
    return rows + stressed.rows, {**curves, **stressed.curves}, skipped + stressed.skipped


def accuracies(study: Study, splits: Splits, student: StudentEncoder, streams: KeyedStreams, fitted: Fitted, clean: np.ndarray,
               folder: Path) -> list[Row]:
    """Probes clean and under the study's noise, and nearest neighbours; the predictions are saved."""
    conditions = noise_conditions(study)
    noises = dict(zip(conditions, streams.noise(list(conditions.values()), len(splits.test)), strict=True))
    predictions: dict[tuple, np.ndarray] = {}
    for key in [(CLEAN, None), *conditions]:
        z = student.embed(splits.test, noises[key]) if key in noises else clean
        predictions.update({(name, *key): probe.predict(z) for name, probe in fitted.probes.items()})
    save_predictions(folder / "predictions.parquet", predictions, splits.test)
    knn = knn_accuracy(fitted.train, splits.train.labels, clean, splits.test.labels)
    return [*probe_rows(fitted.probes, predictions, splits.test.labels, "student"),
            Row.clean("knn.student.accuracy", knn, len(splits.test), "fraction")]


def heads(probes: Mapping[str, LinearProbe]) -> dict[str, LinearProbe]:
    """The probes by the head of their keys."""
    return {PROBES[name]: probe for name, probe in probes.items()}


def refit(study: Study, probes: Mapping[str, LinearProbe]) -> Callable[[np.ndarray, np.ndarray], dict[str, LinearProbe]]:
    """Fits the same kinds of probe to other embeddings; the tuned one keeps its C."""
    def fit(z: np.ndarray, labels: np.ndarray) -> dict[str, LinearProbe]:
        own = {"paper": {}, "tuned": {"standardise": True, "unit_norm": False, "tol": 1e-5}}
        return heads({name: linear_probe(z, labels, c=probe.c, max_iter=study.probes.max_iter, **own[name])
                      for name, probe in probes.items()})

    return fit


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
               side: str) -> list[Row]:
    """Accuracy under every condition; the certificate and C of each fit."""
    rows = [Row(f"{PROBES[name]}.{side}.accuracy", condition, draw, float((predicted == labels).mean()), len(labels), "fraction")
            for (name, condition, draw), predicted in predictions.items()]
    for name, probe in probes.items():
        head = f"{PROBES[name]}.{side}"
        rows += [Row.clean(f"{head}.gradient_norm", probe.gradient_norm, len(labels), "norm of the mean loss's gradient"),
                 Row.clean(f"{head}.c", probe.c, len(labels), "inverse penalty")]
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


