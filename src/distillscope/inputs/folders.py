"""Folders of embeddings: shards, one file or folder for each split, parts, and what `datasets` saves.

::

    FOLDER/img_emb/img_emb_0.npy ...    clip-retrieval's, our cache's and a trial's; ids and labels in
                                        metadata/metadata_0.parquet ...
    FOLDER/{split}.npy                  or any other format; ids in the file, or in {split}_ids.txt, one a line
    FOLDER/{split}/img_emb/ ...
    FOLDER/embeddings_test/img_emb/ ... a trial or reference of a run
    FOLDER/state.json, data-*.arrow     Dataset.save_to_disk; with dataset_dict.json, a folder of it for each split
    FOLDER/part-0.parquet ...           parts in the order of their numbers
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from distillscope.errors import UserError
from distillscope.files.archives import refuse_archive
from distillscope.inputs.arrow import read_saved
from distillscope.inputs.choosing import Asked, Embeddings, from_contents
from distillscope.inputs.formats import EMBEDDINGS, read_contents, suffix_of
from distillscope.inputs.members import readable, strings
from distillscope.inputs.numbered_files import find_parts, read_parts, read_shards
from distillscope.inputs.tables import read_txt


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
        listed = file.with_name(f"{stem}_ids.txt")
        if listed.is_file():
            ids = strings(read_txt(listed, str(listed)).members[0].load(), str(listed))
            if len(ids) != len(found):
                raise UserError(str(listed), f"{len(found)} ids", str(len(ids)), "Write one id for each row.")
            found = replace(found, ids=ids, spare=()).read_as(ids=listed.name)
    return found


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
