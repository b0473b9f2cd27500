"""A finished run, or its archive, with damaged files: read by report, claims, compare, recommend, resume, merge and --serve."""

from __future__ import annotations

import csv
import functools
import gzip
import io
import json
import lzma
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import yaml

from torture import small
from torture.fuzz import Reader
from torture.mutate import HOSTILE_NAMES, damaged, distorted, nested_json
from torture.study_inputs import SCALARS

FILES = ("study.yaml", "provenance.json", "trials/*/complete.json", "trials/*/results.csv", "trials/*/curves.json",
         "trials/*/metrics.jsonl",
         "trials/*/keepsakes/keepsakes.json", "references/*/results.csv", "references/*/complete.json",
         "references/*/curves.json",
         "references/*/keepsakes/keepsakes.json")


def readers(work: Path) -> dict[str, Reader]:
    run = small.truth("run", work)
    return {"run": Reader(2.5,
                          "files of a finished run (study.yaml, provenance, complete, results, curves, metrics, keepsakes) "
                          "read by the report's parts", partial(damage, run, reported)),
            "resume": Reader(4, "the same before `run --resume`, `merge`, `compare` and `load_study`",
                             partial(damage, run, opened)),
            "archive": Reader(2, "files of a packed run: gone, cut, damaged, or packed again with hostile names, other columns "
                              "or values, before report, `compare` and `merge`", partial(damage_archive, run))}


@functools.cache
def _template(run: str, folder: str) -> Path:
    """The run without weights and embeddings, which these readers do not open."""
    clean = Path(folder) / "clean-run"
    if not clean.exists():  # of the process before this one, which a case ended
        left_out = shutil.ignore_patterns("img_emb", "metadata", "weights*", "predictions*", "figures", "report.html")
        shutil.copytree(run, clean, ignore=left_out)
    return clean


def damage(run: Path, read: Callable, rng: random.Random, number: int, folder: Path) -> tuple[str, Callable[[], str | None]]:
    here = folder / "run"
    shutil.copytree(_template(str(run), str(folder.parent)), here)
    pattern = FILES[number % len(FILES)]
    files = sorted(here.glob(pattern))
    if not files:
        return f"{pattern} as it is", partial(read, here, number)
    path, kind = rng.choice(files), rng.random()
    if number < 1:
        title = "as it is"
    elif kind < 0.08:
        path.unlink()
        title = "gone"
    elif kind < 0.14:
        path.unlink()
        path.mkdir()
        title = "a folder"
    elif kind < 0.4:
        path.write_bytes(damaged(path.read_bytes(), rng))
        title = "damaged"
    elif kind < 0.5:
        path.write_text(nested_json(rng), encoding="utf-8")
        title = "other JSON"
    elif path.suffix == ".csv":
        text, title = _cells(path.read_text(), rng)
        _put(path, text)
    elif path.suffix == ".yaml":
        title = _study(path, rng)
    else:
        lines = path.suffix == ".jsonl"
        values = [json.loads(row) for row in path.read_text().splitlines()] if lines else json.loads(path.read_text())
        values, title = distorted(values, rng)
        path.write_text("".join(json.dumps(v) + "\n" for v in values) if lines else json.dumps(values))
    return f"{pattern} {title}"[:150], partial(read, here, number)


def _cells(text: str, rng: random.Random) -> tuple[str, str]:
    """A table with cells of one column, or the column itself, made hostile, and what was done in words."""
    table = list(csv.reader(io.StringIO(text)))
    column = rng.randrange(len(table[0]))
    value = rng.choice((*HOSTILE_NAMES, "inf", "nan", "-1", "1e999", "9" * 400, "1e30", "1.5", "x"))
    rows = table[1:] if rng.random() < 0.4 else rng.sample(table[1:], 3) if rng.random() < 0.8 else table[:1]
    for row in rows:
        row[column] = value
    return _as_csv(table), f"{table[0][column][:20]} = {value[:30]!r} in {len(rows)} rows"


def _as_csv(table: list[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(table)
    return text.getvalue()


def _put(path: Path, text: str) -> None:
    """Written as it is, and packed as the file's name says."""
    content = text.encode("utf-8", "surrogateescape")
    path.write_bytes({".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, bytes)(content))


def _study(path: Path, rng: random.Random) -> str:
    values = yaml.safe_load(path.read_text())
    if rng.random() < 0.5:
        values, title = distorted(values, rng)
        path.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8", errors="surrogatepass")
        return title
    key, scalar = rng.choice(list(values)), rng.choice(SCALARS)
    rest = {k: v for k, v in values.items() if k != key}
    path.write_text(yaml.safe_dump(rest) + f"{key}: {scalar}\n", encoding="utf-8", errors="surrogatepass")
    return f"{key}: {scalar[:30]!r}"


FOLDERS = ("", ".", "..", "trials", "trials/", "trials/..", "trials/../../x", "../../x", "/etc/passwd", "other/x",
           "trials/x" * 60, "trials/\0", "trials/a b", "references/\x1b[31m", "trials/CON")
"""What the column `folder` of an archive may be made to say."""


@functools.cache
def _packed(run: str, folder: str) -> Path:
    """The archive of the run, with claims.json in it."""
    from distillscope.report.claims import decide_claims, write_claims
    from distillscope.results.archive import write_archive

    clean, packed = _template(run, folder), Path(folder) / "packed"
    if not packed.exists():
        write_claims(decide_claims([clean]), clean)
        write_archive(clean, packed)
    return packed


def damage_archive(run: Path, rng: random.Random, number: int, folder: Path) -> tuple[str, Callable[[], str | None]]:
    """An archive with one file damaged as it lies there, or unpacked, changed and packed again."""
    here = folder / "run"
    shutil.copytree(_packed(str(run), str(folder.parent)), here)
    files = sorted(here.iterdir())
    path, kind = files[number % len(files)], rng.random()
    if number < 1:
        title = "as it is"
    elif kind < 0.1:
        path.unlink()
        title = "gone"
    elif kind < 0.2:
        path.write_bytes(path.read_bytes()[:rng.randrange(path.stat().st_size)])
        title = "cut"
    elif kind < 0.35:
        path.write_bytes(damaged(path.read_bytes(), rng))
        title = "damaged"
    else:
        unpack = {".gz": gzip.decompress, ".xz": lzma.decompress}.get(path.suffix, bytes)
        text, title = _repacked(unpack(path.read_bytes()).decode(), path.name, rng)
        _put(path, text)
    return f"{path.name} {title}"[:150], partial(unpacked, here, number)


def _repacked(text: str, name: str, rng: random.Random) -> tuple[str, str]:
    """What a file of an archive holds, changed, and what was done in words."""
    if rng.random() < 0.15:
        return damaged(text.encode(), rng).decode("utf-8", "surrogateescape"), "damaged inside"
    if ".csv" not in name:
        values, title = distorted(yaml.safe_load(text) if name.endswith(".yaml") else json.loads(text), rng)
        return yaml.safe_dump(values, allow_unicode=True) if name.endswith(".yaml") else json.dumps(values), title
    table, kind = list(csv.reader(io.StringIO(text))), rng.random()
    if kind < 0.4:
        return _cells(text, rng)
    if kind < 0.7:
        value = rng.choice(FOLDERS)
        for row in table[1:] if rng.random() < 0.3 else table[1:2]:
            row[table[0].index("folder")] = value
        return _as_csv(table), f"folder = {value[:40]!r}"
    column = rng.randrange(len(table[0]))
    if kind < 0.85:
        return _as_csv([[*row[:column], *row[column + 1:]] for row in table]), f"without {table[0][column]}"
    return _as_csv([[*row, "x" if n else "foreign"] for n, row in enumerate(table)]), "a foreign column"


def unpacked(run: Path, number: int) -> str | None:
    """What takes an archive in a run's place; one that nothing hit gives the run's own rows."""
    from distillscope.compare.runs import compare_runs
    from distillscope.results.merge import merge_runs
    from distillscope.results.run import read_run

    clean = run.parent.parent / "clean-run"
    if number == 0:
        rows, own = (read_run(r).all_results.drop(columns="study", errors="ignore") for r in (run, clean))
        return None if rows.equals(own) else "other rows than the run's"
    which = number // 7 % 3
    if which == 0:
        return reported(run, number)
    if which == 1:
        import distillscope.report

        distillscope.report.write.write_report = lambda path: path
        merge_runs([run, clean], run.parent / "merged")
    else:
        compare_runs([run, clean])
    return None


def reported(run: Path, number: int) -> str | None:
    """What a report computes: its tables, and in turn the claims with the advice, the page, or nothing more; no drawing."""
    from distillscope.report.findings import Findings
    from distillscope.results.run import read_run

    found = Findings.of(read_run(run))
    assert found.table
    if number % 3 == 0:
        assert found.claims and found.advice
    elif number % 3 == 1:
        from distillscope.report.study_page import study_page

        study_page(found)
    return None


def opened(run: Path, number: int) -> str | None:
    """What begins with a run that is there already."""
    from distillscope.compare.runs import compare_runs
    from distillscope.config.load import load_preset
    from distillscope.report.serve import Watch
    from distillscope.results.merge import merge_runs
    from distillscope.results.rundir import open_run
    from distillscope.study.run import load_study

    clean = run.parent.parent / "clean-run"
    which = number // len(FILES) % 5
    if which == 0:
        open_run(load_preset(str(clean / "study.yaml")), run, True)
    elif which == 1:
        repr(load_study(run)), load_study(run).results
    elif which == 2:
        Watch(run)
    elif which == 3:
        import distillscope.report

        distillscope.report.write.write_report = lambda path: path
        merge_runs([run, clean], run.parent / "merged")
    else:
        compare_runs([run, clean])
    return None
