"""A run in two or three small files, which every reading command takes in the run directory's place.

::

    study.yaml, claims.json    as they stand in the run
    run.zip                    what was found, written last:
        results.csv            every row of every results.csv, with the folder that it comes from
        trials.csv             a line for each reference and trial: who it is, seconds, its complete.json
        training.csv           every record of every metrics.jsonl, each cell as JSON; none where there is none
        curves.json            {curve: {folder: curve}}; none where there is none
        provenance.json        as it stands in the run

No number is rounded, and the same run gives the same bytes. Weights, embeddings, predictions, pictures of test images and
what a report makes again are left out.
"""

from __future__ import annotations

import csv
import io
import json
import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from distillscope import progress
from distillscope.errors import UserError
from distillscope.files.folders import PACKED, check_fresh, is_archive
from distillscope.files.json_reader import parse_json, read_bytes, read_json
from distillscope.files.writing import write_atomic, write_json
from distillscope.results import run_files
from distillscope.results.rows import COLUMNS, TEACHER
from distillscope.results.run_files import KINDS, Complete, Record, records_in, study_of

RESULTS, TRIALS, TRAINING, CURVES, PROVENANCE = "results.csv", "trials.csv", "training.csv", "curves.json", "provenance.json"
CLAIMS = "claims.json"
FOLDER = "folder"
WHO = ("dataset", "teacher", "target", "arm", "student", "seed")
"""Columns of trials.csv for people; what is read back stands in the results."""
AGAIN = "Restore the file, or pack the run again: distillscope archive RUN DIR."
LARGEST = 2**30
"""Bytes that one packed file may hold: more is no archive of a run."""
BROKEN = (OSError, EOFError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, struct.error, RuntimeError, ValueError, KeyError)
"""What zipfile and the parsers raise where a file is damaged, encrypted or packed in a way that is not known."""


def write_archive(run_dir: Path, out: Path) -> list[Path]:
    """Pack the finished trials and references of ``run_dir`` into ``out``, a new or empty folder; the files that were written.

    What has not finished is left out and said. A trial that says it is complete but cannot be read is a `UserError`: an
    archive outlives its run, so nothing is left out of it in silence.
    """
    run_dir, out = Path(run_dir), Path(out)
    config = study_of(run_dir)
    if is_archive(run_dir):
        raise UserError(f"archive {run_dir}", "a run directory", "an archive already", "Copy the folder.")
    check_fresh(f"archive {out}", out)
    records = _finished(run_dir)
    rows = pd.concat([r.results.assign(folder=_path_of(r)) for r in records])[[FOLDER, *COLUMNS]]
    packed = {RESULTS: rows.to_csv(index=False, lineterminator="\n"), TRIALS: _csv(map(_line, records))}
    epochs = [{FOLDER: _path_of(r), **{k: json.dumps(v) for k, v in row.items()}} for r in records for row in r.epochs]
    if epochs:
        packed[TRAINING] = _csv(epochs)
    if any(r.curves for r in records):
        names = dict.fromkeys(name for r in records for name in r.curves)
        curves = {name: {_path_of(r): r.curves[name] for r in records if name in r.curves} for name in names}
        packed[CURVES] = json.dumps(curves, separators=(",", ":"))
    if (run_dir / PROVENANCE).is_file():
        packed[PROVENANCE] = (run_dir / PROVENANCE).read_bytes()
    written: list[Path] = []
    try:
        written.append(_write(out / config.name, config.read_bytes()))
        if (run_dir / CLAIMS).is_file():
            written.append(write_json(out / CLAIMS, _moved(read_json(run_dir / CLAIMS), run_dir, out)))
        written.append(_write(out / PACKED, _zip(packed)))
    except BaseException:  # half an archive would stand in the way of the next try
        for path in written:
            path.unlink(missing_ok=True)
        raise
    return written


def read_archive(path: Path) -> dict[str, list[tuple[str, Record | Exception | None]]]:
    """The records of an archive by kind, as `run_files.records_in` gives a run's; a `UserError` where it is damaged."""
    packed = path / PACKED
    results, lines = _member(packed, RESULTS, _read_results), _member(packed, TRIALS, _read_lines)
    curves, epochs = _member(packed, CURVES, _read_curves, {}), _member(packed, TRAINING, _read_epochs, {})
    strangers = sorted({*results, *curves, *epochs} - {*lines})
    if strangers or {*lines} - {*results}:
        one = strangers[0] if strangers else min({*lines} - {*results})
        raise UserError(str(packed), f"{TRIALS} and {RESULTS} of the same trials", f"{one!r:.120} in one of them alone", AGAIN)
    found: dict[str, list[tuple[str, Record | Exception | None]]] = {kind: [] for kind in KINDS}
    for folder, complete in lines.items():
        kind, _, name = folder.partition("/")
        record = Record(kind, name, results[folder], complete, curves.get(folder, {}), epochs.get(folder, []))
        found[kind].append((name, record))
    return found


def provenance_of(run_dir: Path) -> dict[str, Any]:
    """provenance.json of a run directory or of its archive; empty where there is none."""
    if not is_archive(run_dir):
        return run_files.read_provenance(run_dir / PROVENANCE)
    return _member(run_dir / PACKED, PROVENANCE, lambda content: run_files.parse_provenance(content, PROVENANCE), {})


def unpack(record: Record, folder: Path) -> None:
    """A record as the folder of a run directory that it came from, without what the archive left out; complete.json last."""
    _write(folder / "results.csv", record.results.to_csv(index=False, lineterminator="\n").encode())
    _write(folder / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in record.epochs).encode())
    write_json(folder / "curves.json", record.curves)
    write_json(folder / "complete.json", record.complete.model_dump(exclude_unset=True))


def _finished(run_dir: Path) -> list[Record]:
    """The records that are complete, references first."""
    found = []
    for kind in KINDS:
        for name, record in records_in(run_dir / kind):
            if record is None:
                progress.say(f"{run_dir / kind / name}: not finished, left out")
                continue
            if isinstance(record, Exception):
                raise UserError(f"archive {run_dir / kind / name}", "a complete trial that can be read",
                                str(record).split("\n")[0], "Delete it, and run with --resume to make it again.")
            if record.broken_lines:
                progress.say(f"{run_dir / kind / name}: {record.broken_lines} lines of metrics.jsonl cannot be read, left out")
            found.append(record)
    if not found:
        raise UserError(f"archive {run_dir}", "a run with finished trials", "none finished",
                        f"Finish it with `distillscope run ... --out {run_dir} --resume`.")
    return found


def _moved(claims: dict[str, Any], run_dir: Path, out: Path) -> dict[str, Any]:
    """claims.json with the runs that it names relative to where it goes."""
    def seen_from_there(source: str) -> str:
        return source if source == "." else os.path.relpath((run_dir / source).resolve(), out.resolve())

    return {**claims, **{key: [seen_from_there(s) for s in claims[key]] for key in ("sources", "missing") if key in claims}}


def _path_of(record: Record) -> str:
    return f"{record.kind}/{record.folder}"


def _line(record: Record) -> dict[str, Any]:
    own = record.results[record.results["student"] != TEACHER] if record.kind == "trials" else record.results
    first = (own if len(own) else record.results).iloc[0] if len(record.results) else {}
    who = {name: first.get(name) for name in WHO}
    return {FOLDER: _path_of(record), **{k: "" if v is pd.NA else v for k, v in who.items()},
            "seconds": record.complete.seconds, "complete": json.dumps(record.complete.model_dump(exclude_unset=True))}


def _csv(rows: Iterable[dict[str, Any]]) -> str:
    """Rows of one or more forms as one table; a cell that a row does not have is empty."""
    rows, text = list(rows), io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _write(path: Path, content: bytes) -> Path:
    return write_atomic(path, lambda p: p.write_bytes(content))


def _zip(files: Mapping[str, str | bytes]) -> bytes:
    """One zip. Curves are most of it and half as large by LZMA, which fewer programs can open than the tables."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as packed:
        for name, content in files.items():
            member = zipfile.ZipInfo(name)  # of 1980: the same run gives the same bytes
            member.create_system, member.external_attr = 3, 0o644 << 16
            packed.writestr(member, content, zipfile.ZIP_LZMA if name == CURVES else zipfile.ZIP_DEFLATED, 9)
    return made.getvalue()


def _member(path: Path, name: str, parse: Callable[[bytes], Any], default: Any = None) -> Any:
    """What one file in the zip holds, ``default`` where it is absent; a `UserError` that names both where it is damaged."""
    content = read_bytes(path, AGAIN)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            if default is not None and name not in packed.namelist():
                return default
            with packed.open(name) as file:
                content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise ValueError(f"more than {LARGEST:,} bytes")
        return parse(content)
    except UserError as error:
        raise UserError(f"{path} {name}", error.expected, error.got, AGAIN) from None
    except BROKEN as error:
        why = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"{path} {name}", "a file of an archive", why, AGAIN) from None


def _read_results(content: bytes) -> dict[str, pd.DataFrame]:
    cells = run_files.read_cells(content)
    rows = run_files.typed(cells)
    places = cells.groupby(FOLDER, sort=False).groups.items()
    return {str(name): rows.loc[place].reset_index(drop=True) for name, place in places}


def _read_curves(content: bytes) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, curves in parse_json(content, CURVES, dict[str, dict[str, dict]]).items():
        for folder, curve in curves.items():
            run_files.Curve.model_validate(curve)
            found.setdefault(folder, {})[name] = curve
    return found


def _read_epochs(content: bytes) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for line in run_files.read_cells(content).to_dict("records"):
        row = {str(key): json.loads(cell) for key, cell in line.items() if key != FOLDER and cell}
        run_files.EPOCH.validate_python(row)
        found.setdefault(line[FOLDER], []).append(row)
    return found


def _read_lines(content: bytes) -> dict[str, Complete]:
    found: dict[str, Complete] = {}
    for line in run_files.read_cells(content).to_dict("records"):
        folder = line[FOLDER]
        kind, _, name = folder.partition("/")
        if kind not in KINDS or name in ("", ".", "..") or "/" in name or os.sep in name or folder in found:
            raise ValueError(f"the folder {folder[:80]!r}, which no run has, or twice")
        found[folder] = parse_json(line["complete"], "complete", Complete)
    return found
