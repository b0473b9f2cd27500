"""A set of embeddings in several files, in the order of their numbers: part-0.parquet, ..., or clip-retrieval's layout."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from distillscope.errors import UserError
from distillscope.files.folders import expect_all
from distillscope.files.json_reader import read_json
from distillscope.inputs.choosing import Asked, Embeddings, from_contents
from distillscope.inputs.formats import EMBEDDINGS, read_contents, suffix_of
from distillscope.inputs.members import Contents, Kept, Member, readable
from distillscope.measure.rows import Stored
from distillscope.naming import embedding_rank, id_rank, label_rank

PART_WORDS = (r"(part|parts|shard|chunk|batch|block|piece|split|rank|worker|file|data|dataset|output|out|result|emb|embs|"
              r"embedding|embeddings|feat|feats|feature|features|vec|vecs|vector|vectors|img|image|images|x|z)")


MANIFEST = "embeddings.json"
"""In a folder that `embed` fills: what it is of and by, and how many files it has."""
MADE_BY = b"embedded_by"
"""In the schema of each of its tables: a mark of the model."""


def find_parts(folder: Path, split: str, where: str) -> list[Path]:
    """The parts that a folder consists of, in the order of their numbers; [] where its files are not parts of one thing.

    Files of one format whose names differ in numbers alone: the first number that varies counts from 0 or 1 without a gap.
    Several such sets in a folder are chosen between by ``split``.
    """
    sets: dict[tuple[str, str], list[Path]] = {}
    for file in folder.glob("*"):
        suffix = suffix_of(file)
        if file.is_file() and suffix in EMBEDDINGS and not file.name.startswith((".", "_")):
            stem = file.name[: -len(suffix)] if file.name.lower().endswith(suffix) else file.stem
            head = re.match(r"(\D*)\d", stem)
            if head:
                sets.setdefault((head[1], suffix), []).append(file)
    if len(sets) > 1:
        mine = {key: files for key, files in sets.items() if re.split(r"[\W_]", key[0].lower())[0] == split}
        sets = mine or {key: files for key, files in sets.items() if _words_fit(key[0], split) and not _is_label(key[0])}
    if len(sets) > 1:
        raise UserError(where, "one set of parts", " and ".join(sorted(f"{head}*{suffix}" for head, suffix in sets)),
                        "Put each into a folder of its own.")
    for (stem_head, _), files in sets.items():
        if _words_fit(stem_head, split):
            return _in_order(files, where)
    return []


def _is_label(head: str) -> bool:
    return bool(re.search(r"label|target|id|meta|caption|text", head.lower()))


def _words_fit(head: str, split: str) -> bool:
    """Whether the name before the number says that these are parts of one thing."""
    words = [w for w in re.split(r"[\W_]+", head.lower()) if w]
    return all(re.fullmatch(PART_WORDS, w) or w in (split, "train", "test", "val", "validation") for w in words)


def _in_order(files: list[Path], where: str) -> list[Path]:
    numbers = {f: [int(n) for n in re.findall(r"\d+", f.name)] for f in files}
    ordered = sorted(files, key=lambda f: (numbers[f], f.name))
    expect_all([f.name for f in files], where, "Restore those that are missing, or name the one file that is meant.")
    if len(files) > 1:
        short = min(map(len, numbers.values()))
        column = next((i for i in range(short) if len({n[i] for n in numbers.values()}) > 1), None)
        found = sorted(n[column] for n in numbers.values()) if column is not None else []
        start = found[0] if found else 0
        if start not in (0, 1) or found != list(range(start, start + len(found))):
            missing = next((i for i in range(min(start, 1), (found or [0])[-1]) if i not in found), None)
            raise UserError(where, f"parts numbered from 0 or 1 without a gap (here {ordered[0].name} to {ordered[-1].name})",
                            f"no number {missing}" if missing is not None else "numbers that repeat",
                            "Restore the part, or name the one file that is meant.")
    return ordered


def read_parts(files: Sequence[Path], where: str, name: str, asked: Asked) -> Embeddings:
    """The parts, one under another, never joined in memory."""
    held = []
    for file in files:
        with readable(f"{where}/{file.name}", "embeddings that can be read"):
            held.append(read_contents(file, f"{where}/{file.name}"))
    with readable(where, "embeddings that can be read"):
        return from_contents(under_one_another(held, [f.name for f in files], where), asked, where, name, name)


def under_one_another(parts: Sequence[Contents], names: Sequence[str], where: str) -> Contents:
    """One Contents of several: what all parts have, joined when it is loaded. So it is decided once what is what.

    An array of ids or labels that some parts lack is an error, other ones are named.
    """
    if len(parts) == 1:
        return parts[0]
    if all(part.by_item is not None for part in parts):
        by_item = under_one_another([part.by_item for part in parts if part.by_item is not None], names, where)
        return replace(under_one_another([replace(p, by_item=None) for p in parts], names, where), by_item=by_item)
    by_name = [{m.name: m for m in part.members} for part in parts]
    every = dict.fromkeys(n for held in by_name for n in held)
    common = [n for n in every if all(n in held for held in by_name)]
    lacking = [n for n in every if n not in common and not all(held[n].implied for held in by_name if n in held)]
    wrong = next((n for n in lacking if any(rank(n) is not None for rank in (id_rank, label_rank, embedding_rank))), None)
    if wrong is not None:
        without = next(name for name, held in zip(names, by_name, strict=True) if wrong not in held)
        raise UserError(f"{where} {without}", f"'{wrong}' as in the other parts", "none", "Write all parts alike.")
    _expect_aligned([[held[n] for n in common] for held in by_name], names, where)
    remarks = [f"{len(parts):,} parts, {names[0]} to {names[-1]}"]
    if lacking:
        remarks.append(f"not in every part, and not used: {', '.join(lacking[:4])}")
    members = [m for n in common if (m := _under([held[n] for held in by_name], names, where)) is not None]
    joins = [part.join for part in parts if part.join is not None]

    def join(columns: Sequence[str]) -> Stored:
        return Stored([p for j in joins for p in _arrays(j(columns))])

    remarks = [*(r for part in parts for r in part.remarks), *remarks]
    return Contents(members, join if len(joins) == len(parts) else None, tuple(dict.fromkeys(remarks)))


def _expect_aligned(parts: Sequence[Sequence[Member]], names: Sequence[str], where: str) -> None:
    """A list that is as long as an array over all parts is as long in each: else rows of one stand beside those of another."""
    columns = [list(same) for same in zip(*parts, strict=True)]
    lists = [same for same in columns if all(m.count is not None for m in same)]
    for tables in (same for same in columns if all(m.table is not None for m in same)):
        rows = [m.items for m in tables]
        for same in lists:
            counts = [m.count or 0 for m in same]
            wrong = next((i for i, (count, many) in enumerate(zip(counts, rows, strict=True)) if count != many), None)
            if wrong is not None and sum(counts) == sum(rows):
                raise UserError(f"{where} {names[wrong]}", f"{rows[wrong]} of '{same[0].name}', one per row",
                                str(counts[wrong]), "Write one for each row.")


def _under(same: Sequence[Member], names: Sequence[str], where: str) -> Member | None:
    """One array of several; None where they do not fit under one another."""
    first, kinds = same[0], {m.kind for m in same}
    kind = kinds.pop() if len(kinds) == 1 else "U" if "U" in kinds else "f" if kinds == {"f", "i"} else "O"
    counts = [m.count for m in same if m.count is not None]
    if len(counts) == len(same):
        return replace(first, shape=(sum(counts),), kind=kind, load=lambda: _lists([np.asanyarray(m.load()) for m in same]))
    if any(m.table is None for m in same):
        return None
    widths = [m.dims for m in same]
    odd = next((i for i, w in enumerate(widths) if w != widths[0] and None not in (w, widths[0])), None)
    if odd is not None:
        raise UserError(f"{where} {names[odd]}", f"{widths[0]} dimensions like {names[0]}", str(widths[odd]),
                        "Put embeddings of one model into one folder.")

    def load() -> Stored | Kept:
        found: list[np.ndarray] = []
        numbers: list[np.ndarray] = []
        start = 0
        for member, name in zip(same, names, strict=True):
            part = member.load()
            part = part if isinstance(part, Kept) else Kept(part, np.arange(len(part)), len(part))
            for array in _arrays(part.rows, member.table):
                if found and array.shape[1] != found[0].shape[1]:
                    raise UserError(f"{where} {name}", f"{found[0].shape[1]} dimensions like {names[0]}", str(array.shape[1]),
                                    "Put embeddings of one model into one folder.")
                found.append(array)
            numbers.append(start + part.kept)
            start += part.total
        kept = np.concatenate(numbers)
        return Stored(found) if len(kept) == start else Kept(Stored(found), kept, start)

    return replace(first, shape=(sum(m.items for m in same), widths[0]), kind=kind, load=load)


def _arrays(rows: np.ndarray | Stored, table: tuple[int, int | None] | None = None) -> list[np.ndarray]:
    """What a `Stored` is made from, without what is empty."""
    if isinstance(rows, Stored):
        return [p for p in (rows.parts if rows.chosen is None else [rows[:]]) if len(p)]
    return [rows.reshape(table) if table is not None and rows.ndim > 2 else rows]


def _lists(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Lists one after another; numbers beside texts become texts."""
    if len({p.dtype.kind in "UO" for p in parts}) == 2:
        parts = [p if p.dtype.kind in "UO" else np.array([str(v) for v in p.tolist()], object) for p in parts]
    if any(isinstance(p, np.ma.MaskedArray) for p in parts):
        return np.ma.concatenate(parts)
    return np.concatenate([p.reshape(-1) for p in parts])


def read_shards(path: Path, where: str, asked: Asked = Asked()) -> Embeddings:
    """The shards in the order of their numbers, never joined in memory; a number may be padded with zeros on one side alone."""
    files = sorted(((_number(f), f) for f in (path / "img_emb").glob("*.npy") if not f.name.startswith(".")),
                   key=lambda item: (item[0], item[1].name))
    if not files:
        raise UserError(where, "shards img_emb/*.npy", "none", "Check that the embedding was finished.")
    for (n, first), (m, second) in zip(files, files[1:], strict=False):
        if n == m:
            raise UserError(f"{where} {second.name}", "one shard of each number", f"{first.name} too",
                            "Remove the one that is older.")
    tables = _tables(path, where)
    _check_whole(path, where, tables, files[-1])
    without = [f.name for n, f in files if n not in tables]
    if without and len(without) < len(files):
        raise UserError(where, "metadata for every shard", f"none for {without[0]}",
                        "Restore metadata/, or remove it whole to go by order.")
    parts = []
    for number, file in files:
        with readable(f"{where} {file.name}", "embeddings that can be read"):
            held = read_contents(file, f"{where} {file.name}")
            parts.append(_beside(held, tables[number], where, asked) if number in tables else held)
    with readable(where, "embeddings that can be read"):
        found = from_contents(under_one_another(parts, [f.name for _, f in files], where), asked, where, path.name, path.name)
    return found.read_as(embedding="img_emb/")


def _check_whole(path: Path, where: str, tables: dict[int, Path], last: tuple[int, Path]) -> None:
    """What `embed` wrote in parts must be all there, nothing else with it, and by one model; ``last`` is the highest number."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if (path / MANIFEST).is_file():
        count = read_json(path / MANIFEST).get("files")
        missing = [i for i in range(count if isinstance(count, int) else 0) if i not in tables]
        if missing:
            raise UserError(where, f"{count} files, as {MANIFEST} says", f"{len(missing)} missing, first metadata_{missing[0]}",
                            "Repeat its `distillscope embed ... --resume`, with each part that is missing.")
        if isinstance(count, int) and last[0] >= count:
            raise UserError(where, f"{count} files, as {MANIFEST} says", f"{last[1].name} too", "Remove it.")
    made_by: dict[bytes, Path] = {}
    for table in tables.values():
        if table.suffix == ".parquet":
            with contextlib.suppress(OSError, pa.ArrowException):  # a damaged one is named when it is read
                if mark := (pq.read_schema(table).metadata or {}).get(MADE_BY):
                    made_by.setdefault(mark, table)
    if len(made_by) > 1:
        first, second, *_ = made_by.values()
        raise UserError(f"{where} {second.name}", f"embeddings by one model, as in {first.name}", "those of another",
                        "Put each model's files into a folder of its own.")


def _number(file: Path) -> int:
    """The number at the end of a name; -1 where there is none."""
    number = re.search(r"(\d+)$", file.stem)
    return int(number[1]) if number else -1


def _tables(path: Path, where: str) -> dict[int, Path]:
    """Number -> its table of metadata."""
    found: dict[int, Path] = {}
    for file in sorted((path / "metadata").glob("*")):
        if suffix_of(file) in (".parquet", ".csv", ".jsonl", ".feather", ".arrow") and not file.name.startswith("."):
            number = _number(file)
            if number in found:
                raise UserError(f"{where} {file.name}", "one table of each number", f"{found[number].name} too",
                                "Remove the one that is older.")
            found[number] = file
    if 0 in found and -1 not in found:  # a lone img_emb.npy beside metadata_0
        found[-1] = found[0]
    return found


def _beside(held: Contents, table: Path, where: str, asked: Asked) -> Contents:
    """The shard's array with the columns of its table, which must be as long."""
    name = f"{where} {table.name}"
    columns = [m for m in read_contents(table, name).members if m.count is not None and not m.columns and not m.implied]
    rows = held.members[0].shape[0] if held.members[0].shape else 0
    wrong = next((m for m in columns if m.count != rows), None)
    if wrong is not None:
        raise UserError(name, f"{rows} ids", str(wrong.count), "Write one for each row.")

    def within(member: Member) -> Member:
        def load():
            with readable(name, "metadata that can be read"):
                return member.load()

        return replace(member, load=load, kind="O" if member.kind == "f" and member.name != asked.ids else member.kind)

    return Contents([*held.members, *map(within, columns)], remarks=held.remarks)
