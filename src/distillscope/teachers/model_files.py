"""What every model that comes as one file shares: what it is shown, which output is the embedding, and what was assumed."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from distillscope import progress
from distillscope.config.parts import CLIP_MEAN, CLIP_STD
from distillscope.data.preprocess import Preprocess
from distillscope.errors import UserError
from distillscope.teachers.encoder import Encoder, plain_line

DEFAULT_SIZE = 224
Colour = tuple[float, float, float]
Pooling = Literal["first", "mean"]
SIZE_ADVICE = "If it was made for another size, set it (audit, embed: --image-size 32; run, distill: --set teacher.size=32)."
OUTPUT_ADVICE = "Name the one that is meant after a colon:"


@dataclass(frozen=True)
class Shown:
    """What the user said of a file's input and output; None where nothing was said."""

    size: int | None = None
    mean: Colour | None = None
    std: Colour | None = None
    interpolation: str = "bicubic"
    crop_fraction: float = 1.0
    output: str | None = None
    pool: Pooling | None = None
    unit_norm: bool = False


@dataclass
class Layout:
    """What a file says of its image input. ``batch`` and ``size`` are None where they are free."""

    dtype: torch.dtype = torch.float32
    channels_last: bool = False
    batch: int | None = None
    size: int | None = None
    span: tuple[float, float] | None = None  # whole numbers: what the pixel values 0 and 255 are in the network's own numbers
    name: str = "images"
    facts: list[str] = field(default_factory=list)  # what was decided besides, in words

    @property
    def pixels(self) -> bool:
        """Whether the input takes whole numbers."""
        return not self.dtype.is_floating_point


class FileNetwork(torch.nn.Module, ABC):
    """Images (b, 3, size, size), normalised float32, to embeddings (b, dim) float32, by whatever runs the file.

    A kind of file gives `layout`, and `run`: images laid out and typed as the file wants them -> a tensor, or several by name.
    """

    layout: Layout
    runtime = "torch"
    """What runs the file."""

    def __init__(self, path: Path, where: str, shown: Shown) -> None:
        super().__init__()
        self.path, self.where, self.shown, self.output = path, where, shown, shown.output

    @abstractmethod
    def run(self, images: torch.Tensor) -> Any:
        """What the file gives for a batch; each kind of file has its own."""

    def told(self) -> Mapping[str, str]:
        """The metadata that the file carries, as text by name; of most kinds of file nothing is asked."""
        return {}

    def files(self) -> list[Path]:
        """The file, and those beside it that hold a part of it."""
        return [self.path]

    def open_on(self, device: torch.device) -> bool:
        """Open the file again on ``device``; False where what runs it stays on the CPU."""
        return device.type == "cpu"

    def layouts(self) -> list[Layout]:
        """`layout`, and what else to try where that fails, for a file that does not say it."""
        alone = replace(self.layout, batch=1, facts=[*self.layout.facts, "one image at a time, since it fails for more"])
        return [self.layout] + ([alone] if self.layout.batch is None else [])

    def named(self, images: torch.Tensor) -> torch.Tensor:
        """The output that is meant, as the file gives it."""
        layout = self.layout
        given = images.permute(0, 2, 3, 1).contiguous() if layout.channels_last else images
        if layout.pixels:
            least = torch.iinfo(layout.dtype).min
            given = given.mul(255).round().clamp(0, 255).add(least).to(layout.dtype)
        given = given.to(layout.dtype)
        if layout.batch is None:
            return self.choose(self.run(given))
        spare = -len(given) % layout.batch  # a file with a fixed batch: the last one is filled up, and cut again
        given = torch.cat([given, given.new_zeros((spare, *given.shape[1:]))])
        parts = [self.choose(self.run(part)) for part in given.split(layout.batch)]
        for part in parts:
            if part.ndim == 0 or len(part) != layout.batch:
                raise UserError(self.where, f"an output of {layout.batch} rows, one per image", _shape(part),
                                "Export a network that ends in the embedding.")
        return torch.cat(parts)[: len(images)]

    def choose(self, found: Any) -> torch.Tensor:
        """One output of several: the named one, else the only one."""
        several = by_name(found)
        if self.output is not None and self.output in several:
            return several[self.output]
        if self.output is None and len(several) == 1:
            return next(iter(several.values()))
        listed = ", ".join(f"{n or 'one output without a name'} {_shape(t)}" for n, t in list(several.items())[:6])
        file = self.path
        likely = min(several, key=lambda n: (several[n].ndim != 2, "image" not in n, "emb" not in n), default="")
        if self.output is not None:
            raise UserError(self.where, f"an output called {' or '.join(n or '(none)' for n in several)}", f"'{self.output}'",
                            f"{OUTPUT_ADVICE} {file}:{likely}." if likely else "Leave the name out.")
        raise UserError(self.where, "one output", f"{len(several)} ({listed})", f"{OUTPUT_ADVICE} {file}:{likely}.")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        try:
            out = self.named(images)
        except UserError:
            raise
        except Exception as error:  # whatever runs the file raises its own
            raise UserError(self.where, f"a network that takes images {self.expects(images)}", plain_line(error),
                            SIZE_ADVICE) from None
        return self.rows(out, len(images))

    def expects(self, images: torch.Tensor) -> str:
        """The shape of what it is given, for messages."""
        size = images.shape[-1]
        return f"(b, {size}, {size}, 3)" if self.layout.channels_last else f"(b, 3, {size}, {size})"

    def rows(self, out: torch.Tensor, count: int) -> torch.Tensor:
        """(count, dim) float32 from an output; a pooled map is flattened, tokens and maps are pooled as asked."""
        if out.ndim < 2 or len(out) != count or out.numel() == 0 or out.is_complex() or out.dtype is torch.bool:
            raise UserError(self.where, "embeddings (b, dim)", f"{_dtype(out)} {_shape(out)} for {count} images",
                            "Export a network that ends in the embedding.")
        if not out.is_floating_point():
            raise UserError(self.where, "embeddings (b, dim) of floats",
                            f"{_dtype(out)} {_shape(out)}, whose scale is not known",
                            "Export it with float outputs (a dequantising layer at its end), or name a float output.")
        out, pool = out.float(), self.shown.pool
        if out[0].numel() == max(out.shape[1:]):  # (b, d), (b, d, 1, 1), (b, 1, d)
            return out.flatten(1)
        if pool is None or (out.ndim, pool) == (4, "first") or out.ndim > 4:
            what = "tokens (b, tokens, dim)" if out.ndim == 3 else "a feature map"
            ask = " or ".join(f"{self.spec()}@{p}" for p in (("first", "mean") if out.ndim == 3 else ("mean",)))
            todo = f"Say which is the embedding (first token, or mean): {ask}." if out.ndim <= 4 else ""
            raise UserError(self.where, "embeddings (b, dim)", f"{what}, {_dtype(out)} {_shape(out)}",
                            todo or "Export a network that ends in the embedding.")
        if pool == "first":
            return out[:, 0]
        return out.mean(dim=1 if out.ndim == 3 else (1, 2) if self.layout.channels_last else (2, 3))

    def spec(self) -> str:
        """FILE:OUTPUT, as the user would type it."""
        return f"{self.path}:{self.output or ''}"

    def mark(self) -> list[str]:
        """What beside the file's contents decides its embeddings: part of their name in the cache."""
        return [text for text in (self.output, self.shown.pool and f"@{self.shown.pool}") if text]


@dataclass
class HostEncoder(Encoder):
    """An Encoder that computes in the precision of its file, on the CPU or wherever its own runtime computes."""

    module: FileNetwork

    def to(self, device: torch.device, precision: str | None = None) -> Encoder:
        """Says so where the device that was asked for is not used."""
        if precision not in (None, "float32"):
            raise UserError(self.name, "no --precision, since the file fixes its own", precision, "Leave it out.")
        if self.module.open_on(device):
            self.batch_size = max(self.batch_size, 256)
        elif device.type != "cpu":
            progress.say(f"{self.name}: what runs this file has no {device.type} here; it runs on the CPU")
        self.device = torch.device("cpu")  # tensors go in and come out through NumPy
        return self


def file_encoder(name: str, network: FileNetwork, fingerprint: str, kind: type[Encoder] = HostEncoder) -> Encoder:
    """The Encoder of a file, tried on a few images; `Encoder.reading` says what was taken of what the file does not say."""
    shown, layout, where = network.shown, network.layout, network.where
    if shown.size is not None and layout.size not in (None, shown.size):
        raise UserError(where, f"{layout.size} px, the size that the file is fixed to", f"{shown.size}", "Leave the size out.")
    if layout.pixels and (shown.mean or shown.std):
        raise UserError(where, f"no mean and std, since its input takes pixel values ({_name(layout.dtype)})", "some",
                        "Leave them out.")
    size = layout.size or shown.size or DEFAULT_SIZE
    mean, std = ((0.0,) * 3, (1.0,) * 3) if layout.pixels else (shown.mean or CLIP_MEAN, shown.std or CLIP_STD)
    preprocess = Preprocess(size, mean, std, shown.interpolation, shown.crop_fraction)
    dim, notes = _tried(network, preprocess)
    encoder = kind(name, network, dim, preprocess, fingerprint, unit_norm=shown.unit_norm)
    encoder.reading = _reading(encoder, network, notes)
    return encoder


def _reading(encoder: Encoder, network: FileNetwork, notes: list[str]) -> str:
    """One line: what the file is shown, which output is taken, and what was assumed."""
    p, shown, layout = encoder.preprocess, network.shown, network.layout
    size = "the file's size" if layout.size else "as set" if shown.size else "assumed: the file takes any"
    if layout.pixels:
        low, high = layout.span or (0.0, 255.0)
        spans = "" if layout.span is None else f", taken to span {low:.3g} to {high:.3g}"
        colour = f"raw pixel values ({_name(layout.dtype)}{spans}), no mean and std"
    else:
        mean, std = ("as set" if given else "assumed, CLIP's: the file does not say" for given in (shown.mean, shown.std))
        colour = (f"mean {_short(p.mean)} ({mean}), std {_short(p.std)} ({std})" if mean != std else
                  f"mean {_short(p.mean)}, std {_short(p.std)} ({mean})")
    order = "channels last" if layout.channels_last else "channels first"
    kept = {"first": "first token of ", "mean": "mean of ", None: ""}[shown.pool]
    parts = [f"images at {p.size} px ({size}), {order}, {colour}", *layout.facts,
             f"embedding: {kept}output '{network.output}' (b, {encoder.dim})" if network.output else
             f"embedding: {kept}the only output (b, {encoder.dim})", *notes]
    return f"{encoder.name}: {'; '.join(parts)}"


@torch.inference_mode()
def _tried(network: FileNetwork, preprocess: Preprocess) -> tuple[int, list[str]]:
    """The dimension, and what four images of noise show: randomness, rows that depend on their batch, scores, constants."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(4, 3, preprocess.size, preprocess.size, generator=generator)
    images = preprocess.normalise(noise * torch.rand(4, 3, 1, 1, generator=generator))
    rows = _settled(network, images)
    near = 1e-2 if network.layout.dtype in (torch.float16, torch.bfloat16) else 1e-3
    scale = rows.norm(dim=1).mean().clamp_min(1e-12)
    if not torch.isfinite(rows).all():
        return rows.shape[1], []  # said of the image that it happens with
    notes = []
    again, alone = network(images), torch.cat([network(image[None]) for image in images])
    if (again - rows).norm(dim=1).max() > near * scale:
        notes.append("the same image gets another embedding each time: it was saved in training mode, or draws at random")
    elif (off := float((alone - rows).norm(dim=1).max() / scale)) > near:
        notes.append(f"an image's embedding depends on the other images of its batch (by {off:.1%} here): "
                     "a batch norm in training mode, or quantisation by the batch's range")
    if (rows - rows[0]).norm(dim=1).max() <= 1e-6 * scale:
        raise UserError(network.where, "an output that depends on the image",
                        f"'{network.output or 'output'}', the same for any",
                        "Name another output, or export the image encoder.")
    if rows.shape[1] > 1 and bool((rows >= 0).all()) and torch.allclose(rows.sum(1), rows.new_ones(()), atol=1e-3):
        notes.append("its numbers are above 0 and sum to 1: class probabilities, not an embedding?")
    elif rows.shape[1] in (1000, 1001, 21841, 21843):
        notes.append(f"{rows.shape[1]} numbers per image: scores of ImageNet's classes, not an embedding?")
    return rows.shape[1], notes


def _settled(network: FileNetwork, images: torch.Tensor) -> torch.Tensor:
    """The rows by the first layout that works, which stays; where none does, the first one's error."""
    failed: list[UserError] = []
    for layout in network.layouts():
        network.layout = layout
        try:
            return network(images)
        except UserError as error:
            failed.append(error)
    raise failed[0]


def by_name(found: Any, prefix: str = "") -> dict[str, torch.Tensor]:
    """The tensors of an output by name: keys of dicts, places in tuples and lists; None is passed over."""
    if isinstance(found, torch.Tensor):
        return {prefix: found}
    items = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, (tuple, list)) else ()
    named: dict[str, torch.Tensor] = {}
    for key, value in items:
        named.update(by_name(value, f"{prefix}.{key}" if prefix else str(key)))
    return named


def existing(path: Path, kind: str) -> tuple[Path, str]:
    """The file, and how messages call it."""
    path = Path(path).expanduser()
    where = f"{kind} {path}"
    if not path.is_file() or not path.stat().st_size:
        raise UserError(where, "a model file", "an empty file" if path.is_file() else "none there", "Check the path.")
    return path, where


def hash_files(paths: list[Path], *more: str) -> str:
    """A hex name for the contents of files: what keeps embeddings of one model apart from another's in the cache."""
    digest = hashlib.blake2b("|".join(more).encode(), digest_size=16)
    for path in paths:
        with open(path, "rb") as handle:
            while block := handle.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()


def _shape(tensor: torch.Tensor) -> str:
    return str(tuple(tensor.shape))


def _dtype(tensor: torch.Tensor) -> str:
    return _name(tensor.dtype)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _short(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{v:.3g}" for v in values) + ")"
