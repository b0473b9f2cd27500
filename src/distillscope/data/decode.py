"""From encoded bytes to uint8 RGB: the one decoder of every source.

Turned as EXIF says, put on a background where transparent, 16 bits and floats scaled to 8, CMYK converted, first frame. An
image that needs none of this gives the bytes of ``Image.convert("RGB")``. Colour profiles are not applied, but counted.
Which files are images, and how their bytes are read, is said here too.
"""

from __future__ import annotations

import functools
import io
import os
import stat
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from distillscope.data.profiles import read_as_srgb
from distillscope.data.reduced import shaped
from distillscope.errors import UserError

MAX_PIXELS = 89_478_485
"""A larger image counts as broken: the size from which Pillow warns of a decompression bomb (256 MiB as RGB)."""

FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "JPEG2000", "QOI", "AVIF", "HEIF")
"""What is opened, whatever a file's name says. Formats that run a program (EPS) or that any bytes pass for (TGA) are not."""

DONE = {
    "turned": "{n} turned by EXIF",
    "alpha": "{n} with transparency put on {background}",
    "sixteen": "{n} of 16 bits scaled to 8",
    "dim": "{n} of 16 bits scaled to 8 with nothing above 4095: if they are of 12 bits, scale them up first",
    "float": "{n} of floats in [0, 1] scaled to 8 bits",
    "cmyk": "{n} converted from CMYK",
    "frames": "{n} of several frames: the first",
    "reduced": "{n} JPEG decoded at a half, a quarter or an eighth, the shorter side at least {min_side} px",
    "profile": "{n} with a colour profile other than sRGB, which is not applied",
}
"""What may be done to an image -> how a source's note counts it."""


MinSide = Annotated[int, Field(ge=1)] | Literal["whole"] | None
"""How small a JPEG may be decoded, as a data set's setting: see `Decoding`."""


class BrokenImage(ValueError):
    """One item of a data set that gives no image; its text says why."""


@dataclass(frozen=True)
class Decoding:
    """How images are decoded. ``background`` is any colour that Pillow knows ("white", "#808080"); ``exif=False`` leaves
    images as they are stored. With a number ``min_side`` JPEGs are decoded at a half, a quarter or an eighth of their size, as
    long as their shorter side has so many pixels: other pixels, made in a fraction of the time. None leaves that to whoever
    reads the images for models of known sizes (`for_models`); "whole" forbids it. ``sides`` are those to which models resize
    the shorter side: the longer one then becomes what it would of the whole image, to the pixel.

    >>> Decoding("black").rgb
    (0, 0, 0)
    """

    background: str = "white"
    exif: bool = True
    min_side: MinSide = None
    sides: tuple[int, ...] = ()
    rgb: tuple[int, int, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        from PIL import ImageColor

        try:
            object.__setattr__(self, "rgb", ImageColor.getrgb(self.background)[:3])
        except ValueError:
            raise UserError("data.background", "a colour, as white or #808080", f"'{self.background}'",
                            "Correct the value.") from None

    def describe(self) -> dict[str, Any]:
        """Plain values that decide what an image becomes."""
        sides = {"sides": sorted(self.sides)} if self.sides and self.least_side else {}
        return {"background": list(self.rgb), "exif": self.exif, "min_side": self.least_side, **sides}

    @property
    def least_side(self) -> int | None:
        """How short the shorter side of a reduced JPEG may be; None where all are decoded whole."""
        return self.min_side if isinstance(self.min_side, int) else None

    @property
    def whole(self) -> Decoding:
        """The same with whole JPEGs."""
        return Decoding(self.background, self.exif)

    def for_models(self, least_side: int | None, sides: Iterable[int] = ()) -> Decoding:
        """The same for models that see nearly the same of JPEGs reduced to ``least_side``, unless something else was asked.

        >>> Decoding().for_models(768).min_side, Decoding(min_side="whole").for_models(768).min_side
        (768, 'whole')
        """
        if self.min_side is not None or not least_side:
            return self
        return replace(self, min_side=least_side, sides=tuple(sorted(set(sides))))

    def note(self, counts: Mapping[str, int]) -> str:
        """What was done, counted.

        >>> Decoding().note({"frames": 1, "turned": 12})
        '12 turned by EXIF, 1 of several frames: the first'
        """
        return ", ".join(text.format(n=f"{counts[key]:,}", background=self.background, min_side=self.min_side)
                         for key, text in DONE.items() if counts.get(key))


def decode(encoded: bytes, decoding: Decoding | None = None) -> tuple[np.ndarray, Counter[str]]:
    """PNG, JPEG, WebP ... as uint8 RGB (h, w, 3), and what was done to get it (keys of ``DONE``).

    Raises ``BrokenImage`` for anything else.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata name no file; its limit is ours, below
            with Image.open(io.BytesIO(encoded), formats=known_formats()) as image:
                decoding = decoding or Decoding()
                whole = image.size
                reduced = _reduce(image, decoding.least_side)
                pixels, done = to_rgb(image, decoding)
                return (shaped(pixels, whole, decoding.sides), done + Counter(reduced=1)) if reduced else (pixels, done)
    except BrokenImage:
        raise
    except UnidentifiedImageError:
        kind = f"a HEIC photo, of which {_NO_HEIF}" if _is_heif(encoded) else "no image in a known format"
        raise BrokenImage(kind if encoded else "an empty file") from None
    except Exception as error:  # the parsers of a dozen formats, over any bytes: each has its own errors
        raise BrokenImage(f"{type(error).__name__}: {' '.join(str(error).split())[:120]}") from None


_NO_HEIF = "this Pillow can read none: pip install pillow-heif"


def _is_heif(encoded: bytes) -> bool:
    return encoded[4:8] == b"ftyp" and encoded[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"heim", b"heis")


def decoder_version() -> str:
    """Of the libraries that decode: with others, pixels may differ in their last bits."""
    import PIL
    from PIL import features

    parts = {name: features.version(name) for name in ("jpg", "webp", "avif", "libtiff")}
    return f"pillow {PIL.__version__}, " + ", ".join(f"{name} {version}" for name, version in parts.items() if version)


def to_rgb(image: Any, decoding: Decoding) -> tuple[np.ndarray, Counter[str]]:
    """A Pillow image to uint8 RGB (h, w, 3), and what was done."""
    _check_size(image)
    done: Counter[str] = Counter(profile=1) if read_as_srgb(image) else Counter()
    if any(";16" in str(tile[3]) for tile in getattr(image, "tile", ())):  # 16-bit RGB, of which Pillow keeps the high bytes
        done["sixteen"] = 1
    still, turned = _upright(image) if decoding.exif else (image, False)
    if turned:
        done["turned"] = 1
    if still.mode.startswith("I") or still.mode == "F":
        pixels, what = _deep(still, decoding, white_is_zero(image))
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


def _check_size(image: Any) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise BrokenImage(f"{width} x {height} pixels, more than the {MAX_PIXELS:,} that are decoded")


def _reduce(image: Any, min_side: int | None) -> bool:
    """Decode a JPEG at 1/2, 1/4 or 1/8, its shorter side at least ``min_side``; whether that made it smaller.

    Sides that these do not divide end in a part of a pixel: it is stretched to a whole one, so that nothing moves.
    """
    if min_side is None or image.format not in ("JPEG", "MPO"):
        return False
    _check_size(image)  # as of a whole one: what counts as broken is the same
    before = image.size
    drawn = image.draft(None, (min_side, min_side))
    if drawn is None or image.size == before:
        return False
    if drawn[1] != (0, 0, *image.size):
        from PIL.Image import Resampling

        image.load()
        image.paste(image.resize(image.size, Resampling.BICUBIC, box=drawn[1]))
    return True


def _upright(image: Any) -> tuple[Any, bool]:
    """The image as its EXIF orientation asks for, and whether that moved a pixel. The same as ``ImageOps.exif_transpose``,
    which also writes the rest of the EXIF again and fails where that is damaged."""
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


def white_is_zero(image: Any) -> bool:
    """Whether a TIFF says that 0 is white. Pillow turns such grey of 8 bits over, and leaves deeper ones as they are stored."""
    return getattr(image, "format", None) == "TIFF" and image.tag_v2.get(262) == 0


def _deep(image: Any, decoding: Decoding, negative: bool) -> tuple[np.ndarray, str]:
    """Grey of 16 bits (0 to 65535) or floats (0 to 1) as uint8 RGB, turned over where it is a ``negative``. Another range has
    no stated white, so it is refused."""
    values = np.asarray(image)
    low, high = values.min(), values.max()  # NaN where any value is
    if image.mode == "F":
        if not (low >= -1e-6 and high <= 1 + 1e-6):
            raise BrokenImage(f"floats from {low:g} to {high:g}; floats are read in [0, 1]")
        light = 1 - values if negative else values
        grey, what = np.rint(light.clip(0, 1) * np.float64(255)).astype(np.uint8), "float"
    else:
        if low < 0 or high > 65535:
            raise BrokenImage(f"whole numbers from {low} to {high}; up to 16 bits (0 to 65535) are read")
        deep = 65535 - values.astype(np.uint32) if negative else values.astype(np.uint32)
        grey, what = ((deep + 128) // 257).astype(np.uint8), "dim" if 0 < high < 4096 else "sixteen"
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


MAX_FILE_BYTES = 2**30
"""A larger file is no photo: it is named as broken before it is read."""

_ALWAYS = {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".ppm",
           ".pgm", ".pbm", ".pnm"}
_WHERE_PILLOW_CAN = {".avif", ".heic", ".heif", ".jp2", ".j2k", ".jpx", ".qoi"}
_NO_NEWS = {"thumbs.db", "desktop.ini", "icon\r"}
_FOREIGN_FOLDERS = {"__macosx", "@eadir", "$recycle.bin"}


@functools.cache
def suffixes() -> frozenset[str]:
    """What an image's name ends in, in any case: one set for every source. .avif, .heic, .jp2 where Pillow can read them."""
    from PIL import Image

    known_formats()  # registers what it finds
    return frozenset(_ALWAYS | (_WHERE_PILLOW_CAN & Image.registered_extensions().keys()))


def is_image(name: str) -> bool:
    """Whether a file of that name is taken for an image.

    >>> is_image("a/IMG_1.JPG"), is_image("a/notes.txt")
    (True, False)
    """
    return PurePosixPath(name).suffix.lower() in suffixes()


def passed_over(inner: str | Path) -> bool:
    """Whether a path *inside* a data set is no part of it: hidden, or left there by a system.

    >>> [passed_over(p) for p in ("cat/1.png", "./cat/1.png", ".ipynb_checkpoints/1.png", "cat/._1.png", "__MACOSX/cat/1.png")]
    [False, False, True, True, True]
    """
    parts = [p for p in PurePosixPath(str(inner).replace(os.sep, "/")).parts if p not in (".", "..", "/")]
    hidden = any(p.startswith(".") or p.lower() in _FOREIGN_FOLDERS for p in parts)
    return hidden or (bool(parts) and parts[-1].lower() in _NO_NEWS)


def folders_in(folder: Path) -> list[Path]:
    """The folders right inside, by name, without those that are passed over."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and not passed_over(p.name))


def files_in(folder: Path) -> Iterator[Path]:
    """Every file below ``folder``, linked folders too (each folder once, so that a circle of links ends)."""
    seen: set[tuple[int, int]] = set()
    for here, inner, names in os.walk(folder, followlinks=True):
        status = os.stat(here)
        if (status.st_dev, status.st_ino) in seen:
            inner.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        inner[:] = sorted(name for name in inner if not passed_over(name))
        yield from (Path(here) / name for name in sorted(names) if not passed_over(name))


def other_kinds(files: Iterable[Path]) -> str:
    """What lies among images and is none, for a note: "5 files of other kinds passed over (.heic 3, .txt 2)"; "" if nothing."""
    return kinds_said(Counter(kind_of_file(f.name) for f in files))


def kind_of_file(name: str) -> str:
    """What a name ends in.

    >>> kind_of_file("a/b.TXT"), kind_of_file("README")
    ('.txt', 'no suffix')
    """
    return PurePosixPath(name).suffix.lower() or "no suffix"


def kinds_said(counts: Counter[str]) -> str:
    """`other_kinds` of files that were counted."""
    listed = ", ".join(f"{suffix} {count:,}" for suffix, count in counts.most_common(4))
    more = f", {len(counts) - 4} more" if len(counts) > 4 else ""
    total, heif = counts.total(), {".heic", ".heif"} & counts.keys() - suffixes()
    hint = f"; {' and '.join(sorted(heif))} are photos, of which {_NO_HEIF}" if heif else ""
    return f"{total:,} file{'s' if total > 1 else ''} of other kinds passed over ({listed}{more}){hint}" if total else ""


def read_file(path: Path, inside: Path | None = None) -> bytes:
    """The bytes of a regular file of at most ``MAX_FILE_BYTES``; no device, no pipe, and with ``inside`` nothing elsewhere.

    Raises ``BrokenImage``, which says what is there instead.
    """
    try:
        if inside is not None and not path.resolve().is_relative_to(inside.resolve()):
            raise BrokenImage(f"a path outside {inside}: {path}")
        try:
            status = path.stat()
        except FileNotFoundError:
            link = f"a link to nothing ({os.readlink(path)})" if path.is_symlink() else ""
            raise BrokenImage(link or f"no such file: {path}") from None
        if not stat.S_ISREG(status.st_mode):
            raise BrokenImage(f"no regular file: {path}")
        if status.st_size > MAX_FILE_BYTES:
            raise BrokenImage(f"{status.st_size:,} bytes, more than the {MAX_FILE_BYTES:,} that are read")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise error if isinstance(error, BrokenImage) else BrokenImage(f"{type(error).__name__}: {error}") from None
