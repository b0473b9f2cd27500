"""The post-hoc twin of a target: the same transform fitted to a trained student instead of trained towards."""

from __future__ import annotations

from typing import Any

import torch

from distillscope.data.source import Source
from distillscope.errors import UserError
from distillscope.registry import remedies, targets
from distillscope.students.load import StudentEncoder, with_transform
from distillscope.students.networks import Transform
from distillscope.targets.transforms import posthoc_twin


@remedies.register("posthoc", further=("target", targets), fits_probes=True)
def posthoc(student: StudentEncoder, train: Source, seed: int, *, target: str = "whiten",
            **settings: Any) -> StudentEncoder | str:
    """A target transform fitted on the trained student's own unlabelled train embeddings, and applied ever after; no training.

    The baseline of an arm that trains towards that target: what it wins beyond this was learned. ``settings`` are the
    target's. Probes are fitted anew, since the old ones do not fit the new coordinates. A transform that cannot be fitted
    (a student of lower rank than a whitening asks for) is left out with the reason.
    """
    try:
        fitted = posthoc_twin(target, settings, student.embed(train), student.precision)
    except UserError as error:
        return str(error)
    if fitted.mean is None:
        return f"the target {target} changes nothing"
    kept = {"mean": fitted.mean, "matrix": fitted.matrix, "offset": fitted.offset}
    return with_transform(student, Transform({k: torch.from_numpy(v) for k, v in kept.items() if v is not None}, fitted.wave))
