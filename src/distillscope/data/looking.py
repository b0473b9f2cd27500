"""A set is scanned before any work: every image is read, decoded and named once, in as many processes as are asked for.

What is broken is named, what decoding did is counted. A set that fits in memory is kept there; of a larger one the names of its
images, which the cache remembers by a hash of their files' bytes (`known_images`): a file seen once is not decoded for its name
again.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import time
import warnings
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch

from distillscope import progress
from distillscope.data.decode import Decoding, known_formats, white_is_zero
from distillscope.data.known_images import Known, KnownImages, record_of
from distillscope.data.profiles import read_as_srgb
from distillscope.data.source import BROKEN, Source, as_rows, as_tensor, encoded_hash, image_name, in_workers, reason
from distillscope.devices import kept_memory
from distillscope.errors import UserError

IN_MEMORY_BYTES = 2 * 2**30
"""Decoded sets up to this size are kept in memory as uint8; larger ones are decoded as they are read."""
FLUSH_SECONDS = 30.0
AT_ONCE = 8
"""Images that a worker looks at before it answers."""


@dataclass(frozen=True)
class Looked:
    """What was found in a set that memory does not hold, so that another process need not decode it all to find the same."""

    ids: np.ndarray
    hashes: np.ndarray
    note: str

    def applied(self, source: Source) -> Source:
        """The same items of ``source``, in their order."""
        place = {item: i for i, item in enumerate(source.ids.tolist())}
        return replace(source.take([place[i] for i in self.ids.tolist()]), hashes=self.hashes, note=self.note)


class Shows(Protocol):
    """How a model is shown images: (b, 3, size, size) uint8 of (b, 3, h, w), as `Preprocess` does it."""

    def shown(self, images: Any) -> torch.Tensor: ...


class Keeper(Protocol):
    """Keeps each image of a set that memory does not hold as a model is shown it, while the set is scanned."""

    @property
    def model(self) -> Shows: ...

    def holds(self, name: bytes) -> bool:
        """Whether the image of that name is kept already."""

    def take(self, item: str, name: bytes, shown: np.ndarray) -> None:
        """An item's image, (3, size, size) uint8, and its name."""

    def close(self) -> None:
        """Write what was taken."""


class Holder(Protocol):
    """A model, and what it need not be shown any more."""

    @property
    def model(self) -> Shows: ...

    def holds(self, name: bytes) -> bool:
        """Whether there is already what is made of the image of that name."""


@dataclass
class Seen:
    """One image: its name, its pixels while memory may hold the set, the hash of its file if new; or why it is broken.

    ``shown``, for each holder of `Looks`, is what its model is shown of it, (3, size, size) uint8, where that is needed.
    """

    index: int
    pixels: np.ndarray | None = None
    content: bytes = b""
    nbytes: int = 0
    done: Mapping[str, int] = field(default_factory=dict)
    encoded: bytes = b""
    broken: str = ""
    shown: tuple[np.ndarray | None, ...] = ()


class KnownFiles:
    """What is known of files under one way to decode. An image that it does not reduce is kept where those find it who decode
    all of them whole, and found there where it is too small to be reduced."""

    def __init__(self, decoding: Decoding) -> None:
        self.decoding, self.least = decoding, decoding.least_side
        self.whole = KnownImages(replace(decoding, min_side=None, sides=()))
        self.reduced = KnownImages(decoding) if self.least else self.whole

    def refresh(self) -> None:
        """Take in what was added since."""
        for known in {id(k): k for k in (self.whole, self.reduced)}.values():
            known.refresh()

    def find(self, encoded: bytes) -> Known | None:
        """As of `KnownImages`."""
        if (found := self.reduced.find(encoded)) or self.least is None:
            return found
        found = self.whole.find(encoded)
        return found if found and found.nbytes < 3 * (2 * self.least) ** 2 else None

    def add(self, images: Sequence[Seen]) -> None:
        """Keep what was seen of images."""
        for place, reduced in ((self.reduced, True), (self.whole, False)):
            place.add([record_of(i.encoded, i.content, i.nbytes, i.done) for i in images
                       if bool(i.done.get("reduced")) == reduced])


def known_files(source: Source) -> KnownFiles | None:
    """What is known of the files of a source; None where its images come from none."""
    return None if source.encoded is None or source.decoding is None else KnownFiles(source.decoding)


class Looks(torch.utils.data.Dataset):
    """Item i, seen. Once ``streams`` is set pixels are left out, and a file that is known is not decoded.

    Each image is then also shown as the model of each of ``holders`` sees it, where that one does not hold it.
    """

    def __init__(self, source: Source, holders: Sequence[Holder] = (), streams: bool = False,
                 known: KnownFiles | None = None) -> None:
        """``known`` where what is known of files was read before."""
        self.source, self.streams = source, multiprocessing.RawValue("b", streams)
        self.holders, self.known = tuple(holders), known or known_files(source)

    def __len__(self) -> int:
        return len(self.source)

    def __getitems__(self, indices: list[int]) -> list[Seen] | UserError:
        try:
            return [self._seen(int(i)) for i in indices]
        except UserError as error:
            return error

    def remembered(self, images: Iterator[Seen]) -> Iterator[Seen]:
        """The same images; what is new of them is kept every half minute, and at the end."""
        new: list[Seen] = []
        last = time.monotonic()
        try:
            for seen in images:
                if seen.encoded and self.known is not None:
                    new.append(replace(seen, shown=()))
                    if time.monotonic() - last > FLUSH_SECONDS:
                        self.known.add(new)
                        new, last = [], time.monotonic()
                yield seen
        finally:
            if self.known is not None:
                self.known.add(new)

    def _seen(self, index: int) -> Seen:
        source, streams, found = self.source, bool(self.streams.value), None
        encoded = b""
        try:
            if self.known is not None and source.encoded is not None:
                content = source.encoded(index)
                encoded = encoded_hash(content)
                found = self.known.find(encoded) if streams and not _once_a_negative(content) else None
                if found and all(holder.holds(found.content) for holder in self.holders):
                    own = found.done if found.whole else {**found.done, **_seen_from_outside(content)}
                    return Seen(index, None, found.content, found.nbytes, own)
                pixels, done = source.decoded(content)
            else:
                pixels, done = source.look(index) if source.look else (source.fetch(index), {})
        except UserError:
            raise
        except BROKEN as error:
            return Seen(index, broken=reason(error))
        name = found.content if found else image_name(pixels, done, encoded, source.decoding or Decoding())
        shown = tuple(None if not streams or holder.holds(name) else shown_of(holder.model, pixels) for holder in self.holders)
        return Seen(index, None if streams else pixels, name, pixels.nbytes, dict(done),
                    encoded if streams and not found else b"", shown=shown)


def _once_a_negative(content: bytes) -> bool:
    """Whether what is remembered of a file may be of its negative: what TIFFs of 16 bits whose 0 is white were decoded to."""
    return content.startswith((b"II*\0", b"MM\0*")) and _of_head(content, white_is_zero, ["TIFF"])


def _seen_from_outside(content: bytes) -> dict[str, int]:
    """What an older record does not say of a file, from its head."""
    return {"profile": 1} if _of_head(content, read_as_srgb, known_formats()) else {}


def _of_head(content: bytes, asked: Callable[[Any], bool], formats: Collection[str]) -> bool:
    """What is asked of a file's image, which is opened and not decoded."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=tuple(formats)) as image:
                return asked(image)
    except Exception:  # as in `decode`, which says what is wrong with it
        return False


def shown_of(model: Shows, pixels: np.ndarray) -> np.ndarray:
    """One image (h, w, 3) as a model is shown it, (3, size, size) uint8."""
    return model.shown(as_tensor(pixels)[None])[0].numpy()


def load_in_memory(source: Source, corrupt: str = "error", workers: int = 0, keepers: Sequence[Keeper] = ()) -> Source:
    """Look through ``source``: what is broken is named and counted, what was done stands in ``note``.

    A set of up to ``IN_MEMORY_BYTES`` is kept; of a larger one the names of its images (``hashes``), and ``workers`` processes
    decode what is read of it later; ``keepers`` get those images as they are decoded. ``corrupt="skip"`` leaves the broken ones
    out, and says so in ``note``.
    """
    if source.in_memory:
        return source if source.hashes is not None else replace(source, hashes=source.names())
    looks = Looks(source, keepers)

    def keep(index: int, name: bytes, pixels: np.ndarray | None, shown: Sequence[np.ndarray | None] = ()) -> None:
        if pixels is not None:  # decoded while memory might still hold the set
            shown = [None if keeper.holds(name) else shown_of(keeper.model, pixels) for keeper in keepers]
        for keeper, image in zip(keepers, shown, strict=False):
            if image is not None:
                keeper.take(str(source.ids[index]), name, image)

    images: list[np.ndarray] = []
    good, hashes, bad = array("q"), bytearray(), []  # of millions of images
    done: Counter[str] = Counter()
    total = 0
    memory = kept_memory() if keepers else contextlib.nullcontext()  # some of them run networks
    with memory, progress.task(f"images {source.name}/{source.split}", len(source)) as advance:
        for seen in looks.remembered(looked_at(looks, workers)):
            advance(1)
            if seen.broken:
                bad.append(f"{source.ids[seen.index]} ({seen.broken})")
                continue
            good.append(seen.index)
            hashes += seen.content
            done.update(seen.done)
            total += seen.nbytes
            if total > IN_MEMORY_BYTES and not looks.streams.value:
                looks.streams.value = True
                for place, pixels in enumerate(images):
                    keep(good[place], bytes(hashes[16 * place : 16 * place + 16]), pixels)
                images.clear()
            if looks.streams.value:
                keep(seen.index, seen.content, seen.pixels, seen.shown)
            elif seen.pixels is not None:
                images.append(seen.pixels)
    for keeper in keepers:
        keeper.close()
    source = whole_ones(source, good, bad, corrupt)
    source = replace(source, note=note_of(source, done, bad), hashes=as_rows([bytes(hashes)]))
    if looks.streams.value:
        return replace(source, workers=workers)
    one_size = len({i.shape for i in images}) == 1
    return replace(source, pixels=np.stack(images)) if one_size else replace(source, kept=tuple(images))


def fits_memory(source: Source) -> bool:
    """Whether memory will hold the decoded set, by a few of its images; a guess by which nothing is kept, or kept in vain."""
    if source.in_memory:
        return True
    sizes = []
    for index in np.unique(np.linspace(0, len(source) - 1, 5).astype(int)):
        with contextlib.suppress(*BROKEN):
            sizes.append(source.fetch(int(index)).nbytes)
    return not sizes or len(source) * float(np.mean(sizes)) <= IN_MEMORY_BYTES


def whole_ones(source: Source, good: Sequence[int], bad: Sequence[str], corrupt: str) -> Source:
    """The ``good`` items of a source; with ``bad`` ones it is refused unless ``corrupt`` is "skip" and something is left."""
    if bad and (corrupt != "skip" or not good):
        raise UserError(f"{source.name}/{source.split}", "images that can be decoded",
                        f"{len(bad)} corrupt of {len(source)}: {', '.join(bad[:5])}{' ...' if len(bad) > 5 else ''}",
                        "Fix them, or leave them out with --corrupt skip." if good else "Check that these are images.")
    return source.take(good) if bad else source


def note_of(source: Source, done: Mapping[str, int], bad: Sequence[str]) -> str:
    """A source's note with what decoding did and what was left out."""
    left_out = f"{len(bad)} corrupt image{'s' if len(bad) > 1 else ''} left out: {', '.join(bad[:20])}" if bad else ""
    return "; ".join(s for s in (source.note, source.decoding.note(done) if source.decoding else "", left_out) if s)


def looked_at(looks: Looks, workers: int) -> Iterator[Seen]:
    """Every item in its order, decoded here or in worker processes."""
    batches = [list(range(i, min(i + AT_ONCE, len(looks)))) for i in range(0, len(looks), AT_ONCE)]
    for found in in_workers(looks, batches, workers) if workers else map(looks.__getitems__, ([i] for i in range(len(looks)))):
        if isinstance(found, UserError):
            raise found
        yield from found
