"""What a trained student lost: measures, probes, accuracy and stresses on the test images; and what is kept of it.

``mapped.*`` is the student in the teacher's space: what arms with different targets, or none, have in common. A rank is
cheap to raise: whitening moves it without any training. So it is reported twice: raw, and after the ridge map that predicts
the teacher's embedding of an image from the student's, where directions that say nothing about the teacher are shrunk away.

The map is fitted on test images, cross-fitted: each image is mapped by a fit that never saw it. Fitted on the student's own
train images (as it was until 2026-11-26) it takes a student that has memorised them at its word: the penalty is chosen
against embeddings that fit too well, and overfitting reads as lost information. The validation part would do as well, but a
study may have none (the paper's), or one that is small beside 512 dimensions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from distillscope.config.study import Study
from distillscope.data.source import Source, labels_of
from distillscope.data.splits import Splits
from distillscope.files.writing import write_atomic
from distillscope.measure.audit import audit, prepare
from distillscope.measure.contrastive import TEMPERATURES, infonce_losses
from distillscope.measure.neighbours import knn_accuracy
from distillscope.measure.pool import Side
from distillscope.measure.probe import FOLDS, LinearProbe, linear_probe, ridge, standardised_probe, tuned_probe
from distillscope.measure.results import NotMeasured
from distillscope.measure.rows import Accumulator, Frame, Rows, merged, moments, unit
from distillscope.measure.spectrum import effective_rank
from distillscope.results.keys import TRAIN_RANK
from distillscope.results.rows import CLEAN, Row
from distillscope.results.rundir import NO_LABELS
from distillscope.stress.subject import Subject, run_stresses
from distillscope.students.load import StudentEncoder
from distillscope.students.networks import capacity
from distillscope.study.flips import against_teacher, by_noise, column, read_predictions
from distillscope.study.prepared import Prepared, noise_conditions
from distillscope.training.streams import KeyedStreams

GROUPS = {"spectrum", "alignment", "contrastive", "paper", "similarity"}
PROBES = {"paper": "paper.probe", "tuned": "probe"}
"""Probe -> the head of its keys: the paper's setting stands under paper.*, the tuned one under probe.*."""
PREDICTIONS = "predictions.parquet"
MAPPED = {"student.effective_rank": "effective_rank", "retrieval.recall_at_1": "recall_at_1",
        "retrieval.recall_at_5": "recall_at_5", "retrieval.recall_at_10": "recall_at_10",
        "retrieval.neighbour_overlap_10": "neighbour_overlap_10"}


@dataclass(frozen=True)
class Fitted:
    """What was fitted to a student's clean train embeddings: the probes by name, and why others could not be."""

    train: np.ndarray
    probes: dict[str, LinearProbe]
    missing: list[str]


def fit_student(study: Study, splits: Splits, student: StudentEncoder, streams: KeyedStreams) -> Fitted:
    """The probes of a student; none where the data has no labels."""
    train = student.embed_source(splits.train)
    if not splits.labelled:
        return Fitted(train, {}, [f"probe, knn and accuracy under noise: {NO_LABELS}"])
    validation = None if splits.validation is None else student.embed_source(splits.validation)
    return Fitted(train, *fit_probes(study, train, splits, validation, streams.probe_items(len(train))))


def evaluate(study: Study, splits: Splits, prepared: Prepared, student: StudentEncoder, streams: KeyedStreams,
             fitted: Fitted, folder: Path) -> tuple[list[Row], dict[str, Any], list[str]]:
    """Rows, curves, and what was left out with the reason."""
    clean, size = student.embed_source(splits.test), capacity(student.module, student.preprocess.size)
    save_embeddings(folder / "embeddings_test", clean, splits.test)
    found = audit(teacher_side(prepared.rows_file("test")), clean, splits.test.labels, normalize="l2", groups=GROUPS,
                  only=lambda key: not key.startswith("teacher."), intervals=False)
    rows = [Row.clean("capacity.parameters", size["parameters"], 1, "parameters"),
            Row.clean("capacity.multiply_adds", size["multiply_adds"], 1, "multiply-adds per image")]
    rows += [Row.clean(key, v.value, v.n, v.unit) for key, v in found.measured.items()]
    curves = found.to_dict()["curves"]
    skipped = [f"{key}: {why}" for key, why in found.left_out.items()]
    if splits.validation is not None and (by_temperature := curves.get("contrastive.infonce_by_temperature")):
        temperature = best_temperature(student.embed_source(splits.validation), prepared.rows("validation"))
        at = by_temperature["x"].index(temperature)
        rows.append(Row.clean("contrastive.infonce_chosen_temperature", by_temperature["y"][at],
                              found.measured["contrastive.infonce_best_temperature"].n, "nats"))
    rows += mapped_measures(clean, teacher_side(prepared.common_rows_file("test")))
    skipped += fitted.missing
    if splits.labelled:
        rows += accuracies(study, splits, prepared, student, streams, fitted, clean, folder)
    probes = fitted.probes

    def embedded(items: Source, perturbation: Any, label: str) -> np.ndarray:
        return student.embed_source(items, perturbation)

    model = Subject("student", embedded, heads(probes), splits.train, refit(study, probes), student.module,
                    student.preprocess, student.device)
    stressed = run_stresses(study.stresses, model, splits.test, streams.noise_seed(study.noise.seed), folder)
    return rows + stressed.rows, {**curves, **stressed.curves}, skipped + stressed.skipped


def best_temperature(student: np.ndarray, teacher: np.ndarray) -> float:
    """Which of `TEMPERATURES` gives rows (n, d) of both sides the least InfoNCE, in one batch of at most 1,024."""
    few = slice(min(len(student), 1024))
    s, t = (unit(np.asarray(z[few], np.float64)) for z in (student, teacher))
    return min(TEMPERATURES, key=lambda temperature: infonce_losses(s, t, temperature).mean())


def teacher_side(path: Path) -> Side:
    """The rows (n, d) of a file, scaled to unit norm, prepared once for all students that a process measures against them."""
    return _kept_side(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _kept_side(path: Path, written: int) -> Side:
    return prepare(np.load(path, allow_pickle=False), normalize="l2")


def accuracies(study: Study, splits: Splits, prepared: Prepared, student: StudentEncoder, streams: KeyedStreams,
               fitted: Fitted, clean: np.ndarray, folder: Path) -> list[Row]:
    """Probes clean and under the study's noise, flips, and nearest neighbours; the predictions are saved."""
    conditions = noise_conditions(study)
    noises = dict(zip(conditions, streams.noise(list(conditions.values()), len(splits.test)), strict=True))
    predictions: dict[tuple, np.ndarray] = {}
    for key in [(CLEAN, None), *conditions]:
        z = student.embed_source(splits.test, noises[key]) if key in noises else clean
        predictions.update({(name, *key): probe.predict(z) for name, probe in fitted.probes.items()})
    save_predictions(folder / PREDICTIONS, predictions, splits.test)
    labels = labels_of(splits.test)
    knn = knn_accuracy(fitted.train, labels_of(splits.train), clean, labels)
    teacher = read_predictions(prepared.taught)
    return [*probe_rows(fitted.probes, predictions, labels, "student"),
            *against_teacher(PROBES, predictions, teacher, labels, not study.noise.per_seed),
            *by_noise(PROBES, predictions, labels, "student"),
            Row.clean("knn.student.accuracy", knn, len(splits.test), "fraction")]


def train_rank(train: np.ndarray) -> list[Row]:
    """The row of the rank on train images, what the student can fill where it was fitted; none where all rows are equal."""
    total = Accumulator()
    for i in range(0, len(train), 8192):
        total.add(unit(train[i : i + 8192].astype(np.float64)))
    eigenvalues = np.linalg.eigvalsh(total.result().scatter)[::-1].clip(min=0)
    try:
        return [Row.clean(TRAIN_RANK, float(effective_rank(eigenvalues)), len(train), "dims")]
    except NotMeasured:
        return []


def save_embeddings(folder: Path, embeddings: np.ndarray, source: Source, dtype: type = np.float16) -> None:
    """clip-retrieval's layout, with ids (and labels); float16 unless asked otherwise."""
    rows: np.ndarray = embeddings.astype(dtype, copy=False)
    write_atomic(folder / "img_emb" / "img_emb_0.npy", lambda p: np.save(p, rows, allow_pickle=False))
    table = {"image_path": source.ids} | ({} if source.labels is None else {"label": source.labels})
    write_atomic(folder / "metadata" / "metadata_0.parquet", lambda p: pd.DataFrame(table).to_parquet(p, index=False))


def save_predictions(path: Path, predictions: Mapping[tuple, np.ndarray], source: Source) -> None:
    """One column for each probe, condition and draw, beside id and label."""
    columns: dict[str, Any] = {"id": source.ids, "label": labels_of(source).astype(np.int32)}
    for (probe, condition, draw), predicted in predictions.items():
        columns[column(probe, condition, draw)] = predicted.astype(np.int32)
    write_atomic(path, lambda p: pd.DataFrame(columns).to_parquet(p, index=False))


def heads(probes: Mapping[str, LinearProbe]) -> dict[str, LinearProbe]:
    """The probes by the head of their keys."""
    return {PROBES[name]: probe for name, probe in probes.items()}


def fit_probes(study: Study, train: np.ndarray, splits: Splits, validation: np.ndarray | None,
               chosen: np.ndarray) -> tuple[dict[str, LinearProbe], list[str]]:
    """The probes that the study asks for, fitted on clean train embeddings; and what could not be fitted."""
    probes: dict[str, LinearProbe] = {}
    missing: list[str] = []
    labels = labels_of(splits.train)
    if study.probes.paper:
        probes["paper"] = linear_probe(train[chosen], labels[chosen], max_iter=study.probes.max_iter)
    if study.probes.tuned and validation is not None and splits.validation is not None:
        probes["tuned"] = tuned_probe(train, labels, validation, labels_of(splits.validation), cs=study.probes.cs,
                                      max_iter=study.probes.max_iter)
    elif study.probes.tuned:
        missing.append("probe (tuned): no validation part; set validation=1000")
    return probes, missing


def refit(study: Study, probes: Mapping[str, LinearProbe]) -> Callable[[np.ndarray, np.ndarray], dict[str, LinearProbe]]:
    """Fits the same kinds of probe to other embeddings; the tuned one keeps its C."""
    def fit(z: np.ndarray, labels: np.ndarray) -> dict[str, LinearProbe]:
        most = study.probes.max_iter
        return heads({name: linear_probe(z, labels, max_iter=most) if name == "paper"
                      else standardised_probe(z, labels, probe.c, max_iter=most) for name, probe in probes.items()})

    return fit


def probe_rows(probes: Mapping[str, LinearProbe], predictions: Mapping[tuple, np.ndarray], labels: np.ndarray,
               side: str) -> list[Row]:
    """Accuracy under every condition; the certificate and C of each fit."""
    rows = [Row(f"{PROBES[name]}.{side}.accuracy", condition, draw, float((predicted == labels).mean()), len(labels),
                "fraction") for (name, condition, draw), predicted in predictions.items()]
    for name, probe in probes.items():
        head = f"{PROBES[name]}.{side}"
        rows += [Row.clean(f"{head}.gradient_norm", probe.gradient_norm, len(labels), "norm of the mean loss's gradient"),
                 Row.clean(f"{head}.c", probe.c, len(labels), "inverse penalty")]
    return rows


def folds_of(teacher: np.ndarray) -> np.ndarray:
    """Fold (n,) of each item, by content: the order of the items changes nothing, and exact repeats share a fold.

    >>> folds_of(np.array([[3.0, 0], [1, 0], [2, 0], [1, 0], [5, 0], [4, 0], [6, 0]])).tolist()
    [2, 0, 1, 0, 4, 3, 0]
    """
    item = np.unique(teacher, axis=0, return_inverse=True)[1].reshape(-1)
    return item % min(FOLDS, item.max() + 1)


def mapped_rows(student: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    """The student's rows (n, d) mapped to the teacher's (n, k), each by the ridge map of the folds that it is not in."""
    fold_of, mapped = folds_of(teacher), np.empty(teacher.shape)
    student = Frame.of(Rows(student)).inside(student)
    folds = [fold_of == fold for fold in np.unique(fold_of)]
    inputs, cross = ([moments(*(z[fold] for z in given)) for fold in folds] for given in ((student,), (student, teacher)))
    for i, out in enumerate(folds):
        x, xy = (merged(part for j, part in enumerate(parts) if j != i) for parts in (inputs, cross))
        mapped[out] = ridge(x, xy, float(np.square(teacher[~out] - xy.other_mean).sum()))(student[out])
    return mapped


def mapped_measures(student: np.ndarray, teacher: Side) -> list[Row]:
    """Rows of the student's test embeddings (n, d), mapped to the teacher's (n, k) at unit norm.

    All rows are scaled to unit norm first. ``mapped.teacher_r2`` is the share of the teacher's variance that the map explains,
    ``mapped.mean_cosine`` the mean cosine with the teacher's embedding.

    >>> x = np.random.default_rng(0).normal(size=(400, 6))
    >>> found = {row.measure: row.value for row in mapped_measures(x, prepare(x[:, ::-1], normalize="l2"))}
    >>> round(found["mapped.teacher_r2"], 6), found["mapped.recall_at_1"]
    (1.0, 1.0)
    """
    reference = teacher.rows.take(slice(None))
    mapped = mapped_rows(unit(np.asarray(student, np.float64)), reference)
    residual = np.square(reference - mapped).sum() / np.square(reference - reference.mean(axis=0)).sum()
    cosines = (unit(mapped) * reference).sum(axis=1)
    found = audit(teacher, prepare(mapped, "student"), normalize="l2", groups={"spectrum", "retrieval"},
                  only=MAPPED.__contains__, intervals=False).measured
    rows = [Row.clean(f"mapped.{name}", found[key].value, found[key].n, found[key].unit)
            for key, name in MAPPED.items() if key in found]
    return [*rows, Row.clean("mapped.teacher_r2", float(1 - residual), len(reference), "share"),
            Row.clean("mapped.mean_cosine", float(cosines.mean()), len(reference), "cosine")]
