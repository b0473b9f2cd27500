"""Objectives that look at one image at a time: at the coordinates of student and target, or (a control) at its label."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from distillscope.errors import UserError
from distillscope.registry import Positive, Share, objectives

SHORTEST = 1e-3


def paired(student: torch.Tensor, teacher: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both in float32, once it is sure that their dimensions are equal."""
    if student.shape[-1] != teacher.shape[-1]:
        raise UserError("objective", f"as many dimensions as the target's {teacher.shape[-1]}, since it compares coordinates",
                        str(student.shape[-1]),
                        "Leave projector.dim out, or use relational_distance, relational_angle, cka or gram.")
    return student.float(), teacher.float()


def unit(z: torch.Tensor) -> torch.Tensor:
    """Rows of unit L2 norm, in float32; a row of zeros stays zero."""
    return F.normalize(z.float(), dim=-1)


@objectives.register("cosine", family="cosine")
def cosine(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean of 1 - cos(student, teacher): the objective of arXiv:2603.06698.

    Between 0 and 2. It sees directions only: nothing in it holds the student's norm.

    >>> float(cosine(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0]])))
    1.0
    """
    student, teacher = paired(student, teacher)
    return (1 - (F.normalize(student, dim=-1) * F.normalize(teacher, dim=-1)).sum(-1)).mean()


@objectives.register("consistency", family="consistency")
def consistency(student: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Mean of 1 - cos between the student's embeddings of two views of each image (needs an arm with a view, as noise).

    Between 0 and 2. It never sees the teacher, and alone it is met by a constant: a term beside one that does. Both views are
    trained through (as in stability training, Zheng et al. 2016, without its clean anchor).

    >>> float(consistency(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0]])))
    1.0
    """
    return cosine(student, other)


@objectives.register("centred_cosine", family="cosine")
def centred_cosine(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean of 1 - cos of the unit rows less their batch mean, each side its own: cosine without the common direction.

    Between 0 and 2. Centred by the batch, since the student's own mean moves while it learns; to take only the teacher's
    train mean away, use `cosine` with the target `centre`. Two items alone always lie opposite each other. Centred rows
    shorter than 1e-3 are divided by that, so that a collapsed student has no gradient without bounds.

    >>> rows = torch.eye(3)
    >>> round(float(centred_cosine(rows + 5.0, rows)), 6)   # a common shift costs nothing once norms are equal
    0.0
    """
    sides = (unit(z) - unit(z).mean(dim=0) for z in paired(student, teacher))
    student, teacher = (F.normalize(z, dim=-1, eps=SHORTEST) for z in sides)
    return (1 - (student * teacher).sum(-1)).mean()


@objectives.register("mse", family="regression")
def mse(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean squared error of the embeddings as they are, over items and dimensions (FitNets, Romero et al. 2015).

    Its size is that of the target's variance: about 1 / d for unit rows, 1 for standardised targets. Give weights accordingly.

    >>> float(mse(torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, 1.0]])))
    2.0
    """
    return F.mse_loss(*paired(student, teacher))


@objectives.register("smooth_l1", family="regression")
def smooth_l1(student: torch.Tensor, teacher: torch.Tensor, *, beta: Positive = 1.0) -> torch.Tensor:
    """Huber loss over items and dimensions: e^2 / (2 beta) below an error of beta, |e| - beta / 2 above (Girshick 2015).

    For unit rows of d dimensions the errors are about 1 / sqrt(d), so with beta 1 it is half of mse.

    >>> float(smooth_l1(torch.tensor([[0.5, 3.0]]), torch.zeros(1, 2)))
    1.3125
    """
    return F.smooth_l1_loss(*paired(student, teacher), beta=beta)


@objectives.register("cross_entropy", family="supervised")
def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, *, label_smoothing: Share = 0.0) -> torch.Tensor:
    """Cross-entropy with the labels, through a linear head that is trained with the student and then discarded: the control.

    In nats; log(classes) at chance. The head sees the student's embeddings as they are, not their unit rows.

    >>> round(float(cross_entropy(torch.zeros(2, 4), torch.tensor([1, 3]))), 4)   # log 4
    1.3863
    """
    return F.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)
