"""Batch norms of a frozen network folded into its convolutions, where one forward pass confirms that they belong together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def fold_batch_norms(module: torch.nn.Module, shown: Callable[[], torch.Tensor]) -> int:
    """Fold each batch norm that directly follows a convolution into it, in place (eval mode only); how many pairs it left.

    A pair stands side by side in one parent, and in a forward pass of ``shown`` (what the network takes of one image) the
    convolution's output goes into that batch norm and nowhere else; a parent may call its parts in another order than it
    lists them. The embeddings change by float32 rounding; EfficientNet-Lite0 on a CPU gains about 1.4 times in speed.

    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4)).eval()
    >>> fold_batch_norms(net, lambda: torch.zeros(1, 3, 8, 8)), net[1]
    (0, Identity())
    """
    pairs = list(_side_by_side(module))
    if not pairs:
        return 0
    seen = _Convolutions()
    try:
        with torch.inference_mode(False), torch.no_grad(), seen:
            given = module(shown().to(pairs[0][0].weight))
    except Exception:  # a caller's module, which may raise anything; what is wrong with it shows when it embeds
        return len(pairs)
    seen.used(tree_leaves(given))
    left = 0
    for conv, norm, parent, name in pairs:
        if not seen.only(conv, norm) or norm.running_mean is None or norm.running_var is None:
            left += 1
            continue
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
        rest = [getattr(norm, k) for k in ("drop", "act") if hasattr(norm, k)]  # timm's norm carries its activation
        setattr(parent, name, torch.nn.Sequential(*rest) if rest else torch.nn.Identity())
    return left


def _side_by_side(module: torch.nn.Module) -> Iterator[tuple[torch.nn.Conv2d, torch.nn.BatchNorm2d, torch.nn.Module, str]]:
    """Each convolution with the batch norm that its parent lists next, and the parent and its name for the norm."""
    for parent in module.modules():
        for (_, conv), (name, norm) in pairwise(parent.named_children()):
            if not isinstance(conv, torch.nn.Conv2d) or not type(conv).__name__.startswith("Conv2d"):
                continue
            if not isinstance(norm, torch.nn.BatchNorm2d) or norm.running_mean is None or norm.running_var is None:
                continue
            if norm.track_running_stats and conv.out_channels == norm.num_features:
                yield conv, norm, parent, name


class _Convolutions(TorchDispatchMode):
    """Which operations take the output of each convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[Sequence[Any], Any]] = []  # arguments and output; kept, so that no other tensor gets its id
        self.users: dict[int, list[Sequence[Any]]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (),
                           kwargs: Mapping[str, Any] | None = None) -> Any:
        self.used(tree_leaves((args, kwargs or {})))
        out = func(*args, **(kwargs or {}))
        if "convolution" in func.name():
            self.made.append((args[1:3], out))
            self.users[id(out)] = []
        return out

    def used(self, values: Sequence[Any]) -> None:
        """These go into one operation, or out of the network."""
        for value in values:
            if isinstance(value, torch.Tensor) and id(value) in self.users:
                self.users[id(value)].append(values)

    def only(self, conv: torch.nn.Conv2d, norm: torch.nn.BatchNorm2d) -> bool:
        """Whether the convolution ran once, by its own weight, and its output went into that norm alone, which ran once."""
        found = [(bias, out) for (weight, bias), out in self.made if weight is conv.weight]
        if len(found) != 1 or found[0][0] is not conv.bias:
            return False
        users = self.users[id(found[0][1])]
        taking = [values for used in self.users.values() for values in used if any(v is norm.running_mean for v in values)]
        return len(users) == 1 and len(taking) == 1 and users[0] is taking[0]
