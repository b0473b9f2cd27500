"""The shape of a JPEG that is decoded at a part of its size: the one that models make of the whole image."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

STEPS = sorted(((x, y) for x in range(-2, 3) for y in range(-2, 3)), key=lambda step: (abs(step[0]) + abs(step[1]), step))
"""Pixels by which a reduced image may be stretched, the least first."""


def same_shape(whole: tuple[int, int], reduced: tuple[int, int], sides: Iterable[int]) -> tuple[int, int]:
    """``reduced``, or a size next to it that models resize to the same shape as ``whole``, their shorter side one of ``sides``.

    Else some shapes differ by a pixel, and with the crop all of the image moves by half of one: 8 grey levels of a photo.

    >>> same_shape((2571, 1679), (1286, 840), [256]), same_shape((4032, 3024), (2016, 1512), [256])
    ((1286, 839), (2016, 1512))
    """
    def longer(size: tuple[int, int]) -> list[int]:
        return [int(side * max(size) / min(size)) for side in sides]  # as torchvision does

    wanted, near = longer(whole), ((reduced[0] + x, reduced[1] + y) for x, y in STEPS)
    return next((size for size in near if longer(size) == wanted), reduced)


def shaped(pixels: np.ndarray, whole: tuple[int, int], sides: Iterable[int]) -> np.ndarray:
    """A reduced image, stretched by a pixel or two where that keeps the shapes that models resize ``whole`` to."""
    from PIL import Image

    size = same_shape(whole, pixels.shape[1::-1], sides)
    if size == pixels.shape[1::-1]:
        return pixels
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
