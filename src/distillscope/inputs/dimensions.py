"""Numbered columns of a table side by side, as one embedding; a column of theirs that is not all numbers is named."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from functools import partial

import numpy as np

from distillscope.errors import UserError
from distillscope.inputs.members import Member
from distillscope.measure.rows import Stored
from distillscope.naming import id_rank, is_index, label_rank, runs

NUMBER = r"[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?|nan|inf|NaN|Inf)"
MISSING = ["", "nan", "NaN", "NA", "null", "None"]
HALF = 0.5
MOST_RANGES = 20


def runs_of(members: Sequence[Member], join: Callable[[Sequence[str]], np.ndarray | Stored], where: str) -> list[Member]:
    """A member for each run of numbered columns of numbers. Where a column of the run is another thing in part, loading the
    run says so: without it the rest would pass for the embedding."""
    single = {m.name: m for m in members if len(m.shape) == 1 and not m.implied and not is_index(m.name)
              and label_rank(m.name) is None and id_rank(m.name) is None}
    flat = [n for n, m in single.items() if m.kind in "fi"]
    every = {run.stem: run for run in runs(list(single))}
    found = []
    for run in runs(flat):
        wider = every.get(run.stem, run)
        wrong = {n: got for n in wider.names if n not in run.names and (got := spoiled(single[n], run.stem)) is not None}
        names = tuple(n for n in wider.names if n in run.names or n in wrong)
        kind = "f" if any(single[n].kind == "f" for n in run.names) else "i"
        dtype = next(single[n].dtype for n in run.names if single[n].kind == kind)
        shape = *single[names[0]].shape, len(names)
        load = partial(refuse_spoiled, wrong, where, names) if wrong else partial(join, names)
        found.append(Member(f"{names[0]}..{names[-1]}", shape, dtype, kind, load, names))
    return found


def refuse_spoiled(wrong: dict[str, str], where: str, names: Sequence[str]) -> np.ndarray:
    """Name the first column that is not all numbers, and how the others of ``names`` are asked for."""
    name, got = next(iter(wrong.items()))
    rest = without(names, wrong)
    left_out = f"; to leave {'it' if len(wrong) == 1 else f'{len(wrong)} such columns'} out, say FILE:{rest}" if rest else ""
    raise UserError(f"{where}:{name}", "numbers in every row, as in the columns beside it", got,
                    f"Fix the column or drop such rows on both sides{left_out}.")


def without(names: Sequence[str], wrong: Collection[str]) -> str:
    """The columns ``names`` but the ``wrong`` ones, as they are asked for: in ranges; "" where that is no short text.

    >>> without(["e0", "e1", "e2", "e3", "e4"], {"e2"}), without(["e0", "e1", "e2"], {"e0"})
    ('e0..e1,e3..e4', 'e1..e2')
    """
    ranges: list[list[str]] = [[]]
    for name in names:
        if name in wrong:
            ranges.append([])
        else:
            ranges[-1].append(name)
    said = [r[0] if len(r) == 1 else f"{r[0]}..{r[-1]}" for r in ranges if r]
    return ",".join(said) if len(said) <= MOST_RANGES and not any("," in name for name in names) else ""


def spoiled(member: Member, stem: str) -> str | None:
    """What makes a column that is numbered like the dimensions no column of numbers; None where it is another thing altogether.

    A name in words is trusted (e0); where a number is all the name there is, a column may be of ids, and most of its cells must
    be decimals.
    """
    if member.kind != "U" or member.dtype != "text":
        return member.dtype if stem else None
    cells = ["" if v is None else str(v).strip() for v in np.asarray(member.load()).tolist()]
    numbers = [is_number(c) or is_number(c, ",") for c in cells]
    words = [i for i, (c, number) in enumerate(zip(cells, numbers, strict=True)) if not number and c not in MISSING]
    decimals = sum(number and not c.isdigit() for c, number in zip(cells, numbers, strict=True))
    if (words and not any(numbers)) if stem else decimals <= HALF * len(cells):
        return None
    return f"'{cells[words[0]][:40]}' in row {words[0]}" if words else f"numbers written as text, first '{cells[0][:40]}'"


def is_number(text: str, decimal: str = ".") -> bool:
    """Whether a cell holds a number.

    >>> is_number("-1.5e-3"), is_number("0,5", ","), is_number("#N/A")
    (True, True, False)
    """
    return bool(re.fullmatch(NUMBER, text.replace(",", ".") if decimal == "," else text))
