"""Damage and hostility, drawn from a seeded generator: bytes, plain values, and names."""

from __future__ import annotations

import copy
import random
import struct
from typing import Any

SIZES = (0, 1, 255, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**53, 2**62, 2**63 - 1, 2**64 - 1)
HOSTILE_NAMES = (
    "", " ", ".", "..", "../../x", "/etc/passwd", "a/b", "a\\b", "~", "con", "x" * 300, "a\0b", "a\nb", "\r\nx: y", "\x1b[31m",
    "\u202eabc",
    "小", "é", "e\u0301", "=1+1", "+1", "-1", "@SUM(A1)", "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "]]>",
    "--><", "|", "`id`",
    "$(id)", "%s%n", "{x}", "{{x}}", "${x}", "\\input{x}", "$x$", "*", "?", "NaN", "null", "true", "None", "0", "007", "1e5",
    "__proto__",
)
HOSTILE_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 1.5, -0.0, 2**31, 2**63, 2**64, 10**30, 10**400, 1e308, 1e-320, float("nan"), float("inf"),
    -float("inf"), "", "x",
    b"\xff".decode("latin-1"), [], {}, [[]], [None], [1, "x"], {"": 1}, {"a": {"b": []}}, [[[[[[]]]]]], "x" * 10_000,
    list(range(1000)), *HOSTILE_NAMES[2:12],
)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """``data`` with bits flipped, cut, sizes in its head made absurd, a part repeated or left out, or something before it."""
    changed, head = bytearray(data or b"\0"), min(len(data) or 1, 500)
    kind = rng.randrange(8)
    if kind == 0:
        for _ in range(rng.randint(1, 6)):
            changed[rng.randrange(head) if rng.random() < 0.7 else rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del changed[rng.randrange(len(changed)):]
    elif kind == 2:
        at = rng.randrange(head)
        packed = struct.pack(rng.choice("<>") + "Q", rng.choice(SIZES))
        changed[at : at + rng.choice((2, 4, 8))] = packed[: rng.choice((2, 4, 8))]
    elif kind == 3:
        for _ in range(rng.randint(1, 6)):
            changed[rng.randrange(max(0, len(changed) - 500), len(changed))] = rng.randrange(256)
    elif kind == 4:
        first, last = sorted(rng.randrange(len(changed)) for _ in range(2))
        changed[first:last] = b"" if rng.random() < 0.5 else changed[first:last] * 2
    elif kind == 5:  # numbers written as text: shapes, offsets, values
        digits = [i for i in range(head) if chr(changed[i]).isdigit()]
        for i in rng.sample(digits, min(len(digits), rng.randint(1, 4))):
            changed[i] = ord(rng.choice("0123456789-e,. "))
    elif kind == 6:
        changed[0:0] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 9)))
    else:  # text: marks of structure in other places
        for _ in range(rng.randint(1, 5)):
            at = rng.randrange(len(changed) + 1)
            changed[at:at] = bytes(rng.choice(b"{}[]:,-&*!|>'\"%@`#;\t\n\r \x00\xff") for _ in range(rng.randint(1, 3)))
    return bytes(changed)


def paths(value: Any, at: tuple = ()) -> list[tuple]:
    """Every place in nested dicts and lists."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in pairs for place in ((*at, key), *paths(inner, (*at, key)))]


def distorted(value: Any, rng: random.Random, hostile: tuple = HOSTILE_VALUES) -> tuple[Any, str]:
    """A copy of nested plain values, one or two places replaced, removed, renamed or doubled, and what was done in words."""
    changed, said = copy.deepcopy(value), []
    for _ in range(1 + (rng.random() < 0.3)):
        places = paths(changed)
        if not places:
            break
        *steps, last = rng.choice(places)
        owner = changed
        for step in steps:
            owner = owner[step]
        kind, where = rng.randrange(8), ".".join(map(str, (*steps, last)))
        if kind == 0:
            del owner[last]
            said.append(f"without {where}")
        elif kind == 1 and isinstance(owner, dict):
            name = rng.choice(HOSTILE_NAMES)
            owner[name] = owner.pop(last)
            said.append(f"{where} called {name[:20]!r}")
        elif kind == 2:
            owner[last] = [owner[last]] if rng.random() < 0.5 else {"name": owner[last]}
            said.append(f"{where} wrapped")
        elif kind == 3 and isinstance(owner, list):
            owner.append(copy.deepcopy(owner[last]))
            said.append(f"{where} twice")
        elif kind == 4 and isinstance(owner[last], str):
            owner[last] = rng.choice(HOSTILE_NAMES)
            said.append(f"{where} = {owner[last][:20]!r}")
        else:
            owner[last] = rng.choice(hostile)
            said.append(f"{where} = {repr(owner[last])[:30]}")
    return changed, ", ".join(said) or "as it is"


def nested_json(rng: random.Random) -> str:
    """JSON that is no mapping of ours: deep, huge, or of another kind."""
    return rng.choice(("[" * 100_000, '{"a":' * 50_000, "[" * 900 + "]" * 900, "[]", "5", "null", '"x"', "", "{", "NaN",
                       "[NaN]", '{"a": 1e999}',
                       '{"a": ' + "9" * 5000 + "}", '{"a": 1, "a": 2}', "\ufeff{}", "{}", "\0", "[[1]]", "true", '{"": {}}',
                       "// x", "'x'"))
