"""Which images something was made of, kept beside it: from where relative paths start, and what names a few of the images."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distillscope.config.parts import Dataset
from distillscope.data.source import BROKEN, Source, content_hash, encoded_hash
from distillscope.draws import keyed_rng
from distillscope.files.folders import seen_from
from distillscope.files.remote import is_url
from distillscope.registry import datasets

SAMPLED = 16
"""Images that are known again by their ids and their files' bytes."""
PATHS = ("path", "root", "weights")
"""Settings of data sets and teachers that are paths."""


@dataclass(frozen=True)
class Origin:
    """``start`` is the folder from which relative paths started, None where that is not known; ``sample`` has the hash of an
    image's id and that of its file, for a few of them; ``beside`` is the folder that it was read in."""

    start: Path | None = None
    sample: Mapping[str, str] | None = None
    beside: Path | None = None

    @classmethod
    def read(cls, kept: Any, beside: Path) -> Origin:
        """What `kept_of` gave, of the folder that it stands in; nothing where it says nothing."""
        kept = kept if isinstance(kept, Mapping) else {}
        start, sample = kept.get("start"), kept.get("sample")
        whole = isinstance(sample, Mapping) and all(isinstance(v, str) for pair in sample.items() for v in pair)
        place = Path(os.path.normpath(beside.resolve() / start)) if isinstance(start, str) else None
        return cls(place, dict(sample) if whole and sample else None, beside.resolve())

    def located(self, named: Any, moved: bool = True) -> Any:
        """A data set's or a teacher's name or settings, whose relative paths start where they did, if that is there; else,
        with ``moved``, where we are, or in a folder around this one if images can be known again."""
        if isinstance(named, str):
            return named if named in datasets else self._at(named, moved)
        if not isinstance(named, Mapping) or named.get("name") == "hub":
            return named
        return {k: self._at(v, moved) if k in PATHS else v for k, v in named.items()}

    def _at(self, path: Any, moved: bool) -> Any:
        if self.start is None or not isinstance(path, str) or is_url(path):
            return path
        around = self.beside.parents if self.beside and self.sample else ()
        for place in (self.start, *((Path.cwd(), *around) if moved else ())):
            if (found := place / Path(path).expanduser()).exists():
                return str(found.resolve())
        return path

    def known_again(self, source: Source) -> tuple[int, int] | None:
        """How many of the images that are kept ``source`` has as they were, of how many; None where none are kept."""
        if not self.sample:
            return None
        marks = {mark: i for i, mark in enumerate(map(_id_mark, source.ids)) if mark in self.sample}
        return sum(_is_there(source, i, self.sample[mark]) for mark, i in marks.items()), len(self.sample)


def kept_of(data: Dataset, source: Source, beside: Path) -> dict[str, Any]:
    """Plain values for a file in the folder ``beside``, which `Origin.read` reads; no name of an image stands in them.

    ``source`` is what was read of ``data``. Images at a URL are named by it; to sample them would be to fetch them again.
    """
    kept: dict[str, Any] = {"start": seen_from(beside, Path.cwd())}
    if not is_url(str(data.settings.get("path", ""))):
        chosen = keyed_rng("origin", len(source)).permutation(len(source))[:SAMPLED]
        kept["sample"] = {_id_mark(source.ids[i]): _content_mark(source, i) for i in np.sort(chosen).tolist()}
    return kept


def _id_mark(item: str) -> str:
    return hashlib.blake2b(str(item).encode(), digest_size=8).hexdigest()


def _is_there(source: Source, index: int, mark: str) -> bool:
    try:
        return _content_mark(source, index) == mark
    except BROKEN:
        return False


def _content_mark(source: Source, index: int) -> str:
    """Of a file's bytes, where there is a file; else of the pixels."""
    found = content_hash(source.image(index)) if source.encoded is None else encoded_hash(source.encoded(index))
    return found[:8].hex()
