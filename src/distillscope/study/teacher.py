"""The teacher's part of a study: its embeddings, the targets fitted on them, and its own results: what there was to lose."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from distillscope.config.parts import Dataset, Part, Stress, Teacher
from distillscope.config.study import Study, Training
from distillscope.data.source import Source, labels_of
from distillscope.data.splits import Splits
from distillscope.measure.audit import audit_one
from distillscope.measure.neighbours import knn_accuracy
from distillscope.measure.probe import LinearProbe
from distillscope.registry import stresses
from distillscope.results.rows import CLEAN, TEACHER, Row, tidy
from distillscope.results.rundir import NO_LABELS, is_complete, reference_folder, write_results
from distillscope.stress.subject import Findings, Subject, run_stresses
from distillscope.study.flips import by_noise
from distillscope.study.marks import marks
from distillscope.study.measuring import (
    PREDICTIONS,
    PROBES,
    fit_probes,
    heads,
    probe_rows,
    refit,
    save_embeddings,
    save_predictions,
)
from distillscope.study.preflight import Work, check_teacher
from distillscope.study.prepared import Prepared, Untransformed, noise_conditions, prepare_targets
from distillscope.targets.transforms import Target
from distillscope.teachers.encoder import TeacherRows


def run_reference(study: Study, teacher_title: str, encoder: TeacherRows, splits: Splits, shown: Prepared | Untransformed,
                  folder: Path, *, own: bool = True, training: Training | None = None) -> None:
    """Measure the teacher's embeddings, as they are ``shown`` to the students, clean and under the study's noise.

    ``own`` says that the target is the study's own: some stresses (top_k) are run on that one alone, for their cost.
    ``training`` is that of the students who learn this target (default: the study's); the notebook's probe drops the last
    batch.
    """
    began = time.monotonic()
    clean, target = np.asarray(shown.rows("test")), shown.target
    found = audit_one(clean, normalize="l2", intervals=False)
    rows = [Row.clean(key, v.value, v.n, v.unit) for key, v in found.measured.items()]
    skipped = [f"{key}: {why}" for key, why in found.left_out.items()]
    if encoder.num_parameters:  # an ONNX session does not tell
        rows.append(Row.clean("capacity.parameters", encoder.num_parameters, 1, "parameters"))
    save_embeddings(folder / "embeddings_test", clean, splits.test)
    probes: dict[str, LinearProbe] = {}
    if splits.labelled:
        train = np.asarray(shown.rows("train"))
        validation = None if splits.validation is None else np.asarray(shown.rows("validation"))
        chosen = probe_items(study, len(train), training or study.training)
        probes, missing = fit_probes(study, train, splits, validation, chosen)
        skipped += missing
        rows += _accuracies(study, encoder, splits, target, train, clean, probes, folder)
    else:
        skipped.append(f"probe, knn and accuracy under noise: {NO_LABELS}")
    asked = [s for s in study.stresses if own or not stresses.facts(s.name).own_target]
    stressed = stress_teacher(study, asked, encoder, splits, target, probes, folder)
    curves = {**found.to_dict()["curves"], **stressed.curves}
    rows, skipped = rows + stressed.rows, skipped + stressed.skipped
    head = {"study": study.name, "dataset": splits.title, "split": splits.test.split, "teacher": teacher_title,
            "student": TEACHER, "target": shown.target_name, "objective": "", "seed": None, "arm": ""}
    write_results(folder, tidy(head, rows), curves,
                  {"teacher": teacher_title, "dataset": splits.title, "target": shown.target_name, "skipped": skipped,
                   "fingerprint": marks(study, encoder, splits), "seconds": round(time.monotonic() - began, 1)})


def _accuracies(study: Study, encoder: TeacherRows, splits: Splits, target: Target, train: np.ndarray, clean: np.ndarray,
                probes: dict[str, LinearProbe], folder: Path) -> list[Row]:
    """Probes clean and under the study's noise, and nearest neighbours; the predictions are saved."""
    predictions: dict[tuple, np.ndarray] = {(name, CLEAN, None): probe.predict(clean) for name, probe in probes.items()}
    for key, noise in noise_conditions(study).items() if encoder.network else ():
        label = f"teacher {splits.title}/{splits.test.split}, {key[0]}, draw {key[1] + 1}"
        z = target(encoder.rows(splits.test, noise, label=label))
        predictions.update({(name, *key): probe.predict(z) for name, probe in probes.items()})
    save_predictions(folder / PREDICTIONS, predictions, splits.test)
    labels = labels_of(splits.test)
    near = knn_accuracy(train, labels_of(splits.train), clean, labels)
    return [*probe_rows(probes, predictions, labels, "teacher"), *by_noise(PROBES, predictions, labels, "teacher"),
            Row.clean("knn.teacher.accuracy", near, len(clean), "fraction"),
            Row.clean("knn.chance", 1 / len(np.unique(labels)), len(clean), "fraction"),
            Row.clean("knn.largest_class", float(np.unique(labels, return_counts=True)[1].max() / len(labels)), len(clean),
                      "fraction")]


def stress_teacher(study: Study, asked: Sequence[Stress], encoder: TeacherRows, splits: Splits, target: Target,
                   probes: dict[str, LinearProbe], folder: Path) -> Findings:
    """Stresses on the teacher: the same perturbed images as the students', each embedded once, ever."""
    if not asked:
        return Findings()
    network = encoder.network
    if network is None:
        return Findings(skipped=["stresses: ready-made embeddings cannot be made of changed images"])

    def embedded(items: Source, perturbation: Any, label: str) -> np.ndarray:
        return target(encoder.rows(items, perturbation, label=f"teacher {items.name}/{items.split}, {label}"))

    module = network.module if network.num_parameters else None  # an ONNX session cannot be differentiated
    model = Subject("teacher", embedded, heads(probes), splits.train, refit(study, probes), module, network.preprocess,
                    network.device)
    return run_stresses(asked, model, splits.test, study.noise.seed, folder)


def probe_items(study: Study, count: int, training: Training) -> np.ndarray:
    """All training items; in the notebook, 49,984 shuffled by a generator seeded with 999, drop_last."""
    if study.streams == "keyed":
        return np.arange(count)
    import torch

    generator = torch.Generator().manual_seed(999)
    torch.empty((), dtype=torch.int64).random_(generator=generator)
    return torch.randperm(count, generator=generator).numpy()[: training.in_whole_batches(count)]


def run_teacher(work: Work, data: Dataset, teacher: Teacher, encoder: TeacherRows, splits: Splits,
                run: Path) -> dict[str, Prepared]:
    """The teacher's part: embed, fit the targets, measure what there is to lose. Target's YAML -> its embeddings."""
    check_teacher(work, splits, encoder, teacher.title)
    study, arms = work.study, list(work.study.arms)
    parts = {target_key(part): part for part in (study.target, *map(study.target_of, arms))}
    prepared = {key: prepare_targets(study, encoder, splits, part, [a for a in arms if target_key(study.target_of(a)) == key])
                for key, part in parts.items()}
    common = prepared[target_key(study.target)].folder
    prepared = {key: replace(p, common=common, taught=reference_folder(run, data.title, teacher.title, p.target_name)
                             / PREDICTIONS) for key, p in prepared.items()}
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
