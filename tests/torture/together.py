"""Several processes on one cache, one run directory, one output: right numbers, each image once, one writer."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from torture import child, small
from torture.record import Case, Options, Record, try_all

WHAT = {
    "together-cache": "two `run`s, or four fillings of which one is killed, on one cache",
    "together-run": "two `run --resume` in one directory, and two `distill`",
    "together-output": "two `report`s of a run, two `audit`s with one --out",
}


def attack(options: Options, record: Record) -> None:
    try_all(cases(options), record, options)


def cases(options: Options) -> Iterator[Case]:
    times = max(1, options.rounds // 15)
    made: list[tuple[str, str, Callable]] = []
    for _ in range(times):
        made += [("together-cache", "two runs", two_runs), ("together-cache", "four fillings, one killed", four_fillings),
                 ("together-run", "two runs in one directory", two_in_one),
                 ("together-run", "two distillations into one folder", two_distillations)]
    made += [("together-output", "two reports", two_reports), ("together-output", "two audits", two_audits)]
    numbers: dict[str, int] = {}
    for part, title, attempt in made:
        number = numbers[part] = numbers.get(part, -1) + 1
        if options.wants(part, number):
            yield Case(part, number, title, partial(_in_folder, attempt, options.work, part, number,
                                                    random.Random(f"{options.seed} {part} {number}")))


def _in_folder(attempt: Callable, work: Path, part: str, number: int, rng: random.Random) -> str | None:
    folder = work / "together" / f"{part}-{number}"
    small.remove(folder)
    folder.mkdir(parents=True)
    fault = attempt(work, folder, rng)
    if not fault:
        small.remove(folder)
    return fault


def both(first: Callable, second: Callable, folder: Path, apart: float,
         codes: tuple[tuple[int, int], ...] = ((0, 0),)) -> str | None:
    """Two at once; their exit codes, sorted, must be among ``codes``, and none shows a traceback."""
    pids = [child.begin(first, folder / "0.log")]
    time.sleep(apart)
    pids.append(child.begin(second, folder / "1.log"))
    ended = [child.wait(pid, 300) for pid in pids]
    for pid in pids:
        child.kill_session(pid)
    said = [(folder / f"{i}.log").read_text(errors="replace") for i in (0, 1)]
    last = [(s.strip().splitlines() or [""])[-1][:150] for s in said]
    if any("Traceback" in s for s in said):
        return f"a traceback: {last}"
    if None in ended or tuple(sorted(ended)) not in codes:
        return f"end with {ended}: {last}"
    return None


def repeated(cache: Path) -> str | None:
    """Rows of the cache that stand twice."""
    import pyarrow.parquet as pq

    for entry in (cache / "embeddings").glob("*/"):
        keys = [k for f in entry.glob("metadata/metadata_*.parquet") for k in pq.read_table(f)["key"].to_pylist()]
        if len(set(keys)) != len(keys):
            return f"{len(keys) - len(set(keys))} of {len(keys)} rows of {entry.name} stand twice"
    return None


def two_runs(work: Path, folder: Path, rng: random.Random) -> str | None:
    right, cache = small.truth("run", work), folder / "cache"
    calls = [small.begun("run", work, folder / name, cache) for name in ("a", "b")]
    return (both(*calls, folder, rng.uniform(0, 1)) or small.differences(right, folder / "a")
            or small.differences(right, folder / "b")
            or repeated(cache) or small.leftovers(folder))


def four_fillings(work: Path, folder: Path, rng: random.Random) -> str | None:
    right, cache = small.truth("embed", work), folder / "cache"
    pids = [child.begin(small.embedding(work, folder / str(i), cache), folder / f"{i}.log") for i in range(4)]
    time.sleep(rng.uniform(0, float((right.parent / "seconds").read_text())))
    child.send(signal.SIGKILL, [pids[0]])
    ended = [child.wait(pid, 120) for pid in pids]
    if any(ended[1:]):
        return f"end with {ended}: {(folder / '1.log').read_text()[-200:]}"
    wrong = next(filter(None, (small.differences(right, folder / str(i)) for i in (1, 2, 3))), None)
    return wrong or repeated(cache) or small.leftovers(cache)


def two_in_one(work: Path, folder: Path, rng: random.Random) -> str | None:
    right, out, cache = small.truth("run", work), folder / "out", folder / "cache"
    first, second = (small.begun("run", work, out, cache, resume=True, jobs=1 + rng.randrange(2)) for _ in range(2))
    fault = both(first, second, folder, rng.uniform(0, 3), ((0, 0), (0, 2)))
    return fault or small.differences(right, out) or small.leftovers(out)


def two_distillations(work: Path, folder: Path, rng: random.Random) -> str | None:
    right, out, cache = small.truth("distill", work), folder / "out", folder / "cache"
    first, second = (small.begun("distill", work, out, cache, resume=True) for _ in range(2))
    fault = both(first, second, folder, rng.uniform(0, 1.5), ((0, 0), (0, 2)))
    return fault or small.differences(right, out) or small.leftovers(out)


def two_reports(work: Path, folder: Path, rng: random.Random) -> str | None:
    whole, out = small.truth("report", work), folder / "out"
    shutil.copytree(small.truth("run", work), out)
    call = small.begun("report", work, out, folder / "cache")
    names = [{p.relative_to(f).as_posix() for p in f.rglob("*") if p.is_file()} for f in (whole, out)]
    fault = both(call, call, folder, 0.5)
    names[1] = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    return fault or (f"files differ: {sorted(names[0] ^ names[1])[:4]}" if names[0] ^ names[1] else None)


def two_audits(work: Path, folder: Path, rng: random.Random) -> str | None:
    import json

    teacher, student = small.embeddings(work)
    call = child.command("audit", "--teacher", teacher, "--student", student, "--out", folder / "out", cache=folder / "cache",
                         report=True)
    fault = both(call, call, folder, 0.2)
    if fault:
        return fault
    json.loads((folder / "out" / "audit.json").read_text())
    return small.leftovers(folder / "out")
