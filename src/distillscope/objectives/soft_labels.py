"""The teacher's own classes as what the student learns: the distillation of Hinton et al. (2015)."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from distillscope.registry import Positive, objectives


@objectives.register("soft_labels", family="soft_labels")
def soft_labels(logits: torch.Tensor, teacher_logits: torch.Tensor, *, temperature: Positive = 4.0) -> torch.Tensor:
    """KL of the teacher's softened class probabilities to the student's, times temperature^2 (Hinton et al. 2015).

    From 0, in nats. The teacher's classes are those of its own head (1,000 of ImageNet), not the data's; the student's come
    from a linear head that is trained with it and thrown away. 4 is the temperature of most comparisons (Tian et al. 2020).

    >>> z = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    >>> float(soft_labels(z, z)), round(float(soft_labels(torch.zeros(2, 2), z, temperature=1.0)), 3)
    (0.0, 0.219)
    """
    wanted, found = ((z.float() / temperature).log_softmax(dim=1) for z in (teacher_logits, logits))
    return temperature**2 * F.kl_div(found, wanted, log_target=True, reduction="batchmean")
