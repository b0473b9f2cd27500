"""The one reader of JSON, of this program's files and of others: what is damaged or hostile is one line that names the file."""

from __future__ import annotations

import json
import re
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from distillscope.errors import UserError

PLAIN = {"a valid tuple": "a list", "a valid list": "a list", "a valid dictionary": "a mapping", "a valid string": "text",
         "a valid integer": "a whole number", "a valid number": "a number", "a valid boolean": "true or false"}
"""How what a check expected begins in pydantic's words -> in those of a user of YAML and JSON."""
AGAIN = "Write it again with the command that made it."


def read_json(path: Path | str, expected: Any = dict, todo: str = AGAIN) -> Any:
    """The value that a file holds, as ``expected``: a type (``dict``, ``list[int]``) or a pydantic model.

    Everything that can be wrong is a `UserError` that ends in ``todo``: no file, a folder, closed permissions, not UTF-8, not
    JSON, NaN or infinity, brackets nested too deep, another type, a missing key, a value out of range.

    >>> read_json("no-such.json")
    Traceback (most recent call last):
    distillscope.errors.UserError: no-such.json: expected a file that can be read, got no file.
        Write it again with the command that made it.
    """
    return parse_json(read_bytes(Path(path), todo), str(path), expected, todo)


def read_bytes(path: Path, todo: str = AGAIN) -> bytes:
    """The bytes of a file, or a `UserError` that says why there are none."""
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise UserError(str(path), "a file that can be read", unreadable(error), todo) from None


def unreadable(error: Exception) -> str:
    """Why a file could not be read, in words.

    >>> unreadable(FileNotFoundError(2, "No such file or directory"))
    'no file'
    """
    said: dict[type[Exception], str] = {
        FileNotFoundError: "no file", IsADirectoryError: "a folder", PermissionError: "one that is closed to this user",
        NotADirectoryError: "a file where a folder should be"}
    told = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return said.get(type(error)) or told.split("\n")[0].rstrip(".")


def parse_json(content: bytes | str, where: str, expected: Any = dict, todo: str = AGAIN, *, nan: bool = False) -> Any:
    """``content`` as ``expected``; ``where`` names it in the one line of what is wrong.

    ``nan``: NaN and infinity are taken, for files of others, since Python writes them though JSON has none.

    >>> parse_json("[1, NaN]", "a.json", list)
    Traceback (most recent call last):
    distillscope.errors.UserError: a.json: expected JSON, got NaN, which JSON does not have.
        Write it again with the command that made it.
    >>> parse_json("[1, NaN]", "a.json", list, nan=True)
    [1, nan]
    """
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        value = json.loads(text, parse_constant=float if nan else _no_constant, object_pairs_hook=_no_repeat)
    except UnicodeDecodeError:
        raise UserError(where, "JSON in UTF-8", "other bytes", todo) from None
    except RecursionError:
        raise UserError(where, "JSON", "brackets nested too deep", todo) from None
    except ValueError as error:
        got = "an empty file" if not content.strip() else str(error).split("\n")[0][:120]
        raise UserError(where, "JSON", got, todo) from None
    try:
        return _adapter(expected).validate_python(value)
    except ValidationError as error:
        at, wanted, got = problem_of(error)
        raise UserError(f"{where} {at}".strip(), wanted, got, todo) from None
    except RecursionError:
        raise UserError(where, "JSON", "brackets nested too deep", todo) from None


def problem_of(error: ValidationError) -> tuple[str, str, str]:
    """(where, what was expected, what was there) of the first thing that a check found wrong."""
    first = error.errors(include_url=False)[0]
    at = ".".join(str(step) for step in first["loc"])[:120]
    if first["type"] == "missing":
        return at, "a value", "nothing"
    expected = re.sub("^(Input should be|Value error,|Assertion failed,) ", "", first["msg"])
    return at, next((ours for theirs, ours in PLAIN.items() if expected.startswith(theirs)), expected), shown(first["input"])


def shown(value: Any, room: int = 80) -> str:
    """A value in one short piece of text, whatever it is.

    >>> shown([1, 2]), shown("x" * 100, 10)
    ('[1, 2]', "'xxxxxxxx…")
    """
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # whole numbers of thousands of digits; what holds itself
        text = f"a {type(value).__name__} too long to show"
    return text if len(text) <= room else f"{text[: room - 1]}…"


def _no_repeat(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, whose keys must differ: JSON itself would keep the last value without a word."""
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {shown(twice, 40)} twice in one object")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name}, which JSON does not have")


@lru_cache(maxsize=64)
def _adapter(expected: Any) -> TypeAdapter:
    return TypeAdapter(expected)
