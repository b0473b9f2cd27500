"""Muon: a matrix's momentum is made orthogonal before the step, so that its weak directions move as far as its strong ones.

K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024). PyTorch's own (from 2.9 on) takes
matrices only; this one takes a whole network: kernels of convolutions as matrices of (outputs, inputs x height x width),
and biases, gains and everything else of one dimension by Adam.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from distillscope.errors import UserError

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Jordan's quintic: steepest at 0, and its iterates stay near 1."""
STEPS = 5
ADAM_SIZE = 0.2
"""Root mean square of Adam's typical step over its learning rate (Liu et al. 2025, arXiv:2502.16982)."""
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


class Muon(torch.optim.Optimizer):
    """Muon for parameters of two or more dimensions, Adam for the rest, under one learning rate.

    Orthogonal steps are scaled by 0.2 sqrt(max(m, n)), to the size of Adam's, so that a learning rate means the same for both.
    ``momentum`` is Nesterov's; ``weight_decay`` is decoupled (as in AdamW) and shrinks the matrices only.

    >>> layer = torch.nn.Linear(2, 2)
    >>> [len(group["params"]) for group in Muon(layer.parameters(), lr=0.01).param_groups]
    [1, 1]
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], lr: float = 1e-3, momentum: float = 0.95,
                 betas: tuple[float, float] = (0.9, 0.999), weight_decay: float = 0.0) -> None:
        parameters = list(parameters)
        matrices = [p for p in parameters if p.ndim >= 2]
        if not matrices:
            raise UserError("training.optimizer", "adam, adamw or sgd for a network without matrices", "muon", "Set one of those.")
        groups = [{"params": matrices, "matrices": True}, {"params": [p for p in parameters if p.ndim < 2], "matrices": False}]
        super().__init__([g for g in groups if g["params"]],
                         {"lr": lr, "momentum": momentum, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], torch.Tensor] | None = None) -> torch.Tensor | None:
        """One step; parameters without a gradient stay as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            move = self._orthogonal if group["matrices"] else self._adam
            for parameter in group["params"]:
                if parameter.grad is not None:
                    move(parameter, group, self.state[parameter])
        return loss

    @staticmethod
    def _orthogonal(parameter: torch.Tensor, group: dict, state: dict) -> None:
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        gradient = parameter.grad
        state["momentum"].lerp_(gradient, 1 - group["momentum"])
        direction = gradient.lerp(state["momentum"], group["momentum"]).flatten(1)
        scale = ADAM_SIZE * max(direction.shape) ** 0.5
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(orthogonalised(direction).view(parameter.shape), alpha=-group["lr"] * scale)

    @staticmethod
    def _adam(parameter: torch.Tensor, group: dict, state: dict) -> None:
        if not state:
            state.update(step=0, mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter))
        first, second = group["betas"]
        state["step"] += 1
        state["mean"].lerp_(parameter.grad, 1 - first)
        state["square"].lerp_(parameter.grad.square(), 1 - second)
        size = (state["square"] / (1 - second ** state["step"])).sqrt_().add_(EPS)
        parameter.addcdiv_(state["mean"] / (1 - first ** state["step"]), size, value=-group["lr"])
