"""Labels, and ids, from a file of their own: a column is chosen, and labels are put beside the rows by id where that can be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from distillscope.errors import UserError, unknown_name
from distillscope.inputs.counters import counted_from, counts_from, rising
from distillscope.inputs.formats import Spec, parse_spec, read_contents
from distillscope.inputs.members import Contents, Member, as_labels, columns_called, ranked, readable, strings
from distillscope.inputs.pairing import HALF, positions_of
from distillscope.inputs.reading import Reading
from distillscope.measure.classes import classes, not_available
from distillscope.naming import embedding_rank, id_rank, is_index, label_rank

SURELY = 10
"""So many texts that all differ are no classes."""


def read_labels(path: str | Path, count: int, ids: np.ndarray | None = None, *, where: str = "labels") -> np.ndarray:
    """Labels (count,) from a file: by id where it and ``ids`` have them, else by order. Masked where an item has none.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "labels.csv"
    >>> _ = file.write_text("filename,label\\nb.png,1\\na.png,0\\n")
    >>> read_labels(file, 2, np.array(["a.png", "b.png"], object))
    array([0, 1])
    """
    return match_labels(path, count, [] if ids is None else [ids], where=where, in_order=ids is None)[0]


def match_labels(path: str | Path, count: int, ids: Sequence[np.ndarray] = (), *, index: Sequence[np.ndarray] = (),
                 where: str = "labels", in_order: bool = False, what: str = "labels") -> tuple[np.ndarray, Reading]:
    """Labels (count,) and how they were read. ``ids`` are the texts (count,) that may name the rows, the likeliest first;
    ``index`` those of them that are row labels of pandas.

    ``what`` is the plural that messages call them by.

    An item whose id the file lacks is without a label, which the reading counts. ``FILE:column@ids`` names both columns.
    Labels with ids beside rows without any are refused, since their order cannot be known, unless ``in_order`` says it.
    """
    spec, name = _existing(path, where)
    with readable(name, f"{what} that can be read"):
        held = read_contents(spec.path, name)
        lists = [m for m in held.members if _is_column(m)]
        keyed, remark = _ids_column(lists, spec, ids, index, count, name, what)
        found = _label_column(lists, spec.key, keyed[0] if keyed else None, name, what)
        values = found.load()
        labels = classes(values, name if not found.name else f"{name}:{found.name}")
    alone = _expect_classes(labels, found, spec, name, what)
    used = (found, keyed[0] if keyed else None)
    unused = tuple(f"{m.name or 'an unnamed one'} ({m.dtype})" for m in lists
                   if not m.implied and not any(m is one for one in used) and found in lists)
    reading = Reading(spec.path.name, None, len(labels), ids=None, labels=found.name or spec.path.name, unused=unused,
                      what=what, remarks=tuple(said for said in (remark, alone, not_available(values, labels)) if said))
    column = f":{found.name}" if found.name else ""
    if keyed is not None and not keyed[2].size and not in_order and counted_from(keyed[1]) is None:
        raise UserError(name, "embeddings with ids, since "
                        f"'{keyed[0].column}' names the items of these {what} (first '{keyed[1][0]}')", "none",
                        "Give the embeddings their ids (a column or array of them, or --ids FILE), or write "
                        f"{spec.path}{column}@none to take the {what} in row order.")
    if keyed is None or not keyed[2].size:
        reading = Reading(**{**vars(reading), "ids": None, "unlabelled": _unlabelled(labels)})
        if len(labels) != count:
            raise UserError(name, f"{count} {what}, one per item", str(len(labels)),
                            (first_line(values, spec.path) if _nameless(found) and len(labels) == count + 1 else "")
                            or "Save them in row order, or with the ids of the items on both sides.")
        return labels, reading
    return _keyed(labels, keyed, reading, name, what)


def _keyed(labels: np.ndarray, keyed: tuple[Member, np.ndarray, np.ndarray, str], reading: Reading,
           where: str, what: str) -> tuple[np.ndarray, Reading]:
    member, own, at, how = keyed
    if len(own) != len(labels):
        raise UserError(where, f"{len(labels)} ids, one for each of the {what}", str(len(own)), "Save one id for each row.")
    missing = at < 0
    if missing.all():
        raise UserError(where, f"{what} of the items that were embedded", f"none in '{member.column}' (first '{own[0]}')",
                        f"Give the {what} of these items, or name another column: FILE:{what.removesuffix('s')}@ids; "
                        f"@none takes the {what} in row order.")
    unknown = missing | np.ma.getmaskarray(labels)[at]
    values = np.ma.getdata(labels)[at]
    taken = np.ma.array(values, mask=unknown) if unknown.any() else values
    repeated = len(own) - len(set(own))
    remarks = [f"matched{how}"] if how else []
    extra = len(set(own)) - int((~missing).sum())
    if extra:
        remarks.append(f"{extra:,} of its rows are of no item here")
    return taken, Reading(**{**vars(reading), "ids": member.column, "unlabelled": _unlabelled(taken), "repeated": repeated,
                             "remarks": (*reading.remarks, *remarks)})


def _expect_classes(labels: np.ndarray, member: Member, spec: Spec, where: str, what: str) -> str:
    """What is said of labels that all differ. Texts name the items then, unless the caller named their column."""
    found, one = np.ma.compressed(labels), what.removesuffix("s")
    own = f"a {'class' if what == 'labels' else one} of its own"
    if len(found) < SURELY or len(np.unique(found)) < len(found):
        return ""
    if found.dtype.kind == "U" and spec.key is None:
        ids = f"@{spec.ids}" if spec.ids else ""
        todo = (f"Name the column of {what}: FILE:COLUMN; {spec.path}:{member.name}{ids} takes each text for {own}."
                if member.name and not member.unnamed else
                f"Where a line holds a file and its {one}, write 'filename,{one}' above them and commas between, in a .csv; "
                f"where each is {own}, write '{one}' above them, and name it: FILE.csv:{one}.")
        raise UserError(where, f"{what} that items share", f"{len(found)} texts that all differ, first '{found[0][:60]}'", todo)
    return f"every item has {own}"


def first_line(values: Any, path: str | Path) -> str:
    """What to do where a list without a name has one text too many: its first may be the name of the others."""
    return f"If its first line is the name of the others, write {path}:{np.asarray(values)[0]}."


def headed(members: Sequence[Member], key: str) -> Member | None:
    """The only list of a file without its first line, where this is ``key``: a name that could not be told from the others."""
    if len(members) != 1 or not _nameless(members[0]):
        return None
    values = np.asarray(members[0].load())
    return replace(members[0], name=key, shape=(len(values) - 1,), load=lambda: values[1:], unnamed=False) if (
        len(values) > 1 and str(values[0]) == key) else None


def _nameless(member: Member) -> bool:
    return member.kind == "U" and len(member.shape) == 1 and (member.unnamed or not member.name)


def _unlabelled(labels: np.ndarray) -> int:
    return int(np.ma.getmaskarray(labels).sum())


def _is_column(member: Member) -> bool:
    """A list, or a table that can be one-hot."""
    if member.columns or embedding_rank(member.name) is not None:
        return False
    return member.count is not None or (len(member.shape) == 2 and member.kind in "fib")


def _existing(path: str | Path, where: str) -> tuple[Spec, str]:
    spec = parse_spec(path)
    if not spec.path.exists():
        raise UserError(f"{where} {path}", "a file that exists", "none", "Check the path.")
    return spec, f"{where} {path}"


def _label_column(lists: list[Member], key: str | None, ids: Member | None, where: str, what: str) -> Member:
    """The column called ``key``; else the one named as labels are; else the only one that is no id."""
    lists = [m for m in lists if not m.implied]
    shown = ", ".join(map(str, lists[:6])) or "none"
    if key is not None:
        found = next((m for m in lists if m.name == key), None) or next(
            (m for m in lists if m.name.replace("/", ".").endswith(f".{key}")), None) or headed(lists, key)
        if found is None:
            raise UserError(where, f"an array called {key}, of shape (items,)", shown, "Name it: FILE:key.")
        return found
    named = as_labels(m for m in lists if m is not ids)
    if named:
        return named[0]
    rest = [m for m in lists if m is not ids and m.count is not None and id_rank(m.name) is None]
    rest = rest or [m for m in lists if m is not ids and m.count is not None]
    rest = rest or [m for m in lists if m is not ids]
    if len(rest) == 1:
        return rest[0]
    raise UserError(where, f"an array called {what.removesuffix('s')}, of shape (items,)", shown, "Name it: FILE:key.")


Keyed = tuple[Member, np.ndarray, np.ndarray, str]
"""The column that names the items, its texts, the row of each item in it (-1 for none; empty where the items have no ids to
compare), and how they were compared."""


def _ids_column(lists: list[Member], spec: Spec, ids: Sequence[np.ndarray], row_labels: Sequence[np.ndarray],
                count: int, where: str, what: str) -> tuple[Keyed | None, str]:
    """The column that names the items, and what a reader must know where an index was passed over.

    It is the one named as ids are that matches most, else any other that holds most of the items' ids.
    """
    asked, label = spec.ids, spec.key
    if asked == "none":
        return None, ""
    columns = [m for m in lists if m.count is not None and m.name != label and m.kind in "iUOf" and (m.name or len(lists) > 1)]
    if asked is not None:
        columns = columns_called(columns, asked)
        if not columns:
            raise unknown_name(where, "column of ids", asked, [m.column for m in lists])
    named = [m for m in columns if asked is not None or id_rank(m.name) is not None]
    best: Keyed | None = None
    rows, remark = None, ""
    counted: tuple[Member, np.ndarray] | None = None
    shifted: tuple[Member, np.ndarray, np.ndarray] | None = None
    others = [m for m in columns if m not in named and label_rank(m.name) is None]
    for member in [*sorted(named, key=lambda m: id_rank(m.name) or 0), *others]:
        try:
            own = strings(member.load(), f"{where}:{member.name}")
        except UserError:
            if asked is not None or id_rank(member.name) == 0:
                raise
            continue
        index = asked is None and is_index(member.name)
        if index and len(own) == count and np.array_equal(own, np.arange(len(own)).astype(str)):
            rows = own
            continue
        for wanted in ids:
            at, how = _rows_of(wanted, own)
            matched = int((at >= 0).sum())
            if asked is None and 0 < matched < len(wanted) == len(own) and counted_from(wanted) is not None:
                counted = member, own  # the items are merely numbered, and by others than these
                continue
            if asked is None and matched and _may_be_shifted(own, wanted, any(wanted is one for one in row_labels)):
                shifted = member, own, wanted
                continue
            if index and not matched and best is None and rising(own):
                continue
            if (best is None or matched > int((best[2] >= 0).sum())) and (member in named or matched > HALF * len(wanted)):
                best = member, own, at, how
        if best is None and member in named and counted is None and shifted is None:
            if index and rising(own):
                remark = f"its index ('{own[0]}' to '{own[-1]}', rising) matches no ids, and its rows are taken to be in order"
            else:
                best = member, own, np.empty(0, int), ""
    if best is not None:
        _one_label_each(best[0], best[1], lists, label, where, what)
        return best, ""
    if shifted is not None:
        _refuse_shifted(*shifted, spec, where, what)
    if counted is not None:
        return None, _expect_counter(*counted, spec, where, what)
    if rows is not None:
        _expect_row_order(rows, ids, spec, where, what)
    return None, remark


def _may_be_shifted(own: np.ndarray, wanted: np.ndarray, row_labels: bool) -> bool:
    """Whether ids count a whole table from 1, and the items are counted from 0, or the other way round; or the items have row
    labels of a part of it, which pandas counts from 0."""
    start, other = counts_from(np.unique(own)), counts_from(wanted)
    return {start, other} == {0, 1} or (row_labels and start == 1 and other is None)


def _refuse_shifted(member: Member, own: np.ndarray, wanted: np.ndarray, spec: Spec, where: str, what: str) -> None:
    given = f"{spec.path}:{spec.key}" if spec.key else str(spec.path)
    start, other = counts_from(np.unique(own)), counts_from(wanted)
    items = (f"the row labels of pandas (first '{wanted[0]}'), which count from 0 unless they were set" if other is None else
             f"items that are counted from {other}")
    raise UserError(where, f"{what} that count the rows as the embeddings do",
                    f"'{member.column}' from {start} to {len(set(own)) - 1 + (start or 0)}, beside {items}",
                    f"Write {given}@{member.column} to match them as they are"
                    + (f", or {given}@none to take the rows in order." if len(own) == len(wanted) else
                       ", or number both alike."))


def _expect_counter(member: Member, own: np.ndarray, spec: Spec, where: str, what: str) -> str:
    """Where the items are numbered by their rows and these numbers are others: from 0 beside from 1, both are in row order."""
    if counted_from(own) is not None:
        return f"'{member.column}' counts from {own[0]}, the items do not, and both are taken to be in one order"
    given = f"{spec.path}:{spec.key}" if spec.key else str(spec.path)
    raise UserError(where, f"{what} by id, or in row order", f"numbers in '{member.column}' (first '{own[0]}') that name "
                    "some of the items, which are numbered by their rows",
                    f"Write {given}@{member.column} to match them, or {given}@none to take the rows in order.")


def _expect_row_order(own: np.ndarray, ids: Sequence[np.ndarray], spec: Spec, where: str, what: str) -> None:
    """An index of 0 to n - 1 is the order of the rows, unless the items have these very numbers in another order."""
    if any(not np.array_equal(wanted, own) and (_rows_of(wanted, own)[0] >= 0).all() for wanted in ids):
        column = f":{spec.key}" if spec.key else ""
        given = f"{spec.path}{column}"
        raise UserError(where, f"{what} by id, or in row order", f"an index of 0 to {len(own) - 1}, which may be either, since "
                        "the items have these numbers in another order",
                        f"Write {given}@index to match them, or {given}@none to take the rows in order.")


def _rows_of(wanted: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, str]:
    """Row of each of ``wanted`` in a column that may name an item twice: its first."""
    import pandas as pd

    first = ~pd.Index(own, dtype=object).duplicated()
    at, how = positions_of(wanted, own[first])
    return np.where(at >= 0, np.flatnonzero(first)[at], -1), how


def _one_label_each(member: Member, own: np.ndarray, lists: list[Member], label: str | None, where: str, what: str) -> None:
    """An item that is named twice must have one label."""
    import pandas as pd

    repeated = pd.Index(own, dtype=object).duplicated(keep=False)
    if not repeated.any():
        return
    found = classes(_label_column(lists, label, member, where, what).load(), where)
    frame = pd.DataFrame({"id": own, "label": np.ma.getdata(found).astype(str)})[repeated]
    several = frame.groupby("id")["label"].nunique()
    if (several > 1).any():
        raise UserError(where, f"one {what.removesuffix('s')} for each item", f"{int(several.max())} for '{several.idxmax()}'",
                        "Keep one row for each item.")


def read_column(path: str | Path, where: str, rank: Callable[[str], int | None], what: str) -> tuple[np.ndarray, str | None]:
    """One list of a file and its name: the one after the colon; else the one that ``rank`` knows; else the only one."""
    spec, name = _existing(path, where)
    with readable(name, f"{what} that can be read"):
        held: Contents = read_contents(spec.path, name)
        lists = [m for m in held.members if m.count is not None and not m.columns and not m.implied]
        if spec.key is not None:
            found = next((m for m in lists if m.name == spec.key), None) or headed(lists, spec.key)
            if found is None:
                columns = [m.name for m in lists if m.name] or ["(one without a name)"]
                raise unknown_name(name, "column of the file", spec.key, columns)
        else:
            named = ranked((m for m in lists if m.name), rank)
            if not named and len(lists) != 1:
                raise UserError(name, f"one column of {what}", ", ".join(map(str, lists[:6])) or "none",
                                f"Name it: {spec.path.name}:COLUMN.")
            found = (named or lists)[0]
        return np.asanyarray(found.load()), found.name or None
