"""Remedies that train nothing: batch-norm statistics re-estimated on noisy inputs, and the post-hoc twin of a target.

``posthoc`` fits the target's transform to the trained student instead of training towards it; ``bn`` needs no labels.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from distillscope.config.parts import NoiseSpec
from distillscope.data.noise import on_input
from distillscope.data.source import Source, read_batches, stratified
from distillscope.data.views import View
from distillscope.devices import kept_memory
from distillscope.draws import keyed_rng
from distillscope.errors import UserError
from distillscope.registry import Count, Strength, remedies, targets
from distillscope.students.load import StudentEncoder, with_transform
from distillscope.students.networks import Transform
from distillscope.targets.transforms import posthoc_twin
from distillscope.teachers.encoder import Perturbation


@remedies.register("posthoc", further=("target", targets), fits_probes=True)
def posthoc(student: StudentEncoder, train: Source, seed: int, *, target: str = "whiten",
            **settings: Any) -> StudentEncoder | str:
    """A target transform fitted on the trained student's own unlabelled train embeddings and applied from then on; no training.

    The baseline of an arm that trains towards that target: what it wins beyond this was learned. ``settings`` are the
    target's. Probes are fitted again, since the old ones do not fit the new coordinates. A transform that cannot be fitted
    (a student of lower rank than a whitening asks for) is left out with the reason.
    """
    try:
        fitted = posthoc_twin(target, settings, student.embed_source(train), student.precision)
    except UserError as error:
        return str(error)
    if fitted.mean is None:
        return f"the target {target} changes nothing"
    kept = {"mean": fitted.mean, "matrix": fitted.matrix, "offset": fitted.offset}
    return with_transform(student, Transform({k: torch.from_numpy(v) for k, v in kept.items() if v is not None}, fitted.wave))


@remedies.register("bn")
def batch_norm(student: StudentEncoder, train: Source, seed: int, *, sigma: Strength = 0.2, fixed: bool = True,
               spec: NoiseSpec = NoiseSpec(), items: Count = 4096) -> StudentEncoder | str:
    """Batch-norm statistics re-estimated on unlabelled noisy train images; weights and the clean probe stay as they are.

    As in Schneider et al. 2020 (arXiv:2006.16971), with the statistics of the noisy images alone (their N = 0).
    """
    if not batch_norms(student.module):
        return "this student has no batch norms"
    few = train if items == 0 else train.take(stratified(train, items, "remedy"))
    settings = {"sigma": sigma, "fixed": fixed, **spec.model_dump()}
    return bn_reestimated(student, few, View("noise", settings, seed, "batch norm"))


@kept_memory()
@torch.no_grad()
def bn_reestimated(student: StudentEncoder, items: Source, noise: Perturbation | None, batch_size: int = 256) -> StudentEncoder:
    """A copy of the student whose batch norms hold the mean and variance of ``items`` as ``noise`` shows them.

    The statistics are those of one pass: the mean over batches of each batch's own. The batches are drawn, since in the order
    of a folder each would hold few classes, and what differs between classes would be in no batch's variance. They are of one
    size but for an item, ``batch_size`` at most. No weight changes, dropout stays off, and the student that was given is left
    alone.
    """
    module: torch.nn.Module = copy.deepcopy(student.module).eval()
    norms = batch_norms(module)
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
        norm.train()
    order = keyed_rng("batch norm", items.name, items.split).permutation(len(items))
    for indices, images in read_batches(items, np.array_split(order, math.ceil(len(items) / batch_size))):
        ids = items.ids[indices]
        if noise is not None and noise.where == "source":
            images = noise(images, ids)
        inputs = student.preprocess(images).to(student.device)
        on_it = noise is not None and noise.where == "input"
        module(on_input(noise, inputs, ids, student.preprocess.std) if on_it else inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
    changed = copy.copy(student)  # not dataclasses.replace, which would count the parameters again
    changed.module = module
    return changed


def batch_norms(module: torch.nn.Module) -> list[_BatchNorm]:
    """The layers that keep running statistics; networks with layer norm have none."""
    return [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
