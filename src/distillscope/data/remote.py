"""Images at a URL, read shard by shard: WebDataset, parquet, or image files, by what is there."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distillscope.data.classes import (
    LABELS,
    SURE_LABELS,
    Labels,
    class_labels,
    columns_said,
    label_columns,
    need_column,
    numbered,
    read_labels,
)
from distillscope.data.decode import Decoding, MinSide, is_image, other_kinds, passed_over
from distillscope.data.hub import IMAGE_COLUMNS, are_texts, cell_bytes, class_names_of, is_parquet_of, no_labels
from distillscope.data.source import MissingSplit, Source, data_option, encoded_source, near_splits
from distillscope.data.webdataset import no_shards, read_split, split_of
from distillscope.errors import UserError
from distillscope.files.folders import expect_all, gaps_said
from distillscope.files.remote import RemoteFile, fetch_folder, listed, opened
from distillscope.registry import datasets


@datasets.register("remote")
def remote(split: str, *, path: str, image: str | None = None, label: str | None = None, background: str = "white",
           exif: bool = True, min_side: MinSide = None) -> Source:
    """Images at a URL (s3://, gs://, hf://, https://, ...): WebDataset shards, parquet, or image files.

    What is there is laid out as it would be in a folder: {split}*.tar or {split}/*.tar; {split}*.parquet or
    data/{split}*.parquet; {split}/CLASS/x.jpg, {split}/x.jpg or x.jpg. One shard may be named alone, or several as {0000..0099}
    where the store does not list. Shards are fetched whole, into a folder of the cache that is gone when the command ends.
    """
    found = found_at(path, split)
    decoding = Decoding(background, exif, min_side)
    fetch_folder()  # of this process, before there are workers
    if found.kind == "tar":
        return read_split(split, found.name, found.files, found.rest, path, image, label, decoding, unsplit=found.unsplit)
    if found.kind == "parquet":
        return _parquet(found, split, path, image, label, decoding)
    return _images(found, split, path, label, decoding)


class Found(NamedTuple):
    """What a URL holds of one split: files of one ``kind`` (tar, parquet, image), and the other splits' in ``rest``."""

    kind: str
    name: str
    files: list[RemoteFile]
    rest: list[RemoteFile]
    inner: dict[str, str]
    """Of every file its place below the URL, or below the split's folder."""
    unsplit: bool
    note: str = ""


def found_at(url: str, split: str) -> Found:
    """The split's files; what is not there is said, with the splits that are."""
    there = {name: file for name, file in listed(url).items() if not passed_over(name)}
    if not there:
        raise UserError(f"data {url}", "files", "none", "Check the URL.")
    name = re.split(r"[?{]", url.rstrip("/"))[0].rpartition("/")[2] or "remote"
    kind = next((k for k in ("parquet", "tar") if any(n.lower().endswith(f".{k}") for n in there)), "image")
    mine = {n: f for n, f in there.items() if (is_image(n) if kind == "image" else n.lower().endswith(f".{kind}"))}
    note = other_kinds(Path(n) for n in there if n not in mine)
    alone = len(there) == 1 and next(iter(there.values())).url == url
    if alone or re.search(r"\{\d+\.\.\d+\}", url):
        stem = next(iter(mine.values())).stem if len(mine) == 1 else name
        return Found(kind, stem, list(mine.values()), [], {f.url: n for n, f in mine.items()}, True, note)
    if kind == "image" and not any("/" in n for n in mine) and mine:
        note = "; ".join(n for n in ("a flat folder: every image whatever the split, without labels", note) if n)
        return Found(kind, name, list(mine.values()), [], {f.url: n for n, f in mine.items()}, True, note)
    chosen = {n: f for n, f in mine.items() if _of_split(n, split, kind)}
    if kind != "image":
        expect_all(list(chosen), f"data {url}, split {split}",
                   "Upload those that are missing, or name the one file that is meant.")
    if not chosen:
        splits = sorted({n.removeprefix("data/").split("/")[0] if "/" in n.removeprefix("data/")
                         else re.split(r"[-_.{]?\d|\.", n.removeprefix("data/"))[0] for n in mine})
        if kind == "tar":
            raise no_shards(url, split, splits)
        expected = f"{split}.parquet, {split}-*.parquet or {split}/" if kind == "parquet" else f"{split}/"
        got = f"files of {', '.join(splits[:6])}" if splits else f"no images ({note})"
        raise MissingSplit(f"data {url}", expected, got, split, near_splits(split, splits) or splits[:4])
    rest = [f for n, f in mine.items() if n not in chosen]
    gaps = gaps_said([f.name for f in chosen.values()]) if kind == "parquet" else ""
    note = "; ".join(n for n in (gaps, note) if n)
    return Found(kind, name, list(chosen.values()), rest, {f.url: n for n, f in mine.items()}, False, note)


def _of_split(name: str, split: str, kind: str) -> bool:
    name = name.removeprefix("data/") if kind == "parquet" else name
    if name.startswith(f"{split}/"):
        return True
    if kind == "tar":
        return split_of(name) == split
    return kind == "parquet" and "/" not in name and is_parquet_of(name, split)


def shards_at(url: str, split: str) -> list[RemoteFile] | None:
    """The shards that the split consists of; None where it lies there as single images."""
    found = found_at(url, split)
    return None if found.kind == "image" else found.files


def _images(found: Found, split: str, given: str, label: str | None, decoding: Decoding) -> Source:
    """Files in class folders, or without."""
    files = found.files
    inner = [found.inner[f.url] if found.unsplit else found.inner[f.url].removeprefix(f"{split}/") for f in files]
    folders = sorted({n.split("/")[0] for n in inner if "/" in n})
    labels, classes = None, None
    if folders and label != "none":
        if loose := next((n for n in inner if "/" not in n), None):
            raise UserError(f"data {given}", "either one folder per class or images without folders",
                            f"both (first loose: {loose})",
                            f"Take them all without labels: {data_option(given, label='none')}.")
        others = [n.split("/") for f in found.rest if len((n := found.inner[f.url]).split("/")) > 2]
        by_split: dict[str, set[str]] = {}
        for parts in others:
            by_split.setdefault(parts[0], set()).add(parts[1])
        shared = set(folders)
        while grown := [o for o in by_split.values() if o & shared and not o <= shared]:
            shared = shared.union(*grown)
        classes = tuple(sorted(shared))
        labels = numbered([n.split("/")[0] for n in inner], classes)
    ids = np.array([n if found.unsplit else f"{split}/{n}" for n in inner])
    return encoded_source(found.name, split, ids, lambda i: files[i].read(), decoding, labels=labels, class_names=classes,
                          note=found.note, unsplit=found.unsplit,
                          file_state=lambda i: files[i].state)


def _parquet(found: Found, split: str, given: str, image: str | None, label: str | None, decoding: Decoding) -> Source:
    """Rows of parquet files: only their ends and the labels are read before the images are."""
    heads = [_Head.of(file) for file in found.files]
    where, columns = f"{found.name}/{split}", heads[0].schema.names
    image = need_column(columns, image, IMAGE_COLUMNS, "image", where, given)
    _feature(heads, image)
    others = [c for c in columns if c != image]
    sure = [label or "", *(c for c in others if c.casefold() in SURE_LABELS)]
    label, labelled, left = read_labels(
        label_columns(columns if label else others, label, LABELS, where, given), sure,
        lambda column: _labels(found, heads, column, column in sure, f"{where} column {column}", given),
        lambda column: _values([*heads, *map(_Head.of, found.rest)], column))
    labels, classes = labelled or (None, None)
    starts = np.cumsum([0] + [head.rows for head in heads])
    ids = np.array([f"{split}/{head.file.stem}/{row:06d}" for head in heads for row in range(head.rows)])
    inside = fetch_folder()

    def read(index: int) -> bytes:
        number = int(np.searchsorted(starts, index, side="right")) - 1
        head, row = heads[number], index - int(starts[number])
        group = int(np.searchsorted(head.groups, row, side="right")) - 1
        return cell_bytes(_row_group(head.file, group, image)[row - head.groups[group]].as_py(), inside)

    note = "; ".join(part for part in (found.note, columns_said(columns, image, label, left)) if part)
    return encoded_source(found.name, split, ids, read, decoding, labels=labels, class_names=classes, note=note,
                          unsplit=found.unsplit)


def _feature(heads: list[_Head], column: str) -> Any:
    """What a column holds, which all files must say alike."""
    import datasets as hf

    kinds = [hf.Features.from_arrow_schema(h.schema).get(column) for h in heads]
    named = [getattr(kind, "names", None) for kind in kinds]  # of a ClassLabel
    if odd := next((h for h, kind, own in zip(heads, kinds, named, strict=True) if kind is None or own != named[0]), None):
        raise UserError(str(odd.file), f"a column {column} as in {heads[0].file.name}",
                        "other classes" if column in odd.schema.names else "none", "Write all files alike.")
    return kinds[0]


def _labels(found: Found, heads: list[_Head], column: str, sure: bool, where: str, given: str) -> Labels:
    """Whole numbers as they are, and true and false where they are ``sure`` to be labels; texts as classes by name over the
    other splits too."""
    feature = _feature(heads, column)
    texts, values = are_texts(feature, where, given, r"u?int\d+|bool" if sure else r"u?int\d+"), _values(heads, column)
    if texts:
        more = [v for v in _values([_Head.of(file) for file in found.rest], column) if isinstance(v, (str, type(None)))]
        return class_labels([v or "" for v in values], [v or "" for v in (*values, *more)], where, given)
    if gaps := sum(v is None for v in values):
        raise no_labels(f"{gaps} of {len(values)} without", where, given)
    if not all(isinstance(v, int) for v in values):
        raise no_labels("other values", where, given)
    return np.array(values, np.int64), class_names_of(feature)


def _values(heads: Iterable[_Head], column: str) -> list[Any]:
    return [value for head in heads for value in head.column(column)]


class _Head(NamedTuple):
    """What a parquet file says of itself: how many rows, which each of its groups begins with, and its columns."""

    file: RemoteFile
    rows: int
    groups: list[int]
    schema: Any

    @classmethod
    def of(cls, file: RemoteFile) -> _Head:
        found = _read(file, lambda opened: opened.metadata)
        counts = [found.row_group(i).num_rows for i in range(found.num_row_groups)]
        return cls(file, found.num_rows, np.cumsum([0, *counts])[:-1].tolist(), found.schema.to_arrow_schema())

    def column(self, name: str) -> list[Any]:
        """One column's values, read alone; none where the file has no such column."""
        if name not in self.schema.names:
            return []
        return _read(self.file, lambda opened: opened.read(columns=[name]))[name].to_pylist()


def _read(file: RemoteFile, read: Callable[[Any], Any]) -> Any:
    """What ``read`` makes of an opened parquet file, of which it asks the store for parts alone."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return file.part(lambda handle: read(pq.ParquetFile(handle)))
    except pa.ArrowException as error:
        raise _damaged(file, error) from None


@functools.lru_cache(maxsize=2)
def _row_group(file: RemoteFile, group: int, column: str) -> Any:
    """The cells of one row group, of the fetched file; the last ones stay, since their neighbours are asked for next."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with opened(file) as handle:
            return pq.ParquetFile(handle).read_row_group(group, columns=[column])[column]
    except (OSError, pa.ArrowException) as error:
        raise _damaged(file, error) from None


def _damaged(file: RemoteFile, error: Exception) -> UserError:
    return UserError(str(file), "a readable parquet file", str(error).split("\n")[0][:160], "Upload it again.")
