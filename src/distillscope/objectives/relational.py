"""Objectives that compare how images lie to one another, so that student and target may differ in dimension."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from distillscope.objectives.regression import unit
from distillscope.registry import Size, objectives

SMALLEST = 1e-6
"""Squared distances below this share of their mean are taken as this: no direction can be told between equal points."""


@objectives.register("relational_distance", family="relational")
def relational_distance(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Huber loss between the pair distances of both sides, each divided by its mean over the batch (RKD-D, Park et al. 2019).

    Over distinct pairs. Free of rotation, shift and scale of either side, and of their dimensions.

    >>> z = torch.tensor([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]])
    >>> float(relational_distance(z, 7 * z.flip(1)))
    0.0
    """
    return F.smooth_l1_loss(_share_of_mean(torch.pdist(student.float())), _share_of_mean(torch.pdist(teacher.float())))


def _share_of_mean(distances: torch.Tensor) -> torch.Tensor:
    return distances / distances.mean().clamp(min=SMALLEST)


@objectives.register("relational_angle", family="relational")
def relational_angle(student: torch.Tensor, teacher: torch.Tensor, *, items: Size = 64) -> torch.Tensor:
    """Huber loss between the cosines of the angles that triples of images span on both sides (RKD-A, Park et al. 2019).

    Over triples of distinct images among the batch's first ``items``: time and memory grow with their cube. Free of
    rotation, shift and scale, and of the dimensions.

    >>> z = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> float(relational_angle(z, 7 * z + 1)) < 1e-9
    True
    """
    found, wanted = _angles(student[:items]), _angles(teacher[:items])
    other = ~torch.eye(len(found), dtype=torch.bool, device=found.device)
    distinct = other[:, :, None] & other[:, None, :] & other[None, :, :]
    return F.smooth_l1_loss(found[distinct], wanted[distinct]) if distinct.any() else found.sum() * 0


def _angles(z: torch.Tensor) -> torch.Tensor:
    """(n, n, n): the cosine at corner j between the directions to i and to k, as [j, i, k]."""
    z = z.float() - z.float().mean(dim=0)  # before the inner products, which would cancel far from the origin
    inner = z @ z.T
    size = inner.diagonal()
    squared = size[:, None] + size - 2 * inner
    lengths = torch.maximum(squared, SMALLEST * squared.detach().mean() + 1e-30).sqrt()
    dots = inner[None, :, :] - inner[:, :, None] - inner[:, None, :] + size[:, None, None]
    return (dots / (lengths[:, :, None] * lengths[:, None, :])).clamp(-1, 1)


@objectives.register("cka", family="relational")
def cka(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """1 - linear CKA of the batch, centred by its mean (Kornblith et al. 2019).

    Between 0 and 1. Biased: with fewer items than dimensions even unrelated sides read low, so batches of different
    size give losses that cannot be compared. Free of rotation and scale.

    >>> z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> abs(float(cka(3 * z.flip(1), z))) < 1e-6
    True
    """
    grams = [(c @ c.T).flatten() for c in (z.float() - z.float().mean(dim=0) for z in (student, teacher))]
    return 1 - (unit(grams[0]) * unit(grams[1])).sum()


@objectives.register("gram", family="relational")
def gram(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of the batch's cosine matrices, off the diagonal (Tung & Mori 2019; DINOv3's Gram anchoring).

    Between 0 and 4. Free of rotation and of the dimensions, not of shift. Tung & Mori scale each row of the matrix instead.

    >>> z = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> float(gram(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), z))
    1.0
    """
    found, wanted = (unit(z) @ unit(z).T for z in (student, teacher))
    other = ~torch.eye(len(found), dtype=torch.bool, device=found.device)
    return F.mse_loss(found[other], wanted[other]) if len(found) > 1 else found.sum() * 0
