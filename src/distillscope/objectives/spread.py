"""Objectives of the student alone: they ask for spread, not for the teacher's; use them beside one that sees the teacher."""

from __future__ import annotations

import math

import torch

from distillscope.objectives.regression import unit
from distillscope.registry import Positive, objectives

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
