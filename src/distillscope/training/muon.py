"""Muon: a kernel's momentum is made orthogonal before the step, so that its weak directions move as far as its strong ones.

K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024). PyTorch's own (from 2.9 on) takes
matrices only; this one takes a whole network: kernels of convolutions as matrices of (outputs, inputs x height x width),
everything else by Adam. Linear layers go by Adam too: orthogonal steps for the student's large ones cost more than its
forward and backward pass together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from distillscope.errors import UserError

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Jordan's quintic: steepest at 0, and its iterates stay near 1."""
STEPS = 5
KERNEL_SIZE = 0.6
"""Root mean square of a kernel's step over the learning rate: thrice that of Adam's typical step (0.2 in Liu et al. 2025,
arXiv:2502.16982), since kernels bear more; chosen on held-out train images."""
EPS = 1e-8


def orthogonalised(matrix: torch.Tensor) -> torch.Tensor:
    """(m, n) with the same singular vectors and every singular value near 1 (about 0.7 to 1.2), by Newton-Schulz steps.

    Singular values below about 1/100 of the Frobenius norm come out smaller. A matrix of zeros stays zero.

    >>> values = torch.linalg.svdvals(orthogonalised(torch.diag(torch.tensor([1.0, 0.5, 0.1]))))
    >>> bool((values > 0.6).all() and (values < 1.3).all())
    True
    """
    a, b, c = COEFFICIENTS
    x = matrix.float()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.T if tall else x).to(matrix.dtype)


def kernels_of(parameters: Iterable[torch.nn.Parameter]) -> list[torch.nn.Parameter]:
    """The parameters that Muon makes orthogonal; without any it is nothing but Adam, and that is refused."""
    kernels = [p for p in parameters if _is_kernel(p)]
    if not kernels:
        raise UserError("training.optimizer", "adam, adamw or sgd for a network without convolutions", "muon",
                        "Set training.optimizer=adam and training.learning_rate=0.001.")
    return kernels


def _is_kernel(parameter: torch.nn.Parameter) -> bool:
    """Of a convolution of images: (outputs, inputs, height, width). Position embeddings have three dimensions."""
    return parameter.ndim == 4


class Muon(torch.optim.Optimizer):
    """Muon for kernels of convolutions, Adam for the rest, under one learning rate.

    A kernel's orthogonal step is scaled by 0.6 sqrt(max(m, n)) of its (m, n), a root mean square of 0.6 learning rates.
    ``momentum`` is Nesterov's; ``weight_decay`` is decoupled (as in AdamW) and shrinks the kernels only.

    >>> network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(4, 2))
    >>> [len(group["params"]) for group in Muon(network.parameters(), lr=0.01).param_groups]
    [1, 3]
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], lr: float = 1e-3, momentum: float = 0.95,
                 betas: tuple[float, float] = (0.9, 0.999), weight_decay: float = 0.0) -> None:
        parameters = list(parameters)
        kernels = kernels_of(parameters)
        others = [p for p in parameters if not _is_kernel(p)]
        groups = [{"params": kernels, "kernels": True}, {"params": others, "kernels": False}]
        super().__init__([g for g in groups if g["params"]],
                         {"lr": lr, "momentum": momentum, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; parameters without a gradient stay as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            move = self._orthogonal if group["kernels"] else self._adam
            for parameter in group["params"]:
                if parameter.grad is not None:
                    move(parameter, parameter.grad, group, self.state[parameter])
        return loss

    @staticmethod
    def _orthogonal(parameter: torch.Tensor, gradient: torch.Tensor, group: dict, state: dict) -> None:
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(gradient, 1 - group["momentum"])
        direction = gradient.lerp(state["momentum"], group["momentum"]).flatten(1)
        scale = KERNEL_SIZE * max(direction.shape) ** 0.5
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(orthogonalised(direction).view(parameter.shape), alpha=-group["lr"] * scale)

    @staticmethod
    def _adam(parameter: torch.Tensor, gradient: torch.Tensor, group: dict, state: dict) -> None:
        if not state:
            state.update(step=0, mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter))
        first, second = group["betas"]
        state["step"] += 1
        state["mean"].lerp_(gradient, 1 - first)
        state["square"].lerp_(gradient.square(), 1 - second)
        size = (state["square"] / (1 - second ** state["step"])).sqrt_().add_(EPS)
        parameter.addcdiv_(state["mean"] / (1 - first ** state["step"]), size, value=-group["lr"])
