"""Hugging Face data sets by name, and local parquet in the Hub's layout."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from distillscope.data.source import Source, decode_image
from distillscope.errors import UserError
from distillscope.registry import datasets

IMAGE_COLUMNS = ("img", "image", "jpg", "png")
LABEL_COLUMNS = ("label", "labels", "fine_label", "cls")
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def _source(table, name: str, split: str, image: str | None, label: str | None, class_names=None) -> Source:
    """A Source over a `datasets.Dataset`, which stays memory-mapped on disk."""
    import datasets as hf

    columns = table.column_names

    def column(asked: str | None, usual: tuple[str, ...], kind: str) -> str | None:
        if asked == "none":
            return None
        found = [c for c in ((asked,) if asked else usual) if c in columns]
        if not found and (asked or kind == "image"):
            raise UserError(f"{name}/{split}", f"an {kind} column ({asked or ' or '.join(usual)})" if kind == "image"
                            else f"a label column '{asked}'", f"columns {', '.join(columns)}", f"Set data.{kind}=COLUMN.")
        return found[0] if found else None

    image, label = column(image, IMAGE_COLUMNS, "image"), column(label, LABEL_COLUMNS, "label")
    images = table.select_columns([image])
    if isinstance(table.features[image], hf.Image):
        images = images.cast_column(image, hf.Image(decode=False))

    def fetch(index: int) -> np.ndarray:
        cell = images[int(index)][image]
        if isinstance(cell, bytes):
            return decode_image(cell)
        if cell is None or not isinstance(cell, dict):
            raise ValueError(f"an image cell of type {type(cell).__name__}")
        return decode_image(cell["bytes"] if cell.get("bytes") else Path(cell["path"]).read_bytes())

    labels = None
    if label is not None:
        labels = table.with_format("numpy", columns=[label])[:][label]
        if labels.dtype.kind not in "iu":
            raise UserError(f"{name}/{split} column {label}", "whole numbers without gaps", f"{labels.dtype} values",
                            "Name another column with data.label=COLUMN, or data.label=none for label-free data.")
        feature = table.features[label]
        class_names = tuple(feature.names) if isinstance(feature, hf.ClassLabel) else class_names
    width = max(6, len(str(len(table))))
    ids = np.array([f"{name}/{split}/{i:0{width}d}" for i in range(len(table))])
    return Source(name, split, ids, fetch, None if labels is None else labels.astype(np.int64), class_names)


def _read_parquet(path: Path, name: str, split: str, image: str | None, label: str | None, class_names=None) -> Source:
    import datasets as hf
    import pyarrow.parquet as pq

    files = [path] if path.is_file() else sorted([*path.glob(f"{split}.parquet"), *path.glob(f"{split}-*.parquet"),
                                                  *path.glob(f"data/{split}-*.parquet")])
    if not files:
        raise UserError(str(path), f"{split}.parquet or {split}-*.parquet", "no such file",
                        "Name a folder in the Hub's layout.")
    for file in files:
        try:
            pq.ParquetFile(file).close()
        except Exception as error:  # pyarrow raises several types for a truncated or foreign file
            raise UserError(str(file), "a readable parquet file", str(error).split("\n")[0], "Fetch it again.") from None
    hf.disable_progress_bars()
    table = hf.Dataset.from_parquet([str(f) for f in files], split=split)
    return _source(table, name, split, image, label, class_names)


@datasets.register("parquet")
def parquet(split: str, *, path: Path, image: str | None = None, label: str | None = None) -> Source:
    """Local parquet in the Hub's layout: FOLDER/{split}.parquet, an image column {bytes, path}, a label column."""
    path = Path(path).expanduser()
    if not path.exists():
        raise UserError("data.path", "a folder or file that exists", f"'{path}'", "Check the path.")
    return _read_parquet(path, path.stem if path.is_file() else path.name, split, image, label)


@datasets.register("hub")
def hub(split: str, *, path: str, config: str | None = None, image: str | None = None, label: str | None = None) -> Source:
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
    return _source(table, path.split("/")[-1], split, image, label)


@datasets.register("cifar10")
def cifar10(split: str, *, path: Path | None = None) -> Source:
    """CIFAR-10 from a local folder ($DISTILLSCOPE_DATA/cifar10/{train,test}.parquet), else from the Hub."""
    root = path or (Path(os.environ["DISTILLSCOPE_DATA"]) / "cifar10" if os.environ.get("DISTILLSCOPE_DATA") else None)
    if root is None:
        return hub(split, path="uoft-cs/cifar10")
    if not Path(root).is_dir():
        raise UserError("data cifar10", f"a folder {root}", "no such folder",
                        "Set DISTILLSCOPE_DATA to the folder that holds cifar10/, or unset it to use the Hub.")
    return _read_parquet(Path(root), "cifar10", split, None, None, CIFAR10_CLASSES)


@datasets.register("cifar100")
def cifar100(split: str, *, path: Path | None = None) -> Source:
    """CIFAR-100 (fine labels) from a local folder in the Hub's layout, else from the Hub."""
    if path is not None:
        return _read_parquet(Path(path), "cifar100", split, None, "fine_label")
    return hub(split, path="uoft-cs/cifar100", label="fine_label")
