"""The running mean of a student's weights over its training steps, which it ends with (Polyak & Juditsky 1992)."""

from __future__ import annotations

import torch


class Averaged:
    """The exponential moving mean of all weights and batch-norm moments of ``module``, with ``decay`` a step.

    The first steps count less: the decay of step t is at most (1 + t) / (10 + t), so that the initial weights fade soon.

    >>> one = torch.nn.Linear(1, 1, bias=False)
    >>> _ = one.weight.data.fill_(0.0)
    >>> mean = Averaged(one, 0.5)
    >>> _ = one.weight.data.fill_(8.0), mean.update(one, 8), mean.give(one)
    >>> float(one.weight)
    4.0
    """

    def __init__(self, module: torch.nn.Module, decay: float) -> None:
        self.decay = decay
        self.mean = {name: value.detach().clone() for name, value in module.state_dict().items()}

    def update(self, module: torch.nn.Module, step: int) -> None:
        """Take in the weights after ``step`` steps; counters are copied."""
        decay, now = min(self.decay, (1 + step) / (10 + step)), module.state_dict()
        floats = [name for name, value in now.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.mean[n] for n in floats], [now[n].detach() for n in floats], 1 - decay)
        for name in now.keys() - set(floats):
            self.mean[name].copy_(now[name])

    def give(self, module: torch.nn.Module) -> None:
        """Load the mean into ``module``."""
        module.load_state_dict(self.mean)

    def state(self) -> dict[str, torch.Tensor]:
        """For a checkpoint."""
        return dict(self.mean)

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """What `state` gave."""
        for name, value in self.mean.items():
            value.copy_(state[name])
