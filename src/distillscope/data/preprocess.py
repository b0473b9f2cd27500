"""From images, as they are stored or as a caller of `encode` has them, to what one model wants to see: each its own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from distillscope.config.parts import CLIP_MEAN, CLIP_STD, INTERPOLATIONS
from distillscope.data.decode import BrokenImage, Decoding, decode, read_file, to_rgb
from distillscope.data.source import Images, stack
from distillscope.errors import UserError

Names = Sequence[str] | np.ndarray
"""Ids (n,) of images."""
TAKEN = "images: uint8 or floats in [0, 1], (b, 3, h, w) or (b, h, w, 3); PIL images; paths; or a list of them"


LARGEST = 4096
"""Pixels a side."""
BORDERS = {"longest": "black", "border": "mean-coloured"}
"""Ways to resize that keep all of an image and its shape, and the border that then fills the square."""
RESIZE_MODES = ("shortest", "squash", *BORDERS)


@dataclass(frozen=True)
class Preprocess:
    """Resize, centre crop, scale to [0, 1], normalise.

    ``resize_mode`` says what becomes size / crop_fraction, rounded, before the crop of ``size``: the "shortest" side, which
    keeps the shape and crops the longer one; both ("squash", the shape is lost); or the longest side, with a border that is
    black ("longest", open_clip's) or of the mean colour ("border", timm's). uint8 images are resized in uint8, as PIL does it;
    float images in [0, 1] are clamped after resizing, since uint8 cannot overshoot either. A value that none of this can be
    done with is a `UserError`.

    >>> import torch
    >>> Preprocess(size=4, mean=(0.5,) * 3, std=(0.5,) * 3)(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)).unique()
    tensor([1.])
    >>> wide = torch.arange(8, dtype=torch.uint8).expand(1, 3, 4, 8)
    >>> Preprocess(4, interpolation="nearest").shown(wide)[0, 0, 0].tolist()
    [2, 3, 4, 5]
    >>> Preprocess(4, interpolation="nearest", resize_mode="squash").shown(wide)[0, 0, 0].tolist()
    [0, 2, 4, 6]
    """

    size: int
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD
    interpolation: str = "bicubic"
    crop_fraction: float = 1.0
    resize_mode: str = "shortest"

    def __post_init__(self) -> None:
        for key in ("mean", "std"):
            object.__setattr__(self, key, _colours(key, getattr(self, key)))
        crop = self.crop_fraction
        for key, fits, expected in (
                ("size", isinstance(self.size, Integral) and 1 <= self.size <= LARGEST, f"pixels, from 1 to {LARGEST}"),
                ("interpolation", self.interpolation in INTERPOLATIONS, f"one of {', '.join(INTERPOLATIONS)}"),
                ("crop_fraction", isinstance(crop, Real) and 0.1 <= crop <= 10, "a number from 0.1 to 10"),
                ("resize_mode", self.resize_mode in RESIZE_MODES, f"one of {', '.join(RESIZE_MODES)}")):
            if not fits:
                raise UserError(f"preprocess.{key}", expected, repr(getattr(self, key)), "Correct the value.")
        object.__setattr__(self, "size", int(self.size))

    def __call__(self, images: Images) -> torch.Tensor:
        """(b, 3, size, size) float32, normalised, in channels-last memory."""
        if isinstance(images, list):
            return torch.cat([self(image[None]) for image in images])
        return self.normalise(self.resize(images))

    def resize(self, images: Images) -> torch.Tensor:
        """(b, 3, size, size) float32 in [0, 1], not normalised."""
        seen = self.shown(images)
        return seen.float().div_(255) if seen.dtype == torch.uint8 else seen.float().clamp(0, 1)

    def shown(self, images: Images) -> torch.Tensor:
        """(b, 3, size, size), resized and cropped as they are: uint8, or floats not yet clamped."""
        if isinstance(images, list):
            return torch.cat([self.shown(image[None]) for image in images])
        seen: torch.Tensor = images
        height, width = seen.shape[-2:]
        wanted = self._resized_to(height, width)
        if wanted != ([min(height, width)] if len(wanted) == 1 else [height, width]):
            seen = F.resize(seen, wanted, interpolation=InterpolationMode(self.interpolation), antialias=True)
        if self.resize_mode in BORDERS:
            seen = self._bordered(seen)
        if tuple(seen.shape[-2:]) != (self.size, self.size):
            seen = F.center_crop(seen, [self.size, self.size])
        return seen

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """(images - mean) / std, per channel."""
        mean = torch.tensor(self.mean, device=images.device).view(1, -1, 1, 1)
        scale = torch.tensor(self.std, device=images.device).reciprocal().view(1, -1, 1, 1)
        return images.sub(mean).mul_(scale).contiguous(memory_format=torch.channels_last)

    def describe(self) -> dict[str, Any]:
        """Plain values that name this preprocessing, for cache keys and for the file beside a student's weights.

        ``resize_mode`` is left out where it is "shortest", the only one until 2026-11-28: names and files of before stay valid.
        """
        plain = asdict(self)
        return plain if self.resize_mode != "shortest" else {k: v for k, v in plain.items() if k != "resize_mode"}

    @property
    def side(self) -> int:
        """To how many pixels the side, or both, are resized before the crop."""
        return round(self.size / self.crop_fraction)

    @property
    def border(self) -> tuple[int, ...]:
        """The colour around an image that is resized to its longest side, 0 to 255."""
        return tuple(round(255 * m) for m in self.mean) if self.resize_mode == "border" else (0, 0, 0)

    def in_words(self) -> str:
        """What becomes of an image's shape.

        >>> Preprocess(224).in_words(), Preprocess(224, crop_fraction=0.875, resize_mode="squash").in_words()
        ('resized by their shorter side to 224 px, centre crop of 224', 'squashed to 256 x 256 px, centre crop of 224')
        """
        side, crop = self.side, f", centre crop of {self.size}"
        if self.resize_mode == "squash":
            return f"squashed to {side} x {side} px" + (crop if side != self.size else "")
        if self.resize_mode in BORDERS:
            around = f"{BORDERS[self.resize_mode]} border" + (crop if side != self.size else "")
            return f"resized by their longer side to {side} px, {around}"
        return f"resized by their shorter side to {side} px{crop}"

    def _resized_to(self, height: int, width: int) -> list[int]:
        """What torchvision's resize is asked for: the shorter side, or both."""
        if self.resize_mode == "shortest":
            return [self.side]
        if self.resize_mode == "squash":
            return [self.side, self.side]
        ratio = max(height, width) / self.side
        return [max(1, round(height / ratio)), max(1, round(width / ratio))]

    def _bordered(self, images: torch.Tensor) -> torch.Tensor:
        """Filled up to ``size`` where a side is shorter, as timm and open_clip do it."""
        spare = [max(0, self.size - side) for side in images.shape[-2:]]
        if not any(spare):
            return images
        colour = torch.tensor(self.border, device=images.device, dtype=torch.uint8)
        colour = colour if images.dtype == torch.uint8 else colour.to(images.dtype) / 255
        (height, width), (top, left) = images.shape[-2:], (more // 2 for more in spare)
        made = colour.view(1, 3, 1, 1).repeat(len(images), 1, height + spare[0], width + spare[1])
        made[..., top : top + height, left : left + width] = images
        return made


def _colours(key: str, values: Any) -> tuple[float, ...]:
    """Three finite numbers, of a std above 0."""
    try:
        found = tuple(float(v) for v in values)
    except (TypeError, ValueError):
        found = ()
    if len(found) != 3 or not all(math.isfinite(v) for v in found) or (key == "std" and min(found) <= 0):
        raise UserError(f"preprocess.{key}", f"three numbers, one per channel{', above 0' if key == 'std' else ''}",
                        repr(values), "Correct the value.")
    return found


SMOOTH = ("bicubic", "bilinear")
"""Ways to resize that look at every pixel; the others pick some, and of a reduced image others."""
REDUCED = 3
"""So many times what a model sees must the shorter side of a reduced image be for it to see nearly the same."""


LEAST_SIDE = 768
"""Pixels: no JPEG is reduced further, however little a model sees of it, so that models of most sizes share decoded images."""


def reduced_for(models: Sequence[Preprocess]) -> tuple[int | None, list[int]]:
    """How small JPEGs may be decoded for ``models`` to see nearly the same as of whole ones (None where one would not), and to
    what each resizes the shorter side: what `Decoding.for_models` takes.

    >>> reduced_for([Preprocess(224, crop_fraction=0.875)]), reduced_for([Preprocess(384), Preprocess(96)])
    ((768, [256]), (1152, [384, 96]))
    >>> reduced_for([Preprocess(32, interpolation="nearest")])
    (None, [])
    """
    if not models or any(model.interpolation not in SMOOTH or model.resize_mode in BORDERS for model in models):
        return None, []
    return max(LEAST_SIDE, REDUCED * max(m.side for m in models)), [m.side for m in models if m.resize_mode == "shortest"]


def coarse_for(preprocess: Preprocess, decoding: Decoding | None) -> str:
    """What a model would see otherwise because JPEGs are decoded at a part of their size; "" where next to nothing.

    From `REDUCED` times the size on, a smooth resize of photos stays within a grey level of the whole one's, on average.

    >>> coarse_for(Preprocess(224), Decoding(min_side=448))
    'JPEGs decoded to min_side 448, of which it sees 224 px: from 672 px on it would see nearly the same as of whole images'
    >>> coarse_for(Preprocess(224), Decoding(min_side=672)), coarse_for(Preprocess(224), Decoding())
    ('', '')
    """
    if decoding is None or decoding.least_side is None:
        return ""
    shorter, said = preprocess.side, f"JPEGs decoded to min_side {decoding.least_side}"
    if preprocess.interpolation not in SMOOTH:
        return f"{said}, which it resizes by {preprocess.interpolation}: it picks other pixels than of whole images"
    if decoding.least_side >= REDUCED * shorter:
        return ""
    return (f"{said}, of which it sees {shorter} px: from {REDUCED * shorter} px on it would see nearly the same as of whole "
            "images")


@overload
def unit_floats(images: torch.Tensor) -> torch.Tensor: ...


@overload
def unit_floats(images: list[torch.Tensor]) -> Images: ...


def unit_floats(images: Images) -> Images:
    """uint8 images as float32 in [0, 1]; floats as they are."""
    return stack([_unit_floats(i) for i in images]) if isinstance(images, list) else _unit_floats(images)


def _unit_floats(images: torch.Tensor) -> torch.Tensor:
    return images.float().div(255) if images.dtype == torch.uint8 else images


def gathered(images: Any) -> torch.Tensor | list[Any]:
    """A tensor (b, 3, h, w), uint8 or float32 in [0, 1], of arrays; a list of all else, each still to be read (`ready`).

    A tensor counts as channels first where its shape leaves it open, a NumPy array as channels last; one of three dimensions
    is one image, of two a grey one. Values that are neither uint8 nor floats in [0, 1] are refused.

    >>> import numpy as np
    >>> tuple(gathered(np.zeros((5, 8, 6, 3), np.uint8)).shape), gathered("photo.jpg")
    ((5, 3, 8, 6), ['photo.jpg'])
    """
    from PIL import Image

    if isinstance(images, np.ndarray) and images.dtype.kind in "OU":
        return images.ravel().tolist()
    if isinstance(images, (np.ndarray, torch.Tensor)):
        return _tensor(images)
    if hasattr(images, "columns") and hasattr(images, "shape"):
        raise UserError("images", "one column of a table", "a whole table", "Name the column, as table['path'].")
    one = isinstance(images, (str, Path, bytes, dict, Image.Image)) or not isinstance(images, Iterable)
    return [images] if one else list(images)


def ready(items: torch.Tensor | list[Any], start: int, decoding: Decoding) -> Images:
    """A part of what `gathered` gave, from item ``start`` on, as models are shown it."""
    if isinstance(items, torch.Tensor):
        return items
    return stack([_image(item, start + i, decoding) for i, item in enumerate(items)])


def names_of(items: torch.Tensor | list[Any], ids: Names | str | None) -> Names:
    """The ids that were given, one per image; else paths as they are, and the places of all other images."""
    if ids is None:
        return [str(item) if isinstance(item, (str, Path)) else str(i) for i, item in enumerate(items)]
    ids = [ids] if isinstance(ids, str) else ids
    if len(ids) != len(items):
        raise UserError("encode", f"{len(items)} ids, one per image", str(len(ids)), "Give one for each, or none.")
    return ids


def _image(item: Any, index: int, decoding: Decoding) -> torch.Tensor:
    """One image as (3, h, w)."""
    from PIL import Image

    named = str(item) if isinstance(item, (str, Path)) else f"image {index}"
    try:
        if isinstance(item, (str, Path)):
            return torch.from_numpy(decode(read_file(Path(item).expanduser()), decoding)[0]).permute(2, 0, 1)
        if isinstance(item, bytes):
            return torch.from_numpy(decode(item, decoding)[0]).permute(2, 0, 1)
        if isinstance(item, Image.Image):
            return torch.from_numpy(to_rgb(item, decoding)[0]).permute(2, 0, 1)
    except BrokenImage as error:
        raise UserError(f"encode {named}", "an image that can be decoded", str(error), "Fix it, or leave it out.") from None
    if isinstance(item, (np.ndarray, torch.Tensor)):
        found = _tensor(item)
        if len(found) != 1:
            raise UserError(f"encode {named}", "one image in each place of a list", f"a batch of {len(found)}",
                            "Pass the batches one by one.")
        return found[0]
    raise UserError(f"encode {named}", TAKEN, type(item).__name__, "Convert it.")


def _tensor(given: np.ndarray | torch.Tensor) -> torch.Tensor:
    """(b, 3, h, w), uint8 or float32 in [0, 1], of a batch or of one image."""
    first = isinstance(given, torch.Tensor)
    if isinstance(given, torch.Tensor):
        values = given.detach()
    else:
        native = given.astype(given.dtype.newbyteorder("="), copy=False)
        if native.dtype.kind not in "uif" or native.dtype.itemsize > 8:
            raise UserError("encode", TAKEN, f"an array of {given.dtype}", "Convert it to uint8, or to floats in [0, 1].")
        contiguous = np.ascontiguousarray(native)
        values = torch.from_numpy(contiguous if contiguous.flags.writeable else contiguous.copy())
    values = _checked_values(values)
    shape = tuple(values.shape)
    if values.ndim == 2:
        return values[None, None].expand(1, 3, *shape)
    if values.ndim not in (3, 4) or 0 in shape[1:]:
        raise UserError("encode", TAKEN, f"shape {shape}", "Give them that shape.")
    batch = values if values.ndim == 4 else values[None]
    channels = {1: batch.shape[1] in (1, 3), 3: batch.shape[3] in (1, 3)}
    axis = next((a for a in ((1, 3) if first else (3, 1)) if channels[a]), None)
    if axis is None:
        fourth = 4 in (batch.shape[1], batch.shape[3])
        raise UserError("encode", TAKEN, f"shape {shape}", "Give them 3 channels, or 1 where they are grey." if not fourth else
                        "For transparency pass PIL images or paths: they are put on white.")
    batch = batch if axis == 1 else batch.permute(0, 3, 1, 2)
    return batch if batch.shape[1] == 3 else batch.expand(-1, 3, -1, -1)


def _checked_values(values: torch.Tensor) -> torch.Tensor:
    """uint8 as it is, floats in [0, 1] as float32: 0 to 255 in floats would be clamped to white."""
    if values.dtype == torch.uint8:
        return values
    if not values.is_floating_point():
        raise UserError("encode", TAKEN, f"an array of {str(values.dtype).removeprefix('torch.')}",
                        "Convert it to uint8, or to floats in [0, 1].")
    if values.numel():
        low, high = float(values.min()), float(values.max())
        if not (low >= -1e-6 and high <= 1 + 1e-6):
            todo = ("Pass images before any normalisation: a model applies its own." if low < -0.5 else
                    "Divide by 255, or pass uint8." if high > 2 else "Clamp them to [0, 1].")
            raise UserError("encode", "uint8 images, or floats in [0, 1]", f"floats from {low:.4g} to {high:.4g}", todo)
    return values.float()
