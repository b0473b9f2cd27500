"""What a run, or the distillation of one student, would do before it does it: trials, forward passes, time and memory."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from distillscope import group
from distillscope.config.parts import DESCRIPTION
from distillscope.config.resolve import with_noise
from distillscope.config.study import Arm, Study
from distillscope.data.preprocess import Preprocess
from distillscope.data.source import Source
from distillscope.data.splits import Splits
from distillscope.devices import choose_device
from distillscope.files.folders import KEEP_GIB
from distillscope.processes.engine import LOCAL, Engine
from distillscope.results.rundir import is_complete, trial_folder
from distillscope.stress.subject import rehearse
from distillscope.students.card import part_text, recipe_text, training_text, view_text
from distillscope.students.load import build_student
from distillscope.students.networks import capacity
from distillscope.study.preflight import Work, check_data, check_study, check_teacher
from distillscope.study.prepared import as_begun, embedded_views, load_data, noise_conditions
from distillscope.study.run import num_jobs
from distillscope.study.student import begin
from distillscope.study.trial import GALLERY_ITEMS, HEALTH_ITEMS
from distillscope.teachers.encoder import Encoder, TeacherRows, load_teacher
from distillscope.training.loss import target_dim
from distillscope.training.stored_images import planned

MEASURE_SECONDS = 45.0
"""Measures and probes of one trial at 10,000 test and 50,000 train items on one core; scaled with the items."""


@dataclass
class Plan:
    """Counts and estimates of one study on this machine."""

    study: Study
    trials: int
    finished: int
    teacher_forwards: int
    teacher_cached: int
    student_train: int
    student_eval: int
    seconds: float
    memory_mib: float
    cache_mib: float
    precision: str = "float32"
    engine: str = str(LOCAL)
    images: dict[str, None] = field(default_factory=dict)
    """What is kept of the images at the students' sizes, in words, in order."""

    def rows(self) -> list[tuple[str, str]]:
        """What to print: (name, value)."""
        study = self.study
        return [
            ("students", ", ".join(s.label for s in study.students)),
            ("arms", ", ".join(a.name for a in study.arms)),
            ("training", "; ".join(dict.fromkeys(training_text(study.training_of(a)) for a in study.arms))),
            ("precision", self.precision),
            ("trials run on", self.engine),
            ("seeds", ", ".join(map(str, study.seeds))),
            ("trials", f"{self.trials} ({self.finished} finished already)"),
            ("teacher forward passes", f"{self.teacher_forwards:,} to do, {self.teacher_cached:,} cached"),
            ("student images, training", f"{self.student_train:,}"),
            ("student images, evaluation", f"{self.student_eval:,}"),
            ("estimated time", _duration(self.seconds)),
            ("estimated peak memory", f"{self.memory_mib / 1024:.1f} GiB"),
            ("cache to be written", f"{self.cache_mib / 1024:.2f} GiB"),
            ("images kept on disk", "; ".join(self.images) or "none"),
        ]


def plan_study(study: Study, run: Path, device: str = "auto", precision: str | None = None, jobs: int | None = None, *,
               resume: bool = False, track: str | None = None, workers: int = 0, keep_images: float = KEEP_GIB,
               engine: Engine = LOCAL, shard: str | None = None) -> Plan:
    """Count what is to be done; the time comes from a few batches of teacher and students, timed here and now.

    What `run_study` would refuse with the same arguments is refused here too, with the same line. A cluster is not asked: the
    time is that of this machine.
    """
    work = Work(as_begun(study, run) if resume else study, run, resume, device, precision, jobs, track, workers, engine=engine,
                shard=shard)
    check_study(work)
    work = replace(work, study=with_noise(work.study))
    study, chosen = work.study, choose_device(device)
    jobs = num_jobs(jobs, chosen, len(work.trials))
    total = Plan(study, len(work.trials), 0, 0, 0, 0, 0, 0.0, 600.0, 0.0,
                 precision or "float32", str(engine))
    arms = {a.name: a for a in study.arms}
    for data in filter(work.concerns, study.data):
        splits = load_data(study, data, workers=workers)
        check_data(work, splits)
        pixels = (splits.whole_train.nbytes + splits.test.nbytes) / 2**20
        for teacher in (t for t in study.teacher if work.concerns(data, t)):
            encoder = load_teacher(teacher, device, precision)
            check_teacher(work, splits, encoder, teacher.title)
            pending = [t for t in work.trials if (t.dataset, t.teacher) == (data.title, teacher.title)]
            finished = [t for t in pending if is_complete(trial_folder(run, t))]
            pending = [t for t in pending if t not in finished]
            total.finished += len(finished)
            wanted = teacher_work(study, splits, encoder)
            todo = sum(missing for _, missing in wanted)
            total.teacher_forwards += todo
            total.teacher_cached += sum(count for count, _ in wanted) - todo
            total.cache_mib += todo * encoder.dim * 4 / 2**20
            if todo and encoder.network:
                total.seconds += todo * _teacher_seconds(encoder.network, splits.test)
            evaluated = len(splits.test) * (1 + len(noise_conditions(study))) + len(splits.whole_train)
            stressed = rehearse(study.stresses, splits.train, splits.test, study.noise.seed, "student")[0]
            evaluated = (evaluated + sum(len(items) for items, _ in stressed)) * (1 + len(study.remedies))
            busy = 0.0
            costs: dict[str, tuple[float, float, float]] = {}
            for trial in pending:
                total.images[_kept_images(study, arms[trial.arm], trial.student, splits, keep_images)] = None
                spec, batch = study.student_of(arms[trial.arm], trial.student), study.training_of(arms[trial.arm]).batch_size
                trained = study.training_of(arms[trial.arm]).num_seen(len(splits.train))
                total.student_train += trained
                total.student_eval += evaluated
                network = f"{spec.model_dump_json()} {batch}"
                if network not in costs:
                    costs[network] = _student_cost(spec, encoder.dim, splits.train, chosen, batch, jobs)
                train, evaluate, _ = costs[network]
                busy += trained * train + evaluated * evaluate
                busy += MEASURE_SECONDS * (0.1 + len(splits.test) / 10_000)
            total.seconds += busy / max(1, min(jobs, len(pending)))
            targets = len(splits.train) * encoder.dim * 4 / 2**20
            step_mib = max((mib for _, _, mib in costs.values()), default=0.0)
            each = 500 + pixels + 2 * targets + step_mib
            total.memory_mib = max(total.memory_mib, 600 + pixels + 3 * targets + jobs * each)
    return total


def teacher_work(study: Study, splits: Splits, encoder: TeacherRows) -> list[tuple[int, int]]:
    """(images, those that the cache lacks) for every set that the teacher must see; each image and view once."""
    if encoder.network is None:
        return []
    sets: list[tuple[Source, Any]] = [(splits.whole_train, None), (splits.test, None)]
    if splits.labelled:
        sets += [(splits.test, noise) for noise in noise_conditions(study).values()]
    sets += [(splits.train, view) for _, view, _ in embedded_views(study, study.arms)]
    sets += rehearse(study.stresses, splits.train, splits.test, study.noise.seed)[0]
    return [(len(source), encoder.num_missing(source, perturbation)) for source, perturbation in sets]


def plan_student(study: Study, out: Path, *, resume: bool = False, device: str = "auto", precision: str | None = None,
                 track: str | None = None, workers: int = 0, keep_images: float = KEEP_GIB) -> list[tuple[str, str]]:
    """What `distill` would do, as (name, value): refused where `distill_one` would refuse, with the same line.

    The time is that of a few batches of teacher and student, timed here and now.
    """
    written = study.arms[0]
    begun = begin(Work(study, None, resume, device, precision, None, track, workers), out)
    study, splits, encoder = begun.work.study, begun.splits, begun.encoder
    spec, arm, target = study.students[0], study.arms[0], study.target_of(study.arms[0])
    world = group.world()
    training, dim, num_train = study.training_of(arm), target_dim(target, encoder.dim), len(splits.train)
    chosen = choose_device(device)
    student = build_student(spec.name, spec.settings, dim, Preprocess(spec.image_size, spec.mean, spec.std), spec.label, chosen)
    size = capacity(student.module, spec.image_size)
    sets = [(splits.whole_train, None), *((splits.train, view) for _, view, _ in embedded_views(study, [arm]))]
    todo = sum(encoder.num_missing(source, view) for source, view in sets)
    seen, steps, held_out = training.num_seen(num_train), training.num_steps(num_train), len(splits.whole_train) - num_train
    looked_at = training.epochs * (min(held_out or num_train, HEALTH_ITEMS) + min(num_train, GALLERY_ITEMS))
    train, evaluate, trained = _student_cost(spec, dim, splits.train, chosen, training.batch_size, 1)
    seconds = seen * train + looked_at * evaluate
    if todo and encoder.network:
        seconds += todo * _teacher_seconds(encoder.network, splits.train)
    pixels, rows = splits.whole_train.nbytes / 2**20, len(splits.whole_train) * (encoder.dim + dim) * 4 / 2**20
    finished = "; finished already" if (out / DESCRIPTION).exists() else ""
    return [
        ("into", f"{out}{finished}"),
        ("recipe", f"{recipe_text(study)}: {arm.objective_name}; view {view_text(written)}; {training_text(training)}"),
        ("student", f"{spec.label}, {size['parameters']:,} parameters"),
        ("per image", f"{spec.image_size} px, {size['multiply_adds']:,} multiply-adds"),
        ("embeddings", f"{dim} dimensions, of the teacher's {encoder.dim}; target {part_text(target)}"),
        ("images", f"{splits.title}, {num_train:,} for training, {held_out:,} held out"),
        ("images kept on disk", _kept_images(study, arm, spec.label, splits, keep_images)),
        ("precision", precision or "float32"),
        ("processes", f"{world}, each with {training.batch_size // world} images of a batch" if world > 1 else "1"),
        ("steps", f"{steps:,} per epoch, {steps * training.epochs:,} in all, {seen:,} images"),
        ("teacher forward passes", f"{todo:,} to do, {sum(len(source) for source, _ in sets) - todo:,} cached"),
        ("estimated time", _duration(seconds)),
        ("estimated peak memory", f"{(1100 + 2 * pixels + 3 * rows + trained) / 1024:.1f} GiB"),
    ]


def _kept_images(study: Study, arm: Arm, label: str, splits: Splits, most_gib: float) -> str:
    spec = study.student_of(arm, label)
    return planned(Preprocess(spec.image_size, spec.mean, spec.std), splits, arm, most_gib)


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def _teacher_seconds(encoder: Encoder, source: Source) -> float:
    """Seconds an image, from two batches after a first."""
    count = min(encoder.batch_size, len(source))
    images, ids = source.read(range(count)), source.ids[:count]
    encoder.encode(images, ids)
    began = time.monotonic()
    for _ in range(2):
        encoder.encode(images, ids)
    return (time.monotonic() - began) / (2 * count)


def _student_cost(spec: Any, dim: int, source: Source, device: torch.device, batch: int,
                  jobs: int) -> tuple[float, float, float]:
    """Seconds an image (training, evaluation) on the threads that one of ``jobs`` processes will have; MiB that a step takes.

    Of main memory: what the backward pass needs of the forward one, a third more while it runs, and weights with Adam's.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))
    try:
        student = build_student(spec.name, spec.settings, min(dim, 512), Preprocess(spec.image_size, spec.mean, spec.std),
                                spec.label, device)
        batch = min(batch, len(source))
        images, ids = source.read(range(batch)), source.ids[:batch]
        held: dict[int, int] = {}

        def hold(tensor: torch.Tensor) -> torch.Tensor:
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        def step() -> None:
            student.module.train()
            given = images.to(device) if isinstance(images, torch.Tensor) else images
            student.module(student.preprocess(given)).sum().backward()

        with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
            step()
        began = time.monotonic()
        for _ in range(3):
            step()
        train = (time.monotonic() - began) / (3 * batch)
        student.module.eval()
        began = time.monotonic()
        for _ in range(3):
            student.encode(images, ids)
        weights = sum(p.numel() * p.element_size() for p in student.module.parameters())
        needed = (4 * sum(held.values()) / 3 + 4 * weights) / 2**20 if device.type == "cpu" else 0.0
        return train, (time.monotonic() - began) / (3 * batch), needed
    finally:
        torch.set_num_threads(threads)
