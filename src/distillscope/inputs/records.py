"""Tables inside dicts and lists, as pandas and people write them to JSON: records, columns, or a dict of dicts either way."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from distillscope.errors import UserError
from distillscope.naming import are_weights, embedding_rank, id_rank, is_index, label_rank, runs

FEWEST_ROWS = 3
SPLIT = {"columns", "index", "data"}


@dataclass(frozen=True)
class Records:
    """Columns of equal length, and the names of the rows where they had some; None stands where a row has no value."""

    columns: dict[str, list[Any]]
    index: list[Any] | None = None


def records_of(held: Any, where: str) -> Records | None:
    """The table that a JSON document is, in any of pandas' orientations; None where it is something else."""
    if isinstance(held, dict) and set(held) == {"schema", "data"}:
        held = held["data"]
    if isinstance(held, list) and held and all(isinstance(item, dict) for item in held):
        return Records(_every_key(held))
    if not isinstance(held, dict):
        return None
    if SPLIT >= set(held) >= {"columns", "data"} and all(isinstance(part, list) for part in held.values()):
        return _of_split(held, where)
    found = _of_columns(held) or by_two_keys(held)
    if found is None:
        _refuse_numbers_alone(held, where)
    return found


def _every_key(rows: Sequence[dict]) -> dict[str, list[Any]]:
    return {str(key): [row.get(key) for row in rows] for key in dict.fromkeys(key for row in rows for key in row)}


def _of_split(held: dict, where: str) -> Records | None:
    names = [".".join(map(str, n)) if isinstance(n, list) else str(n) for n in held["columns"]]
    if not all(isinstance(row, list) and len(row) == len(names) for row in held["data"]) or not held["data"]:
        return None
    if len(set(names)) < len(names):
        raise UserError(where, "columns of different names", "one twice", "Rename it.")
    return Records({n: [row[i] for row in held["data"]] for i, n in enumerate(names)}, held.get("index"))


def _of_columns(held: dict) -> Records | None:
    """Lists of equal length, some of which are numbered dimensions."""
    lists = [part for part in held.values() if isinstance(part, list)]
    if len(lists) < len(held) or len({len(part) for part in lists}) > 1 or not lists[0]:
        return None
    whole = any(r.whole and _named(r.names) for r in runs([n for n in held if _scalars(held[n])]))
    return Records(dict(held)) if whole else None


def is_either(held: dict) -> bool:
    """Whether lists with numbered names (v0, v1, ...) are as well the vectors of items that are called so: all are numbers, and
    nothing beside them is called as ids or labels are."""
    vectors = all(_scalars(part) and len(part) > 1 and any(isinstance(v, float) for v in part) and None not in part
                  for part in held.values())
    return vectors and len(held) >= FEWEST_ROWS and not any(id_rank(n) is not None or label_rank(n) is not None for n in held)


def by_two_keys(held: dict) -> Records | None:
    """A dict of dicts as a table: {column: {row: value}}, or {row: {column: value}}, by which of the keys name columns.

    >>> by_two_keys({"embedding": {"a": [0.1], "b": [0.2], "c": [0.3]}, "label": {"c": 2, "a": 0, "b": 1}}).columns["label"]
    [0, 1, 2]
    """
    parts = list(held.values())
    if not parts or not all(isinstance(part, dict) and part for part in parts):
        return None
    longest = max(parts, key=len)
    outer, inner = [str(key) for key in held], [str(key) for key in longest]
    if any(not set(part) <= set(longest) for part in parts) or are_weights(outer) or are_weights(inner):
        return None
    columns, rows = _named(outer), _named(inner)
    if columns > rows and len(longest) >= FEWEST_ROWS:
        return Records({str(key): [part.get(row) for row in longest] for key, part in held.items()}, _numbers(inner))
    if rows > columns and len(parts) >= FEWEST_ROWS:
        return Records(_every_key(parts), _numbers(outer))
    return None


def _refuse_numbers_alone(held: dict, where: str) -> None:
    """A dict of dicts of numbers whose keys are all numbers: either may be the row."""
    parts = [part for part in held.values() if isinstance(part, dict)]
    if len(parts) < len(held) or len(parts) < 2 or len(parts[0]) < FEWEST_ROWS:
        return
    if all(isinstance(value, (int, float, type(None))) for part in parts for value in part.values()):
        outer, inner = next(iter(held)), next(iter(parts[0]))
        raise UserError(where, "columns with names", f"numbers under '{outer}' and '{inner}', of which either may be the row",
                        "Write one object for each row: frame.to_json(orient='records').")


def _named(names: Sequence[str]) -> int:
    """How surely these are names of columns: 2 by a word, 1 by a stem with numbers, 0 not at all."""
    if any(embedding_rank(n) is not None or label_rank(n) is not None or (id_rank(n) is not None and not is_index(n))
           for n in names):
        return 2
    return int(any(r.whole and r.named_as_embedding and r.stem for r in runs(names)))


def _numbers(names: list[str]) -> list[Any]:
    """Row numbers as pandas has them, else the names."""
    return [int(n) for n in names] if all(re.fullmatch(r"-?(0|[1-9]\d{0,17})", n) for n in names) else names


def _scalars(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(v, (int, float, type(None))) for v in values)
