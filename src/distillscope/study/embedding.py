"""Embeddings of a data set by a teacher or a student, written piece by piece in clip-retrieval's layout.

A piece is a WebDataset shard, or a block of up to 65,536 items; file N holds piece N, whichever command makes it. So an
interrupted command can continue, several (`--shard i/n`) fill one folder, and the whole is what one command would write::

    OUT/embeddings.json                what they are of and by, and how many files there are; written first
    OUT/img_emb/img_emb_N.npy          (n, d) float32
    OUT/metadata/metadata_N.parquet    image_path (the item's id), label; marks of the rows, the model, the files. Written last
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from distillscope import group, progress
from distillscope.audits.models import model_teacher
from distillscope.audits.shown import refuse_unused
from distillscope.config.parts import Dataset
from distillscope.config.resolve import named_dataset
from distillscope.data.decode import Decoding
from distillscope.data.pieces import Pieces, part_of, pieces_of
from distillscope.data.preprocess import coarse_for, reduced_for
from distillscope.data.source import Source
from distillscope.data.splits import check_options
from distillscope.devices import choose_device
from distillscope.errors import UserError
from distillscope.files.folders import is_filled
from distillscope.files.json_reader import read_json
from distillscope.files.remote import RemoteFile, fetch_folder, is_url, listed, put
from distillscope.files.writing import checksum, sweep, write_atomic, write_json
from distillscope.inputs.numbered_files import MADE_BY, MANIFEST
from distillscope.processes.engine import LOCAL, Engine
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
                as_it_was = "with min_side: whole in --data" if key == "decoded" and before == BEFORE[key] else "as it was"
                raise UserError(f"--out {self.out}, {NAMED.get(key, key)}", f"{_short(before)} as when it started",
                                _short(value), f"Repeat the command {as_it_was}, or name another --out.")

    def count(self, number: int, stored: str) -> int | None:
        """Rows of file ``number``; None where it is absent. A damaged one, another model's, or one whose images' files were not
        as they are ``stored`` now, is said and counts as absent."""
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
        if stored and marks.get(b"state", stored.encode()).decode() != stored:
            progress.say(f"{self.out}/{rows}: the files of its images have changed since; made again")
            metadata.unlink(missing_ok=True)
            return None
        return found.num_rows

    def _is_whole(self, rows: str, marks: Mapping[bytes, bytes]) -> bool:
        """By the checksum; of a file at a URL, which is there whole or not at all, by its size."""
        if isinstance(self.out, Path):
            return marks.get(b"checksum", b"").decode() == checksum(self.folder / rows)
        return rows in self.there and self.there[rows].size == int(marks.get(b"bytes", b"-1"))

    def write(self, number: int, rows: np.ndarray, items: Source, stored: str) -> None:
        """The rows, then what makes them count; ``stored`` says of which files."""
        names = _names(number)
        embeddings, metadata = (self.folder / name for name in names)
        write_atomic(embeddings, lambda p: np.save(p, np.ascontiguousarray(rows, np.float32), allow_pickle=False))
        table = pa.table({"image_path": items.ids} | ({} if items.labels is None else {"label": items.labels}))
        marks = {"checksum": checksum(embeddings), "bytes": str(embeddings.stat().st_size),
                 MADE_BY.decode(): self.begun["model_mark"], **({"state": stored} if stored else {})}
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
         "files": "the number of files", "settings": "how the images are read", "decoded": "how large photos are decoded",
         "model_mark": "the model's weights, preprocessing or precision"}
"""Field of the manifest -> what an error calls it."""
BEFORE: dict[str, Any] = {"decoded": "whole", "settings": {}}
"""Field that came later -> what it was before."""


def _short(value: Any) -> str:
    return str(value)[:80]


def embed_dataset(data: str, split: str, *, teacher: str | None = None, student: Path | str | None = None,
                  out: Path | str | None = None, limit: int | None = None, corrupt: str = "error", device: str = "auto",
                  precision: str | None = None, workers: int = 0, preprocess: Mapping[str, Any] | None = None,
                  shard: str | None = None, files: int | None = None, resume: bool = False, engine: Engine = LOCAL) -> str:
    """Embed one split; says where the embeddings are. ``out``, a folder or a URL, gets clip-retrieval's layout in float32.

    ``shard`` "i/n" makes the i-th part of the files alone, past the cache, so that n commands fill one folder; with it, or with
    ``resume``, files that are there are kept. The processes of a launcher make a part each of that; those of the cluster that
    ``engine`` names make a file at a time, past the cache too. There are at least ``files`` of them. ``preprocess``: what is
    known of a model file's size, mean and std; with anything else it is refused.
    """
    group.join(device)
    if (student is None) == (teacher is None):
        raise UserError("embed", "one of --teacher and --student", "neither" if student is None else "both", "Name one.")
    refuse_unused({"teacher": dict(preprocess or {})}, {"teacher": [teacher]})
    check_options(limit, corrupt, workers)
    engine.check(device)
    past_cache = {"--student": student is not None, "--shard": shard is not None, "--files": files is not None,
                  "--engine ray": engine.on_cluster}
    if out is None and any(past_cache.values()):
        raise UserError(f"embed {next(option for option, asked in past_cache.items() if asked)}",
                        "--out FOLDER (the cache keeps teachers only, and whole sets)", "none", "Add --out.")
    if files is not None and files < 1:
        raise UserError("--files", "a whole number of at least 1", str(files), "Leave it out for one for each 65,536 items.")
    if engine.on_cluster and group.launched() > 1:
        raise UserError("embed --engine ray", "one process, which gives files to those of the cluster",
                        f"{group.launched()} of a launcher", "Start it without one.")
    part, parts = (0, 1) if shard is None else part_of(shard)
    asked = Asked(data, split, teacher, student, limit, corrupt, device, precision, workers, preprocess)
    index, number = part * group.world() + group.rank(), parts * group.world()
    with group.parted("embed"):
        filled = None if out is None else EmbeddingFiles(str(out) if is_url(out) else Path(out), resume or shard is not None)
        pieces = asked.pieces((filled and filled.files) or max(number, files or 1))
        model = asked.model()
        network = model.network
        cached = network is not None and student is None and shard is None and not engine.on_cluster
        entry = cache.Entry(*cache.entry_path(network, None)) if network and cached else None
        group.wait()  # all have looked into the folder before one writes there
        if filled:
            group.in_turn(partial(filled.begin, _described(model, pieces, asked.dataset.settings)))
        mine = pieces.part(index, number)
        if filled and engine.on_cluster:
            found = _on_cluster(engine, asked, model, pieces, mine, filled)
        else:
            together = cache.held_together(entry) if entry and group.world() > 1 else contextlib.nullcontext()
            with together, group.apart():
                own = _embed(OnePass(model, entry, workers, corrupt), pieces, mine, filled)
            found = group.every(own)
    for note in dict.fromkeys(one.note for one in found if one.note):
        progress.say(f"{pieces.title}: {note}")
    of = "" if shard is None else f" (part {shard}: {len(pieces.part(part, parts))} of {pieces.count} files)"
    return f"{sum(one.rows for one in found)} x {model.dim} embeddings: {out or model.place}{of}"


def _reduced(model: TeacherRows) -> tuple[int | None, list[int]]:
    """How small JPEGs may be decoded for the model, where their data set leaves it open."""
    sees = model.network and model.network.sees
    return reduced_for([sees] if sees else [])


@dataclass(frozen=True)
class Asked:
    """Which images are embedded by what, as the command says it."""

    data: str
    split: str
    teacher: str | None
    student: Path | str | None
    limit: int | None
    corrupt: str
    device: str
    precision: str | None
    workers: int
    preprocess: Mapping[str, Any] | None

    @property
    def dataset(self) -> Dataset:
        return named_dataset(self.data)

    def pieces(self, least: int) -> Pieces:
        return pieces_of(self.dataset, self.split, self.limit, least)

    def model(self) -> TeacherRows:
        if self.student is None:
            return load_teacher(model_teacher(str(self.teacher), self.preprocess), self.device, self.precision)
        return load_student(self.student, self.device, self.precision or "float32")


def _described(model: TeacherRows, pieces: Pieces, settings: Mapping[str, Any]) -> dict[str, Any]:
    described = json.dumps(model.describe(), sort_keys=True, default=str)
    asked = {key: str(value) for key, value in sorted(settings.items()) if key not in ("path", "root", "min_side")}
    least = Decoding(min_side=settings.get("min_side")).for_models(*_reduced(model)).least_side
    return {"model": model.name, "model_mark": hashlib.blake2b(described.encode(), digest_size=8).hexdigest(),
            "images": pieces.title, "items": pieces.items, "listed": pieces.mark, "files": pieces.count,
            "decoded": f"JPEGs, the shorter side at least {least} px" if least else "whole", "settings": asked}


@dataclass(frozen=True)
class Embedded:
    """What one process came to: rows, those that were there among them, and what was assumed and left out."""

    rows: int
    note: str


def _embed(one_pass: OnePass, pieces: Pieces, mine: Iterable[int], files: EmbeddingFiles | None) -> Embedded:
    """Embed those of ``mine`` that are not there, and write each."""
    numbers, count = _missing(pieces, mine, files)
    several = f", of {group.launched()} processes the first" if group.launched() > 1 else ""
    with progress.task(f"{_label(one_pass.encoder, pieces)}{several}", _items(pieces, numbers)) as advance:
        for number in numbers:
            count += _embed_one(advance, one_pass, pieces, number, files, first=number == numbers[0])
    return Embedded(count, one_pass.notes)


def _missing(pieces: Pieces, mine: Iterable[int], files: EmbeddingFiles | None) -> tuple[list[int], int]:
    """Those that are not there, and how many rows the others hold."""
    there = {number: held for number in mine if files and (held := files.count(number, pieces.stored(number))) is not None}
    return [number for number in mine if number not in there], sum(there.values())


def _label(model: TeacherRows, pieces: Pieces) -> str:
    return f"{getattr(model, 'role', 'teacher')} {pieces.title}"


def _items(pieces: Pieces, numbers: Sequence[int]) -> int | None:
    return None if pieces.items is None else pieces.items * len(numbers) // pieces.count


def _embed_one(advance: Callable[[int], None], one_pass: OnePass, pieces: Pieces, number: int, files: EmbeddingFiles | None,
               first: bool = True) -> int:
    """Embed piece ``number`` and write it; how many rows it has."""
    model, stored = one_pass.encoder, pieces.stored(number) if files else ""  # before they are read
    source = pieces.load(number).for_models(*_reduced(model))
    if first and model.network and (coarse := coarse_for(model.network.preprocess, source.decoding)):
        progress.say(f"teacher {model.name}: {coarse}")
    rows, items = one_pass.embed(source, advance)
    if files:
        files.write(number, rows, items, stored)
    return len(rows)


def _on_cluster(engine: Engine, asked: Asked, model: TeacherRows, pieces: Pieces, mine: Iterable[int],
                files: EmbeddingFiles) -> list[Embedded]:
    """The same by the processes of a cluster, a file at a time."""
    from distillscope.processes.cluster import connected

    numbers, count = _missing(pieces, mine, files)
    found = [Embedded(count, "")]
    if not numbers:
        return found
    kind = choose_device(asked.device).type
    own = replace(asked, device=engine.device_on(kind))
    shared = [files.out] if isinstance(files.out, Path) else []
    with connected(engine, engine.cores(asked.workers), engine.gpus_on(kind), shared) as cluster, \
            progress.task(f"{_label(model, pieces)}, {engine}", _items(pieces, numbers)) as advance:
        made = cluster.run("file", [(str(number), (number,)) for number in numbers], _start,
                           (own, files.out, pieces.count, cluster.cores), _on_node, None, advance)
    return [*found, *made.values()]


_process: dict[str, Any] = {}


def _start(asked: Asked, out: Path | str, count: int, threads: int) -> None:
    """Of each process of a cluster: the same images, the same model, or a line that says which differ."""
    torch.set_num_threads(threads)
    files, pieces, model = EmbeddingFiles(out, going_on=True), asked.pieces(count), asked.model()
    files.begin(_described(model, pieces, asked.dataset.settings))
    _process.update(one_pass=OnePass(model, None, asked.workers, asked.corrupt), pieces=pieces, files=files)


def _on_node(report: Callable[[int], None], number: int) -> Embedded:
    """One file in a process of a cluster."""
    one_pass = _process["one_pass"]
    rows = _embed_one(report, one_pass, _process["pieces"], number, _process["files"])
    return Embedded(rows, one_pass.notes)
