"""A small fixed part of ``make torture``, with every test run: a hundred inputs, two kills, and the bookkeeping itself."""

from __future__ import annotations

import random
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from torture import Case, Options, Record, commands, faults, fuzz, processes, table, try_all
from torture.embedding_inputs import FIXED

INPUTS = {"embeddings": 110, "labels": 30, "oracle": 40, "study": 60, "set": 30, "student": 30, "checkpoint": 20, "archive": 24,
          "model-files": 12,
          "cache": 24, "targets": 8, "images": 30, "tars": 24, "tables": 24}
EVERY = 4
"""Of these inputs every fourth is tried here, by `make torture` all and thousands more."""
SLOW = [n for n, title in enumerate(FIXED) if "bomb" in title or "30 MB" in title]


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    commands.load_libraries()
    return tmp_path_factory.mktemp("torture")


@pytest.fixture(scope="module")
def readers(work):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces that TorchScript is no longer developed
        commands.truth("run", work)
        return fuzz.readers(work)


@pytest.mark.parametrize("part", INPUTS)
def test_inputs_give_a_result_or_a_line(work, readers, part):
    found = []

    def make(number: int, folder: Path):
        return readers[f"fuzz-{part}"].make(random.Random(f"smoke {part} {number}"), number, folder)

    numbers = [n for n in range(0, INPUTS[part], EVERY) if part != "embeddings" or n not in SLOW]
    fuzz.supervise(numbers, make, work / "fuzz" / part, lambda *outcome: found.append(outcome), lambda: False)
    assert len(found) == len(numbers)
    assert not [outcome for outcome in found if outcome[3]]


@pytest.mark.parametrize("part", ["kill-embed", "kill-distill"])
def test_killed_and_gone_on_with(work, part):
    record = Record(work / "kills.jsonl")
    try_all((c for c in processes.kills(Options(work, rounds=1)) if c.part == part), record, Options(work))
    outcomes = [o for o in record.outcomes.values() if o["part"] == part]
    assert outcomes and not faults(outcomes)


def test_the_guard_sees_what_a_case_does(tmp_path):
    def system() -> None:
        import os

        os.system("true")

    attempts = {"wrote": lambda: Path("/tmp/outside-of-the-case").write_text("x") and None, "ran": system,
                "raised": lambda: 1 / 0,
                "bait": lambda: (tmp_path / "bait.txt").read_text() and None, "large": lambda: np.ones(2**33) and None,
                "wrong": lambda: "other numbers", "right": lambda: None}
    found = {}
    fuzz.supervise(list(range(len(attempts))), lambda n, folder: (list(attempts)[n], list(attempts.values())[n]),
                    tmp_path / "cases",
                    lambda number, title, kind, fault: found.update({title: kind}), lambda: False)
    assert found == {"wrote": "outside", "ran": "outside", "raised": "traceback", "bait": "outside", "large": "traceback",
                     "wrong": "wrong", "right": "read"}


def test_what_was_tried_is_not_tried_again(tmp_path, capsys):
    tried = []

    def attempt(number: int) -> str | None:
        tried.append(number)
        return "it broke" if number == 1 else None

    cases = [Case("part", n, f"case {n}", partial(attempt, n)) for n in range(3)]
    options = Options(tmp_path)
    try_all(cases[:2], Record(tmp_path / "r.jsonl"), options)
    with open(tmp_path / "r.jsonl", "a") as handle:
        handle.write('{"id": "part/9"')  # killed while it wrote
    record = Record(tmp_path / "r.jsonl")
    try_all(cases, record, options)
    assert tried == [0, 1, 2] and "FAULT part/1 case 1: it broke" in capsys.readouterr().out
    assert "| part | words | 2 / 3 |" in table(list(record.outcomes.values()), {"part": "words"})
