"""Colour profiles of images: whether the numbers of one mean about what they would in sRGB, which they are read as."""

from __future__ import annotations

import functools
import io
from typing import Any

import numpy as np

ALIKE = 4
"""Levels of 255 that a colour may be off under a profile that is called sRGB: writers round its curve in several ways."""


def read_as_srgb(image: Any) -> bool:
    """Whether an opened Pillow image has a profile of grey or colours other than sRGB, so that its numbers are read as of
    another one. CMYK is not: it is converted, whatever profile it has."""
    profile = image.info.get("icc_profile")
    return isinstance(profile, bytes) and image.mode != "CMYK" and _is_other(profile)


@functools.lru_cache(maxsize=256)
def _is_other(profile: bytes) -> bool:
    """Whether a profile shows some colour otherwise than sRGB does; one that no program can read changes nothing."""
    try:
        from PIL import Image, ImageCms
    except ImportError:  # a Pillow without LittleCMS
        return b"sRGB" not in profile.replace(b"\0", b"")
    try:
        held = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = held.profile.xcolor_space.strip()
        if space == "CMYK":
            return False
        mode = {"RGB": "RGB", "GRAY": "L"}.get(space)
        if mode is None:
            return True
        levels = np.arange(0, 256, 15, dtype=np.uint8)
        grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3) if mode == "RGB" else levels[None]
        shown = ImageCms.profileToProfile(Image.fromarray(grid), held, ImageCms.createProfile("sRGB"),
                                          renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return False
    assert shown is not None
    plain = grid if mode == "RGB" else np.repeat(grid[..., None], 3, axis=-1)
    return bool(np.abs(np.asarray(shown, np.int16) - plain).max() > ALIKE)
