"""Student networks: built from (embedding_dim, settings)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn

from distillscope.errors import UserError, near_names
from distillscope.registry import Size, students

HIDDEN = 512
"""Width of the paper's layer before the output, whatever the target's."""
WIDEST = 64
"""Of `paper_cnn`: 150 million parameters with 512 outputs."""
WIDEST_HIDDEN = 65_536
"""Of `paper_cnn`'s layer before the output."""


@students.register("paper_cnn")
def paper_cnn(embedding_dim: int, image_size: int, *, width: int = 1, blur_pool: bool = False,
              hidden: Size | Literal["target"] = HIDDEN) -> nn.Module:
    """The paper's CNN: three 3x3 convolutions of (16, 32, 64) x width, 4x4 average pool, two linear layers.

    The layer between these two is ``hidden`` wide: 512, the paper's, or as wide as the "target", which it was until 2026-11-26.

    811,264 / 1,405,440 / 2,732,032 parameters at widths 1 / 2 / 4 with 512 outputs (the paper says 0.5 / 2 / 8 M).
    ``blur_pool``: pooling takes the maximum at every place, blurs by [1, 2, 1] / 4 each way, then keeps every second place
    (Zhang 2019, arXiv:1904.11486), so that high frequencies do not fold into low ones; no parameter is added.

    >>> sum(p.numel() for p in paper_cnn(512, 32, width=1).parameters())
    811264
    """
    if not 1 <= width <= WIDEST:
        raise UserError("student.width", f"a whole number from 1 to {WIDEST}", str(width),
                        "Widths 1, 2, 4 are the paper's S, M, L.")
    if hidden != "target" and not 1 <= hidden <= WIDEST_HIDDEN:
        raise UserError("student.hidden", f"target, or a whole number from 1 to {WIDEST_HIDDEN}", str(hidden),
                        "The paper's is 512.")
    between = embedding_dim if hidden == "target" else hidden
    channels = [3, 16 * width, 32 * width, 64 * width]
    layers: list[nn.Module] = []
    for block, (inputs, outputs) in enumerate(zip(channels, channels[1:], strict=False)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        if block < 2:
            layers.append(_blur_max_pool(outputs) if blur_pool else nn.MaxPool2d(2))
    layers += [nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(channels[-1] * 16, between), nn.ReLU(inplace=True),
               nn.Linear(between, embedding_dim)]
    return nn.Sequential(*layers)


def _blur_max_pool(channels: int) -> nn.Module:
    """MaxPool2d(2) with an anti-aliasing filter between the maximum and the subsampling; same output size for even inputs."""
    from timm.layers import BlurPool2d

    return nn.Sequential(nn.MaxPool2d(2, stride=1), BlurPool2d(channels, filt_size=3, stride=2))


def pretrained_input(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The size, mean and std that a timm model was pretrained with; of one that timm has no weights for, nothing.

    >>> pretrained_input({"model": "resnet10t"})
    {'image_size': 176, 'mean': (0.485, 0.456, 0.406), 'std': (0.229, 0.224, 0.225)}
    """
    import timm

    model = str(settings.get("model", ""))
    config = timm.get_pretrained_cfg(model) if timm.is_model(model.split(".")[0]) else None
    if config is None:
        return {}
    asked = (settings.get("settings") or {}).get("img_size")
    return {"image_size": asked or config.input_size[-1], "mean": tuple(config.mean), "std": tuple(config.std)}


@students.register("timm", own_input=pretrained_input)
def timm_student(embedding_dim: int, image_size: int, *, model: str, pretrained: bool = False, projection: str = "linear",
                 settings: dict | None = None) -> nn.Module:
    """Any timm model, from scratch or pretrained, with a projection ("linear" or "none") to the teacher's dimension."""
    import timm

    if not timm.is_model(model.split(".")[0]):
        raise UserError("student.model", "a model that timm knows", f"'{model}'", near_names(model, timm.list_models()))
    if projection not in ("linear", "none"):
        raise UserError("student.projection", "linear or none", f"'{projection}'", "Use linear where dims differ.")
    extra = dict(settings or {})
    if "vit" in model or "deit" in model:
        extra.setdefault("img_size", image_size)
    try:
        body = timm.create_model(model, pretrained=pretrained, num_classes=0, **extra)
    except Exception as error:
        raise UserError(f"student timm/{model}", "a model that timm can build with those settings",
                        f"{type(error).__name__}: {str(error).splitlines()[0][:100]}",
                        "Check student.settings, or set student.pretrained=false where offline.") from None
    body.eval()
    with torch.no_grad():
        features = body(torch.zeros(1, 3, image_size, image_size)).shape[-1]
    body.train()
    if projection == "none":
        if features != embedding_dim:
            raise UserError("student.projection", f"linear, since {model} gives {features} and the target has {embedding_dim}",
                            "none", "Set student.projection=linear.")
        return body
    return nn.Sequential(body, nn.Linear(features, embedding_dim))


def recompute(module: nn.Module, label: str, on: bool = True) -> None:
    """Let the network keep less of a forward pass and compute the rest again in the backward pass (gradient checkpointing).

    For networks with timm's ``set_grad_checkpointing``; any other is refused.
    """
    able: list[Any] = [m for m in module.modules() if hasattr(m, "set_grad_checkpointing")][:1]  # the outermost
    try:
        for body in able:
            body.set_grad_checkpointing(on)
    except AssertionError:  # what timm says of a model that has the method and not the ability
        able = []
    if not able:
        raise UserError("training.recompute", "a network that can compute again (most of timm's: set_grad_checkpointing)",
                        f"student {label}", "Set training.recompute=false; training.accumulate=2 needs less memory too.")


def own_network(body: nn.Module, image_size: int, embedding_dim: int, label: str) -> nn.Module:
    """A caller's own network (b, 3, size, size) -> (b, k), with a linear layer after it where k is not ``embedding_dim``.

    >>> len(own_network(nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()), 8, 5, "mine"))
    2
    """
    where = f"student {label}"
    try:
        body.eval()
        with torch.no_grad():
            rows = body(torch.zeros(2, 3, image_size, image_size))
        body.train()
    except Exception as error:  # a caller's code: it may raise anything
        raise UserError(where, f"a network that takes images (b, 3, {image_size}, {image_size})",
                        f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}",
                        "Say what it sees: student_preprocess={'size': ...}.") from None
    if not isinstance(rows, torch.Tensor) or rows.ndim != 2 or len(rows) != 2:
        got = f"shape {tuple(rows.shape)}" if isinstance(rows, torch.Tensor) else type(rows).__name__
        raise UserError(where, "a network that gives embeddings (b, k)", got, "Pool and flatten its output.")
    return body if rows.shape[1] == embedding_dim else nn.Sequential(body, nn.Linear(rows.shape[1], embedding_dim))


class Transform(nn.Module):
    """A fitted target transform as a last layer: rows -> ((unit rows) - mean) @ matrix + offset; sqrt(2) cos of it if ``wave``.

    ``tensors``: mean (d,), and where there are any matrix (d, k) or (d,), offset (k,); none of them is trained, all are stored
    and counted with the weights. Always in float32. The same numbers as `targets.transforms.Target`.

    >>> layer = Transform({"mean": torch.zeros(2), "matrix": torch.tensor([2.0, 1.0])})
    >>> layer(torch.tensor([[3.0, 4.0]])).double().round(decimals=3).tolist()
    [[1.2, 0.8]]
    """

    mean: nn.Parameter
    matrix: nn.Parameter | None
    offset: nn.Parameter | None

    def __init__(self, tensors: Mapping[str, torch.Tensor], wave: bool = False) -> None:
        super().__init__()
        self.wave = wave
        for name in ("mean", "matrix", "offset"):
            value = tensors.get(name)
            setattr(self, name, None if value is None else nn.Parameter(value.float(), requires_grad=False))

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        with torch.autocast(embeddings.device.type, enabled=False):
            norms = embeddings.float().norm(dim=-1, keepdim=True)
            rows = embeddings.float() / torch.where(norms == 0, 1.0, norms) - self.mean
            if self.matrix is not None:
                rows = rows * self.matrix if self.matrix.ndim == 1 else rows @ self.matrix
            rows = rows if self.offset is None else rows + self.offset
            return 2**0.5 * rows.cos() if self.wave else rows

    def describe(self) -> dict:
        """What it takes to make an empty one into which its weights can be loaded."""
        return {"shapes": {k: list(v.shape) for k, v in self.named_parameters()}, "wave": self.wave}

    @classmethod
    def empty(cls, described: Mapping) -> Transform:
        """A layer of those shapes, all zero."""
        return cls({k: torch.zeros(shape) for k, shape in described["shapes"].items()}, bool(described["wave"]))


def capacity(module: nn.Module, image_size: int) -> dict[str, int]:
    """Parameters, and multiply-adds of one image (half of the floating-point operations that PyTorch counts)."""
    from torch.utils.flop_counter import FlopCounterMode

    device = next(module.parameters()).device
    was_training = module.training
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.eval()(torch.zeros(1, 3, image_size, image_size, device=device))
    module.train(was_training)
    return {"parameters": sum(p.numel() for p in module.parameters()), "multiply_adds": counter.get_total_flops() // 2}
