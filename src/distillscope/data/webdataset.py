"""WebDataset shards: tar files of (key.jpg, key.cls | key.json), read by random access without unpacking."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np

from distillscope.data.source import Source, decode_image
from distillscope.errors import UserError
from distillscope.registry import datasets

IMAGES = ("jpg", "jpeg", "png", "webp", "ppm")


@datasets.register("webdataset")
def webdataset(split: str, *, path: Path, label: str | None = None) -> Source:
    """WebDataset shards: FOLDER/{split}*.tar, or one .tar; labels from KEY.cls or from `label` in KEY.json."""
    path = Path(path).expanduser()
    shards = [path] if path.is_file() else sorted([*path.glob(f"{split}*.tar"), *path.glob(f"{split}/*.tar")])
    if not shards:
        raise UserError(f"data {path}", f"{split}*.tar", "no such file", "Check the path and the split's name.")
    images: dict[str, tuple[Path, int, int]] = {}
    labels: dict[str, int] = {}
    for shard in shards:
        for name, offset, size in _members(shard):
            key, _, suffix = name.rpartition("/")[2].partition(".")
            key = f"{name.rpartition('/')[0]}/{key}".lstrip("/")
            if suffix.lower() in IMAGES:
                if key in images:
                    raise UserError(str(shard), "keys that differ", f"'{key}' twice", "Name each item once.")
                images[key] = (shard, offset, size)
            elif suffix == "cls" or (suffix == "json" and label != "none"):
                found = _label(_read(shard, offset, size), suffix, label or "label", f"{shard} {name}")
                if found is not None:
                    labels[key] = found
    if labels and label != "none" and len(labels.keys() & images.keys()) < len(images):
        absent = next(k for k in images if k not in labels)
        raise UserError(f"data {path}", "a label for every image, or for none",
                        f"{len(images) - len(labels.keys() & images.keys())} without (first {absent})",
                        "Add them, or set data.label=none.")
    keys = list(images)
    values = np.array([labels[k] for k in keys], dtype=np.int64) if labels and label != "none" and keys else None
    return Source(path.stem, split, np.array([f"{split}/{k}" for k in keys]), lambda i: decode_image(_read(*images[keys[i]])), values)


def _members(shard: Path) -> list[tuple[str, int, int]]:
    """(name, offset, size) of every file in a tar, without its content."""
    try:
        with tarfile.open(shard, "r:") as tar:
            members = [(m.name, m.offset_data, m.size) for m in tar if m.isfile()]
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(str(shard), "an uncompressed tar file", f"{type(error).__name__}: {error}", "Fetch or make it again.") from None
    size = shard.stat().st_size
    if size < 1024 or _read(shard, size - 1024, 1024).strip(b"\0"):  # tarfile takes a cut in a header for the end
        raise UserError(str(shard), "a tar file with its end mark", f"{len(members)} files and then a cut", "Fetch it again.")
    return members


def _read(shard: Path, offset: int, size: int) -> bytes:
    with open(shard, "rb") as handle:
        handle.seek(offset)
        return handle.read(size)


def _label(content: bytes, suffix: str, field: str, where: str) -> int | None:
    try:
        value = int(content) if suffix == "cls" else json.loads(content).get(field)
        return None if value is None else int(value)
    except (ValueError, TypeError, AttributeError):
        raise UserError(where, "a whole number as label", repr(content[:40]), "Mend it, or set data.label=none.") from None
