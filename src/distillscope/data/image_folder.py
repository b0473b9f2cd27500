"""Folders of image files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from distillscope.data.source import Source, decode_image
from distillscope.errors import UserError
from distillscope.registry import datasets

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"}


@datasets.register("image_folder")
def image_folder(split: str, *, path: Path) -> Source:
    """Image files: FOLDER/{split}/CLASS/x.png with labels, or FOLDER/{split}/x.png without."""
    root = Path(path).expanduser() / split
    if not root.is_dir():
        there = sorted(p.name for p in Path(path).expanduser().glob("*/"))[:6]
        raise UserError(f"data {path}", f"a sub-folder '{split}' (with one folder a class, or the images themselves)",
                        f"folders {', '.join(there) or '(none)'}",
                        "Arrange it so, or name the splits: --set data.train_split=NAME --set data.test_split=NAME.")
    files = sorted(f for f in root.rglob("*") if f.suffix.lower() in SUFFIXES)
    if not files:
        raise UserError(str(root), f"image files ({', '.join(sorted(SUFFIXES))})", "none", "Check the path.")
    classes = sorted({f.relative_to(root).parts[0] for f in files if f.parent != root})
    loose = [f for f in files if f.parent == root]
    if classes and loose:
        raise UserError(str(root), "either one folder a class or images without folders", f"both (first loose: {loose[0].name})",
                        "Move the loose images into a class's folder, or away.")
    labels = np.array([classes.index(f.relative_to(root).parts[0]) for f in files], dtype=np.int64) if classes else None
    ids = np.array([f"{split}/{f.relative_to(root).as_posix()}" for f in files])
    return Source(Path(path).name, split, ids, lambda i: decode_image(files[i].read_bytes()), labels, tuple(classes) or None)
