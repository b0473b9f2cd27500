"""The views of a study's arms: what is drawn for a seed and an epoch, what it is called on disk, and which ones a teacher embeds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from distillscope import registry
from distillscope.config.study import Arm, Study
from distillscope.data.preprocess import Preprocess
from distillscope.data.source import Source
from distillscope.data.views import View
from distillscope.errors import UserError


def view_of(arm: Arm, seed: int, epoch: Any) -> View | None:
    """The arm's view at an epoch; with a bank, one of the few versions that all seeds share."""
    if arm.view is None:
        return None
    if arm.view_bank and isinstance(epoch, int):
        seed, epoch = "bank", epoch % arm.view_bank
    return View(arm.view.name, registry.views.check(arm.view.name, arm.view.settings, f"arms.{arm.name}.view"), seed, epoch)


def view_name(arm: Arm, seed: int, epoch: int) -> str:
    """The file that holds the targets of that view."""
    view = json.dumps(view_of(arm, seed, epoch).describe(), sort_keys=True, default=str)
    return f"view-{hashlib.blake2b(view.encode(), digest_size=6).hexdigest()}"


def embedded_views(study: Study, arms: Iterable[Arm]) -> list[tuple[str, View, str]]:
    """(file, view, label) of every view that a teacher must embed for these arms: none where the target is the clean one."""
    found: dict[str, tuple[str, View, str]] = {}
    for arm in (a for a in arms if a.view and a.view_target == "same"):
        for seed in arm.seeds or study.seeds:
            for epoch in range(study.training_of(arm).epochs):
                name, view = view_name(arm, seed, epoch), view_of(arm, seed, epoch)
                shown = f"version {view.epoch + 1}" if arm.view_bank else f"seed {seed}, epoch {epoch + 1}"
                found.setdefault(name, (name, view, f"{arm.view.name}, {shown}"))
    return list(found.values())


def rehearse_views(study: Study, source: Source) -> None:
    """Each arm's view on two images, as stored or as the first student sees them: what it cannot do is said before any work."""
    few, spec = np.arange(min(2, len(source))), study.students[0]
    for arm in (a for a in study.arms if a.view):
        view, images = view_of(arm, 0, 0), source.read(few)
        try:
            view(images if view.where == "source" else Preprocess(spec.image_size, spec.mean, spec.std)(images), source.ids[few])
        except UserError as error:
            raise UserError(f"arms.{arm.name}.{error.where}", error.expected, error.got, error.todo) from None
