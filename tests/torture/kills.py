"""Commands that are hit at random moments, and then gone on with: to the numbers of one that was never hit, bit by bit."""

from __future__ import annotations

import json
import random
import signal
import xml.dom.minidom
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from torture import child, small
from torture.record import Case, Options, Record, try_all

WHAT = {
    "kill-run": "`run`, 1 or 2 trials at once: SIGKILL to all its processes, to the parent, to a worker; "
                "SIGINT, SIGTERM, SIGHUP",
    "kill-distill": "`distill`, likewise",
    "kill-embed": "teacher embeddings going into the cache, and joined there, likewise",
    "kill-report": "`report` while it writes tables, figures and the page",
}
BLOWS = [("KILL", "all"), ("KILL", "parent"), ("KILL", "worker"), ("INT", "all"), ("INT", "parent"), ("TERM", "all"),
         ("TERM", "parent"), ("HUP", "all")]
SPAWN_EVERY = 10
"""Every so many rounds of `run` the workers are fresh interpreters, as they are outside this attack; else they are forked."""


def cases(options: Options) -> Iterator[Case]:
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
    right = small.truth(what, work)
    folder = work / "kills" / f"{what}-{number}"
    small.remove(folder)
    folder.mkdir(parents=True)
    out, cache, log = folder / "out", folder / "cache", folder / "log"
    lasts = float((right.parent / "seconds").read_text()) + 6 * spawn
    found: list[str] = []
    for i in range(hits):
        pid = child.begin(small.begun(what, work, out, cache, jobs=jobs, resume=out.exists(), spawn=spawn), log)
        found += _hit(pid, rng.uniform(0, lasts * (1 - 0.2 * i)), blow, whom, log)
        if whom == "parent" and blow == "KILL":
            found += _gone_on_at_once(what, work, out, cache, pid, log)
        if alive := child.left_alive(pid, 20):
            found.append(f"{len(alive)} processes live on 20 s after {blow} to {whom}")
            child.kill_session(pid)
    code = child.run(small.begun(what, work, out, cache, jobs=jobs, resume=out.exists(), spawn=False), log)
    if code != 0:
        found.append(f"gone on with, it ends with {code}: {_last(log)}")
    else:
        found += [f for f in (small.differences(right, out), small.leftovers(out, cache)) if f]
    if not found:
        small.remove(folder)
    return "; ".join(found) or None


def _hit(pid: int, after: float, blow: str, whom: str, log: Path) -> list[str]:
    """Send the signal at that moment; what was not as it should be until the process had ended."""
    before = len(_said(log))
    code = child.wait(pid, after)
    if code is not None:
        return [] if code == 0 else [f"ends with {code} before it was hit: {_last(log)}"]
    number = getattr(signal, f"SIG{blow}")
    targets = child.session(pid) if whom == "all" else child.workers(pid)[:1] if whom == "worker" else [pid]
    child.send(number, targets)
    code = child.wait(pid, child.ENDS_WITHIN)
    if code is None:
        child.kill_session(pid)
        child.wait(pid, 10)
        return [f"has not ended {child.ENDS_WITHIN:.0f} s after {blow} to {whom}"]
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
    code = child.run(small.begun(what, work, out, cache, jobs=2, resume=True), log)
    said = _last(log)
    if code == 0 and not child.session(pid):
        return []
    if code == 2 and "expected a run that no process is at work on" in said:
        return []
    return [f"resumed at once after the parent was killed: ends with {code} beside {len(child.session(pid))} workers ({said})"]


def hit_report(work: Path, what: str, number: int, rng: random.Random, *_: object) -> str | None:
    """The report of a finished run, killed: no file is torn, the numbers are untouched, and the next report is whole."""
    import shutil

    whole = small.truth("report", work)
    folder = work / "kills" / f"report-{number}"
    small.remove(folder)
    shutil.copytree(whole, folder / "out")
    out, log = folder / "out", folder / "log"
    pid = child.begin(small.begun("report", work, out, folder / "cache"), log)
    lasts = float((whole.parent / "seconds").read_text())
    found = _hit(pid, rng.uniform(0.3 * lasts, lasts), "KILL", "all", log)
    found += [f"torn: {path.relative_to(out)}" for path in out.rglob("*") if _torn(path)]
    if number % 3 == 0:  # a report takes as long as a run: not after each kill
        code = child.run(small.begun("report", work, out, folder / "cache"), log)
        if code != 0:
            found.append(f"the next report ends with {code}: {_last(log)}")
        names = [{p.relative_to(f).as_posix() for p in f.rglob("*") if p.is_file()} for f in (whole, out)]
        if extra := sorted(names[0] ^ names[1]):
            found.append(f"files differ from a report never killed: {', '.join(extra[:5])}")
    if wrong := small.differences(whole, out):
        found.append(wrong)
    if not found:
        small.remove(folder)
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


def attack(options: Options, record: Record) -> None:
    try_all(cases(options), record, options)
