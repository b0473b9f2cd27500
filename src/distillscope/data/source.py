"""A Source: images with stable ids, in memory or streamed, with or without labels; and the error where a split is missing."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distillscope.data.decode import Decoding, decode
from distillscope.draws import keyed_rng
from distillscope.errors import UserError

BROKEN = (OSError, ValueError, SyntaxError)
"""What reading an image may raise where the image is at fault (``BrokenImage`` is a ValueError)."""

Images = torch.Tensor | list[torch.Tensor]
"""uint8 (b, 3, h, w), or a list of (3, h, w) where sizes differ; or float32 in [0, 1] of the same shapes."""


Indices = Sequence[int] | np.ndarray
"""Places of items, whole numbers (k,)."""


@dataclass(frozen=True)
class Source:
    """One split of a data set.

    ``ids`` (n,) are stable strings: the same item keeps its id when others are appended or left out. ``fetch(i)`` gives
    item i as a uint8 array (h, w, 3) and may raise on a corrupt one; ``look(i)`` says too what decoding did to it.
    ``labels`` (n,) int64, or None for label-free data. ``note`` is what was assumed, done and left out, for the user.

    Where the set fits in memory, ``pixels`` (n, h, w, 3) is the decoded set, or ``kept`` its images where sizes differ.
    Where it does not, ``encoded(i)`` gives item i as a file holds it, and ``workers`` processes decode what is read.
    ``hashes`` (n, 16) uint8 are the names of the decoded images (`image_name`), once they were scanned
    (`load_in_memory`). ``unsplit``: the same images are read whatever split is asked for. Where items are files of their own,
    ``file_state(i)`` is of item i's: another one, another content, which is known without reading it.
    """

    name: str
    split: str
    ids: np.ndarray
    fetch: Callable[[int], np.ndarray]
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    pixels: np.ndarray | None = None
    note: str = ""
    look: Callable[[int], tuple[np.ndarray, Mapping[str, int]]] | None = None
    decoding: Decoding | None = None
    kept: tuple[np.ndarray, ...] | None = None
    hashes: np.ndarray | None = None
    unsplit: bool = False
    encoded: Callable[[int], bytes] | None = None
    workers: int = 0
    file_state: Callable[[int], str | None] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def in_memory(self) -> bool:
        """Whether the decoded images are held, so that reading costs nothing."""
        return self.pixels is not None or self.kept is not None

    @property
    def nbytes(self) -> int:
        """Bytes of the images that are held in memory."""
        return self.pixels.nbytes if self.pixels is not None else sum(i.nbytes for i in self.kept or ())

    def read(self, indices: Indices) -> Images:
        """The images at ``indices``."""
        if self.pixels is not None:
            return torch.from_numpy(self.pixels[np.asarray(indices)]).permute(0, 3, 1, 2)
        return stack([as_tensor(self.image(int(i))) for i in indices])

    def image(self, index: int) -> np.ndarray:
        """Item ``index`` as a uint8 array (h, w, 3); one that cannot be decoded is named."""
        if self.pixels is not None:
            return self.pixels[index]
        if self.kept is not None:
            return self.kept[index]
        try:
            return self.fetch(index)
        except UserError:
            raise
        except BROKEN as error:
            raise UserError(f"{self.name}/{self.split} item {self.ids[index]}", "an image that can be decoded", reason(error),
                            "Fix the file, or leave such items out with --corrupt skip.") from None

    def decoded(self, encoded: bytes) -> tuple[np.ndarray, Mapping[str, int]]:
        """What a file holds as this source decodes it: uint8 (h, w, 3), and what was done to get it."""
        return decode(encoded, self.decoding)

    def names(self) -> np.ndarray:
        """`image_name` of every image, (n, 16) uint8."""
        return as_rows(self._name(i) for i in range(len(self))) if self.hashes is None else self.hashes

    def mark(self, images: bytes | None = None) -> str:
        """What names the set whole: of the ids and ``images``, by default the name of every one."""
        names = np.ascontiguousarray(self.names()).tobytes() if images is None else images
        return hashlib.blake2b("\n".join(self.ids).encode() + names, digest_size=8).hexdigest()

    def _name(self, index: int) -> bytes:
        if self.encoded is None or self.decoding is None or self.decoding.least_side is None:
            return content_hash(self.image(index))
        encoded = self.encoded(index)
        return image_name(*self.decoded(encoded), encoded_hash(encoded), self.decoding)

    def for_models(self, least_side: int | None, sides: Iterable[int] = ()) -> Source:
        """The same items; where that is left open, JPEGs are decoded at a part of their size (`Decoding.for_models`)."""
        decoding = None if self.decoding is None else self.decoding.for_models(least_side, sides)
        if decoding is None or decoding == self.decoding or self.encoded is None or self.in_memory:
            return self
        return replace(self, **_decoded_from(self.encoded, decoding))

    def take(self, indices: Indices) -> Source:
        """The items at ``indices``, in that order."""
        chosen = np.asarray(indices, dtype=np.int64)
        fetch, look, encoded, file_state = self.fetch, self.look, self.encoded, self.file_state
        return replace(
            self,
            ids=self.ids[chosen],
            fetch=lambda i: fetch(int(chosen[i])),
            look=None if look is None else lambda i: look(int(chosen[i])),
            encoded=None if encoded is None else lambda i: encoded(int(chosen[i])),
            file_state=None if file_state is None else lambda i: file_state(int(chosen[i])),
            labels=None if self.labels is None else self.labels[chosen],
            pixels=None if self.pixels is None else self.pixels[chosen],
            kept=None if self.kept is None else tuple(self.kept[i] for i in chosen),
            hashes=None if self.hashes is None else self.hashes[chosen],
        )


def encoded_source(name: str, split: str, ids: np.ndarray, read: Callable[[int], bytes], decoding: Decoding,
                   **rest: Any) -> Source:
    """A Source over images as files hold them: ``read(i)`` gives the encoded bytes of item i."""
    return Source(name, split, ids, **_decoded_from(read, decoding), **rest)


def _decoded_from(read: Callable[[int], bytes], decoding: Decoding) -> dict[str, Any]:
    """The fields of a Source whose images are decoded from what ``read`` gives."""
    return {"fetch": lambda i: decode(read(i), decoding)[0], "look": lambda i: decode(read(i), decoding),
            "decoding": decoding, "encoded": read}


def as_tensor(image: np.ndarray) -> torch.Tensor:
    """(3, h, w), of memory that may be written to, as torch asks for."""
    return torch.from_numpy(image if image.flags.writeable else image.copy()).permute(2, 0, 1)


def reason(error: Exception) -> str:
    return str(error) if type(error).__name__ == "BrokenImage" else f"{type(error).__name__}: {error}"


def stack(images: list[torch.Tensor]) -> Images:
    """One tensor where all shapes are equal, else the list itself."""
    return torch.stack(images) if len({i.shape for i in images}) == 1 else images


def labels_of(source: Source) -> np.ndarray:
    """The labels (n,) of a source that must have some."""
    if source.labels is None:
        raise UserError(f"{source.name}/{source.split}", "data with labels", "none", "Name the label column.")
    return source.labels


def one_tensor(images: Images) -> torch.Tensor:
    """Images of one size (b, 3, h, w)."""
    return images if isinstance(images, torch.Tensor) else torch.stack(images)


def content_hash(image: np.ndarray | torch.Tensor) -> bytes:
    """16 bytes that name the decoded pixels (uint8, any layout of one shape), whatever file they came from."""
    array = np.ascontiguousarray(image)
    return hashlib.blake2b(repr(array.shape).encode() + array.tobytes(), digest_size=16).digest()


def encoded_hash(encoded: bytes) -> bytes:
    """16 bytes that name a file's content."""
    return hashlib.blake2b(encoded, digest_size=16).digest()


def image_name(pixels: np.ndarray, done: Mapping[str, int], encoded: bytes, decoding: Decoding) -> bytes:
    """16 bytes that name an image: its `content_hash`; of one that was decoded at a part of its size, of its file's hash,
    ``encoded``, and of that size. The pixels of many large photos would take as long to hash as to decode.
    """
    if not done.get("reduced"):
        return content_hash(pixels)
    return hashlib.blake2b(encoded + repr((pixels.shape, decoding.exif)).encode(), digest_size=16).digest()


def as_rows(hashes: Iterable[bytes]) -> np.ndarray:
    """Names of 16 bytes as rows (n, 16) uint8."""
    return np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(-1, 16)


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
                            "Fix the labels, or name another label column.")
    return source


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

    def __getitems__(self, indices: list[int]) -> Images | UserError:
        try:
            return self.source.read(indices)
        except UserError as error:  # the loader would write its traceback into another error
            return error


def read_batches(source: Source, batches: Iterable[Indices], workers: int = 0) -> Iterator[tuple[np.ndarray, Images]]:
    """(indices, images) for each batch of indices: straight from memory, or through decoding workers when streamed.

    There are as many as ``workers`` says, or else the source.
    """
    chosen, workers = [np.asarray(b) for b in batches], workers or source.workers
    if source.in_memory or workers == 0:
        for indices in chosen:
            yield indices, source.read(indices)
        return
    for indices, images in zip(chosen, in_workers(_Fetched(source), chosen, workers), strict=True):
        if isinstance(images, UserError):
            raise images
        yield indices, images


def in_workers(items: torch.utils.data.Dataset, batches: Iterable[Indices], workers: int) -> Iterator[Any]:
    """What ``items.__getitems__`` gives for each batch, made in ``workers`` processes, in the order of the batches."""
    sampler: Any = list(batches)
    # A process of a run, itself spawned, would spawn its workers too, and what reads a source cannot be sent to those.
    context = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
    return iter(torch.utils.data.DataLoader(items, batch_sampler=sampler, num_workers=workers, collate_fn=_as_made,
                                            multiprocessing_context=context))


def _as_made(batch: Any) -> Any:
    return batch


def data_option(path: Path | str, **settings: str) -> str:
    """The option that names a data set with a setting; every command that reads images takes it.

    >>> data_option("photos", label="none")
    "--data '{path: photos, label: none}'"
    """
    def as_yaml(value: Path | str) -> str:
        return str(value) if re.fullmatch(r"[\w./~][\w./~-]*", str(value)) else json.dumps(str(value))

    listed = ", ".join(f"{key}: {as_yaml(value)}" for key, value in {"path": path, **settings}.items())
    return "--data " + shlex.quote("{" + listed + "}")


class MissingSplit(UserError):
    """The split that was asked for is not there. Whoever loads it says how splits are named on its command (`name_split`)."""

    def __init__(self, where: str, expected: str, got: str, split: str, instead: Sequence[str] = (), todo: str = "") -> None:
        self.split, self.instead = split, tuple(instead)
        super().__init__(where, expected, got, todo or "Check the path and the split's name.")

    def __reduce__(self):
        return type(self), (self.where, self.expected, self.got, self.split, self.instead, self.todo)

    def name_split(self, option: str) -> UserError:
        """The same with the words to type: ``option`` is "--split" or "--set data.test_split="."""
        if not self.instead:
            return UserError(self.where, self.expected, self.got, self.todo)
        typed = [(option if option.endswith("=") else f"{option} ") + name for name in self.instead]
        what = "read that" if len(typed) == 1 else "read one"
        if self.instead == (".",):
            what = "take these folders as classes of one split"
        return UserError(self.where, self.expected, self.got, f"Add {' or '.join(typed)} to {what}.")


def near_splits(split: str, there: Sequence[str]) -> list[str]:
    """Those of ``there`` that are other names for ``split``.

    >>> near_splits("test", ["train", "val"]), near_splits("test", ["a", "b"])
    (['val'], [])
    """
    groups = ({"train", "training"}, {"test", "testing", "val", "valid", "validation", "dev", "eval", "holdout"})
    same = next((g for g in groups if split.lower() in g), {split.lower()})
    return [t for t in there if t.lower() in same]
