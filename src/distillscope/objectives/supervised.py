"""Objectives that see labels: controls, since distillation does without."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from distillscope.registry import Share, objectives


@objectives.register("cross_entropy", family="supervised")
def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, *, label_smoothing: Share = 0.0) -> torch.Tensor:
    """Cross-entropy with the labels, through a linear head that is trained with the student and thrown away: the control.

    In nats; log(classes) at chance. The head sees the student's embeddings as they are, not their unit rows.

    >>> round(float(cross_entropy(torch.zeros(2, 4), torch.tensor([1, 3]))), 4)   # log 4
    1.3863
    """
    return F.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)
