"""Ways to damage the files of a run directory, for tests: name -> a function of the file's bytes."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable

import yaml

CONTENTS = {"list": b"[]", "number": b"5", "null": b"null", "text": b"x", "deep": b"[" * 100_000, "mapping": b"{}",
            "NaN": b"NaN",
            "bytes": b"\xff\xfe\x00", "list of lists": b"[[1]]", "string": b'"x"', "NUL": b"\0" * 100,
            "long number": b"9" * 5000}
CELLS = ("inf", "nan", "-1", "1e999", "x", "", "=1+1", "<script>", "9" * 40, "1e30", "\x1b[31m", "1.5")
VALUES = {
    "students": ["[]", "5", "null", "[5]", "{a: 1}", "x"],
    "arms": ["[]", "5", "null", "[5]", "x", "[{name: [1]}]", "[{name: a, training: {epochs: x}}]"],
    "seeds": ["[]", "x", "null", "[x]", "5", "[null]"],
    "noise": ["[]", "5", "{sigmas: x}", "{std: [1]}", "null", "{sigmas: [.nan]}"],
    "data": ["[]", "5", "null"], "teacher": ["[]", "5", "null"], "published": ["5", "[5]", "[{measure: [1]}]", "x"],
    "name": ["[]", "{a: 1}", "5", "''"], "description": ["[]", "5"], "spread": ["x", "5"],
    "training": ["5", "[]", "{epochs: x}"],
    "target": ["5", "[]"], "remedies": ["5", "[5]"], "stresses": ["5"], "probes": ["5"], "validation": ["x"], "limit": ["x"],
    "screen": ["[]"]}


def mutated(content: bytes, rng: random.Random) -> bytes:
    """One to four bytes changed, a part cut out or doubled."""
    data = bytearray(content)
    kind = rng.randrange(4)
    if kind == 0:
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif kind == 1:
        del data[rng.randrange(len(data)):]
    else:
        first, last = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        if kind == 2:
            del data[first:last]
        else:
            data[first:first] = data[first:min(last, first + 200)]
    return bytes(data)


def with_cell(column: str, value: str) -> Callable[[bytes], bytes]:
    """Every second row of a CSV with another value in one column."""
    def change(content: bytes) -> bytes:
        head, *rows = csv.reader(io.StringIO(content.decode()))
        for row in rows[::2]:
            row[head.index(column)] = value
        out = io.StringIO()
        csv.writer(out).writerows([head, *rows])
        return out.getvalue().encode()
    return change


def with_setting(key: str, text: str) -> Callable[[bytes], bytes]:
    """study.yaml with one key set to a piece of YAML."""
    def change(content: bytes) -> bytes:
        kept = {k: v for k, v in yaml.safe_load(content).items() if k != key}
        return f"{yaml.safe_dump(kept)}{key}: {text}\n".encode()
    return change


def with_key(key: str, value: object) -> Callable[[bytes], bytes]:
    """A JSON object with one key of another value."""
    return lambda content: json.dumps({**json.loads(content), key: value}).encode()
