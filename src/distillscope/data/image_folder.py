"""Folders of image files."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from distillscope.data.classes import numbered
from distillscope.data.decode import Decoding, files_in, folders_in, is_image, other_kinds, read_file, suffixes
from distillscope.data.missing_split import MissingSplit, data_option, near_splits
from distillscope.data.source import Source, encoded_source
from distillscope.errors import UserError
from distillscope.registry import datasets


@datasets.register("image_folder")
def image_folder(split: str, *, path: Path, label: Literal["none"] | None = None, background: str = "white",
                 exif: bool = True) -> Source:
    """Image files: FOLDER/{split}/CLASS/x.png with labels, or FOLDER/{split}/x.png, or FOLDER/x.png, without.

    Classes are numbered by name over all splits that share one, so that a class that a split lacks moves no other.
    ``label="none"`` takes class folders for no labels.
    """
    given, top = path, Path(path).expanduser()
    root, flat = top / split, False
    if not root.is_dir():
        flat = any(is_image(f.name) for f in top.glob("*") if not f.is_dir()) and not _with_images(top)
        if not flat:
            raise _no_split(given, top, split)
        root = top
    found = list(files_in(root))
    files = sorted(f for f in found if is_image(f.name))
    if not files:
        raise UserError(str(root), f"image files ({', '.join(sorted(suffixes()))})", "none", "Check the path.")
    own = sorted({f.relative_to(root).parts[0] for f in files if f.parent != root})
    loose = [f for f in files if f.parent == root]
    if own and loose and label != "none":
        raise UserError(str(root), "either one folder a class or images without folders",
                        f"both (first loose: {loose[0].name})",
                        "Move the loose images into a class's folder, or away; or take them all without labels: "
                        f"{data_option(given, label='none')}.")
    classes = None if label == "none" or not own else _classes(top, own) if root.parent == top and root != top else tuple(own)
    labels = numbered([f.relative_to(root).parts[0] for f in files], classes) if classes else None
    ids = np.array([f.relative_to(root).as_posix() if flat else f"{split}/{f.relative_to(root).as_posix()}" for f in files])
    notes = ("a flat folder: every image whatever the split, without labels" if flat else "",
             other_kinds(f for f in found if not is_image(f.name)))
    name = Path(path).name or top.resolve().name
    return encoded_source(name, split, ids, lambda i: read_file(files[i]), Decoding(background, exif), labels=labels,
                          class_names=classes, note="; ".join(n for n in notes if n), unsplit=flat)


def _with_images(top: Path) -> list[str]:
    """The folders right inside that hold images, at any depth."""
    return [p.name for p in folders_in(top) if any(is_image(f.name) for f in files_in(p))]


def _classes(top: Path, own: list[str]) -> tuple[str, ...]:
    """The class folders of this split and of every other that shares a class with it, directly or by way of a third."""
    others = [{c.name for c in folders_in(s) if any(is_image(f.name) for f in files_in(c))} for s in folders_in(top)]
    found = set(own)
    while grown := [o for o in others if o & found and not o <= found]:
        found = found.union(*grown)
    return tuple(sorted(found))


def _no_split(given: Path, top: Path, split: str) -> UserError:
    if not top.is_dir():
        return UserError(f"data {given}", "a folder", "a file" if top.exists() else "no such folder", "Check the path.")
    there = _with_images(top)
    one_split = bool(there) and all(not _with_images(top / name) for name in there)  # images one level down: maybe classes
    got = f"folders {', '.join(there[:6])}{' ...' if len(there) > 6 else ''}" if there else "no images"
    instead = near_splits(split, there) or (["."] if one_split else there[:4])
    expected = f"a sub-folder '{split}' (with one folder a class, or the images themselves)"
    return MissingSplit(f"data {given}", expected, got, split, instead, "Check the path.")
