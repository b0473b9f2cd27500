"""Objectives of how images lie to one another, of two sides or of one: student and target may differ in dimension."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from distillscope.objectives.regression import unit
from distillscope.registry import Positive, Size, objectives

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


CLOSEST = 1e-4
"""KoLeo: nearer neighbours are taken as this near, so that images that occur twice have no pull."""


def _scaled(z: torch.Tensor, normalise: bool) -> torch.Tensor:
    return unit(z) * math.sqrt(z.shape[-1]) if normalise else z.float()


@objectives.register("vicreg_variance", family="spread")
def vicreg_variance(student: torch.Tensor, *, gamma: Positive = 1.0, epsilon: Positive = 1e-4,
                    normalise: bool = False) -> torch.Tensor:
    """VICReg's variance term: mean over dimensions of max(0, gamma - std in the batch) (Bardes et al. 2022).

    Between 0 and gamma. It sees raw scale, which cosine leaves free: beside cosine a student can meet it by growing. With
    ``normalise`` rows are first scaled to norm sqrt(d), where a std of 1 in every dimension means isotropy.

    >>> round(float(vicreg_variance(torch.zeros(4, 3))), 6)   # sqrt(epsilon) is left
    0.99
    """
    z = _scaled(student, normalise)
    return (gamma - (z.var(dim=0) + epsilon).sqrt()).clamp(min=0).mean()


@objectives.register("vicreg_covariance", family="spread")
def vicreg_covariance(student: torch.Tensor, *, normalise: bool = False) -> torch.Tensor:
    """VICReg's covariance term: sum of squared covariances of different dimensions over d (Bardes et al. 2022).

    From 0. On raw scale a student can meet it by shrinking; ``normalise`` as in vicreg_variance.

    >>> float(vicreg_covariance(torch.tensor([[1.0, 1.0], [-1.0, -1.0]])))   # covariance 2, twice, over 2 dimensions
    4.0
    """
    z = _scaled(student, normalise)
    z = z - z.mean(dim=0)
    covariance = z.T @ z / (len(z) - 1)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / z.shape[1]


@objectives.register("koleo", family="spread")
def koleo(student: torch.Tensor) -> torch.Tensor:
    """KoLeo: minus the mean log distance of each unit row to its nearest in the batch (Sablayrolles et al. 2019; DINOv2).

    From -log 2 up. Unlike the sources, a row nearer than 1e-4 to another gets no gradient, where theirs would be huge.

    >>> round(float(koleo(torch.tensor([[1.0, 0.0], [-3.0, 0.0]]))), 6) == round(-math.log(2), 6)
    True
    """
    z = unit(student)
    with torch.no_grad():
        nearest = (z @ z.T).fill_diagonal_(-2).argmax(dim=1)
    squared = (z - z[nearest]).square().sum(dim=1)
    return -0.5 * squared.clamp(min=CLOSEST**2).log().mean()


# InfoNCE's push apart without its positives: counted as contrastive, which favours the claim `objective`
@objectives.register("uniformity", family="contrastive")
def uniformity(student: torch.Tensor, *, t: Positive = 2.0) -> torch.Tensor:
    """Uniformity: log mean exp(-t |a - b|^2) over the pairs of different unit rows (Wang & Isola 2020).

    Between -4 t and 0, where all rows are one. Pairs of a row with itself are left out.

    >>> round(float(uniformity(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))), 6)   # squared distance 2
    -4.0
    """
    z = unit(student)
    other = ~torch.eye(len(z), dtype=torch.bool, device=z.device)
    squared = (2 - 2 * (z @ z.T))[other]
    return torch.logsumexp(-t * squared, dim=0) - math.log(len(squared))
