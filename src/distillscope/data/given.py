"""Images that a caller of Python holds, as a Source: paths, Pillow images, arrays, a data set of torch, a column of a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distillscope.data.decode import BrokenImage, Decoding, decode, read_file, to_rgb
from distillscope.data.preprocess import gathered
from distillscope.data.source import Source, checked
from distillscope.errors import UserError

OF_A_ROW = ("image", "img", "jpg", "png", "pixels")
"""What the image of an item may be called, where an item is a mapping."""
TAKEN = ("paths, Pillow images or encoded bytes; uint8 or floats in [0, 1], (n, h, w, 3) or (n, 3, h, w); a data set of torch; "
         "a column of a table; a folder's or a data set's name")


def given_images(images: Any, name: str = "images") -> Source:
    """A Source over what a caller holds, in its order; ids are the paths, or the places of all other images.

    Labels that come with the images (the second of a pair, other keys of a mapping) are not looked at. Floats in [0, 1] are
    rounded to 8 bits. Nothing is decoded yet.

    >>> source = given_images(np.zeros((5, 8, 6, 3), np.uint8))
    >>> len(source), source.image(0).shape, source.ids.tolist()[:2]
    (5, (8, 6, 3), ['0', '1'])
    """
    if isinstance(images, (np.ndarray, torch.Tensor)) and not _of_objects(images):
        pixels = _array(images, name)
        ids = np.array([str(i) for i in range(len(pixels))])
        return checked(Source(name, "train", ids, pixels.__getitem__, pixels=pixels))
    items = _items(images, name)
    decoding = Decoding()

    def look(index: int) -> tuple[np.ndarray, Mapping[str, int]]:
        return _pixels(_image_of(items[index]), decoding, f"{name} {index}")

    held = items if isinstance(items, list) else [None] * len(items)  # others make an item when it is asked for
    ids = np.array([str(p) if isinstance(p, (str, Path)) else str(i) for i, p in enumerate(map(_image_of, held))])
    return checked(Source(name, "train", ids, lambda i: look(i)[0], look=look, decoding=decoding))


def _of_objects(images: np.ndarray | torch.Tensor) -> bool:
    return isinstance(images, np.ndarray) and images.dtype.kind in "OUS"


def _array(images: np.ndarray | torch.Tensor, name: str) -> np.ndarray:
    """(n, h, w, 3) uint8."""
    if images.ndim != 4:
        raise UserError(name, "a batch of images, (n, h, w, 3) or (n, 3, h, w)", f"shape {tuple(images.shape)}",
                        "Give it that shape.")
    try:
        batch = gathered(images)
    except UserError as error:
        raise UserError(name, error.expected, error.got, error.todo) from None
    return _eight_bits(torch.as_tensor(batch)).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def _eight_bits(images: torch.Tensor) -> torch.Tensor:
    return images if images.dtype == torch.uint8 else images.mul(255).round().clamp(0, 255).to(torch.uint8)


def _items(images: Any, name: str) -> Sequence[Any]:
    """What can be asked for its length and for item i: a list, or a data set as torch has them."""
    if isinstance(images, (str, Path, bytes, Mapping)) or (hasattr(images, "columns") and hasattr(images, "shape")):
        what = "a whole table" if hasattr(images, "columns") else type(images).__name__
        raise UserError(name, TAKEN, what, "Name one column, as table['path']." if "table" in what else "Put it in a list.")
    if hasattr(images, "column_names"):  # a data set of the Hub
        return images
    for convert in ("to_list", "to_pylist", "tolist"):  # pandas and polars; Arrow; NumPy
        if hasattr(images, convert):
            return list(getattr(images, convert)())
    if isinstance(images, (list, tuple)):
        return list(images)
    if hasattr(images, "__len__") and hasattr(images, "__getitem__"):
        return images
    if isinstance(images, Iterable):
        return list(images)
    raise UserError(name, TAKEN, type(images).__name__, "Convert it.")


def _image_of(item: Any) -> Any:
    """The image of an item that may hold more: the first of a pair, or the one that a mapping calls so."""
    if isinstance(item, (tuple, list)) and item:
        return _image_of(item[0])
    if isinstance(item, Mapping):
        key = next((key for key in ("bytes", *OF_A_ROW, "path") if item.get(key) is not None), None)
        return item if key is None else _image_of(item[key])  # bytes and path: how data sets of the Hub store one
    return item


def _pixels(image: Any, decoding: Decoding, where: str) -> tuple[np.ndarray, Mapping[str, int]]:
    """uint8 (h, w, 3), and what was done to get it."""
    from PIL import Image

    if isinstance(image, (str, Path)):
        return decode(read_file(Path(image).expanduser()), decoding)
    if isinstance(image, bytes):
        return decode(image, decoding)
    if isinstance(image, Image.Image):
        return to_rgb(image, decoding)
    if isinstance(image, (np.ndarray, torch.Tensor)) and image.ndim in (2, 3):
        try:
            return _eight_bits(torch.as_tensor(gathered(image))[0]).permute(1, 2, 0).contiguous().cpu().numpy(), {}
        except UserError as error:
            raise BrokenImage(f"{error.got} where {error.expected} was due. {error.todo}") from None
    raise UserError(where, TAKEN, type(image).__name__, "Convert it.")
