"""Tables of text: .csv and .tsv, gzipped or not, with commas, semicolons, tabs or bars; .txt with one label or id a line."""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from distillscope.errors import UserError
from distillscope.inputs.dimensions import MISSING, is_number, refuse_spoiled, runs_of, spoiled
from distillscope.inputs.members import Contents, Member, opened
from distillscope.naming import embedding_rank, id_rank, label_rank, runs

LOOKED_AT = 2**20
"""Bytes from which the separator and the header are told."""


@dataclass(frozen=True)
class _Layout:
    """How a table is written: separator, decimal point, column names, whether a line holds those, and how many lines to skip.

    ``dimensions`` are columns that are surely numbers: those of numbered runs, and of decimals where there are no names.
    """

    separator: str
    decimal: str
    names: list[str]
    header: bool
    skipped: int
    encoding: str
    dimensions: frozenset[str]


def read_csv(path: Path, where: str) -> Contents:
    """Columns of a table of text. Numbered columns of numbers are read as such; every other column as text at first, since an
    id such as 001 is no number."""
    import pandas as pd

    layout = _layout(path, where)
    alone = len(layout.names) == 1
    numbers = {i for i, n in enumerate(layout.names) if n in layout.dimensions}
    columns = list(range(len(layout.names)))
    with opened(path, where) as handle, warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # a row of more cells would be cut
        settings: dict[str, Any] = {
            "header": None, "names": columns, "skiprows": layout.skipped, "sep": layout.separator, "decimal": layout.decimal,
            "encoding": layout.encoding, "na_values": dict.fromkeys(numbers, MISSING),
            "dtype": {i: str for i in columns if i not in numbers}}
        table = pd.read_csv(handle, **settings, skipinitialspace=True, index_col=False, keep_default_na=False,
                            skip_blank_lines=not alone, engine="c", low_memory=False)
    if alone:
        table = table.iloc[: _without_blank_end(table[0].tolist())]
    known = {i for i in numbers if table[i].dtype.kind in "fiub"}
    values = {n: table[i].to_numpy() if i in known else _typed(table[i], layout.decimal) for i, n in enumerate(layout.names)}
    values = {n: v for n, v in values.items() if n or v.dtype != object or any(v)}  # what a separator at the end of lines makes
    members = [_member(n, v, not layout.header) for n, v in values.items()]

    def join(names: Sequence[str]) -> np.ndarray:
        return _as_written(np.column_stack([values[n] for n in names]))

    if layout.header:
        return Contents([*members, *runs_of(members, join, where)], join)
    return Contents(_without_names(members, join, where), join)


def _layout(path: Path, where: str) -> _Layout:
    """The separator and the header, as the first lines show them."""
    with opened(path, where) as handle:
        start = handle.read(LOOKED_AT)
    encoding = "utf-16" if start[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    every = start.decode(encoding, "replace").splitlines()
    skipped = next((i for i, line in enumerate(every) if line.strip() and not line.lstrip().startswith("#")), len(every))
    lines = [line for line in every[skipped : skipped + 50] if line.strip()]
    if not lines:
        raise UserError(where, "a table", "blank lines", "Save it again.")
    noted = next((line.lstrip("# \t") for line in every[:skipped][::-1] if line.strip()), None)  # a header behind a '#'
    separator = "\t" if path.name.lower().endswith((".tsv", ".tsv.gz")) else _separator(lines)
    cells = ([line.split() for line in lines[:20]] if separator == r"\s+" else
             csv.reader(io.StringIO("\n".join(lines[:20])), delimiter=separator, skipinitialspace=True))
    rows = [[cell.strip() for cell in row] for row in cells]
    rows = [row for row in rows if row]
    if noted is not None and separator != r"\s+":
        header_cells = [cell.strip() for cell in next(csv.reader([noted], delimiter=separator, skipinitialspace=True), [])]
        if len(header_cells) == len(rows[0]) > 1 and _is_header(header_cells, rows, "."):
            rows.insert(0, header_cells)
            skipped -= 1  # the header's own line is skipped too
    first, body = rows[0], rows[1:]
    with_comma = any(re.fullmatch(r"[+-]?\d+,\d+([eE][+-]?\d+)?", c) for row in body or rows for c in row)
    decimal = "," if separator != "," and with_comma else "."
    header = _is_header(first, body, decimal)
    if header and body and len(body[0]) == len(first) + 1:
        first = [*first, ""] if not body[0][-1] else ["", *first]  # a separator at the end of each line, or R's names of rows
    if header:
        names = _distinct(first)
        named = [r for r in runs(names) if label_rank(r.stem) is None and id_rank(r.stem) is None]
        dimensions = frozenset(n for r in named for n in r.names if id_rank(n) is None and label_rank(n) is None)
    else:
        names = [str(i) for i in range(len(first))]
        dimensions = frozenset(names[i] for i in range(len(first)) if all(
            i < len(row) and is_number(row[i], decimal) and not re.fullmatch(r"[+-]?\d+", row[i]) for row in rows))
    return _Layout(separator, decimal, names, header, skipped + int(header), encoding, dimensions)


def _separator(lines: list[str]) -> str:
    """The one of , ; tab | that cuts the lines into most cells of one number; a comma where none does."""
    def cells(separator: str) -> tuple[bool, int]:
        counts = [len(row) for row in csv.reader(lines[:10], delimiter=separator)]
        return len(set(counts[1:] or counts)) == 1, min(counts)

    found = {s: cells(s) for s in ",;\t|"}
    best = max(found, key=lambda s: (found[s][1] > 1, found[s][0], found[s][1]))
    if found[best][1] > 1:
        return best
    spaced = [line.split() for line in lines[:10]]  # what numpy.savetxt writes
    numbers = all(len(row) > 1 and all(map(is_number, row)) for row in spaced)
    return r"\s+" if numbers and len({len(row) for row in spaced}) == 1 else ","


def _is_header(first: list[str], body: list[list[str]], decimal: str) -> bool:
    """Whether the first line holds names: it has none of a row's numbers, and nothing that the rows repeat."""
    words = [c for c in first if not is_number(c, decimal)]
    if any(id_rank(c) is not None or label_rank(c) is not None or embedding_rank(c) is not None for c in words if c):
        return True
    counted = [c for c in first if re.fullmatch(r"\d+", c)]
    numbered = [int(c) for c in counted] in ([*range(len(counted))], [*range(1, len(counted) + 1)])  # as pandas names them
    if len(first) == len(counted) or not words:
        return len(first) > 1 and numbered and len(first) == len(counted)
    if len(words) + len(counted) < len(first) or (counted and not numbered):
        return False
    if len(first) == 1:
        return bool(body) and all(is_number(row[0], decimal) for row in body)
    repeated = any(first[i] and first[i] == row[i] for row in body for i in range(min(len(first), len(row))))
    return not repeated and not any(re.search(r"[/\\]|\.(jpe?g|png|webp|bmp|tiff?|gif)$", c, re.I) for c in words)


def _distinct(names: list[str]) -> list[str]:
    """The names, with a number behind those that were there before."""
    seen: dict[str, int] = {}
    out = []
    for name in names:
        seen[name] = seen.get(name, -1) + 1
        out.append(f"{name} (again {seen[name]})" if seen[name] else name)
    return out


def _typed(column: Any, decimal: str) -> np.ndarray:
    """A column of text as numbers where every cell is one and none begins with a zero that would be lost."""
    texts = column.fillna("").astype(str).to_numpy(object)
    stripped = [t.strip() for t in texts]
    known = [t for t in stripped if t not in MISSING]
    if known and all(re.fullmatch(r"-?(0|[1-9]\d{0,17})", t) for t in known) and len(known) == len(stripped):
        return np.array(stripped).astype(np.int64)
    if known and all(is_number(t, decimal) for t in known) and not all(re.fullmatch(r"\d+", t) for t in known):
        return np.array([t.replace(",", ".") if t not in MISSING else "nan" for t in stripped]).astype(np.float64)
    out = np.empty(len(stripped), object)
    out[:] = stripped
    return out


def _as_written(table: np.ndarray) -> np.ndarray:
    """Decimals as float32 where those are what was written: then a table of text and an .npy of one model hold the same values.

    Told from some 20,000 of them: a float32's shortest decimals give the number that was read.
    """
    if table.dtype.kind != "f":
        return table
    some = table.ravel()[:: max(1, table.size // 20_000)]
    some = some[np.isfinite(some)]
    with np.errstate(over="ignore"):
        single = some.astype(np.float32)
    if len(some) and np.isfinite(single).all() and (single.astype(str).astype(np.float64) == some).all():
        return table.astype(np.float32)
    return table


def _member(name: str, values: np.ndarray, unnamed: bool) -> Member:
    kind = {"O": "U", "u": "i"}.get(values.dtype.kind, values.dtype.kind)
    if kind == "U" and len(values) and (width := len(_numbers_in(values[0]))) > 1:
        return Member(name, (len(values), width), "lists in text", "f", lambda: _lists_in(values, name, width), unnamed=unnamed)
    return Member(name, values.shape, "text" if kind == "U" else str(values.dtype), kind, lambda: values, unnamed=unnamed)


def _numbers_in(cell: str) -> list[str]:
    """The numbers of a cell such as '[0.1, 0.2]', '0.1 0.2' or NumPy's '[0.1 0.2]'; [] where it is something else."""
    parts = cell.strip().strip("[]()").replace(",", " ").split()
    plain = re.fullmatch(r"\s*[\[(].*[\])]\s*", cell, re.DOTALL) or any("." in part for part in parts)
    return parts if plain and len(parts) > 1 and all(is_number(part) or part == "..." for part in parts) else []


def _lists_in(cells: np.ndarray, name: str, width: int) -> np.ndarray:
    """Rows (n, d) of a column of lists that were written as text."""
    rows = [_numbers_in(cell) for cell in cells]
    wrong = next((i for i, row in enumerate(rows) if len(row) != width or "..." in row), None)
    if wrong is not None:
        raise UserError(f"column '{name}'", f"{width} numbers in every row", f"{cells[wrong][:40]!r} in row {wrong}",
                        "NumPy shortens long arrays: write lists (.tolist()), or save an .npy.")
    return _as_written(np.array(rows, np.float64))


def _without_names(members: list[Member], join: Any, where: str) -> list[Member]:
    """A table without a header: its columns of decimals are the embedding. Whole numbers among them may be ids or labels: the
    embedding is then left to be named, unless they are all zeros."""
    flat = {m.name: m for m in members if m.kind in "fi"}
    decimals = [n for n, m in flat.items() if m.kind == "f"]
    zeros = [n for n, m in flat.items() if m.kind == "i" and not np.asarray(m.load()).any()]
    whole = len(decimals) < 2
    names = [n for n in flat if whole or n in (*decimals, *zeros)]
    if len(names) < 2 or len(names) < len(flat):
        return members
    wrong = {m.name: got for m in members if m.kind == "U" and (got := spoiled(m, "")) is not None}
    dtype, kind = ("int64", "i") if whole else ("float64", "f")
    columns = [m.name for m in members if m.name in names or m.name in wrong]
    load = partial(refuse_spoiled, wrong, where, columns) if wrong else partial(join, names)
    return [*members, Member(f"{columns[0]}..{columns[-1]}", (members[0].shape[0], len(columns)), dtype, kind, load,
                             tuple(columns), unnamed=True)]


def _without_blank_end(lines: list[str]) -> int:
    """How many of ``lines`` there are without the blank ones at the end."""
    count = len(lines)
    while count and not str(lines[count - 1] if lines[count - 1] is not None else "").strip():
        count -= 1
    return count


def read_txt(path: Path, where: str) -> Contents:
    """One label or id a line, blank lines at the end passed over; or rows of numbers, as numpy.savetxt writes them."""
    with opened(path, where) as handle:
        lines = handle.read().decode("utf-8-sig").splitlines()
    first = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    if len(_numbers_in(f"[{first}]")) > 1:
        return read_csv(path, where)
    lines = [line.strip() for line in lines[: _without_blank_end(lines)]]
    return Contents([Member("", (len(lines),), "text", "U", lambda: np.array(lines, object))])
