"""From encoded bytes to uint8 RGB: the one decoder of every source.

Turned as EXIF says, put on a background where transparent, 16 bits and floats scaled to 8, CMYK converted, first frame. An
image that needs none of this gives the bytes of ``Image.convert("RGB")``. Colour profiles are not applied.
"""

from __future__ import annotations

import functools
import io
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distillscope.errors import UserError

MAX_PIXELS = 89_478_485
"""A larger image counts as broken: the size from which Pillow warns of a decompression bomb (256 MiB as RGB)."""

FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "JPEG2000", "QOI", "AVIF", "HEIF")
"""What is opened, whatever a file's name says. Formats that run a program (EPS) or that any bytes pass for (TGA) are not."""

DONE = {
    "turned": "{n} turned by EXIF",
    "alpha": "{n} with transparency put on {background}",
    "sixteen": "{n} of 16 bits scaled to 8",
    "dim": "{n} of 16 bits scaled to 8 with nothing above 4095: dark, if they are of 12 bits scale them up first",
    "float": "{n} of floats in [0, 1] scaled to 8 bits",
    "cmyk": "{n} converted from CMYK",
    "frames": "{n} of several frames: the first",
}
"""What may be done to an image -> how a source's note counts it."""


class BrokenImage(ValueError):
    """One item of a data set that gives no image; its text says why."""


@dataclass(frozen=True)
class Decoding:
    """How images are decoded. ``background`` is any colour that Pillow knows ("white", "#808080"); ``exif=False`` leaves
    images as they are stored.

    >>> Decoding("black").rgb
    (0, 0, 0)
    """

    background: str = "white"
    exif: bool = True
    rgb: tuple[int, int, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        from PIL import ImageColor

        try:
            object.__setattr__(self, "rgb", ImageColor.getrgb(self.background)[:3])
        except ValueError:
            raise UserError("data.background", "a colour, as white or #808080", f"'{self.background}'",
                            "Mend the value.") from None

    def note(self, counts: Mapping[str, int]) -> str:
        """What was done, counted.

        >>> Decoding().note({"frames": 1, "turned": 12})
        '12 turned by EXIF, 1 of several frames: the first'
        """
        return ", ".join(text.format(n=f"{counts[key]:,}", background=self.background)
                         for key, text in DONE.items() if counts.get(key))


def decode_image(encoded: bytes) -> np.ndarray:
    """PNG, JPEG, WebP ... bytes to uint8 RGB (h, w, 3)."""
    return decode(encoded)[0]


def decode(encoded: bytes, decoding: Decoding | None = None) -> tuple[np.ndarray, Counter[str]]:
    """uint8 RGB (h, w, 3), and what was done to get it (keys of ``DONE``). Raises ``BrokenImage`` for anything else."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata name no file; its limit is ours, below
            with Image.open(io.BytesIO(encoded), formats=known_formats()) as image:
                return to_rgb(image, decoding or Decoding())
    except BrokenImage:
        raise
    except UnidentifiedImageError:
        raise BrokenImage("no image in a known format" if encoded else "an empty file") from None
    except Exception as error:  # the parsers of a dozen formats, over any bytes: each has its own errors
        raise BrokenImage(f"{type(error).__name__}: {' '.join(str(error).split())[:120]}") from None


def to_rgb(image: Any, decoding: Decoding) -> tuple[np.ndarray, Counter[str]]:
    """A Pillow image to uint8 RGB (h, w, 3), and what was done."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise BrokenImage(f"{width} x {height} pixels, more than the {MAX_PIXELS:,} that are decoded")
    done: Counter[str] = Counter()
    if any(";16" in str(tile[3]) for tile in getattr(image, "tile", ())):  # 16-bit RGB, of which Pillow keeps the high bytes
        done["sixteen"] = 1
    still, turned = _upright(image) if decoding.exif else (image, False)
    if turned:
        done["turned"] = 1
    if still.mode.startswith("I") or still.mode == "F":
        pixels, what = _deep(still, decoding)
        done[what] = 1
    else:
        if still.mode == "CMYK":
            done["cmyk"] = 1
        flat = _on_background(still, decoding)
        if flat is not None:
            done["alpha"] = 1
        pixels = np.array((flat or still).convert("RGB"))  # a copy: what Pillow lends cannot be written to
    if _has_more_frames(image):
        done["frames"] = 1
    return pixels, done


def _upright(image: Any) -> tuple[Any, bool]:
    """The image as its EXIF orientation asks for, and whether that moved a pixel. The same as ``ImageOps.exif_transpose``,
    which also writes the rest of the EXIF anew and fails where that is damaged."""
    from PIL.Image import Transpose as T

    methods = {2: T.FLIP_LEFT_RIGHT, 3: T.ROTATE_180, 4: T.FLIP_TOP_BOTTOM, 5: T.TRANSPOSE, 6: T.ROTATE_270, 7: T.TRANSVERSE,
               8: T.ROTATE_90}
    before = None if image.format == "PNG" else _orientation(image)  # a PNG's may stand behind its pixels
    image.load()
    left = _orientation(image)  # none any more for TIFF, which Pillow turns as it loads
    return (image.transpose(methods[left]) if left in methods else image), before in methods or left in methods


def _orientation(image: Any) -> int | None:
    try:
        return image.getexif().get(0x0112)
    except Exception:  # EXIF is a second file format, often damaged by cameras and tools; the pixels are not
        return None


def _has_more_frames(image: Any) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # there are more, and they are damaged
        return True


def _on_background(image: Any, decoding: Decoding) -> Any:
    """The image over the background; None where nothing of it is transparent."""
    from PIL import Image

    if not image.has_transparency_data:
        return None
    rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    if rgba.getchannel("A").getextrema()[0] == 255:
        return None
    return Image.alpha_composite(Image.new("RGBA", rgba.size, (*decoding.rgb, 255)), rgba)


def _deep(image: Any, decoding: Decoding) -> tuple[np.ndarray, str]:
    """Grey of 16 bits (0 to 65535) or floats (0 to 1) as uint8 RGB. Another range has no stated white, so it is refused."""
    values = np.asarray(image)
    low, high = values.min(), values.max()  # NaN where any value is
    if image.mode == "F":
        if not (low >= -1e-6 and high <= 1 + 1e-6):
            raise BrokenImage(f"floats from {low:g} to {high:g}; floats are read in [0, 1]")
        grey, what = np.rint(values.clip(0, 1) * np.float64(255)).astype(np.uint8), "float"
    else:
        if low < 0 or high > 65535:
            raise BrokenImage(f"whole numbers from {low} to {high}; up to 16 bits (0 to 65535) are read")
        grey, what = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8), "dim" if 0 < high < 4096 else "sixteen"
    pixels = np.repeat(grey[..., None], 3, axis=-1)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        pixels[values == clear] = decoding.rgb
    return pixels, what


@functools.cache
def known_formats() -> tuple[str, ...]:
    """Those of ``FORMATS`` that this Pillow has; HEIF comes from pillow-heif, where it is installed."""
    from PIL import Image

    Image.init()
    try:
        import pillow_heif

        pillow_heif.register_heif_opener()
    except ImportError:
        pass
    return tuple(f for f in FORMATS if f in Image.OPEN)
