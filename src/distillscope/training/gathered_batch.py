"""A batch that several processes hold parts of: each sees all negatives, and batch norms the statistics of the whole."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import distributed
from torch.nn.modules.batchnorm import _BatchNorm


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


@contextlib.contextmanager
def shared_batch_norms(*modules: torch.nn.Module) -> Iterator[None]:
    """Within it, every batch norm of ``modules`` in training mode normalises by the batch of all processes together.

    On GPUs that is torch's SyncBatchNorm, which runs nowhere else, and whose conversion drops the activation that timm's batch
    norms carry. Here each layer stays what it is, with its weights and the names of its state, and changes its class for as
    long as it is trained.
    """
    norms = [m for module in modules for m in module.modules() if isinstance(m, _BatchNorm)]
    plain = [type(norm) for norm in norms]
    for norm in norms:
        norm.__class__ = type(f"Shared{type(norm).__name__}", (_Shared, type(norm)), {})
    try:
        yield
    finally:
        for norm, kind in zip(norms, plain, strict=True):
            norm.__class__ = kind


@contextlib.contextmanager
def untracked(module: torch.nn.Module) -> Iterator[None]:
    """Within it batch norms in training mode normalise as ever and leave their running statistics alone: for a second pass."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    before = [(norm.momentum, None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0  # not `track_running_stats`: checkpoints of activations count what is saved, which is less without
    try:
        yield
    finally:
        for norm, (momentum, tracked) in zip(norms, before, strict=True):
            norm.momentum = momentum
            if tracked is not None and norm.num_batches_tracked is not None:
                norm.num_batches_tracked.copy_(tracked)


class _Shared(_BatchNorm):
    """What a batch norm does differently while it is trained by several processes."""

    process_group = None  # what torch's SyncBatchNorm asks of itself
    _check_non_zero_input_channels = torch.nn.SyncBatchNorm._check_non_zero_input_channels

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(inputs)
        on_cpu = inputs.device.type == "cpu"
        outputs = self._on_cpu(inputs) if on_cpu else torch.nn.SyncBatchNorm.forward(cast(Any, self), inputs)
        for name in ("drop", "act"):  # timm's
            outputs = getattr(self, name)(outputs) if hasattr(self, name) else outputs
        return outputs

    def _on_cpu(self, inputs: torch.Tensor) -> torch.Tensor:
        self._check_input_dim(inputs)
        outputs, mean, variance, count = _Normalise.apply(inputs, self.weight, self.bias, self.eps)
        if self.track_running_stats:
            self._follow(mean, variance * count / (count - 1))
        return outputs

    @torch.no_grad()
    def _follow(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        """The running statistics, as PyTorch keeps them: ``variance`` is the unbiased one."""
        means, variances, tracked = self.running_mean, self.running_var, self.num_batches_tracked
        if means is None or variances is None or tracked is None:
            return
        tracked.add_(1)
        share = 1 / float(tracked) if self.momentum is None else self.momentum
        means.lerp_(mean.to(means.dtype), share)
        variances.lerp_(variance.to(variances.dtype), share)


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) * weight + bias, with the mean and variance of the rows of all processes.

    The gradient that arrives is that of the whole batch's loss times the number of processes (see `BatchGather`), and so is
    the one that leaves; those of weight and bias are of the own rows, and are averaged over processes as every other
    parameter's.
    """

    @staticmethod
    def forward(ctx, inputs: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float):
        rows = inputs.float()
        over = [d for d in range(rows.ndim) if d != 1]
        variance, mean = torch.var_mean(rows, dim=over, correction=0)
        count = rows.numel() // rows.shape[1]
        own = torch.cat([mean, variance, mean.new_tensor([count])])
        parts = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, own)
        means, variances, counts = torch.stack(parts).double().split([len(mean), len(mean), 1], dim=1)
        # Not E[x^2] - E[x]^2, which would lose the digits of a small variance.
        total = counts.sum()
        mean = (means * counts).sum(0) / total
        variance = ((variances + (means - mean) ** 2) * counts).sum(0) / total
        scale = (variance + eps).rsqrt().float()
        shape = [1, -1] + [1] * (rows.ndim - 2)
        normal = (rows - mean.float().view(shape)) * scale.view(shape)
        ctx.save_for_backward(normal, scale, weight)
        ctx.shape, ctx.over, ctx.total, ctx.has_bias = shape, over, float(total), bias is not None
        outputs = normal.clone() if weight is None else normal * weight.float().view(shape)
        outputs = outputs if bias is None else outputs + bias.float().view(shape)
        ctx.mark_non_differentiable(mean, variance)
        return outputs.to(inputs.dtype), mean, variance, float(total)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor, *_: torch.Tensor):
        normal, scale, weight = ctx.saved_tensors
        given = gradient.float()
        of_bias, of_weight = given.sum(ctx.over), (given * normal).sum(ctx.over)
        sums = torch.cat([of_bias, of_weight])
        distributed.all_reduce(sums)
        mean, slope = (sums / ctx.total).view(2, *ctx.shape)
        factor = scale if weight is None else scale * weight.float()
        inputs = (given - mean - normal * slope) * factor.view(ctx.shape)
        return (inputs.to(gradient.dtype), None if weight is None else of_weight.to(weight.dtype),
                of_bias if ctx.has_bias else None, None)
