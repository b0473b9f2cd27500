"""clip-retrieval's layout, which our cache and trials have too: img_emb/img_emb_N.npy with metadata/metadata_N.parquet."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from distillscope.errors import UserError
from distillscope.inputs.choosing import Asked, Embeddings, from_contents
from distillscope.inputs.formats import read_contents, suffix_of
from distillscope.inputs.members import Contents, Member, readable
from distillscope.inputs.numbered_files import under_one_another


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
    columns = [m for m in read_contents(table, name).members if m.count is not None and not m.columns]
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
