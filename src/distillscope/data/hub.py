"""Data sets by name: scikit-learn's digits, and the Hub's, also local parquet in its layout and what `save_to_disk` wrote."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distillscope.data.classes import (
    LABELS,
    SURE_LABELS,
    Labels,
    class_labels,
    columns_said,
    label_columns,
    need_column,
    read_labels,
)
from distillscope.data.decode import BrokenImage, Decoding, MinSide, passed_over, read_file
from distillscope.data.source import MissingSplit, Source, data_option, encoded_source, near_splits, stratified
from distillscope.errors import UserError
from distillscope.files.folders import expect_all, gaps_said
from distillscope.registry import datasets

IMAGE_COLUMNS = ("img", "image", "jpg", "png", "jpeg", "webp")
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def _source(tables: dict[str, Any], split: str, name: str, given: Path | str, inside: Path, image: str | None = None,
            label: str | None = None, class_names: tuple[str, ...] | None = None, decoding: Decoding | None = None,
            unsplit: bool = False, note: str = "", others: Callable[[str], Mapping[str, Any]] = lambda column: {}) -> Source:
    """A Source over one of ``tables`` (split -> `datasets.Dataset`, memory-mapped); files that cells name lie ``inside``.

    ``others(column)`` are more tables, of splits that are not read, with that column at least.
    """
    import datasets as hf

    table, where = tables[split], f"{name}/{split}"
    image = need_column(table.column_names, image, IMAGE_COLUMNS, "image", where, given)
    columns = [c for c in table.column_names if c != image]

    def every(column: str) -> list[Any]:
        return [v for t in {**tables, **others(column)}.values() if column in t.column_names for v in t[column]]

    sure = [label or "", *(c for c in columns if c.casefold() in SURE_LABELS)]
    found, labelled, left = read_labels(
        label_columns(table.column_names if label else columns, label, LABELS, where, given), sure,
        lambda column: _labels(table, column, every, f"{where} column {column}", given, class_names), every)
    labels, class_names = labelled or (None, class_names)
    note = "; ".join(part for part in (note, columns_said(table.column_names, image, found, left)) if part)
    images = table.select_columns([image])
    if isinstance(table.features[image], hf.Image):
        images = images.cast_column(image, hf.Image(decode=False))
    width = max(6, len(str(len(table))))
    ids = np.array([f"{name}/{split}/{i:0{width}d}" for i in range(len(table))])
    return encoded_source(name, split, ids, lambda i: cell_bytes(images[int(i)][image], inside), decoding or Decoding(),
                          labels=labels, class_names=class_names, note=note, unsplit=unsplit)


def cell_bytes(cell: Any, inside: Path) -> bytes:
    """Encoded bytes from bytes, {bytes, path}, or a path; a path is read only where it stays inside the data's own folder."""
    if isinstance(cell, bytes):
        return cell
    if isinstance(cell, dict) and isinstance(cell.get("bytes"), bytes) and cell["bytes"]:
        return cell["bytes"]
    path = cell.get("path") if isinstance(cell, dict) else cell
    if not isinstance(path, str) or not path:
        empty = cell is None or isinstance(cell, dict)
        raise BrokenImage("an empty cell" if empty else f"a cell of type {type(cell).__name__}")
    return read_file(inside / path, inside)


def _labels(table: Any, column: str, every: Callable[[str], list[Any]], where: str, given: Path | str,
            names: tuple[str, ...] | None) -> Labels:
    """Whole numbers as they are; texts as classes by name over those of every split."""
    feature = table.features[column]
    if are_texts(feature, where, given):
        texts = [v or "" for v in every(column) if isinstance(v, (str, type(None)))]
        return class_labels([v or "" for v in table[column]], texts, where, given)
    values = table.with_format("numpy", columns=[column])[:][column]
    if values.ndim != 1 or values.dtype.kind not in "iu":  # of numbers, those with gaps are floats
        gaps = f"{int(np.isnan(values).sum())} of {len(table)} without" if values.dtype.kind == "f" else ""
        raise no_labels(gaps or f"{values.dtype} values", where, given)
    return values.astype(np.int64), class_names_of(feature) or names


def are_texts(feature: Any, where: str, given: Path | str, numbers: str = r"u?int\d+") -> bool:
    """Whether a column of this kind holds texts, not ``numbers``; one that holds neither is refused, before it is read."""
    import datasets as hf

    kind = feature.dtype if isinstance(feature, (hf.Value, hf.ClassLabel)) else type(feature).__name__
    if kind in ("string", "large_string"):
        return True
    if not re.fullmatch(numbers, kind):
        raise no_labels(f"{'struct' if kind == 'dict' else kind} values", where, given)
    return False


def no_labels(got: str, where: str, given: Path | str) -> UserError:
    """A column's values are no labels."""
    return UserError(where, "whole numbers without gaps, or names", got,
                     f"Name another column: {data_option(given, label='COLUMN')}, or none: {data_option(given, label='none')}.")


def class_names_of(feature: Any) -> tuple[str, ...] | None:
    import datasets as hf

    return tuple(feature.names) if isinstance(feature, hf.ClassLabel) else None


def _read_parquet(path: Path, name: str, split: str, given: Path | str, **rest: Any) -> Source:
    import datasets as hf
    import pyarrow.parquet as pq

    files = [path] if path.is_file() else _files(path, split)
    if not files:
        there = sorted({f.stem.split("-")[0] for f in _files(path)})
        raise MissingSplit(str(path), f"{split}.parquet or {split}-*.parquet",
                           f"no such file{', but of ' if there else ''}{', '.join(there)}", split,
                           near_splits(split, there) or there[:4], "Name a folder in the Hub's layout.")
    for file in files:
        try:
            pq.ParquetFile(file).close()
        except Exception as error:  # pyarrow raises several types for a truncated or foreign file
            raise UserError(str(file), "a readable parquet file", str(error).split("\n")[0], "Fetch it again.") from None
    hf.disable_progress_bars()
    return _source({split: _table(files, split=split)}, split, name, given, path if path.is_dir() else path.parent,
                   unsplit=path.is_file(), note=gaps_said([f.name for f in files]),
                   others=lambda column: _others(path, split, column), **rest)


def _table(files: Sequence[Path], **options: Any) -> Any:
    """A `datasets.Dataset` of these files, whose own metadata and pages may be wrong or damaged."""
    import datasets as hf

    try:
        return hf.Dataset.from_parquet([str(f) for f in files], **options)
    except Exception as error:  # the library passes on whatever pyarrow or its own features raise, or its own error over it
        reason = error.__cause__ if isinstance(error.__cause__, Exception) else error
    if isinstance(reason, OSError) and reason.errno is not None:  # a full disk, closed permissions: no fault of the file
        raise reason
    line = str(reason).splitlines()[0][:200] if str(reason) else ""
    raise UserError(str(files[0]), "a parquet file that datasets can read", f"{type(reason).__name__}: {line}",
                    "Write or fetch it again.")


def _files(path: Path, split: str | None = None) -> list[Path]:
    """The folder's parquet files: {split}.parquet, {split}-*.parquet and data/{split}-*.parquet, or every one."""
    found = [f for pattern in ("*.parquet", "data/*.parquet") for f in path.glob(pattern)
             if not passed_over(f.relative_to(path))]
    chosen = sorted(f for f in found if split is None or is_parquet_of(f.relative_to(path).as_posix(), split))
    if split is not None:
        expect_all([f.name for f in chosen], f"data {path}, split {split}",
                   "Fetch those that are missing, or name the one file that is meant.")
    return chosen


def is_parquet_of(place: str, split: str) -> bool:
    """Whether a parquet file is of the split, by its place below the folder.

    >>> [is_parquet_of(p, "test") for p in ("test.parquet", "data/test-00000-of-00002.parquet", "tests-0.parquet")]
    [True, True, False]
    """
    return re.fullmatch(rf"{re.escape(split)}(-.*)?\.parquet", place.removeprefix("data/")) is not None


def _others(path: Path, split: str, column: str) -> dict[str, Any]:
    """One column of the folder's other splits, those that have it: by its texts all classes are numbered."""
    import pyarrow.parquet as pq

    own = set(_files(path, split))
    other = [f for f in _files(path) if f not in own and column in pq.read_schema(f).names] if path.is_dir() else []
    return {"": _table(other, columns=[column])} if other else {}


@datasets.register("digits")
def digits(split: str, *, test_items: int = 360) -> Source:
    """1,797 real handwritten digits of 8x8, ten classes, from scikit-learn (no download)."""
    from sklearn.datasets import load_digits

    there = ["train", "test"]
    if split not in there:
        raise MissingSplit("data digits", "split train or test", f"'{split}'", split, near_splits(split, there) or there)
    bunch = load_digits()
    grey = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    pixels = np.repeat(grey[..., None], 3, axis=-1)
    ids = np.array([f"digits/{i:04d}" for i in range(len(pixels))])
    whole = Source("digits", split, ids, pixels.__getitem__, bunch.target.astype(np.int64), tuple("0123456789"), pixels)
    held_out = np.zeros(len(pixels), dtype=bool)
    held_out[stratified(Source("digits", "all", ids, whole.fetch, whole.labels), test_items, "test split")] = True
    return whole.take(np.flatnonzero(held_out if split == "test" else ~held_out))


@datasets.register("parquet")
def parquet(split: str, *, path: Path, image: str | None = None, label: str | None = None, background: str = "white",
            exif: bool = True, min_side: MinSide = None) -> Source:
    """Local parquet in the Hub's layout: FOLDER/{split}.parquet, an image column {bytes, path}, a label column."""
    given, path = path, Path(path).expanduser()
    if not path.exists():
        raise UserError("data.path", "a folder or file that exists", f"'{path}'", "Check the path.")
    return _read_parquet(path, path.stem if path.is_file() else path.name, split, given, image=image, label=label,
                         decoding=Decoding(background, exif, min_side))


@datasets.register("hub")
def hub(split: str, *, path: str, config: str | None = None, image: str | None = None, label: str | None = None,
        background: str = "white", exif: bool = True, min_side: MinSide = None) -> Source:
    """A Hugging Face data set by its name on the Hub (downloaded once into its own cache)."""
    import datasets as hf
    from huggingface_hub.utils import logging as hub_logging

    hub_logging.set_verbosity_error()  # its retries are no news; what came of them is said below, in one line
    try:
        table = hf.load_dataset(path, config, split=split)
    except Exception as error:  # offline, unknown name, interrupted download: the library has no common base class
        reason = str(error).split("\n")[0][:160]
        raise UserError(f"data '{path}'", f"split '{split}' from the Hub", f"{type(error).__name__}: {reason}",
                        "Check the name and the connection (a broken download resumes when repeated), or name a "
                        "local folder with --data DIR.") from None
    return _source({split: table}, split, path.split("/")[-1], path, Path(hf.config.HF_CACHE_HOME), image, label,
                   decoding=Decoding(background, exif, min_side))


@datasets.register("saved")
def saved(split: str, *, path: Path, image: str | None = None, label: str | None = None, background: str = "white",
          exif: bool = True, min_side: MinSide = None) -> Source:
    """A folder that Hugging Face's `save_to_disk` wrote: of one data set, or of its splits."""
    import datasets as hf

    given, path = path, Path(path).expanduser()
    try:
        found = hf.load_from_disk(str(path))
    except Exception as error:  # missing or damaged files: the library has no common base class
        found_instead = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
        raise UserError(f"data {given}", "a folder that save_to_disk wrote", found_instead, "Save it again.") from None
    unsplit = isinstance(found, hf.Dataset)
    tables = {split: found} if unsplit else dict(found)
    if split not in tables:
        raise MissingSplit(f"data {given}", f"a split '{split}'", f"splits {', '.join(tables)}", split,
                           near_splits(split, list(tables)) or list(tables)[:4])
    return _source(tables, split, path.resolve().name, given, path, image, label, decoding=Decoding(background, exif, min_side),
                   unsplit=unsplit)


@datasets.register("cifar10")
def cifar10(split: str, *, path: Path | None = None) -> Source:
    """CIFAR-10 from a local folder ($DISTILLSCOPE_DATA/cifar10/{train,test}.parquet), else from the Hub."""
    root = path or (Path(os.environ["DISTILLSCOPE_DATA"]) / "cifar10" if os.environ.get("DISTILLSCOPE_DATA") else None)
    if root is None:
        return hub(split, path="uoft-cs/cifar10")
    if not Path(root).is_dir():
        raise UserError("data cifar10", f"a folder {root}", "no such folder",
                        "Set DISTILLSCOPE_DATA to the folder that holds cifar10/, or unset it to use the Hub.")
    return _read_parquet(Path(root), "cifar10", split, root, class_names=CIFAR10_CLASSES)


@datasets.register("cifar100")
def cifar100(split: str, *, path: Path | None = None) -> Source:
    """CIFAR-100 (fine labels) from a local folder in the Hub's layout, else from the Hub."""
    if path is not None:
        return _read_parquet(Path(path), "cifar100", split, path, label="fine_label")
    return hub(split, path="uoft-cs/cifar100", label="fine_label")
