"""Attacks on the program (docs/recovery.md says which): a case, what became of it, and the counts of held and tried."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """One attack. ``attempt`` returns what went wrong, or None where all held.

    ``part`` and ``number`` name it for ever: the same seed makes the same case, so ``--only PART/NUMBER`` repeats it.
    """

    part: str
    number: int
    title: str
    attempt: Callable[[], str | None]

    @property
    def id(self) -> str:
        return f"{self.part}/{self.number}"


@dataclass(frozen=True)
class Options:
    """What was asked for: how much, from which seed, where, until when (``time.monotonic``), and one case alone."""

    work: Path
    seed: int = 0
    rounds: int = 60
    inputs: int = 10_000
    until: float = float("inf")
    only: str | None = None

    def wants(self, part: str, number: int) -> bool:
        return self.only is None or self.only in (part, f"{part}/{number}")

    @property
    def over(self) -> bool:
        return time.monotonic() > self.until


class Record:
    """The outcomes of one attack, a JSON line each, in a file: a run that was stopped skips what it has tried."""

    def __init__(self, path: Path) -> None:
        self.path, self.outcomes = path, {}
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        if text and not text.endswith("\n"):  # a killed run may leave half a line
            text = text[: text.rfind("\n") + 1]
            path.write_text(text, encoding="utf-8")
        for line in text.splitlines():
            outcome = json.loads(line)
            self.outcomes[outcome["id"]] = outcome
        self._file, self._last = open(path, "a", encoding="utf-8"), time.monotonic()  # noqa: SIM115

    def add(self, part: str, number: int, title: str, fault: str | None, kind: str = "") -> None:
        """One outcome; ``kind`` tells results from refusals."""
        now = time.monotonic()
        outcome = {"id": f"{part}/{number}", "part": part, "title": title, "fault": fault, "kind": kind,
                   "seconds": round(now - self._last, 3)}
        self._last = now
        self.outcomes[outcome["id"]] = outcome
        self._file.write(json.dumps(outcome) + "\n")
        self._file.flush()


def try_all(cases: Iterable[Case], record: Record, options: Options) -> None:
    """Each case that is not in the record yet, one after the other, and a line for each."""
    for case in cases:
        if case.id in record.outcomes or options.over:
            continue
        try:
            fault = case.attempt()
        except Exception as error:  # the attack itself broke: that is no result, and must be seen
            fault = f"the attack broke: {type(error).__name__}: {error}"
        record.add(case.part, case.number, case.title, fault)
        print(f"{'FAULT' if fault else 'held '} {case.id} {case.title}" + (f": {fault[:300]}" if fault else ""), flush=True)


def counts(outcomes: Iterable[dict]) -> dict[str, tuple[int, int]]:
    """(held, tried) of each part, in the order in which they were tried."""
    found: dict[str, tuple[int, int]] = {}
    for outcome in outcomes:
        held, tried = found.get(outcome["part"], (0, 0))
        found[outcome["part"]] = held + (not outcome["fault"]), tried + 1
    return found


def table(outcomes: list[dict], what: dict[str, str]) -> str:
    """The counts as a Markdown table, and the total; ``what`` says in words what each part is."""
    rows = counts(outcomes)
    held, tried = (sum(v[i] for v in rows.values()) for i in (0, 1))
    lines = [f"| {part} | {what.get(part, '')} | {h:,} / {t:,} |" for part, (h, t) in rows.items()]
    return "\n".join(["| part | what is attacked | held / tried |", "| --- | --- | --- |", *lines,
                      f"| all | | {held:,} / {tried:,} |"])


def faults(outcomes: Iterable[dict]) -> dict[str, list[dict]]:
    """The faults, those that say the same put together."""
    found: dict[str, list[dict]] = {}
    for outcome in outcomes:
        if outcome["fault"]:
            found.setdefault(f"{outcome['part']}: {outcome['fault'][:90]}", []).append(outcome)
    return found
