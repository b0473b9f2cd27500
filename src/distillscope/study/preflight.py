"""What is checked before work starts: one list, in order, gone through by `run`, `run --dry-run` and `distill`.

What one of them refuses the others refuse too, with the same line, where it concerns them. A check is a function of this file
and its line in `CHECKS`; it raises a UserError, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from distillscope import group, progress, registry
from distillscope.config.parts import Dataset, Teacher
from distillscope.config.resolve import check_parts
from distillscope.config.study import Study, Training
from distillscope.data.pieces import part_of
from distillscope.data.splits import Splits
from distillscope.devices import autocast, choose_device
from distillscope.errors import UserError
from distillscope.files.folders import KEEP_GIB
from distillscope.processes.engine import LOCAL, Engine
from distillscope.results.run_files import Trial, trials_of
from distillscope.results.rundir import check_folder, check_names, json_object, read_done
from distillscope.stress.subject import rehearse
from distillscope.students.load import check_student
from distillscope.students.networks import recompute
from distillscope.study.marks import WEIGHTS, marks, of_students
from distillscope.study.prepared import asks_for_logits, embedded_views, rehearse_views
from distillscope.targets.transforms import check_target, fit_target
from distillscope.teachers.encoder import TeacherRows
from distillscope.training.loop import check_tracker
from distillscope.training.loss import check_arm, check_dims, no_head
from distillscope.training.muon import kernels_of

LEAST_TEST = 10
"""Images that measures need at least."""


@dataclass(frozen=True)
class Work:
    """What is asked for: by `run` and its plan a study in the directory ``run``, by `distill` one student (``run`` is None)."""

    study: Study
    run: Path | None = None
    resume: bool = False
    device: str = "auto"
    precision: str | None = None
    jobs: int | None = None
    track: str | None = None
    workers: int = 0
    keep_images: float = KEEP_GIB
    engine: Engine = LOCAL
    shard: str | None = None
    """"i/n": the i-th of n parts of the trials alone."""
    given: frozenset[str] = frozenset()
    """Of "data", "teacher" and "students", those that a caller of Python handed over: no function is named."""

    @property
    def trials(self) -> list[Trial]:
        """The grid, or the part of it that is asked for: neighbours, as many as another part has or one more."""
        grid, (part, parts) = trials_of(self.study), (0, 1) if self.shard is None else part_of(self.shard)
        return grid[part * len(grid) // parts : (part + 1) * len(grid) // parts]

    def concerns(self, data: Dataset, teacher: Teacher | None = None) -> bool:
        """Whether there is anything to do for them: a part of the grid may lack some."""
        asked = (data.title, teacher and teacher.title)
        return self.shard is None or any(asked in ((t.dataset, t.teacher), (t.dataset, None)) for t in self.trials)


@dataclass(frozen=True)
class Seen:
    """What has been read so far: the images of one data set, and one teacher."""

    splits: Splits
    encoder: TeacherRows
    teacher: str = ""


def launcher(work: Work) -> None:
    """Whole trials run side by side; only one student is trained over the processes of a launcher."""
    if group.launched() > 1:
        raise UserError("run", "one process, which runs whole trials side by side (--jobs)",
                        f"{group.launched()} of a launcher",
                        "For one student over several processes: torchrun --nproc-per-node 2 -m distillscope.cli distill ...")


def parts(work: Work) -> None:
    """Names and settings of every part."""
    check_parts(work.study, work.given)


def tracker(work: Work) -> None:
    check_tracker(work.track)


def networks(work: Work) -> None:
    """Whether every student's network can be built, as the study and as the arms have it."""
    study = work.study
    if "students" in work.given:
        return
    for spec in (*study.students, *(study.student_of(a, s.label) for a in study.arms if a.student for s in study.students)):
        check_student(spec.name, spec.settings, spec.image_size, spec.label)


def optimizers(work: Work) -> None:
    """Whether Muon finds convolutions in every student that it is to train."""
    for _, drawn, _ in _drawn(work, lambda settings: settings.optimizer == "muon"):
        kernels_of(drawn.parameters())


def batches(work: Work) -> None:
    """Whether every batch can be cut into parts, and those among the processes of a launcher; what a part changes is said."""
    world = group.launched()
    for settings in {work.study.training_of(arm): None for arm in work.study.arms}:
        size, parts = settings.batch_size, settings.accumulate or 1
        if size % world:
            raise UserError("training.batch_size", f"a multiple of the {world} processes", str(size), "Change it.")
        if size % (world * parts) or (parts > 1 and size < 2 * world * parts):
            of = f" and {world} processes" if world > 1 else ""
            raise UserError("training.accumulate",
                            f"a number that cuts a batch of {size}{of} into equal parts of 2 images or more", str(parts),
                            "Set 2, or change training.batch_size.")


def recomputing(work: Work) -> None:
    """Whether each network that is to compute again for the backward pass can; and where parts change what batch norms see."""
    for settings, drawn, label in _drawn(work, lambda settings: bool(settings.recompute) or (settings.accumulate or 1) > 1):
        say_parted(settings, drawn, label)
        if settings.recompute:
            recompute(drawn, label)


def say_parted(settings: Training, network: torch.nn.Module, label: str) -> None:
    """A batch norm can see one part at a time only."""
    parts = settings.accumulate or 1
    if parts > 1 and any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in network.modules()):
        progress.say(f"student {label}: its batch norms see the {settings.batch_size // parts} images of a part, not the "
                     f"{settings.batch_size} of a batch (training.accumulate {parts}); the loss is that of the whole batch")


def _drawn(work: Work, wanted: Callable[[Training], bool]) -> Iterator[tuple[Training, torch.nn.Module, str]]:
    """The networks, without memory, of the arms whose training is wanted; none that the caller handed over."""
    study = work.study
    for arm in (arm for arm in study.arms if "students" not in work.given and wanted(study.training_of(arm))):
        for spec in (study.student_of(arm, s.label) for s in study.students if s.label in (arm.students or (s.label,))):
            of_any_dim = {"projection": "linear"} if "projection" in spec.settings else {}
            settings = {**spec.settings, **of_any_dim}
            drawn = check_student(spec.name, settings, spec.image_size, spec.label)
            if drawn is not None:
                yield study.training_of(arm), drawn, spec.label


def device(work: Work) -> None:
    """Whether the device is there and computes in the precision."""
    autocast(choose_device(work.device), work.precision or "float32")


def jobs(work: Work) -> None:
    if work.jobs is not None and work.jobs < 1:
        raise UserError("--jobs", "a whole number of at least 1", str(work.jobs), "Leave it out for one per core.")


def engine(work: Work) -> None:
    """Whether trials can be given to what is to run them; a cluster itself is asked when they are."""
    work.engine.check(work.device)


def shard(work: Work) -> None:
    """Whether there is such a part, and a trial for it."""
    count = len(trials_of(work.study))
    if work.shard is not None and part_of(work.shard)[1] > count:
        raise UserError("--shard", f"at most as many parts as trials, {count}", work.shard, f"For instance --shard 1/{count}.")


def names(work: Work) -> None:
    """Whether tables, terminals and file systems tell the study's names apart."""
    check_names(work.study)


def folder(work: Work) -> None:
    """Whether the run directory is new, or holds the same study, begun in the same precision, and may go on."""
    if work.run is None:
        return
    check_folder(work.study, work.run, work.resume)
    asked = work.precision or "float32"
    other = json_object(work.run / "provenance.json").get("precision", asked)
    if other != asked:
        raise UserError(f"{work.run} --precision", f"{other} as when it started", asked,
                        f"Repeat with --precision {other}, or into another --out.")


def train_images(work: Work, splits: Splits) -> None:
    largest = max(work.study.training_of(a).batch_size for a in work.study.arms)
    if len(splits.train) < largest:
        raise UserError(f"data {splits.title}/train", f"at least a batch of {largest} images", str(len(splits.train)),
                        "Use more images, or set training.batch_size.")


def objectives(work: Work, splits: Splits) -> None:
    """What every arm's objectives ask of the images and the batch."""
    for arm in work.study.arms:
        check_arm(arm, work.study.training_of(arm), splits.train)


def views(work: Work, splits: Splits) -> None:
    """Each arm's view, tried on two images."""
    rehearse_views(work.study, splits.train)


def test_images(work: Work, splits: Splits) -> None:
    if len(splits.test) < LEAST_TEST:
        raise UserError(f"data {splits.title}/test", f"at least {LEAST_TEST} images to measure on", str(len(splits.test)),
                        "Use more images.")
    if not splits.labelled:
        progress.say(f"{splits.title} has no labels: probes, kNN and accuracy under noise are left out")


def stresses(work: Work, splits: Splits) -> None:
    """Every stress, run without a model."""
    rehearse(work.study.stresses, splits.train, splits.test, work.study.noise.seed)


def dimensions(work: Work, encoder: TeacherRows) -> None:
    """Whether every arm's objectives can compare embeddings of the teacher's dimension."""
    for arm in work.study.arms:
        check_dims(arm, work.study.target_of(arm), encoder.dim)


def heads(work: Work, encoder: TeacherRows) -> None:
    """Whether the teacher has classes of its own, where an arm asks for what it says of them."""
    for arm in work.study.arms:
        if asks_for_logits(arm) and encoder.head is None:
            raise no_head(f"arms.{arm.name}.objective", f"{encoder.name}, which has none")


def targets(work: Work, seen: Seen) -> None:
    """Whether the study's and the arms' targets can be fitted to so many images of so many dimensions."""
    for part in (work.study.target, *map(work.study.target_of, work.study.arms)):
        check_target(part.name, part.settings, seen.encoder.dim, len(seen.splits.train))


def target_names(work: Work, encoder: TeacherRows) -> None:
    """Two targets of one name and other settings would share the teacher's own results; names are tried on random rows."""
    study = work.study
    asked: dict[str, list[dict[str, Any]]] = {}
    for part in (study.target, *map(study.target_of, study.arms)):
        settings = {k: p.default for k, p in registry.targets.settings(part.name).items()} | part.settings
        if settings not in asked.setdefault(part.name, []):
            asked[part.name].append(settings)
    several = {part_name: of_one for part_name, of_one in asked.items() if len(of_one) > 1}
    if not several:
        return
    dim = encoder.dim
    rows = np.random.default_rng(0).normal(size=(2 * dim + 2, dim)).astype(np.float32)
    for part_name, of_one in several.items():
        known: dict[str, dict[str, Any]] = {}
        for settings in of_one:
            name = fit_target(part_name, settings, rows).name
            other = known.setdefault(name, settings)
            if other != settings:
                differs = next(k for k in settings if settings[k] != other.get(k))
                raise UserError(f"target {name}", "one set of settings for it in a study",
                                f"{differs} {other.get(differs)} and {settings[differs]}",
                                "Run the arms of one of them as another study.")


def ready_rows(work: Work, seen: Seen) -> None:
    """Ready-made embeddings must hold every image, and cannot be made of views."""
    if seen.encoder.network is None:
        for _, view, label in embedded_views(work.study, work.study.arms):
            seen.encoder.rows(seen.splits.train, view, label=label)
        for source in (seen.splits.train, seen.splits.validation, seen.splits.test):
            if source is not None:
                seen.encoder.rows(source)


def same_items(work: Work, seen: Seen) -> None:
    """A resumed run goes on with the images and the weights that it started with: others under their names are refused."""
    if work.run is None or not (work.run / "references").is_dir():
        return
    own, now = {"dataset": seen.splits.title, "teacher": seen.teacher}, marks(work.study, seen.encoder, seen.splits)
    # what is finished of the teacher stays as it is: only students would be of two kinds
    also = {} if of_students(work.study, seen.encoder) else {WEIGHTS: seen.encoder.mark}
    for done in (read_done(part) for part in sorted((work.run / "references").iterdir())):
        before = done.get("fingerprint")
        differs = [k for k, mark in now.items()
                   if isinstance(before, dict) and before.get(k, mark) not in (mark, also.get(k, mark))]
        if differs and own.items() <= done.items():
            raise UserError(f"--resume {work.run}", f"{differs[0]} as when it started",
                            f"another one under the same name ({now[differs[0]]})",
                            "Put the old ones back, or run into another --out.")


@dataclass(frozen=True)
class Check:
    """A check, the last thing that must be read before it can be made, and whether `distill` needs it too."""

    stage: Literal["study", "data", "encoder", "teacher"]
    function: Callable[..., None]
    distill: bool = True

    @property
    def name(self) -> str:
        return self.function.__name__


CHECKS = (
    Check("study", launcher, distill=False),
    Check("study", parts),
    Check("study", tracker),
    Check("study", networks),
    Check("study", optimizers),
    Check("study", batches),
    Check("study", recomputing),
    Check("study", device),
    Check("study", jobs, distill=False),
    Check("study", engine, distill=False),
    Check("study", shard, distill=False),
    Check("study", names, distill=False),
    Check("study", folder, distill=False),
    Check("data", train_images),
    Check("data", objectives),
    Check("data", views),
    Check("data", test_images, distill=False),
    Check("data", stresses, distill=False),
    Check("encoder", dimensions),
    Check("encoder", heads),
    Check("encoder", target_names, distill=False),
    Check("teacher", targets),
    Check("teacher", ready_rows),
    Check("teacher", same_items, distill=False),
)


def check_study(work: Work) -> None:
    """Before any image is read."""
    _go_through("study", work)


def check_data(work: Work, splits: Splits) -> None:
    """Before the teacher is loaded."""
    _go_through("data", work, splits)


def check_encoder(work: Work, encoder: TeacherRows) -> None:
    """Before anything is embedded, also of images that are embedded while they are scanned."""
    _go_through("encoder", work, encoder)


def check_teacher(work: Work, splits: Splits, encoder: TeacherRows, teacher: str) -> None:
    """Before a teacher embeds images that were scanned."""
    check_encoder(work, encoder)
    _go_through("teacher", work, Seen(splits, encoder, teacher))


def _go_through(stage: str, work: Work, *seen: Splits | Seen | TeacherRows) -> None:
    for check in CHECKS:
        if check.stage == stage and (work.run is not None or check.distill):
            check.function(work, *seen)
