"""Projectors: trained between the student and its objectives, thrown away afterwards."""

from __future__ import annotations

from torch import nn

from distillscope.registry import Size, projectors


@projectors.register("linear")
def linear(student_dim: int, target_dim: int, *, dim: Size | None = None, bias: bool = True) -> nn.Module:
    """One linear layer from the student's dimension to `dim`, by default the target's.

    >>> tuple(linear(8, 16).weight.shape)
    (16, 8)
    """
    return nn.Linear(student_dim, dim or target_dim, bias=bias)


@projectors.register("mlp")
def mlp(student_dim: int, target_dim: int, *, dim: Size | None = None, hidden: Size | None = None, layers: Size = 2,
        batch_norm: bool = False) -> nn.Module:
    """Linear layers with ReLU between them: `layers` in all, `hidden` wide (default: as the student), `dim` at the end.

    >>> [tuple(p.shape) for p in mlp(8, 16, hidden=32).parameters()]
    [(32, 8), (32,), (16, 32), (16,)]
    """
    widths = [student_dim, *[hidden or student_dim] * (layers - 1), dim or target_dim]
    parts: list[nn.Module] = []
    for i, (inputs, outputs) in enumerate(zip(widths, widths[1:], strict=False)):
        last = i == layers - 1
        parts.append(nn.Linear(inputs, outputs))
        if not last:
            parts += [*([nn.BatchNorm1d(outputs)] if batch_norm else []), nn.ReLU(inplace=True)]
    return nn.Sequential(*parts)
