"""Objectives: (student (b, d), teacher (b, d), ...) -> scalar, computed in float32.

What an objective needs is named by its positional parameters: ``student`` and ``teacher`` are the embeddings of the
same images, ``other`` is the student's embedding of a second view of them.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from distillscope.registry import objectives


@objectives.register("cosine")
def cosine(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean of 1 - cos(student, teacher): the paper's objective.

    >>> float(cosine(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0]])))
    1.0
    """
    return (1 - (F.normalize(student, dim=-1) * F.normalize(teacher, dim=-1)).sum(-1)).mean()


@objectives.register("mse")
def mse(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean squared error of the embeddings as they are, over items and dimensions."""
    return F.mse_loss(student, teacher)


@objectives.register("infonce")
def infonce(student: torch.Tensor, teacher: torch.Tensor, *, temperature: float = 0.1) -> torch.Tensor:
    """InfoNCE, student to teacher: which of the batch's teacher embeddings belongs to this image? In nats, at most log b.

    >>> import math
    >>> same = torch.ones(8, 4)
    >>> math.isclose(float(infonce(same, same)), math.log(8), rel_tol=1e-6)
    True
    """
    logits = F.normalize(student, dim=-1) @ F.normalize(teacher, dim=-1).T / temperature
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


@objectives.register("infonce_views")
def infonce_views(student: torch.Tensor, other: torch.Tensor, *, temperature: float = 0.1) -> torch.Tensor:
    """InfoNCE, student to student over two augmented views of each image, both directions (needs an arm with a view)."""
    return 0.5 * (infonce(student, other, temperature=temperature) + infonce(other, student, temperature=temperature))
