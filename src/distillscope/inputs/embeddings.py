"""Embeddings made by anything: read from files and folders, with what was found in them.

A folder holds shards, one file or folder for each split, parts, or what `datasets` saves::

    FOLDER/img_emb/img_emb_0.npy ...    clip-retrieval's, our cache's and a trial's; ids and labels in
                                        metadata/metadata_0.parquet ...
    FOLDER/{split}.npy                  or any other format; ids and labels in it, or in {split}_ids.txt, {split}_labels.npy
    FOLDER/{split}/img_emb/ ...
    FOLDER/embeddings_test/img_emb/ ... a trial or reference of a run
    FOLDER/state.json, data-*.arrow     Dataset.save_to_disk; with dataset_dict.json, a folder of it for each split
    FOLDER/part-0.parquet ...           parts in the order of their numbers
"""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path

import numpy as np

from distillscope import registry
from distillscope.errors import UserError
from distillscope.files.folders import refuse_archive
from distillscope.files.remote import is_url, local_copy
from distillscope.inputs.arrow import read_saved
from distillscope.inputs.choosing import Asked, Embeddings, from_contents
from distillscope.inputs.formats import EMBEDDINGS, parse_spec, read_contents, suffix_of
from distillscope.inputs.labels import read_labels
from distillscope.inputs.members import readable
from distillscope.inputs.numbered_files import find_parts, read_parts, read_shards
from distillscope.inputs.pairing import align, positions
from distillscope.inputs.side_files import with_files_beside, with_ids, with_ids_asked

__all__ = ["Embeddings", "align", "positions", "read_embeddings", "read_labels", "with_ids"]


def read_embeddings(path: str | Path, *, split: str = "test", where: str = "teacher", scale: float | None = None,
                    ids_file: tuple[str, str] | None = None, labelled: bool = False,
                    items: np.ndarray | None = None) -> Embeddings:
    """Embeddings from a file or folder; docs/audit.md lists the formats.

    ``path`` may name one array, or columns, of a file, and the column of its ids: ``FILE.npz:key``, ``FILE.csv@name``,
    ``FILE.csv:e0..e47@name``. ``split`` picks among the splits of a folder that has several. Whole numbers are divided by
    ``scale``, and refused without one. ``where`` begins the error messages; an option's name tells that --scale is one too.
    What lies at a URL is copied for as long as the program runs. ``ids_file``, an option and the file that it names,
    gives the rows their ids. ``labelled`` says that the caller has labels from elsewhere, and ``items`` (n,) are the names of
    the items that it wants rows of, without any labels: files beside a split that it does not need then stop nothing.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "teacher.npy"
    >>> np.save(file, np.eye(3, dtype=np.float16))
    >>> read_embeddings(file).rows.shape
    (3, 3)
    """
    if is_url(path):
        path = local_copy(str(path))
    spec = parse_spec(path)
    file, name = spec.path, f"{where} {path}"
    if not file.exists():
        close = difflib.get_close_matches(str(path), registry.teachers, n=1)
        refuse_archive(file, name)
        raise UserError(name, "a file or folder that exists", "none",
                        (f"Did you mean the model '{close[0]}'?" if close else "Check the path.")
                        + " A model is named timm/MODEL, open_clip/MODEL:WEIGHTS, hf-hub:OWNER/STUDENT or by its file.")
    if scale is not None and not (np.isfinite(scale) and scale > 0):
        raise UserError("--scale", "a number above 0", f"{scale:g}", "For instance --scale 127.")
    asked = Asked(spec.key, spec.ids, scale, where.startswith("--"), ids_file, labelled, items)
    given = where, f"{file}:{spec.key}" if spec.key else str(file)
    if file.is_dir():
        found = read_folder(file, split, where, asked)
        return replace(found if split_files(file, split) else with_ids_asked(found, asked), given=given)
    with readable(name, "embeddings that can be read"):
        title = f"{file.name}:{spec.key}" if spec.key else file.name.removesuffix(suffix_of(file)) or file.name
        found = from_contents(read_contents(file, name, (*EMBEDDINGS, ".txt")), asked, name, title, file.name)
    return replace(with_ids_asked(found, asked), given=given)


def read_folder(path: Path, split: str, where: str, asked: Asked = Asked()) -> Embeddings:
    """The embeddings of a folder; ``split`` picks among several."""
    name = f"{where} {path}"
    if path.name == "img_emb" and not (path / "img_emb").is_dir():
        path = path.parent
    if (path / "img_emb").is_dir():
        return read_shards(path, name, asked)
    files = split_files(path, split)
    if len(files) > 1:
        raise UserError(name, f"one file for split '{split}'", ", ".join(f.name for f in files), "Name the one that is meant.")
    if files:
        return _read_split(files[0], name, asked)
    if (path / split / "img_emb").is_dir():
        return read_shards(path / split, name, asked)
    if (path / "embeddings_test" / "img_emb").is_dir():
        if split != "test":
            raise UserError(name, "split test, the only one that a trial keeps", f"'{split}'",
                            "Embed it with `distillscope embed --student`, and name that folder.")
        return replace(read_shards(path / "embeddings_test", name, asked), name=path.name)
    if (path / "state.json").is_file():
        with readable(name, "a folder that save_to_disk wrote"):
            return from_contents(read_saved(path, name), asked, name, path.name, path.name)
    if (path / split / "state.json").is_file():
        return read_folder(path / split, split, where, asked)
    parts = find_parts(path, split, name)
    if parts:
        found = read_parts(parts, name, path.name, asked)
        others = [f for f in path.glob("*") if f.is_file() and f not in parts and f.name[0] not in "._"]
        beside = sorted(f"file {f.name}" for f in others if suffix_of(f) in EMBEDDINGS)
        return found.read_as(unused=(*(found.reading.unused if found.reading else ()), *beside))
    if (path / split).is_dir():
        return read_folder(path / split, split, where, asked)
    raise _nothing(path, split, name)


def split_files(path: Path, split: str) -> list[Path]:
    """Files FOLDER/{split}.SUFFIX of a known format."""
    return [f for f in (path / f"{split}{suffix}" for suffix in EMBEDDINGS) if f.is_file()]


def _read_split(file: Path, where: str, asked: Asked) -> Embeddings:
    stem = file.name.removesuffix(suffix_of(file))
    with readable(where, "embeddings that can be read"):
        held = read_contents(file, f"{where}/{file.name}")
        folder = file.parent.name
        found = from_contents(held, asked, f"{where}/{file.name}", f"{folder}/{stem}", f"{folder}/{file.name}")
    return with_files_beside(found, file, stem, where, asked)


def _nothing(path: Path, split: str, where: str) -> UserError:
    """What the folder holds instead, and what to name."""
    if (path / "study.yaml").is_file():
        refuse_archive(path, where)
        parts = [str(p.parent.relative_to(path)) for kind in ("references", "trials")
                 for p in sorted(path.glob(f"{kind}/*/embeddings_test"))]
        return UserError(where, "one set of embeddings", "a whole run",
                         f"Name one of its parts: {_listed(parts)}." if parts else "It has no finished trial yet.")
    near = sorted(str(f.relative_to(path)) for f in path.glob("*") if suffix_of(f) in EMBEDDINGS and f.is_file())
    near += sorted(str(f.parent.relative_to(path)) for f in [*path.glob("*/img_emb"), *path.glob("*/state.json")])
    known = f"embeddings: img_emb/*.npy, {split}.npy, {split}/img_emb/ or part-0.npy, part-1.npy, ..."
    return UserError(where, known, "none of them",
                     f"Name one of: {_listed(near)}." if near else "Name the file or folder that holds them.")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
