"""The views of a study's arms: what is drawn for a seed and an epoch, its name on disk, and which ones a teacher embeds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from distillscope import registry
from distillscope.config.parts import Part
from distillscope.config.study import Arm, Study
from distillscope.data.preprocess import Preprocess
from distillscope.data.source import Source
from distillscope.data.views import View
from distillscope.errors import UserError


def view_of(arm: Arm, seed: int, epoch: Any) -> View | None:
    """The arm's view at an epoch; with a bank, one of the few versions that all seeds share."""
    return None if arm.view is None else _drawn(arm, arm.view, seed, epoch)


def _drawn(arm: Arm, part: Part, seed: int, epoch: Any) -> View:
    drawn: tuple[int | str, Any] = (seed, epoch)
    if arm.view_bank and isinstance(epoch, int):
        drawn = "bank", epoch % arm.view_bank
    return View(part.name, registry.views.check(part.name, part.settings, f"arms.{arm.name}.view"), *drawn)


def view_name(arm: Arm, seed: int, epoch: int) -> str:
    """The file that holds the targets of the arm's view."""
    view = view_of(arm, seed, epoch)
    if view is None:
        raise ValueError(f"arm {arm.name} has no view")
    described = json.dumps(view.describe(), sort_keys=True, default=str)
    return f"view-{hashlib.blake2b(described.encode(), digest_size=6).hexdigest()}"


def embedded_views(study: Study, arms: Iterable[Arm]) -> list[tuple[str, View, str]]:
    """(file, view, label) of every view that a teacher must embed for these arms: none where the target is the clean one."""
    found: dict[str, tuple[str, View, str]] = {}
    for arm in arms:
        if arm.view is None or arm.view_target != "same":
            continue
        for seed in arm.seeds or study.seeds:
            for epoch in range(study.training_of(arm).epochs):
                name, view = view_name(arm, seed, epoch), _drawn(arm, arm.view, seed, epoch)
                version = f"version {epoch % arm.view_bank + 1}" if arm.view_bank else f"seed {seed}, epoch {epoch + 1}"
                found.setdefault(name, (name, view, f"{arm.view.name}, {version}"))
    return list(found.values())


def rehearse_views(study: Study, source: Source) -> None:
    """Each arm's view on two images, as stored or as the first student sees them: what it cannot do is said before any work."""
    few, spec = np.arange(min(2, len(source))), study.students[0]
    for arm in study.arms:
        view, images = view_of(arm, 0, 0), source.read(few)
        if view is None:
            continue
        if view.where != "source":
            images = Preprocess(spec.image_size, spec.mean, spec.std)(images)
        try:
            view(images, source.ids[few])
        except UserError as error:
            raise UserError(f"arms.{arm.name}.{error.where}", error.expected, error.got, error.todo) from None
