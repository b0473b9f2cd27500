"""A fitted linear probe as a differentiable layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn


class ProbeLogits(nn.Module):
    """Logits (n, classes) of embeddings (n, d): what ``LinearProbe.scores`` gives, in torch and float32."""

    weights: torch.Tensor
    bias: torch.Tensor

    def __init__(self, probe: Any, device: torch.device) -> None:
        super().__init__()
        self.unit_norm, self.classes = probe.unit_norm, np.asarray(probe.classes)
        # ((z - shift) / scale) @ w.T + b = z @ (w / scale).T + (b - shift @ (w / scale).T)
        weights = probe.weights / probe.scale
        self.register_buffer("weights", torch.from_numpy(weights).float().to(device))
        self.register_buffer("bias", torch.from_numpy(probe.bias - weights @ probe.shift).float().to(device))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return (nn.functional.normalize(z, dim=1) if self.unit_norm else z) @ self.weights.T + self.bias

    def places(self, labels: np.ndarray) -> np.ndarray:
        """The column (n,) of each label."""
        return np.searchsorted(self.classes, labels)


def probe_logits(probe: Any, device: torch.device | None = None) -> ProbeLogits:
    """The layer of a probe with ``classes``, ``weights``, ``bias``, ``shift``, ``scale`` and ``unit_norm``."""
    return ProbeLogits(probe, device or torch.device("cpu"))
