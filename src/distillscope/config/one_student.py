"""The study of one student that `distill` makes: what it is not told is a study's own default."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distillscope.config.load import study_from
from distillscope.config.overrides import apply_override
from distillscope.config.parts import Student
from distillscope.config.study import Arm, Study, Training

DEFAULTS: dict[str, Any] = {
    "objective": Arm(name="default").objective_name,
    "epochs": Training().epochs,
    "batch_size": Training().batch_size,
    "lr": Training().learning_rate,
    "seed": Study.model_fields["seeds"].default[0],
    "image_size": Student.model_fields["image_size"].default,
}
"""Option of `distill` -> its value where it is left out."""


def one_student(name: str, teacher: str, data: str, student: str = "paper_cnn", *, objective: str | None = None,
                seed: int | None = None, corrupt: str = "error", overrides: Sequence[str] = ()) -> Study:
    """A checked study of one teacher, data set, arm, student and seed, without noise; ``overrides`` as of `--set`.

    >>> study = one_student("mine", "efficientnet_lite0", "digits", overrides=["student.width=2", "training.epochs=1"])
    >>> study.students[0].settings["width"], study.training.epochs, study.seeds
    (2, 1, (42,))
    >>> study.training.batch_size == DEFAULTS["batch_size"]
    True
    """
    values = {"name": name, "data": [{"name": data}], "teacher": [{"name": teacher}], "students": [{"name": student}],
              "arms": [{"name": "student", "objective": [{"name": objective or DEFAULTS["objective"]}]}],
              "seeds": [DEFAULTS["seed"] if seed is None else seed], "corrupt": corrupt, "noise": {"sigmas": []}}
    for override in overrides:
        apply_override(values, override)
    return study_from(values, "distill")
