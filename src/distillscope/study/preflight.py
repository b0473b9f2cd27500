"""What is checked before work starts: one list, gone through by `run`, `run --dry-run` and `distill`."""

from __future__ import annotations

from distillscope import progress
from distillscope.config.resolve import check_parts
from distillscope.config.study import Study
from distillscope.data.splits import Splits
from distillscope.distill.loop import check_tracker
from distillscope.distill.loss import check_arm, check_dims
from distillscope.errors import UserError
from distillscope.students.load import check_student
from distillscope.study.arm_views import rehearse_views
from distillscope.targets.transforms import check_target
from distillscope.teachers.rows import TeacherRows

LEAST_TEST = 10
"""Images that measures need at least."""


def check_study(study: Study, track: str | None = None) -> None:
    """Names, settings and networks, before any image is read."""
    check_parts(study)
    check_tracker(track)
    for spec in (*study.students, *(study.student_of(a, s.label) for a in study.arms if a.student for s in study.students)):
        check_student(spec.name, spec.settings, spec.image_size, spec.label)


def check_data(study: Study, splits: Splits, *, tested: bool = True) -> None:
    """Whether the images are enough, and what every arm and view asks of them; ``tested``: whether they are measured on too."""
    smallest = max(study.training_of(a).batch_size for a in study.arms)
    if len(splits.train) < smallest:
        raise UserError(f"data {splits.title}/train", f"at least a batch of {smallest} images", str(len(splits.train)),
                        "Use more images, or set training.batch_size.")
    for arm in study.arms:
        check_arm(arm, study.training_of(arm), splits.train)
    rehearse_views(study, splits.train)
    if tested and len(splits.test) < LEAST_TEST:
        raise UserError(f"data {splits.title}/test", f"at least {LEAST_TEST} images to measure on", str(len(splits.test)), "Use more images.")
    if tested and not splits.labelled:
        progress.say(f"{splits.title} has no labels: probes, kNN and accuracy under noise are left out")


def check_teacher(study: Study, encoder: TeacherRows, splits: Splits) -> None:
    """Whether the teacher's dimensions suit every arm and target."""
    for arm in study.arms:
        check_dims(arm, study.target_of(arm), encoder.dim)
    for part in (study.target, *map(study.target_of, study.arms)):
        check_target(part.name, part.settings, encoder.dim, len(splits.train))
