"""Commands that are hit at random moments, and then gone on with: to the numbers of one that was never hit, bit by bit.

And several at once on one cache, one run directory, one output: right numbers, each image once, one writer.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
import xml.dom.minidom
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from torture import Case, Options, commands

WHAT = {
    "kill-run": "`run`, 1 or 2 trials at once: SIGKILL to all its processes, to the parent, to a worker; "
                "SIGINT, SIGTERM, SIGHUP",
    "kill-distill": "`distill`, likewise",
    "kill-embed": "teacher embeddings going into the cache, and joined there, likewise",
    "kill-report": "`report` while it writes tables, figures and the page",
    "together-cache": "two `run`s, or four fillings of which one is killed, on one cache",
    "together-run": "two `run --resume` in one directory, and two `distill`",
    "together-output": "two `report`s of a run, two `audit`s with one --out",
}
BLOWS = [("KILL", "all"), ("KILL", "parent"), ("KILL", "worker"), ("INT", "all"), ("INT", "parent"), ("TERM", "all"),
         ("TERM", "parent"), ("HUP", "all")]
SPAWN_EVERY = 10
"""Every so many rounds of `run` the workers are fresh interpreters, as they are outside this attack; else they are forked."""


def kills(options: Options) -> Iterator[Case]:
    shares = {"kill-run": 1.0, "kill-distill": 0.4, "kill-embed": 0.5, "kill-report": 0.15}
    for part, share in shares.items():
        for number in range(max(1, round(options.rounds * share))):
            if options.wants(part, number):
                rng = random.Random(f"{options.seed} {part} {number}")
                what = part.removeprefix("kill-")
                jobs = 1 + (what == "run" and number % 8 not in (0, 3, 6))
                blows = [b for b in BLOWS if jobs == 2 or b[1] != "worker"]
                blow, whom = blows[number % len(blows)] if what != "report" else ("KILL", "all")
                hits = 1 + (blow == "KILL" and whom == "all") * rng.randrange(3)
                spawn = jobs == 2 and number % SPAWN_EVERY == 4
                title = f"{blow} to {whom}, {hits} time{'s' * (hits > 1)}"
                title += f", {jobs} at once{', spawned' * spawn}" * (what == "run")
                attempt = hit_report if what == "report" else hit_command
                yield Case(part, number, title,
                           partial(attempt, options.work, what, number, rng, jobs, blow, whom, hits, spawn))


def hit_command(work: Path, what: str, number: int, rng: random.Random, jobs: int, blow: str, whom: str, hits: int,
                spawn: bool) -> str | None:
    """One round; the folder of a round that held is removed."""
    right = commands.truth(what, work)
    folder = work / "kills" / f"{what}-{number}"
    commands.remove(folder)
    folder.mkdir(parents=True)
    out, cache, log = folder / "out", folder / "cache", folder / "log"
    lasts = float((right.parent / "seconds").read_text()) + 6 * spawn
    found: list[str] = []
    for i in range(hits):
        pid = commands.begin(commands.begun(what, work, out, cache, jobs=jobs, resume=out.exists(), spawn=spawn), log)
        found += _hit(pid, rng.uniform(0, lasts * (1 - 0.2 * i)), blow, whom, log)
        if whom == "parent" and blow == "KILL":
            found += _gone_on_at_once(what, work, out, cache, pid, log)
        if alive := commands.left_alive(pid, 20):
            found.append(f"{len(alive)} processes live on 20 s after {blow} to {whom}")
            commands.kill_session(pid)
    code = commands.run(commands.begun(what, work, out, cache, jobs=jobs, resume=out.exists(), spawn=False), log)
    if code != 0:
        found.append(f"gone on with, it ends with {code}: {_last(log)}")
    else:
        found += [f for f in (commands.differences(right, out), commands.leftovers(out, cache)) if f]
    if not found:
        commands.remove(folder)
    return "; ".join(found) or None


def _hit(pid: int, after: float, blow: str, whom: str, log: Path) -> list[str]:
    """Send the signal at that moment; what was not as it should be until the process had ended."""
    before = len(_said(log))
    code = commands.wait(pid, after)
    if code is not None:
        return [] if code == 0 else [f"ends with {code} before it was hit: {_last(log)}"]
    number = getattr(signal, f"SIG{blow}")
    targets = commands.session(pid) if whom == "all" else commands.workers(pid)[:1] if whom == "worker" else [pid]
    commands.send(number, targets)
    code = commands.wait(pid, commands.ENDS_WITHIN)
    if code is None:
        commands.kill_session(pid)
        commands.wait(pid, 10)
        return [f"has not ended {commands.ENDS_WITHIN:.0f} s after {blow} to {whom}"]
    said = _said(log)[before:]
    found = []
    if "Traceback" in said:
        found.append(f"a traceback after {blow} to {whom}: {said.strip().splitlines()[-1][:200]}")
    if whom == "worker" and targets and code not in (0, 2):
        found.append(f"ends with {code} after its worker was killed, not with 2 and a line")
    return found


def _gone_on_at_once(what: str, work: Path, out: Path, cache: Path, pid: int, log: Path) -> list[str]:
    """A run directory has one writer: who resumes while workers of a killed parent live is refused, or they are gone."""
    if what != "run" or not out.exists():
        return []
    code = commands.run(commands.begun(what, work, out, cache, jobs=2, resume=True), log)
    said = _last(log)
    if code == 0 and not commands.session(pid):
        return []
    if code == 2 and "expected a run that no process is working on" in said:
        return []
    living = len(commands.session(pid))
    return [f"resumed at once after the parent was killed: ends with {code} beside {living} workers ({said})"]


def hit_report(work: Path, what: str, number: int, rng: random.Random, *_: object) -> str | None:
    """The report of a finished run, killed: no file is torn, the numbers are untouched, and the next report is whole."""
    import shutil

    whole = commands.truth("report", work)
    folder = work / "kills" / f"report-{number}"
    commands.remove(folder)
    shutil.copytree(whole, folder / "out")
    out, log = folder / "out", folder / "log"
    pid = commands.begin(commands.begun("report", work, out, folder / "cache"), log)
    lasts = float((whole.parent / "seconds").read_text())
    found = _hit(pid, rng.uniform(0.3 * lasts, lasts), "KILL", "all", log)
    found += [f"torn: {path.relative_to(out)}" for path in out.rglob("*") if _torn(path)]
    if number % 3 == 0:  # a report takes as long as a run: not after each kill
        code = commands.run(commands.begun("report", work, out, folder / "cache"), log)
        if code != 0:
            found.append(f"the next report ends with {code}: {_last(log)}")
        names = [{p.relative_to(f).as_posix() for p in f.rglob("*") if p.is_file()} for f in (whole, out)]
        if extra := sorted(names[0] ^ names[1]):
            found.append(f"files differ from a report never killed: {', '.join(extra[:5])}")
    if wrong := commands.differences(whole, out):
        found.append(wrong)
    if not found:
        commands.remove(folder)
    return "; ".join(found) or None


def _torn(path: Path) -> bool:
    if ".tmp" in path.name:  # swept by the next report
        return False
    try:
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".svg":
            xml.dom.minidom.parse(str(path))
        elif path.suffix == ".html":
            return not path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    except Exception:
        return True
    return False


def _said(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""


def _last(log: Path) -> str:
    lines = [line for line in _said(log).splitlines() if line.strip()]
    return lines[-1][:200] if lines else "nothing said"


def together(options: Options) -> Iterator[Case]:
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
    commands.remove(folder)
    folder.mkdir(parents=True)
    fault = attempt(work, folder, rng)
    if not fault:
        commands.remove(folder)
    return fault


def both(first: Callable, second: Callable, folder: Path, apart: float,
         codes: tuple[tuple[int, int], ...] = ((0, 0),)) -> str | None:
    """Two at once; their exit codes, sorted, must be among ``codes``, and none shows a traceback."""
    pids = [commands.begin(first, folder / "0.log")]
    time.sleep(apart)
    pids.append(commands.begin(second, folder / "1.log"))
    ended = [commands.wait(pid, 300) for pid in pids]
    for pid in pids:
        commands.kill_session(pid)
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
    right, cache = commands.truth("run", work), folder / "cache"
    calls = [commands.begun("run", work, folder / name, cache) for name in ("a", "b")]
    return (both(*calls, folder, rng.uniform(0, 1)) or commands.differences(right, folder / "a")
            or commands.differences(right, folder / "b")
            or repeated(cache) or commands.leftovers(folder))


def four_fillings(work: Path, folder: Path, rng: random.Random) -> str | None:
    right, cache = commands.truth("embed", work), folder / "cache"
    pids = [commands.begin(commands.embedding(work, folder / str(i), cache), folder / f"{i}.log") for i in range(4)]
    time.sleep(rng.uniform(0, float((right.parent / "seconds").read_text())))
    commands.send(signal.SIGKILL, [pids[0]])
    ended = [commands.wait(pid, 120) for pid in pids]
    if any(ended[1:]):
        return f"end with {ended}: {(folder / '1.log').read_text()[-200:]}"
    wrong = next(filter(None, (commands.differences(right, folder / str(i)) for i in (1, 2, 3))), None)
    return wrong or repeated(cache) or commands.leftovers(cache)


def two_in_one(work: Path, folder: Path, rng: random.Random) -> str | None:
    right, out, cache = commands.truth("run", work), folder / "out", folder / "cache"
    first, second = (commands.begun("run", work, out, cache, resume=True, jobs=1 + rng.randrange(2)) for _ in range(2))
    fault = both(first, second, folder, rng.uniform(0, 3), ((0, 0), (0, 2)))
    return fault or commands.differences(right, out) or commands.leftovers(out)


def two_distillations(work: Path, folder: Path, rng: random.Random) -> str | None:
    right, out, cache = commands.truth("distill", work), folder / "out", folder / "cache"
    first, second = (commands.begun("distill", work, out, cache, resume=True) for _ in range(2))
    fault = both(first, second, folder, rng.uniform(0, 1.5), ((0, 0), (0, 2)))
    return fault or commands.differences(right, out) or commands.leftovers(out)


def two_reports(work: Path, folder: Path, rng: random.Random) -> str | None:
    whole, out = commands.truth("report", work), folder / "out"
    shutil.copytree(commands.truth("run", work), out)
    call = commands.begun("report", work, out, folder / "cache")
    names = [{p.relative_to(f).as_posix() for p in f.rglob("*") if p.is_file()} for f in (whole, out)]
    fault = both(call, call, folder, 0.5)
    names[1] = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    return fault or (f"files differ: {sorted(names[0] ^ names[1])[:4]}" if names[0] ^ names[1] else None)


def two_audits(work: Path, folder: Path, rng: random.Random) -> str | None:
    import json

    call = commands.command(*commands.audit_arguments(work, "--out", folder / "out"), cache=folder / "cache", report=True)
    fault = both(call, call, folder, 0.2)
    if fault:
        return fault
    json.loads((folder / "out" / "audit.json").read_text())
    return commands.leftovers(folder / "out")
