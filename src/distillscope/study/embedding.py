"""Embeddings of a data set by a teacher or a student, written piece by piece in clip-retrieval's layout.

A piece is a WebDataset shard, or a block of up to 65,536 items; file N holds piece N, whoever makes it. So a command that was
interrupted goes on, several (`--shard i/n`) fill one folder, and the whole is the same as one command would have written::

    OUT/embeddings.json                what they are of and by, and how many files there are; written first
    OUT/img_emb/img_emb_N.npy          (n, d) float32
    OUT/metadata/metadata_N.parquet    image_path (the item's id), label; checksum, and a mark of the model. Written last
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distillscope import group, progress
from distillscope.audits.models import model_teacher
from distillscope.audits.shown import refuse_unused
from distillscope.config.resolve import named_dataset
from distillscope.data.decode import Decoding
from distillscope.data.pieces import Pieces, part_of, pieces_of
from distillscope.data.preprocess import coarse_for, reduced_for
from distillscope.data.source import Source
from distillscope.data.splits import check_options
from distillscope.errors import UserError
from distillscope.files.folders import is_filled
from distillscope.files.json_reader import read_json
from distillscope.files.remote import RemoteFile, fetch_folder, is_url, listed, put
from distillscope.files.writing import checksum, sweep, write_atomic, write_json
from distillscope.inputs.numbered_files import MADE_BY, MANIFEST
from distillscope.students.load import load_student
from distillscope.teachers import cache
from distillscope.teachers.encoder import TeacherRows, load_teacher
from distillscope.teachers.one_pass import OnePass


@dataclass
class EmbeddingFiles:
    """The folder that is filled: ``out``, or a local one for what goes to that URL.

    What is there already is asked once, when this is made; ``files`` is how many files there are to be, None where nothing was
    begun. A folder with anything else in it is refused, and one that was begun too, unless it is ``going_on``.
    """

    out: Path | str
    going_on: bool

    def __post_init__(self) -> None:
        self.there: dict[str, RemoteFile] = {}
        if isinstance(self.out, Path):
            self.folder, filled = self.out, is_filled(self.out) or self.out.is_file()
        else:
            self.there = listed(self.out, may_be_absent=True)
            self.folder, filled = fetch_folder() / "out", bool(self.there)
            self._fetch(MANIFEST)
        manifest = self.folder / MANIFEST
        if filled and not manifest.is_file():
            got = "a file" if isinstance(self.out, Path) and self.out.is_file() else "one with files"
            raise UserError(f"--out {self.out}", "a new or empty folder", got, "Name another.")
        if filled and not self.going_on:
            raise UserError(f"--out {self.out}", "a new or empty folder", "one with files", "Add --resume, or name another.")
        self.begun: dict[str, Any] = read_json(manifest) if filled else {}
        self.files: int | None = int(self.begun["files"]) if filled else None

    def begin(self, described: Mapping[str, Any]) -> None:
        """Write what is made here, plain values, or compare it with what was begun."""
        sweep(self.folder)
        if not isinstance(self.out, Path) and not self.there:
            self.there = listed(self.out, may_be_absent=True)
            self._fetch(MANIFEST)
        if not (self.folder / MANIFEST).is_file():  # another part may have begun meanwhile
            write_json(self.folder / MANIFEST, dict(described))
            self._put(MANIFEST)
        self.begun = read_json(self.folder / MANIFEST)
        for key, value in described.items():
            before = self.begun.get(key, BEFORE.get(key))
            if before != json.loads(json.dumps(value)):
                as_it_was = "with min_side: whole in --data" if key in BEFORE and before == BEFORE[key] else "as it was"
                raise UserError(f"--out {self.out}, {NAMED.get(key, key)}", f"{_short(before)} as when it was begun",
                                _short(value), f"Repeat the command {as_it_was}, or name another --out.")

    def count(self, number: int) -> int | None:
        """Rows of file ``number``; None where it is absent. A damaged one, or another model's, is said and counts as absent."""
        rows, table = _names(number)
        metadata = self.folder / table
        self._fetch(table)
        if not metadata.is_file():
            return None
        try:
            found = pq.read_metadata(metadata)
            marks = found.metadata or {}
            if marks.get(MADE_BY, b"").decode() != self.begun["model_mark"]:
                raise ValueError("of another model")
            if not self._is_whole(rows, marks):
                raise ValueError("checksum differs")
        except (OSError, ValueError, pa.ArrowException) as error:
            progress.say(f"{self.out}/{rows}: damaged ({str(error).splitlines()[0][:120]}); made again")
            metadata.unlink(missing_ok=True)
            return None
        return found.num_rows

    def _is_whole(self, rows: str, marks: Mapping[bytes, bytes]) -> bool:
        """By the checksum; of a file at a URL, which is there whole or not at all, by its size."""
        if isinstance(self.out, Path):
            return marks.get(b"checksum", b"").decode() == checksum(self.folder / rows)
        return rows in self.there and self.there[rows].size == int(marks.get(b"bytes", b"-1"))

    def write(self, number: int, rows: np.ndarray, items: Source) -> None:
        """The rows, then what makes them count."""
        names = _names(number)
        embeddings, metadata = (self.folder / name for name in names)
        write_atomic(embeddings, lambda p: np.save(p, np.ascontiguousarray(rows, np.float32), allow_pickle=False))
        table = pa.table({"image_path": items.ids} | ({} if items.labels is None else {"label": items.labels}))
        marks = {"checksum": checksum(embeddings), "bytes": str(embeddings.stat().st_size),
                 MADE_BY.decode(): self.begun["model_mark"]}
        write_atomic(metadata, lambda p: pq.write_table(table.replace_schema_metadata(marks), p))
        for name in names:
            self._put(name)

    def _fetch(self, name: str) -> None:
        """Of what goes to a URL, a small file to look into."""
        if name in self.there:
            content = self.there[name].read()
            write_atomic(self.folder / name, lambda p: p.write_bytes(content))

    def _put(self, name: str) -> None:
        """To the URL, where that is where it goes: nothing but the manifest stays here."""
        if not isinstance(self.out, Path):
            put(self.folder / name, f"{self.out.rstrip('/')}/{name}")
            if name != MANIFEST:
                (self.folder / name).unlink()


def _names(number: int) -> tuple[str, str]:
    return f"img_emb/img_emb_{number}.npy", f"metadata/metadata_{number}.parquet"


NAMED = {"model": "the model", "images": "the images", "items": "the images", "listed": "the images",
         "files": "the number of files", "decoded": "how large photos are decoded",
         "model_mark": "the model's weights, preprocessing or precision"}
"""Field of the manifest -> what an error calls it."""
BEFORE = {"decoded": "whole"}
"""Field that came later -> what it was before."""


def _short(value: Any) -> str:
    return str(value)[:80]


def embed_dataset(data: str, split: str, *, teacher: str | None = None, student: Path | str | None = None,
                  out: Path | str | None = None, limit: int | None = None, corrupt: str = "error", device: str = "auto",
                  precision: str | None = None, workers: int = 0, preprocess: Mapping[str, Any] | None = None,
                  shard: str | None = None, resume: bool = False) -> str:
    """Embed one split; says where the embeddings are. ``out``, a folder or a URL, gets clip-retrieval's layout in float32.

    ``shard`` "i/n" makes the i-th part of the files alone, past the cache, so that n commands fill one folder; with it, or with
    ``resume``, files that are there are kept. The processes of a launcher make a part each of that. ``preprocess``: what is
    known of a model file's size, mean and std; with anything else it is refused.
    """
    group.join(device)
    if (student is None) == (teacher is None):
        raise UserError("embed", "one of --teacher and --student", "neither" if student is None else "both", "Name one.")
    refuse_unused({"teacher": dict(preprocess or {})}, {"teacher": [teacher]})
    check_options(limit, corrupt, workers)
    if out is None and (student is not None or shard is not None):
        option = "--student" if student is not None else "--shard"
        raise UserError(f"embed {option}", "--out FOLDER (the cache keeps teachers only, and whole sets)", "none", "Add --out.")
    part, parts = (0, 1) if shard is None else part_of(shard)
    index, number = part * group.world() + group.rank(), parts * group.world()
    with group.parted("embed"):
        files = None if out is None else EmbeddingFiles(str(out) if is_url(out) else Path(out), resume or shard is not None)
        pieces = pieces_of(named_dataset(data), split, limit, (files and files.files) or number)
        if student is None:
            model = load_teacher(model_teacher(str(teacher), preprocess), device, precision)
        else:
            model = load_student(student, device, precision or "float32")
        network = model.network
        cached = network is not None and student is None and shard is None
        entry = cache.Entry(*cache.entry_path(network, None)) if network and cached else None
        group.wait()  # all have looked into the folder before one writes there
        if files:
            group.in_turn(partial(files.begin, _described(model, pieces, named_dataset(data).settings)))
        together = cache.held_together(entry) if entry and group.world() > 1 else contextlib.nullcontext()
        with together, group.apart():
            mine = _embed(OnePass(model, entry, workers, corrupt), pieces, pieces.part(index, number), files)
        found = group.every(mine)
    for note in dict.fromkeys(one.note for one in found if one.note):
        progress.say(f"{pieces.title}: {note}")
    of = "" if shard is None else f" (part {shard}: {len(pieces.part(part, parts))} of {pieces.count} files)"
    return f"{sum(one.rows for one in found)} x {model.dim} embeddings: {out or model.place}{of}"


def _reduced(model: TeacherRows) -> tuple[int | None, list[int]]:
    """How small JPEGs may be decoded for the model, where their data set leaves it open."""
    sees = model.network and model.network.sees
    return reduced_for([sees] if sees else [])


def _described(model: TeacherRows, pieces: Pieces, settings: Mapping[str, Any]) -> dict[str, Any]:
    described = json.dumps(model.describe(), sort_keys=True, default=str)
    least = Decoding(min_side=settings.get("min_side")).for_models(*_reduced(model)).least_side
    return {"model": model.name, "model_mark": hashlib.blake2b(described.encode(), digest_size=8).hexdigest(),
            "images": pieces.title, "items": pieces.items, "listed": pieces.mark, "files": pieces.count,
            "decoded": f"JPEGs, the shorter side at least {least} px" if least else "whole"}


@dataclass(frozen=True)
class Embedded:
    """What one process came to: rows, those that were there among them, and what was assumed and left out."""

    rows: int
    note: str


def _embed(one_pass: OnePass, pieces: Pieces, mine: Iterable[int], files: EmbeddingFiles | None) -> Embedded:
    """Embed those of ``mine`` that are not there, and write each."""
    there = {number: held for number in mine if files and (held := files.count(number)) is not None}
    numbers, count = [number for number in mine if number not in there], sum(there.values())
    model, total = one_pass.encoder, None if pieces.items is None else pieces.items * len(numbers) // pieces.count
    several = f", of {group.launched()} processes the first" if group.launched() > 1 else ""
    with progress.task(f"{getattr(model, 'role', 'teacher')} {pieces.title}{several}", total) as advance:
        for number in numbers:
            source = pieces.load(number).for_models(*_reduced(model))
            if number == numbers[0] and model.network and (coarse := coarse_for(model.network.preprocess, source.decoding)):
                progress.say(f"teacher {model.name}: {coarse}")
            rows, items = one_pass.embed(source, advance)
            if files:
                files.write(number, rows, items)
            count += len(rows)
    return Embedded(count, one_pass.notes)
