"""What a run keeps of its images and its teacher, so that it does not go on with others, nor with ones that are used otherwise.

Noise on models' own inputs is as strong in pixels for one as for another since 2026-11-28.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from distillscope import registry
from distillscope.config.parts import NoiseSpec, Part
from distillscope.config.study import Study
from distillscope.data.splits import Splits
from distillscope.study.prepared import asks_for_logits, embedded_views, fingerprint
from distillscope.teachers.encoder import TeacherRows

WEIGHTS, HEAD = "teacher's weights", "teacher's head"
MARK = ", noise on inputs as strong in pixels"
"""After the weights in the fingerprint of what would have been run with noise of several strengths."""


def marks(study: Study, encoder: TeacherRows, splits: Splits) -> dict[str, str]:
    """`fingerprint`, which says so where the teacher's noise, or a student's, is another than it was."""
    found = fingerprint(encoder, splits)
    if WEIGHTS in found and (of_teacher(study, encoder) or of_students(study, encoder)):
        found[WEIGHTS] += MARK
    return found | head_mark(study, encoder)


def head_mark(study: Study, encoder: TeacherRows) -> dict[str, str]:
    """The teacher's own classifier, where students learn from what it says; what is older than 2026-11-28 does not name it."""
    asked = encoder.head is not None and any(asks_for_logits(arm) for arm in study.arms)
    return {HEAD: encoder.head.mark} if asked and encoder.head else {}


def of_teacher(study: Study, encoder: TeacherRows) -> bool:
    """Whether the teacher is measured under another noise than until then: finished results of it stay as they are."""
    network = encoder.network
    parts = [network] if network and not hasattr(network, "parts") else getattr(network, "parts", [])
    own = [part.preprocess.std for part in parts if hasattr(part.preprocess, "std")]
    return _differ(_measured(study), own)


def of_students(study: Study, encoder: TeacherRows) -> bool:
    """Whether students are trained or measured otherwise than until then: a run of before does not go on."""
    if any(encoder.rescales(view) for _, view, _ in embedded_views(study, study.arms)):
        return True
    shown = _stds(registry.views, [p for arm in study.arms for p in (arm.view, arm.student_view) if p])
    return _differ([*_measured(study), *shown], [study.student_of(a, s.label).std for a in study.arms for s in study.students])


def _measured(study: Study) -> list[Sequence[float]]:
    """The std of each noise on inputs that models are measured under, or mended with."""
    sweep = [study.noise.std] if study.noise.where == "input" and any(study.noise.sigmas) else []
    return [*sweep, *_stds(registry.stresses, study.stresses), *_stds(registry.remedies, study.remedies)]


def _stds(kind: registry.Registry, parts: Iterable[Part]) -> list[Sequence[float]]:
    found = [p.settings for p in parts if kind.takes(p.name, NoiseSpec) and p.settings.get("where") == "input"]
    return [settings.get("std", NoiseSpec().std) for settings in found]


def _differ(noises: Iterable[Sequence[float]], models: Iterable[Sequence[float]]) -> bool:
    models = list(models)
    return any(not np.allclose(noise, std, rtol=1e-4, atol=0) for noise in noises for std in models)
