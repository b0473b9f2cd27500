"""Folders of embeddings: clip-retrieval's layout (our cache's and a trial's too), and one file or folder for each split.

::

    FOLDER/img_emb/img_emb_0.npy ...    with metadata/metadata_0.parquet ...: ids and labels
    FOLDER/{split}.npy                  or any other format; ids in the file, or in {split}_ids.txt, one a line
    FOLDER/{split}/img_emb/ ...
    FOLDER/embeddings_test/img_emb/ ... a trial or reference of a run
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from distillscope.errors import UserError
from distillscope.inputs.formats import EMBEDDINGS, read_members
from distillscope.inputs.members import IDS, LABELS, Embeddings, called, from_members, plain_labels, readable, strings
from distillscope.measure.rows import Stored


def read_folder(path: Path, split: str, where: str) -> Embeddings:
    """The embeddings of a folder; ``split`` picks among several."""
    name = f"{where} {path}"
    if path.name == "img_emb" and not (path / "img_emb").is_dir():
        path = path.parent
    if (path / "img_emb").is_dir():
        return read_shards(path, name)
    files = split_files(path, split)
    if len(files) > 1:
        raise UserError(name, f"one file for split '{split}'", ", ".join(f.name for f in files), "Name the one that is meant.")
    if files:
        return _read_split(files[0], name)
    if (path / split / "img_emb").is_dir():
        return read_shards(path / split, name)
    if (path / "embeddings_test" / "img_emb").is_dir():
        if split != "test":
            raise UserError(name, "split test, the only one that a trial keeps", f"'{split}'",
                            "Embed it with `distillscope embed --student`, and name that folder.")
        return replace(read_shards(path / "embeddings_test", name), name=path.name)
    raise _nothing(path, split, name)


def split_files(path: Path, split: str) -> list[Path]:
    """Files FOLDER/{split}.SUFFIX of a known format."""
    return [f for f in (path / f"{split}{suffix}" for suffix in EMBEDDINGS) if f.is_file()]


def _read_split(file: Path, where: str) -> Embeddings:
    with readable(where, "embeddings that can be read"):
        found = from_members(read_members(file, f"{where}/{file.name}"), None, f"{where}/{file.name}",
                             f"{file.parent.name}/{file.stem}")
        listed = file.with_name(f"{file.stem}_ids.txt")
        if listed.is_file():
            found = replace(found, ids=strings(listed.read_text(encoding="utf-8").splitlines(), str(listed)))
    _same_count(found.ids, len(found), str(listed))
    return found


def _same_count(ids: np.ndarray | None, count: int, where: str) -> None:
    if ids is not None and len(ids) != count:
        raise UserError(where, f"{count} ids", str(len(ids)), "Write one id for each row.")


def read_shards(path: Path, where: str) -> Embeddings:
    """clip-retrieval's layout: the shards in the order of their numbers, never joined in memory."""
    files = sorted((path / "img_emb").glob("*.npy"), key=_order)
    if not files:
        raise UserError(where, "shards img_emb/*.npy", "none", "Check that the embedding was finished.")
    parts, metadata = [], [_metadata(path, f) for f in files]
    if len({m is None for m in metadata}) == 2:
        raise UserError(where, "metadata for every shard", f"none for {files[metadata.index(None)].name}",
                        "Restore metadata/, or remove it whole to go by order.")
    for file in files:
        with readable(f"{where} {file.name}", "embeddings that can be read"):
            parts.append(from_members(read_members(file, f"{where} {file.name}"), None, f"{where} {file.name}", "").rows)
    odd = next((i for i, p in enumerate(parts) if p.shape[1] != parts[0].shape[1]), None)
    if odd is not None:
        raise UserError(f"{where} {files[odd].name}", f"{parts[0].shape[1]} dimensions like {files[0].name}",
                        str(parts[odd].shape[1]), "Put embeddings of one model into one folder.")
    tables = [_id_and_label(m, len(p), where) for m, p in zip(metadata, parts, strict=True) if m is not None]
    ids, labels = ([t[i] for t in tables] for i in (0, 1))
    return Embeddings(
        parts[0] if len(parts) == 1 else Stored(parts),
        np.concatenate(ids) if ids and all(i is not None for i in ids) else None,
        np.concatenate(labels) if labels and all(i is not None for i in labels) else None, path.name)


def _order(file: Path) -> tuple[int, str]:
    number = re.search(r"(\d+)$", file.stem)
    return (int(number[1]) if number else -1, file.name)


def _metadata(path: Path, shard: Path) -> Path | None:
    number = re.search(r"(\d+)$", shard.stem)
    file = path / "metadata" / f"metadata_{number[1] if number else 0}.parquet"
    return file if file.is_file() else None


def _id_and_label(file: Path, count: int, where: str) -> tuple[np.ndarray | None, np.ndarray | None]:
    name = f"{where} {file.name}"
    with readable(name, "metadata that can be read"):
        members = read_members(file, name)
        ids, labels = called(members, IDS), called(members, LABELS)
        ids = None if ids is None else strings(ids.load(), name)
        labels = None if labels is None else plain_labels(labels.load(), name)
    for what, values in (("ids", ids), ("labels", labels)):
        if values is not None and len(values) != count:
            raise UserError(name, f"{count} {what}", str(len(values)), "Write one for each row.")
    return ids, labels


def _nothing(path: Path, split: str, where: str) -> UserError:
    """What the folder holds instead, and what to name."""
    if (path / "study.yaml").is_file():
        parts = [str(p.parent.relative_to(path)) for kind in ("references", "trials")
                 for p in sorted(path.glob(f"{kind}/*/embeddings_test"))]
        return UserError(where, "one set of embeddings", "a whole run",
                         f"Name one of its parts: {_listed(parts)}." if parts else "It has no finished trial yet.")
    near = sorted(str(f.relative_to(path)) for f in path.glob("*") if f.suffix.lower() in EMBEDDINGS)
    near += sorted(str(f.parent.relative_to(path)) for f in path.glob("*/img_emb"))
    return UserError(where, f"embeddings: img_emb/*.npy, {split}.npy or {split}/img_emb/", "none of them",
                     f"Name one of: {_listed(near)}." if near else "Name the file or folder that holds them.")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
