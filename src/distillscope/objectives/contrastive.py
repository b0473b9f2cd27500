"""Objectives that tell an image's embedding from those of other images. All on unit rows, in nats."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch.nn import functional as F

from distillscope.objectives import LARGEST_SCALE
from distillscope.objectives.regression import paired, unit
from distillscope.registry import Count, Positive, objectives

Learned = Annotated[float, Field(ge=1 / LARGEST_SCALE)]
"""A temperature to learn from: beyond the largest scale it would stay where it is."""


def cosines(student: torch.Tensor, teacher: torch.Tensor, earlier: torch.Tensor | None = None) -> torch.Tensor:
    """(b, b + q): each student row against its own batch of targets, then against the earlier ones."""
    student, teacher = map(unit, paired(student, teacher))
    if earlier is not None and len(earlier):
        teacher = torch.cat([teacher, unit(earlier)])
    return student @ teacher.T


def own(logits: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of each row against the column of its own number."""
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


@objectives.register("infonce", family="contrastive")
def infonce(student: torch.Tensor, teacher: torch.Tensor, earlier: torch.Tensor | None = None, *,
            temperature: Positive = 0.1, queue: Count = 0) -> torch.Tensor:
    """InfoNCE, student to teacher: which target of the batch and the queue belongs to this image? (van den Oord et al. 2018)

    About log(b + q) at chance. ``queue``: how many targets of earlier batches are further negatives (as in MoCo, He et al.
    2020; the teacher is frozen, so that none goes stale).

    >>> same = torch.ones(8, 4)
    >>> math.isclose(float(infonce(same, same)), math.log(8), rel_tol=1e-6)
    True
    """
    return own(cosines(student, teacher, earlier) / temperature)


@objectives.register("infonce_learned", family="contrastive")
def infonce_learned(student: torch.Tensor, teacher: torch.Tensor, log_scale: torch.Tensor,
                    earlier: torch.Tensor | None = None, *, temperature: Learned = 0.1, queue: Count = 0) -> torch.Tensor:
    """InfoNCE, student to teacher, with a learned temperature that starts at `temperature` (CLIP, Radford et al. 2021).

    The scale 1 / temperature is held at 100 or below.

    >>> z = torch.eye(4)
    >>> bool(torch.isclose(infonce_learned(z, z, torch.tensor(10.0).log()), infonce(z, z, temperature=0.1)))
    True
    """
    return own(cosines(student, teacher, earlier) * log_scale.float().clamp(max=math.log(LARGEST_SCALE)).exp())


@objectives.register("infonce_views", family="contrastive")
def infonce_views(student: torch.Tensor, other: torch.Tensor, *, temperature: Positive = 0.1) -> torch.Tensor:
    """InfoNCE, student to student over two augmented views of each image, both directions (needs an arm with a view).

    It never sees the teacher. Unlike SimCLR's (Chen et al. 2020) the negatives are those of the other view only.
    """
    logits = cosines(student, other) / temperature
    return 0.5 * (own(logits) + own(logits.T))


@objectives.register("crd", family="contrastive")
def crd(student: torch.Tensor, teacher: torch.Tensor, earlier: torch.Tensor | None = None, *,
        temperature: Positive = 0.1, memory: Count = 1024) -> torch.Tensor:
    """Noise-contrastive estimation against a memory of targets by item, in the way of CRD (Tian et al. 2020).

    For each student row -log h(own) - sum over the N others of log(1 - h), with h = p / (p + N / M) and
    p = exp(cos / temperature) / Z. About 1 + log N where the student knows nothing. What differs from the paper: the others
    are the batch's and the ``memory`` most recent items' targets, each item once, not a draw from all M items; Z is M times
    the batch's own mean of exp(cos / temperature), without gradient, so that M cancels; the student is the anchor, not
    both in turn; the linear heads are the arm's projector, and the teacher has none.

    >>> z = torch.eye(4)
    >>> bool(crd(z, z) < crd(z.flip(0), z))
    True
    """
    logits = cosines(student, teacher, earlier) / temperature
    mine = torch.eye(*logits.shape, dtype=torch.bool, device=logits.device)
    with torch.no_grad():  # log of N / M times Z: the log of N times the mean over all others
        prior = torch.logsumexp(logits[~mine], dim=0) - math.log(len(logits))
    signs = torch.where(mine, 1.0, -1.0)
    return -F.logsigmoid(signs * (logits - prior)).sum(dim=1).mean()


@objectives.register("similarity_kl", family="contrastive")
def similarity_kl(student: torch.Tensor, teacher: torch.Tensor, earlier: torch.Tensor | None = None, *,
                  temperature: Positive = 0.1, teacher_temperature: Positive = 0.1, queue: Count = 1024) -> torch.Tensor:
    """KL of the softmax similarities to a queue of targets, teacher to student (SEED, Fang et al. 2021; CompRess 2020).

    From 0. The anchors are the batch's targets and the ``queue`` most recent ones; SEED's cross-entropy differs by the
    teacher's entropy, which has no gradient. The student is compared with the teacher's anchors, so dimensions must be
    equal.

    >>> z = torch.eye(4)
    >>> float(similarity_kl(z, z))
    0.0
    """
    wanted = cosines(teacher, teacher, earlier) / teacher_temperature
    found = cosines(student, teacher, earlier) / temperature
    return F.kl_div(found.log_softmax(dim=1), wanted.log_softmax(dim=1), log_target=True, reduction="batchmean")
