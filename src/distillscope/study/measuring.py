"""What a trained student lost: every measure, accuracy and stress of one student on the test images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distillscope.config.study import Study
from distillscope.data.source import Source, labels_of
from distillscope.data.splits import Splits
from distillscope.distill.streams import KeyedStreams
from distillscope.measure.audit import audit, prepare
from distillscope.measure.moments import Accumulator
from distillscope.measure.neighbours import knn_accuracy
from distillscope.measure.probe import LinearProbe
from distillscope.measure.rows import unit
from distillscope.measure.spectrum import effective_rank
from distillscope.results.keys import TRAIN_RANK
from distillscope.results.rows import CLEAN, Row
from distillscope.stress.run import run_stresses
from distillscope.stress.subject import Subject
from distillscope.students.load import StudentEncoder
from distillscope.students.networks import capacity
from distillscope.study.conditions import noise_conditions
from distillscope.study.mapped import mapped_measures
from distillscope.study.prepared import Prepared
from distillscope.study.probes import fit_probes, heads, probe_rows, refit
from distillscope.study.saving import save_embeddings, save_predictions

GROUPS = {"spectrum", "alignment", "contrastive", "paper", "similarity"}


@dataclass(frozen=True)
class Fitted:
    """What was fitted to a student's clean train embeddings: the probes by name, and why others could not be."""

    train: np.ndarray
    probes: dict[str, LinearProbe]
    missing: list[str]


def fit_student(study: Study, splits: Splits, student: StudentEncoder, streams: KeyedStreams) -> Fitted:
    """The probes of a student; none where the data has no labels."""
    train = student.embed(splits.train)
    if not splits.labelled:
        return Fitted(train, {}, ["probe, knn and accuracy under noise: the data has no labels"])
    validation = None if splits.validation is None else student.embed(splits.validation)
    return Fitted(train, *fit_probes(study, train, splits, validation, streams.probe_items(len(train))))


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

    def embedded(items: Source, perturbation: Any, label: str) -> np.ndarray:
        return student.embed(items, perturbation)

    model = Subject("student", embedded, heads(probes), splits.train, refit(study, probes), student.module,
                    student.preprocess, student.device)
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
    labels = labels_of(splits.test)
    knn = knn_accuracy(fitted.train, labels_of(splits.train), clean, labels)
    return [*probe_rows(fitted.probes, predictions, labels, "student"),
            Row.clean("knn.student.accuracy", knn, len(splits.test), "fraction")]


def train_rank(train: np.ndarray) -> Row:
    """The row of the effective rank on train images: what the student can fill where it was fitted."""
    total = Accumulator()
    for i in range(0, len(train), 8192):
        total.add(unit(train[i : i + 8192].astype(np.float64)))
    eigenvalues = np.linalg.eigvalsh(total.result().scatter)[::-1].clip(min=0)
    return Row.clean(TRAIN_RANK, float(effective_rank(eigenvalues)), len(train), "dims")
