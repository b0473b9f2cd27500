"""Damaged and hostile inputs through every reader: a result, or one line; no traceback, no hang, nothing run or written."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torture import guard
from torture.record import Options, Record

Make = Callable[[random.Random, int, Path], tuple[str, Callable[[], str | None]]]


@dataclass(frozen=True)
class Reader:
    """One reader under attack. ``make``(rng, number, folder) gives a case: its title, and a function that reads it."""

    share: float
    what: str
    make: Make


def readers(work: Path) -> dict[str, Reader]:
    """Every reader with its share of the inputs."""
    from torture import cache_inputs, embedding_inputs, image_inputs, model_inputs, oracle, run_inputs, study_inputs

    return {f"fuzz-{name}": reader
            for module in (embedding_inputs, oracle, study_inputs, model_inputs, run_inputs, cache_inputs, image_inputs)
            for name, reader in module.readers(work).items()}


WHAT: dict[str, str] = {}  # see words: it takes a run to say


def words(work: Path) -> dict[str, str]:
    return {part: reader.what for part, reader in readers(work).items()}


def attack(options: Options, record: Record) -> None:
    found = readers(options.work)
    total, said = sum(r.share for r in found.values()), set()
    for part, reader in found.items():
        count = max(1, round(options.inputs * reader.share / total))
        numbers = [n for n in range(count) if options.wants(part, n) and f"{part}/{n}" not in record.outcomes]
        if options.only and not numbers and options.only.startswith(f"{part}/"):
            numbers = [int(options.only.rpartition("/")[2])]

        def make(number: int, folder: Path, part=part, reader=reader) -> tuple[str, Callable]:
            return reader.make(random.Random(f"{options.seed} {part} {number}"), number, folder)

        def tell(number: int, title: str, kind: str, fault: str | None, part=part) -> None:
            record.add(part, number, title, f"{kind}: {fault}" if fault else None, kind)
            if (fault and fault[:60] not in said) or options.only:
                said.add((fault or "")[:60])
                print(f"{'FAULT' if fault else 'held '} {part}/{number} {title}: {kind} {(fault or '')[:200]}", flush=True)

        folder = options.work / "fuzz" / part
        guard.supervise(numbers, make, folder, tell, lambda: options.over)
        shutil.rmtree(folder, ignore_errors=True)
        here = [o for o in record.outcomes.values() if o["part"] == part]
        kinds = [o["kind"] for o in here]
        print(f"{part}: {sum(not o['fault'] for o in here)} of {len(here)} hold; "
              + ", ".join(f"{k} {kinds.count(k)}" for k in sorted(set(kinds))), flush=True)
