"""What a student is trained with: its fresh weights, its streams of draws, images with their targets, and images held out."""

from __future__ import annotations

from functools import partial

import numpy as np

from distillscope.config.parts import Student
from distillscope.config.study import Arm, Study
from distillscope.data.preprocess import Preprocess
from distillscope.data.source import stratified
from distillscope.data.splits import Splits
from distillscope.devices import choose_device
from distillscope.distill.health import Health
from distillscope.distill.loop import TrainingSet
from distillscope.distill.streams import KeyedStreams, NotebookStreams
from distillscope.registry import students
from distillscope.students.load import StudentEncoder, build_student
from distillscope.study.arm_views import view_name, view_of
from distillscope.study.prepared import Prepared

HEALTH_ITEMS, GALLERY_ITEMS = 1000, 4000


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
    return NotebookStreams(seed, spec.label, makers, specs.index(spec), study.training_of(arm),
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
