"""Teacher and student with one row per item: by their ids where both have some, else by order; and what was done for it."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from distillscope.errors import UserError
from distillscope.inputs.choosing import Embeddings
from distillscope.inputs.counters import counted_from, counter, counts_from, within
from distillscope.inputs.ids_and_labels import Ids
from distillscope.inputs.members import strings
from distillscope.inputs.reading import Pairing
from distillscope.measure.classes import partitions_agree
from distillscope.naming import is_index, plain

HALF = 0.5
FROM_PANDAS = "has row labels of pandas, which count from 0 unless they were set"


def align(teacher: Embeddings, student: Embeddings) -> tuple[Embeddings, Embeddings, Pairing]:
    """Both sides with one row per item: by id where both have ids, in the teacher's order; else by order.

    >>> a = Embeddings(np.eye(3), strings(["x", "y", "z"], "a"), None, "a")
    >>> b = Embeddings(np.eye(2), strings(["z", "x"], "b"), None, "b")
    >>> align(a, b)[2].note
    'aligned by id: 2 items in both; dropped 1 of 3 of the teacher, 0 of 2 of the student.'
    """
    by_number = _numbered(teacher, student), _numbered(student, teacher)
    first, second = (found or side for found, side in zip(by_number, (teacher, student), strict=True))
    if first.ids is None or second.ids is None:
        first, second, pairing = _by_order(first, second)
    else:
        how = " (the numbers of the rows; @none on one side keeps row order)" if any(by_number) else ""
        first, second, pairing = _by_id(first, second, first.ids, second.ids, how)
    _same_classes(first, second, (teacher.name, student.name))
    return first, second, pairing


def _numbered(side: Embeddings, other: Embeddings) -> Embeddings | None:
    """The side with the numbers of its rows for ids, where these only count its rows and all row labels of the other side are
    among them: it is then the whole table, and the other a part of it or the same in another order. None otherwise."""
    column = other.reading.ids if other.ids is not None and other.reading is not None else None
    counted = _counter(side)
    if side.ids is not None or counted is None or other.ids is None or column is None or not is_index(column):
        return None
    return replace(side, ids=strings(counted, side.name)).read_as(ids="index") if within(other.ids, counted) else None


def _counter(side: Embeddings) -> np.ndarray | None:
    """The numbers (n,) that pandas, or R, gave the rows of a side, where these only count them."""
    if not side.numbered:
        return None
    columns = (texts for column in side.spare if is_index(column.name) and (texts := distinct_texts(column)) is not None)
    return next((texts for texts in columns if counted_from(texts) is not None), counter(0, len(side)))


# -- by order ----------------------------------------------------------------------------------------------------------------


def _by_order(teacher: Embeddings, student: Embeddings) -> tuple[Embeddings, Embeddings, Pairing]:
    hint = _columns_that_match(teacher, student)
    if hint is not None:
        columns, same_order = hint
        if not same_order or len(teacher) != len(student):
            raise UserError(f"student {student.name}", "rows in the teacher's order, or ids on both sides",
                            f"another order of what '{columns[0]}' and '{columns[1]}' hold",
                            f"If these are the ids, say so: {_asked(teacher, student, columns)}"
                            + (f"; {_in_order(teacher, student)} keeps row order." if len(teacher) == len(student) else "."))
    if len(teacher) != len(student):
        raise UserError(f"student {student.name}", f"{len(teacher)} rows like the teacher {teacher.name}",
                        str(len(student)), "Embed the same items in the same order, or give ids on both sides"
                        + (": @index takes the row labels of pandas." if teacher.numbered or student.numbered else "."))
    for side, name in ((teacher, "teacher"), (student, "student")):
        if side.sorted:
            raise UserError(f"{name} {side.name}", "ids on both sides, since the file sorts its arrays by name",
                            "none on the other side", "Give the other side's ids: FILE@COLUMN, or a file of them.")
    return teacher, student, Pairing("order", len(teacher), note=_order_note(teacher, student))


def _order_note(teacher: Embeddings, student: Embeddings) -> str:
    """What a reader must know of rows that are paired by order: which side has ids, and which are only counted."""
    alone, other = ("teacher", "student") if teacher.ids is not None else ("student", "teacher")
    side, counted = (teacher, _counter(student)) if alone == "teacher" else (student, _counter(teacher))
    if side.ids is None:
        return "neither side has ids: row i of both is taken to be the same item."
    if counted is None or not all(text.isdigit() for text in side.ids):
        return f"only the {alone} has ids: rows are taken to be in one order."
    column, start = (side.reading.ids if side.reading else None) or "ids", counted_from(side.ids)
    if start is not None and start == counted_from(counted):
        return f"only the {alone} has ids: rows are taken to be in one order."
    numbers = f"counts from {start}" if start is not None else f"begins with {side.ids[0]}"
    advice = "" if start is not None or not is_index(column) else " (@index on both sides matches these numbers)"
    return (f"'{column}' of the {alone} {numbers}, the {other}'s rows are numbered from {counted[0]}: "
            f"rows are taken to be in one order{advice}.")


def _asked(teacher: Embeddings, student: Embeddings, columns: tuple[str, str]) -> str:
    """The options that name these columns of both sides as their ids; of a model there is none to name."""
    return " ".join(_option(side, place, column) for side, place, column in
                    zip((teacher, student), ("--teacher", "--student"), columns, strict=True) if not _is_model(side))


def _in_order(teacher: Embeddings, student: Embeddings) -> str:
    """The option that leaves the ids of one side out."""
    return _option(student, "--student", "none") if _is_model(teacher) else _option(teacher, "--teacher", "none")


def _option(side: Embeddings, place: str, column: str) -> str:
    own = side.reading is not None and column == side.reading.ids
    option, file = side.given
    option = option if option.startswith("--") else place
    if side.ids_given and own and option == place:
        return f"{option}-ids {shlex.quote(side.ids_given)}"
    file = file or (side.reading.file if side.reading is not None else side.name)
    return f"{option} {shlex.quote(f'{file}@{column}')}"


def _is_model(side: Embeddings) -> bool:
    return side.reading is not None and bool(side.reading.weights)


def _columns_that_match(teacher: Embeddings, student: Embeddings) -> tuple[tuple[str, str], bool] | None:
    """A column of either side that hold mostly the same texts, and whether in the same order."""
    for first in columns_of_ids(teacher):
        for second in columns_of_ids(student):
            a, b = distinct_texts(first), distinct_texts(second)
            if a is None or b is None:
                continue
            if np.array_equal(a, b):
                return (first.name, second.name), True
            starts = counted_from(a), counted_from(b)
            if starts in ((0, 1), (1, 0)) and len(a) == len(b):
                return (first.name, second.name), True
            if (starts[0] is not None and not within(b, a)) or (starts[1] is not None and not within(a, b)):
                continue  # numbers that were made anew
            common = len(set(a) & set(b))
            if common > HALF * min(len(a), len(b)):
                return (first.name, second.name), False
    return None


def columns_of_ids(side: Embeddings) -> list[Ids]:
    """The ids of a side, and other columns that could be."""
    if side.ids is None:
        return list(side.spare)
    name = (side.reading.ids if side.reading else None) or "ids"
    return [Ids(name, True, partial(np.asarray, side.ids)), *side.spare]


def distinct_texts(column: Ids) -> np.ndarray | None:
    """Its texts where they differ from one another."""
    try:
        found = column.load()
    except UserError:
        return None
    return found if len(set(found)) == len(found) else None


def names_of_rows(*sides: Embeddings) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The texts (n,) that may name the rows of the sides, and those of them that are row labels of pandas: which only count the
    rows of a side where the other has some that do not."""
    found = [(is_index(column.name), texts) for side in sides for column in columns_of_ids(side)
             if (texts := distinct_texts(column)) is not None]
    if any(index and counted_from(texts) is None for index, texts in found):
        found = [(index, texts) for index, texts in found if not index or counted_from(texts) is None]
    return [texts for _, texts in found], [texts for index, texts in found if index]


# -- by id -------------------------------------------------------------------------------------------------------------------


def _by_id(teacher: Embeddings, student: Embeddings, teacher_ids: np.ndarray, student_ids: np.ndarray,
           by_number: str) -> tuple[Embeddings, Embeddings, Pairing]:
    for side, name, ids in ((teacher, "teacher", teacher_ids), (student, "student", student_ids)):
        unique_ids(ids, f"{name} {side.name} ids", "Keep one row for each item, or leave ids out on one side: FILE@none.")
    columns, at, how = _best_columns(teacher, student, positions_of(teacher_ids, student_ids))
    kept = np.flatnonzero(at >= 0)
    if not len(kept):
        raise UserError(f"student {student.name} ids", "ids of the teacher's items",
                        f"none in common (teacher's first '{teacher_ids[0]}', student's first '{student_ids[0]}')",
                        "Embed the same items, name the ids (FILE@COLUMN), or leave them out on one side: FILE@none.")
    how = f"{by_number}{how}"
    dropped = len(teacher) - len(kept), len(student) - len(kept)
    rows = at[kept]
    in_order = dropped == (0, 0) and np.array_equal(rows, np.arange(len(student)))
    note = None
    if not in_order or how:
        note = (f"aligned by id{how}: {len(kept):,} items in both; dropped {dropped[0]:,} of {len(teacher):,} of the teacher, "
                f"{dropped[1]:,} of {len(student):,} of the student." if any(dropped) else
                f"aligned by id{how}: all {len(kept):,} items are in both{'' if in_order else ', in another order'}.")
    return (teacher if dropped[0] == 0 else teacher.take(kept),
            student if np.array_equal(rows, np.arange(len(student))) else student.take(rows),
            Pairing("id", len(kept), dropped, columns, note))


def _best_columns(teacher: Embeddings, student: Embeddings,
                  by_ids: tuple[np.ndarray, str]) -> tuple[tuple[str, str], np.ndarray, str]:
    """The columns of both sides that match most, and the student's row (n,) of each of the teacher's items, -1 for none.

    ``by_ids`` are these rows by the ids of both sides, and how they were compared. Where other columns of both sides match as
    well and pair the rows otherwise, it cannot be known which are the ids.
    """
    pairs = [(first, second) for first in columns_of_ids(teacher) for second in columns_of_ids(student)]
    own, others = pairs[0], [p for p in pairs[1:] if p[0].named and p[1].named]
    at, how = by_ids
    matched = int((at >= 0).sum())
    complete = matched == min(len(teacher), len(student))
    best = own
    for first, second in others:
        a, b = distinct_texts(first), distinct_texts(second)
        if a is None or b is None:
            continue
        if complete and plain(first.name) != plain(second.name) and (_numbers(a) or _numbers(b)):
            continue  # counters of different things match by chance
        found, found_how = positions_of(a, b)
        count = int((found >= 0).sum())
        if complete and count == matched and not np.array_equal(found, at):
            raise UserError(f"student {student.name} ids", "ids that pair the rows in one way",
                            f"{_named(own)} and {_named((first, second))}, which pair them in two",
                            f"Name the ids on both sides: {_asked(teacher, student, (own[0].name, own[1].name))} or "
                            f"{_asked(teacher, student, (first.name, second.name))}.")
        if count > matched:
            best, at, how, matched = (first, second), found, found_how, count
    names = best[0].name, best[1].name
    if matched and not (teacher.named and student.named):
        _expect_one_count(teacher, student, best)
    if best is not own:
        how += f" ('{names[0]}' of the teacher, '{names[1]}' of the student)"
    return names, at, how


def _expect_one_count(teacher: Embeddings, student: Embeddings, columns: tuple[Ids, Ids]) -> None:
    """Numbers that count the items of one side from 0 and those of the other from 1 may be of one order: then each item would
    stand beside its neighbour. So may numbers from 1 beside row labels of a part, which pandas counts from 0."""
    texts = [distinct_texts(column) for column in columns]
    starts = [None if found is None else counts_from(found) for found in texts]
    part = [is_index(column.name) and start is None and found is not None and _numbers(found)
            for column, start, found in zip(columns, starts, texts, strict=True)]
    counted = any(start == 1 and not is_index(column.name) for column, start in zip(columns, starts, strict=True))
    if set(starts) != {0, 1} and not (counted and any(part)):
        return
    said = [f"'{column.name}' of the {side} {f'counts from {start}' if start is not None else FROM_PANDAS}"
            for column, side, start in zip(columns, ("teacher", "student"), starts, strict=True)]
    same = f"; {_in_order(teacher, student)} takes the rows in order" if len(teacher) == len(student) else ""
    raise UserError(f"student {student.name} ids", "ids that count the items alike", " and ".join(said),
                    f"To match these numbers as they are, name them: "
                    f"{_asked(teacher, student, (columns[0].name, columns[1].name))}{same}.")


def _numbers(texts: np.ndarray) -> bool:
    return all(text.isdigit() for text in texts)


def _named(columns: tuple[Ids, Ids]) -> str:
    first, second = (f"'{column.name}'" for column in columns)
    return first if first == second else f"{first} of the teacher with {second} of the student"


def _file_name(text: str) -> str:
    return re.split(r"[/\\]", text.strip())[-1]


FORMS: tuple[tuple[str, Callable[[str], str]], ...] = (
    (" as whole numbers", lambda text: str(int(text)) if re.fullmatch(r"\s*\d{1,18}\s*", text) else text),
    (" as paths", lambda text: re.sub(r"^(\./)+", "", unicodedata.normalize("NFC", text).strip().replace("\\", "/"))),
    (" by their file names alone", lambda text: _file_name(unicodedata.normalize("NFC", text))),
    (" by their file names without suffix", lambda text: re.sub(r"\.[A-Za-z0-9]{1,5}$", "", _file_name(text))),
)
"""Ways to write one id, and what is said where ids are compared so. The first that matches more than the plain ids counts."""


def positions_of(wanted: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, str]:
    """Row (n,) of each of ``wanted`` among ``ids``, -1 for none; and how they were compared where not as they are.

    Ids that differ in writing alone (001 and 1, a path and its file name) are matched where this is unambiguous on both sides.

    >>> positions_of(np.array(["001", "002"], object), np.array(["2", "1"], object))
    (array([1, 0]), ' as whole numbers')
    """
    import pandas as pd

    best, said = pd.Index(ids, dtype=object).get_indexer(wanted), ""
    for what, form in FORMS:
        matched = int((best >= 0).sum())
        if matched == min(len(wanted), len(ids)) or (matched and "name" in what):
            break
        first, second = ([form(text) for text in side] for side in (wanted, ids))
        if len(set(first)) < len(first) or len(set(second)) < len(second):
            continue
        found = pd.Index(second, dtype=object).get_indexer(pd.Index(first, dtype=object))
        if int((found >= 0).sum()) > matched:
            best, said = found, what
    return best, said


def positions(ids: np.ndarray, wanted: np.ndarray, where: str, what: str = "an embedding") -> np.ndarray:
    """Row (n,) of each of ``wanted`` among ``ids``; all must be there.

    >>> positions(np.array(["a", "b", "c"]), np.array(["c", "a"]), "x")
    array([2, 0])
    """
    unique_ids(ids, f"{where} ids")
    at = positions_of(wanted, ids)[0]
    missing = at < 0
    if missing.any():
        raise UserError(where, f"{what} for every item",
                        f"{int(missing.sum())} of {len(wanted)} missing (first {wanted[int(missing.argmax())]})",
                        "Add them, or use a part of the data.")
    return at


def unique_ids(ids: np.ndarray, where: str, todo: str = "Keep one row for each item.") -> None:
    """Each id must be there once."""
    import pandas as pd

    index = pd.Index(ids, dtype=object)
    if not index.is_unique:
        repeated = index.duplicated()
        raise UserError(where, "ids that differ", f"{int(repeated.sum())} repeated, first '{ids[int(repeated.argmax())]}'",
                        todo)


# -- labels of both sides ----------------------------------------------------------------------------------------------------


def _same_classes(first: Embeddings, second: Embeddings, names: tuple[str, str]) -> None:
    """Labels that both sides have must be one partition of the items, whatever its classes are called."""
    if first.labels is None or second.labels is None:
        return
    both = np.flatnonzero(~(np.ma.getmaskarray(first.labels) | np.ma.getmaskarray(second.labels)))
    a, b = np.ma.getdata(first.labels)[both], np.ma.getdata(second.labels)[both]
    agree = partitions_agree(a, b)
    if not agree.all():
        at = int(np.argmin(agree))
        raise UserError(f"student {names[1]} labels", f"the labels of the teacher {names[0]}, by these or other names",
                        f"others for {int((~agree).sum())} of {len(agree)} items, "
                        f"first in row {both[at]} ({b[at]} beside {a[at]})",
                        "The rows are not of the same items: embed them in one order, or give ids.")
