"""The whole batch from the parts that several processes hold, so that every process sees all negatives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import distributed


@dataclass(frozen=True)
class BatchGather:
    """Process ``rank`` of ``world`` holds rows rank, rank + world, ... of every batch."""

    rank: int = 0
    world: int = 1

    def __call__(self, part: torch.Tensor, total: int) -> torch.Tensor:
        """All ``total`` rows in the batch's order; gradients flow to the own rows.

        Every process computes the same loss from them, and its own rows' gradient is taken ``world`` times, so that the
        mean over processes, which data-parallel training takes, is the gradient of one process with the whole batch.
        """
        return part if self.world == 1 else _Gather.apply(part, self.rank, self.world, total)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, part: torch.Tensor, rank: int, world: int, total: int) -> torch.Tensor:
        ctx.rank, ctx.world = rank, world
        padded = part.new_zeros((-(-total // world), *part.shape[1:]))  # the last batch's parts may differ by a row
        padded[: len(part)] = part.detach()
        parts = [torch.empty_like(padded) for _ in range(world)]
        distributed.all_gather(parts, padded)
        return torch.stack(parts, dim=1).flatten(0, 1)[:total]

    @staticmethod
    def backward(ctx, gradient: torch.Tensor):
        return gradient[ctx.rank :: ctx.world] * ctx.world, None, None, None
