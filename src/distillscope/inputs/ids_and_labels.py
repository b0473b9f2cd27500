"""The arrays and columns of a file that name its rows or their classes, and what is said of those that are not taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from distillscope.errors import UserError, unknown_name
from distillscope.inputs.counters import counted_from
from distillscope.inputs.members import UNREADABLE, Member, as_labels, columns_called, coordinates, ranked, shown_shape
from distillscope.measure.classes import classes, not_available
from distillscope.naming import id_rank, is_index, label_rank

NO_IDS = "none"


@dataclass(frozen=True)
class Ids:
    """A column that may tell the items apart: ``named`` where its name says so; ``load()`` gives (n,) texts, all different."""

    name: str
    named: bool
    load: Callable[[], np.ndarray]


def ids_beside(beside: list[Member], asked: str | None, total: int, load: Callable[[Member], np.ndarray],
         where: str) -> tuple[np.ndarray | None, Member | None, list[Ids], bool]:
    """Ids (n,), their column, other columns that could be ids, and whether the rows are merely numbered."""
    spare: list[Ids] = []
    if asked is not None:
        named = next(iter(columns_called(beside, asked)), None)
        if named is not None:
            found = load(named)
            _right_length(len(found), total, f"{where} ids '{named.name}'", "ids")
            return found, named, spare, False
        if asked != NO_IDS:
            columns = [m.name for m in beside if m.count is not None]
            raise unknown_name(where, "column of ids", asked, columns[:40] or [NO_IDS])
        return None, None, spare, False
    known = ranked((m for m in beside if m.count is not None and m.kind in "iUOf" and m.dtype != UNREADABLE), id_rank)
    best, numbered, repeats = None, False, None
    for member in [m for m in known if m.count == total]:
        try:
            found = load(member)
        except UserError:
            if id_rank(member.name) == 0:
                raise
            continue
        if is_index(member.name) and member.kind == "i" and counted_from(found) is not None:
            numbered = True
        elif len(set(found)) == len(found):
            best = found, member
            break
        else:
            repeats = repeats or (found, member)
    others = [m for m in known if m.count == total and (best is None or (m is not best[1] and not is_index(m.name)))]
    spare += [Ids(m.column, True, partial(load, m)) for m in others]
    if best is not None:
        return *best, spare, False
    if repeats is not None and (id_rank(repeats[1].name) or 0) <= 2:
        return *repeats, spare, numbered
    unread = next((m for m in beside if id_rank(m.name) is not None and m.dtype == UNREADABLE), None)
    if unread is not None:  # rows would be paired by order although there are ids
        unread.load()
    for member in known:
        if id_rank(member.name) == 0:
            _right_length(member.count, total, f"{where} {member.name}", "ids")
    texts = [m for m in beside if m.kind == "U" and m.count == total and label_rank(m.name) is None and m not in known]
    for member in texts:
        try:
            found = load(member)
        except UserError:
            continue
        if len(set(found)) == len(found):
            if member.unnamed:
                return found, member, spare, numbered
            spare.append(Ids(member.column, False, partial(np.asarray, found)))
    return None, None, spare, numbered


def _right_length(found: int | None, total: int, where: str, what: str) -> None:
    if found != total:
        raise UserError(where, f"{total}, one per row", f"{found}", f"Save one of the {what} per row.")


def labels_beside(beside: list[Member], total: int, where: str) -> tuple[np.ndarray | None, Member | None, list[str]]:
    """Labels (n,) of at least two classes, their column, and why another was not taken."""
    named = as_labels(beside)
    unnamed = [m for m in beside if m.unnamed and m.count == total and label_rank(m.name) is None]
    why: list[str] = []
    for member in [*named, *unnamed]:
        if member.dtype != UNREADABLE and member.shape and member.shape[0] != total:
            if label_rank(member.name) == 0 and member.count is not None:
                _right_length(member.count, total, f"{where} {member.name}", "labels")
            continue
        try:
            values = member.load()
            found = classes(values, f"{where}:{member.name}")
        except UserError as error:
            why.append(f"'{member.name}' is not taken as labels: {error.got}")
            continue
        few = too_few(found)
        if few and not member.unnamed:
            why.append(f"'{member.name}' is not taken as labels: {few}")
        if few or (member.unnamed and len(np.unique(np.ma.compressed(found))) == total):
            continue
        said = not_available(values, found)
        return found, member, [*why, *([f"label {said}"] if said else [])]
    why += [f"'{m.name}' is not taken as labels, since it stands beside an x as a place does: --labels FILE:{m.name} takes it"
            for m in coordinates(beside) if m.count == total and _may_be_classes(m)]
    return None, None, why


def _may_be_classes(member: Member) -> bool:
    """Whether whole numbers repeat, as those of classes do."""
    try:
        found = np.ma.compressed(classes(member.load(), member.name))
    except UserError:
        return False
    return 1 < len(np.unique(found)) < len(found)


def too_few(labels: np.ndarray) -> str | None:
    """What is said of labels (n,) without two classes; None of others.

    >>> too_few(np.array(["cat", "cat"])), too_few(np.array([0, 1]))
    ('all items are of one class', None)
    """
    count = len(np.unique(np.ma.compressed(labels)))
    return None if count > 1 else "all items are of one class" if count else "it is empty"


def described(member: Member, spare: list[Ids]) -> str:
    """'score (float)', and whether its texts would do as ids."""
    name = member.name or "an unnamed one"
    if any(s.name == member.column and not s.named for s in spare):
        return f"{name} (text, another in every row: add @{name} to take it as ids)"
    shape = "" if member.count is not None or member.columns else f" {shown_shape(member)}"
    return f"{name} ({member.dtype}{shape})"
