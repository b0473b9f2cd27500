"""Sets of images as users have them on disk, and read as every command reads them."""

from __future__ import annotations

import io
import tarfile

from distillscope.config.resolve import named_dataset
from distillscope.data.splits import load_split


def tar(path, items):
    """A tar of (name, content), and the folder that it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as out:
        for name, content in items:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
    return path.parent


def load(path, split="test", **options):
    """The images of one split of what `--data` may name."""
    part = named_dataset(path if isinstance(path, dict) else str(path))
    return load_split(part.name, part.settings, split, **options)
