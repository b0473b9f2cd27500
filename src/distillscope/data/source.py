"""A Source: images with stable ids, in memory or streamed, with or without labels."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from distillscope.draws import keyed_rng
from distillscope.errors import UserError

IN_MEMORY_BYTES = 2 * 2**30
"""Decoded sets up to this size are kept in memory as uint8; larger ones are decoded as they are read."""

Images = torch.Tensor | list[torch.Tensor]
"""uint8 (b, 3, h, w), or a list of (3, h, w) where sizes differ; or float32 in [0, 1] of the same shapes."""


@dataclass(frozen=True)
class Source:
    """One split of a data set.

    ``ids`` (n,) are stable strings: the same item keeps its id when others are appended or left out. ``fetch(i)`` gives
    item i as a uint8 array (h, w, 3) and may raise on a corrupt one. ``pixels`` (n, h, w, 3) is the decoded set, where
    it fits in memory. ``labels`` (n,) int64, or None for label-free data.
    """

    name: str
    split: str
    ids: np.ndarray
    fetch: Callable[[int], np.ndarray]
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    pixels: np.ndarray | None = None
    note: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, indices: Sequence[int]) -> Images:
        """The images at ``indices``."""
        if self.pixels is not None:
            return torch.from_numpy(self.pixels[np.asarray(indices)]).permute(0, 3, 1, 2)
        return stack([torch.from_numpy(self._fetch(int(i))).permute(2, 0, 1) for i in indices])

    def _fetch(self, index: int) -> np.ndarray:
        try:
            return self.fetch(index)
        except (OSError, ValueError, SyntaxError) as error:
            raise UserError(f"{self.name}/{self.split} item {self.ids[index]}", "an image that can be decoded",
                            f"{type(error).__name__}: {error}", "Mend the file, or leave such items out with "
                            "--set corrupt=skip (needs a set that fits in memory).") from None

    def take(self, indices: Sequence[int]) -> Source:
        """The items at ``indices``, in that order."""
        chosen = np.asarray(indices, dtype=np.int64)
        fetch = self.fetch
        return replace(
            self,
            ids=self.ids[chosen],
            fetch=lambda i: fetch(int(chosen[i])),
            labels=None if self.labels is None else self.labels[chosen],
            pixels=None if self.pixels is None else self.pixels[chosen],
        )


def stack(images: list[torch.Tensor]) -> Images:
    """One tensor where all shapes are equal, else the list itself."""
    return torch.stack(images) if len({i.shape for i in images}) == 1 else images


def content_hash(image: np.ndarray | torch.Tensor) -> bytes:
    """16 bytes that name the decoded pixels (uint8, any layout of one shape), whatever file they came from."""
    array = np.ascontiguousarray(image)
    return hashlib.blake2b(repr(array.shape).encode() + array.tobytes(), digest_size=16).digest()


def decode_image(encoded: bytes) -> np.ndarray:
    """PNG, JPEG, WebP ... bytes to uint8 RGB (h, w, 3)."""
    from PIL import Image

    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(image.convert("RGB"))


def checked(source: Source) -> Source:
    """The source itself, once its ids and labels have been looked at."""
    where = f"{source.name}/{source.split}"
    if len(source) == 0:
        raise UserError(where, "at least one image", "none", "Check the path and the split's name.")
    if len(np.unique(source.ids)) != len(source):
        raise UserError(where, "ids that differ", "duplicates", "Name each item once.")
    if source.labels is not None:
        low, high = int(source.labels.min()), int(source.labels.max())
        top = len(source.class_names) - 1 if source.class_names else high
        if low < 0 or high > top:
            raise UserError(f"{where} labels", f"whole numbers from 0 to {top}", f"{low if low < 0 else high}",
                            "Mend the labels, or name another label column.")
    return source


def load_in_memory(source: Source, corrupt: str = "error", progress: Callable[[int], None] | None = None) -> Source:
    """Decode the whole set if it is small and its images share one size; else give it back as it is.

    Every corrupt image is named and counted. ``corrupt="skip"`` leaves them out, and says so in ``note``.
    """
    if source.pixels is not None:
        return source
    images: list[np.ndarray] = []
    good: list[int] = []
    bad: list[str] = []
    total = 0
    for index in range(len(source)):
        try:
            image = source.fetch(index)
        except (OSError, ValueError, SyntaxError) as error:
            bad.append(f"{source.ids[index]} ({type(error).__name__})")
            continue
        total += image.nbytes
        if total > IN_MEMORY_BYTES or (images and image.shape != images[0].shape):
            if bad:
                break
            return source
        images.append(image)
        good.append(index)
        if progress and index % 1000 == 0:
            progress(index)
    if bad and (corrupt != "skip" or not images):
        raise UserError(f"{source.name}/{source.split}", "images that can be decoded",
                        f"{len(bad)} corrupt of {len(source)}: {', '.join(bad[:5])}{' ...' if len(bad) > 5 else ''}",
                        "Mend them, or leave them out with --set corrupt=skip.")
    if bad:
        source = replace(source.take(good), note=f"{len(bad)} corrupt images left out: {', '.join(bad[:20])}")
    return replace(source, pixels=np.stack(images))


def stratified(source: Source, count: int, *purpose: object) -> np.ndarray:
    """Indices of ``count`` items, in their old order, with the classes in the proportions of the whole.

    Without labels, a plain random part. The choice depends only on ``purpose`` and the ids.
    """
    if count >= len(source):
        return np.arange(len(source))
    order = keyed_rng("stratified", source.name, source.split, *purpose).permutation(len(source))
    if source.labels is None:
        return np.sort(order[:count])
    # Rank of each item within its class, divided by the class's size: the smallest ones are an even part of each.
    labels = source.labels[order]
    place = np.empty(len(source))
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        place[of_class] = (np.arange(len(of_class)) + 0.5) / len(of_class)
    return np.sort(order[np.argsort(place, kind="stable")[:count]])


class _Fetched(torch.utils.data.Dataset):
    def __init__(self, source: Source) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.source.read([index])[0]


def read_batches(source: Source, batches: Iterable[Sequence[int]], workers: int = 0) -> Iterator[tuple[np.ndarray, Images]]:
    """(indices, images) for each batch of indices: straight from memory, or through decoding workers when streamed."""
    batches = [np.asarray(b) for b in batches]
    if source.pixels is not None or workers == 0:
        for indices in batches:
            yield indices, source.read(indices)
        return
    loader = torch.utils.data.DataLoader(_Fetched(source), batch_sampler=batches, num_workers=workers, collate_fn=stack)
    yield from zip(batches, loader, strict=True)
