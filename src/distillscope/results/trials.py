"""The grid of a study: its trials, and what their folders are called."""

from __future__ import annotations

from dataclasses import dataclass

from distillscope.config.study import Study
from distillscope.files.folder_names import folder_name


@dataclass(frozen=True)
class Trial:
    """One student, trained one way, with one seed."""

    dataset: str
    teacher: str
    arm: str
    student: str
    seed: int

    @property
    def parts(self) -> tuple[str, ...]:
        return self.dataset, self.teacher, self.arm, self.student, f"seed{self.seed}"

    @property
    def id(self) -> str:
        return folder_name(*self.parts)


def trials_of(study: Study) -> list[Trial]:
    """The grid, in the order of the config; an arm may name the students or the seeds that it is limited to."""
    return [
        Trial(data.title, teacher.title, arm.name, student.label, seed)
        for data in study.data for teacher in study.teacher for arm in study.arms for seed in arm.seeds or study.seeds
        for student in study.students if arm.students is None or student.label in arm.students
    ]
