"""WebDataset shards: tar files of (key.jpg, key.cls | key.json), read by random access without unpacking."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from distillscope.data.classes import numbered, sorted_names
from distillscope.data.decode import MAX_FILE_BYTES, BrokenImage, Decoding, is_image, other_kinds, passed_over
from distillscope.data.source import MissingSplit, Source, data_option, encoded_source, near_splits
from distillscope.errors import UserError
from distillscope.files.json_reader import parse_json
from distillscope.files.remote import RemoteFile, opened
from distillscope.registry import Size, datasets

Shard = Path | RemoteFile
Member = tuple[Shard, int, int]
"""A file in a tar: the tar, where its content begins, its size."""


@dataclass
class Shards:
    """What tar files hold: key -> image, key -> label as it is written, and the files that are neither."""

    images: dict[str, Member] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    others: list[Path] = field(default_factory=list)


@datasets.register("webdataset")
def webdataset(split: str, *, path: Path, image: str | None = None, label: str | None = None, background: str = "white",
               exif: bool = True, min_side: Size | None = None) -> Source:
    """WebDataset shards: FOLDER/{split}*.tar, or one .tar; labels from KEY.cls or from `label` in KEY.json.

    Labels are whole numbers, or texts, which are numbered by name over all shards of the folder. ``image`` is the suffix of
    the images (KEY.input.png: "input.png") where a key has several.
    """
    given, path = path, Path(path).expanduser()
    shards = [path] if path.is_file() else _shards(path, split)
    if not shards:
        raise no_shards(given, split, sorted({_split_of(s, path) for s in _shards(path)}))
    rest = [] if path.is_file() else [s for s in _shards(path) if s not in shards]
    return read_split(split, path.stem, shards, rest, given, image, label, Decoding(background, exif, min_side),
                      unsplit=path.is_file())


def no_shards(given: Path | str, split: str, there: Sequence[str]) -> MissingSplit:
    """No shard is called after the split; ``there`` are those that some are."""
    got = f"shards of {', '.join(there)}" if there else "no such file"
    return MissingSplit(f"data {given}", f"{split}*.tar", got, split, near_splits(split, there) or there[:4])


def read_split(split: str, name: str, shards: Sequence[Shard], rest: Sequence[Shard], given: Path | str, image: str | None,
               label: str | None, decoding: Decoding, *, unsplit: bool = False) -> Source:
    """The images of ``shards``. Classes that are texts are numbered over the ``rest`` of the data set too."""
    found = _read_shards(shards, given, image, label)
    keys = list(found.images)
    labels, names = None, None
    if found.labels and keys:
        absent = [k for k in keys if k not in found.labels]
        if absent:
            raise UserError(f"data {given}", "a label for every image, or for none",
                            f"{len(absent)} without (first {absent[0]})",
                            f"Add them, or take the images without labels: {data_option(given, label='none')}.")
        texts = [found.labels[k] for k in keys]
        if all(re.fullmatch(r"-?\d+", t) for t in texts):
            if longest := next((t for t in texts if len(t) > 18), None):
                raise UserError(f"data {given}", "labels that fit 64 bits", f"{longest[:20]}... of {len(longest)} digits",
                                f"Mend it, or take the images without labels: {data_option(given, label='none')}.")
            labels = np.array([int(t) for t in texts], dtype=np.int64)
        else:
            names = sorted_names([*texts, *_read_shards(rest, given, image, label).labels.values()])
            labels = numbered(texts, names)

    def read(index: int) -> bytes:
        shard, offset, size = found.images[keys[index]]
        if size > MAX_FILE_BYTES:
            raise BrokenImage(f"{size:,} bytes, more than the {MAX_FILE_BYTES:,} that are read")
        return _read(shard, offset, size)

    ids = np.array([f"{split}/{k}" for k in keys])
    return encoded_source(name, split, ids, read, decoding, labels=labels, class_names=names, note=other_kinds(found.others),
                          unsplit=unsplit)


def shards_of(settings: Mapping[str, Any], split: str) -> list[str] | None:
    """The paths of the shards that a split consists of; None where there are none."""
    path = Path(str(settings.get("path", ""))).expanduser()
    found = [path] if path.is_file() else _shards(path, split)
    return [str(shard) for shard in found] or None


def _shards(path: Path, split: str | None = None) -> list[Path]:
    """The folder's shards: {split}*.tar and {split}/*.tar, or every one."""
    here, below = ([f for f in sorted(path.glob(pattern)) if not passed_over(f.relative_to(path))]
                   for pattern in ("*.tar", "*/*.tar"))
    return sorted([f for f in here if split is None or f.name.startswith(split)]
                  + [f for f in below if split is None or f.parent.name == split])


def _split_of(shard: Path, path: Path) -> str:
    """The split that a shard's name begins with: train-0001.tar, train_01.tar, train/01.tar."""
    return shard.parent.name if shard.parent != path else re.split(r"[-_.{]?\d", shard.stem)[0] or shard.stem


def _read_shards(shards: Sequence[Shard], given: Path | str, image: str | None, label: str | None) -> Shards:
    found = Shards()
    several: dict[str, list[tuple[str, Member]]] = {}
    for shard in shards:
        for name, offset, size in _members(shard):
            if passed_over(name):
                continue
            folder, _, base = name.rpartition("/")
            key, _, suffix = base.partition(".")
            key = f"{folder}/{key}".lstrip("/")
            if suffix.lower() == image.lower() if image else is_image(f"x.{suffix}") and "." not in suffix:
                if key in found.images:
                    raise UserError(str(shard), "keys that differ", f"'{key}' twice", "Name each item once.")
                found.images[key] = (shard, offset, size)
            elif suffix.lower() == "cls" or (suffix.lower() == "json" and label != "none"):
                text = _label(_read(shard, offset, size), suffix.lower(), label or "label", f"{shard} {name}", given)
                if text is not None and label != "none":
                    found.labels[key] = text
            elif is_image(name) and not image:  # key.input.png: an image if it is the key's only one
                several.setdefault(key, []).append((suffix, (shard, offset, size)))
            else:
                found.others.append(Path(name))
    for key, members in several.items():
        if key in found.images:
            found.others += [Path(f"{key}.{suffix}") for suffix, _ in members]
        elif len(members) > 1:
            raise UserError(f"data {given}", "one image for each key (what stands before the first dot)",
                            f"{', '.join(s for s, _ in members[:4])} of '{key}'",
                            f"Name the one that is meant: {data_option(given, image=members[0][0])}.")
        else:
            found.images[key] = members[0][1]
    return found


def _members(shard: Shard) -> list[tuple[str, int, int]]:
    """(name, offset, size) of every file in a tar, without its content."""
    try:
        with opened(shard) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            members = [(m.name, m.offset_data, m.size) for m in tar if m.isfile()]
            size = file.seek(0, io.SEEK_END)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(str(shard), "an uncompressed tar file", f"{type(error).__name__}: {error}",
                        "Fetch or make it again.") from None
    if size < 1024 or _read(shard, size - 1024, 1024).strip(b"\0"):  # tarfile takes a cut in a header for the end
        raise UserError(str(shard), "a tar file with its end mark", f"{len(members)} files and then a cut", "Fetch it again.")
    return members


def _read(shard: Shard, offset: int, size: int) -> bytes:
    with opened(shard) as handle:
        handle.seek(offset)
        return handle.read(size)


def _label(content: bytes, suffix: str, field_name: str, where: str, given: Path | str) -> str | None:
    """The label as it is written, or None where a JSON has none."""
    todo = f"Mend it, or take the images without labels: {data_option(given, label='none')}."
    value = (content.decode(errors="replace").strip() if suffix == "cls" else
             parse_json(content, where, dict, todo, nan=True).get(field_name))
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (int, str, type(None))) or value == "":
        raise UserError(where, "a whole number or a name as label", repr(content[:40]), todo)
    return None if value is None else str(value)
