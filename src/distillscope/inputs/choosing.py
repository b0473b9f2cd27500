"""The one place that decides which array is the embedding, which are ids and labels, and says what it left."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from distillscope.errors import UserError, unknown_name
from distillscope.inputs.ids_and_labels import Ids, described, ids_beside, labels_beside
from distillscope.inputs.members import (
    UNREADABLE,
    Contents,
    Kept,
    Member,
    Scaled,
    as_labels,
    as_table,
    of_another,
    shown_shape,
    strings,
)
from distillscope.inputs.reading import Reading
from distillscope.measure.rows import Stored
from distillscope.naming import Run, are_weights, embedding_rank, label_rank, runs

EACH = "each array is one item's, called by its id"
LIMIT_LISTED = 6


@dataclass(frozen=True)
class Embeddings:
    """Embeddings ``rows`` (n, d) of any float dtype, memory-mapped where the format allows, and what is known of each row.

    ``ids`` (n,) is an object array of str, ``labels`` (n,) int64 or str, masked where a row has none; either may be None.
    ``name`` is for tables. ``reading`` says how they were read; ``spare`` are other columns that could be ids, ``classed``
    others that are named as labels are.
    ``numbered`` rows came with numbers that only count them, as pandas and R write them: `pairing` knows when these name items.
    ``named`` ids are those that the caller named, or that a model's images have. ``given`` is the option and the file, without
    a column of ids, that a message names, ``ids_given`` the file that holds the ids where that is another.
    ``sorted`` rows are in the order of their names, since the format has no other: only ids can tell whose they are.
    """

    rows: np.ndarray | Stored
    ids: np.ndarray | None
    labels: np.ndarray | None
    name: str
    reading: Reading | None = None
    spare: tuple[Ids, ...] = ()
    numbered: bool = False
    sorted: bool = False
    named: bool = False
    given: tuple[str, str] = ("", "")
    ids_given: str = ""
    classed: tuple[Member, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def read_as(self, **changes: Any) -> Embeddings:
        """With these ``changes`` to how it was read, where that is known."""
        return self if self.reading is None else replace(self, reading=replace(self.reading, **changes))

    def take(self, index: np.ndarray) -> Embeddings:
        """The rows of ``index``, which stay where they are until they are read."""
        stored = self.rows if isinstance(self.rows, Stored) else Stored([self.rows])
        return replace(self, rows=stored.take(index), ids=None if self.ids is None else self.ids[index],
                       labels=None if self.labels is None else self.labels[index], spare=(), numbered=False)


@dataclass(frozen=True)
class Asked:
    """What the caller named: the embedding's array or columns, the ids' column, and what whole numbers are divided by.

    ``options`` says whether the command has --scale and the like, so that no message names an option that is not there.
    ``ids_file`` is an option and the file of ids that it names. ``labelled`` callers have labels from elsewhere; ``items`` (n,)
    are those that a study wants the rows of, which needs no labels.
    """

    key: str | None = None
    ids: str | None = None
    scale: float | None = None
    options: bool = False
    ids_file: tuple[str, str] | None = None
    labelled: bool = False
    items: np.ndarray | None = None


def from_contents(held: Contents, asked: Asked, where: str, name: str, file: str) -> Embeddings:
    """The embeddings of one file, with the ids and labels that it has, and how it was read."""
    held = _one_array(_one_way(held, asked, where))
    chosen = pick_embeddings(held, asked, where)
    rows, kept, total = _rows(chosen, asked, where)
    beside = _beside(held, chosen)
    near = [m for m in beside if not of_another(m, chosen, held.members)]
    remarks = [*held.remarks, *([chosen.remark] if chosen.remark else [])]
    if chosen.kind == "i":
        remarks.append(f"{chosen.dtype} values " + ("taken as they are" if asked.scale == 1 else f"divided by {asked.scale:g}"))
    if len(chosen.shape) > 2:
        remarks.append(f"its shape {shown_shape(chosen)} is read as {rows.shape}")

    def ids_of(member: Member) -> np.ndarray:
        found = strings(member.load(), f"{where}:{member.name}")
        return found if kept is None else found[kept]

    ids, id_member, spare, numbered = ids_beside(beside if asked.ids else near, asked.ids, total, ids_of, where)
    if kept is not None and ids is None:
        first = int(np.argmin(np.isin(np.arange(total), kept)))
        raise UserError(f"{where}:{chosen.name}", "an embedding in every row, or ids to drop rows by",
                        f"{total - len(kept)} empty rows, first row {first}, and no ids",
                        "Drop the rows without an embedding, on both sides.")
    labels, label_member, why = labels_beside([m for m in near if m is not id_member], total, where)
    labels = labels if labels is None or kept is None else labels[kept]
    remarks += why
    unused = [described(m, spare) for m in beside if m is not id_member and m is not label_member and not m.implied]
    reading = Reading(file, chosen.title, len(rows), rows.shape[1], id_member.column if id_member else None,
                      label_member.name if label_member else None, tuple(unused), total - len(rows),
                      0 if labels is None else int(np.ma.getmaskarray(labels).sum()), remarks=tuple(remarks))
    classed = tuple(m for m in as_labels(near) if m is not id_member and m is not label_member and m.count == total)
    others = tuple(s for s in spare if id_member is None or s.name != id_member.column)
    return Embeddings(rows, ids, labels, name, reading, others, numbered, sorted=held.by_name and chosen.remark == EACH,
                      named=ids is not None and asked.ids is not None, classed=classed if kept is None else ())


def _one_way(held: Contents, asked: Asked, where: str) -> Contents:
    """A table of columns, or one embedding for each of their names: columns that are named say the one, ids the other."""
    if held.by_item is None or asked.key is not None:
        return held
    if asked.ids is not None:
        return held.by_item
    run = next(m for m in held.members if m.columns)
    raise UserError(where, "columns of numbers, or one embedding for each id", f"{len(run.columns)} lists of {run.shape[0]}, "
                    f"called '{run.columns[0]}' to '{run.columns[-1]}', which may be either",
                    f"If each is a column, say FILE:{run.name}; if each is an item's, FILE@ids.")


def _beside(held: Contents, chosen: Member) -> list[Member]:
    """Everything but the embedding; columns of a run are one thing."""
    across = [m for m in held.members if m.columns]
    covered = set(chosen.columns).union(*(m.columns for m in across))
    return [*(m for m in held.members if m is not chosen and not m.columns and m.name not in covered),
            *(m for m in across if m is not chosen and not set(m.columns) & set(chosen.columns))]


# -- the embedding -----------------------------------------------------------------------------------------------------------


def pick_embeddings(held: Contents, asked: Asked, where: str) -> Member:
    """The member or columns called ``asked.key``; else the one named as embeddings are; else the only one that can be one."""
    if asked.key is not None:
        return _checked(_named(held, asked.key, where), asked, where)
    weights = are_weights(m.name for m in held.members)
    fit = [m for m in held.members if m.table is not None and label_rank(m.name) is None and not m.columns]
    if weights:
        fit = [m for m in fit if embedding_rank(m.name) == 0]
    floats = [m for m in fit if m.kind == "f" and (m.dims is None or m.dims > 1)]
    for rank in (0, 1):
        named = [m for m in [*floats, *(m for m in fit if m.kind == "i")] if embedding_rank(m.name) == rank]
        if len(named) == 1:
            return _checked(named[0], asked, where)
    across = [m for m in held.members if m.columns]
    if len(floats) == 1 and not any(_run(m).named_as_embedding for m in across):
        return floats[0]
    if not floats and (run := _across(across, asked, where)) is not None:
        return run
    choice = [*floats, *across]
    if len(choice) > 1:
        raise UserError(where, "one array of embeddings", f"{len(choice)} ({_listed(choice)})",
                        f"Name the one that is meant: FILE:{choice[0].name}.")
    if weights:
        raise UserError(where, "embeddings", f"the weights of a model ({_listed(held.members, 3)})",
                        "Embed the images with the model, or name an array of them that is meant: FILE:NAME.")
    whole = [m for m in fit if m.kind == "i"]
    if len(whole) == 1:
        return _checked(whole[0], asked, where)
    _loose_columns(held, where)
    arrays = [m for m in held.members if m.shape] or held.members
    unread = [m for m in arrays if m.dtype == UNREADABLE]
    if unread or len(arrays) == 1:
        return _checked((unread or arrays)[0], asked, where)
    raise UserError(where, "a float array of shape (items, dimensions)", _listed(arrays) if arrays else "no array",
                    "Save the embeddings in it, as floats.")


def _run(member: Member) -> Run:
    return runs(member.columns)[0]  # the columns of a member that is no key of the caller's are one run


def _across(found: list[Member], asked: Asked, where: str) -> Member | None:
    """The run of columns that is the embedding, if it is plain which."""
    found = [m for m in found if label_rank(_run(m).stem) is None]
    named = [m for m in found if _run(m).named_as_embedding and (m.unnamed or _run(m).whole)]
    if len(named) == 1 or len(found) == 1:
        chosen = (named if len(named) == 1 else found)[0]
        if not _run(chosen).whole and not chosen.unnamed:
            numbers, columns = _run(chosen).numbers, chosen.columns
            raise UserError(where, "columns of one stem, numbered from 0 or 1 without a gap",
                            f"{len(numbers)} from {numbers[0]} to {numbers[-1]} ('{columns[0]}' to '{columns[-1]}')",
                            f"If these are the embedding, say so: FILE:{chosen.name}.")
        return _checked(chosen, asked, where)
    return None


def _loose_columns(held: Contents, where: str) -> None:
    """Columns of floats that no numbers join: they are asked for, never guessed."""
    loose = [m.name for m in held.members if m.kind == "f" and len(m.shape) == 1] if held.join is not None else []
    if len(loose) > 1:
        shown = ", ".join(loose[:LIMIT_LISTED]) + (", ..." if len(loose) > LIMIT_LISTED else "")
        raise UserError(where, "a column of lists, or columns of one stem and rising numbers (e0, e1, ...)", shown,
                        f"Name the columns of the embedding: FILE:{loose[0]},{loose[1]},... or FILE:{loose[0]}..{loose[-1]}.")


def _named(held: Contents, key: str, where: str) -> Member:
    """The array called ``key``, or the columns that 'a,b,c', 'a..c' or a stem names."""
    found = {m.name: m for m in held.members}
    joined = next((m for m in held.members if m.columns and key in (_run(m).stem, _run(m).stem.rstrip("_-. "))), None)
    if key in found and not (joined is not None and found[key].table is None):
        return found[key]
    if joined is not None:
        return joined
    join = held.join
    if join is not None and (names := _listed_columns(held, key, where)):
        kinds = {found[n].kind for n in names}
        wrong = next((n for n in names if found[n].kind not in "fib" or len(found[n].shape) != 1), None)
        if wrong is not None:
            raise UserError(where, "columns of numbers", f"'{wrong}', {found[wrong].dtype}", "Leave it out.")
        dtype, kind = ("float", "f") if "f" in kinds else ("int", "i")
        return Member(key, (found[names[0]].shape[0], len(names)), dtype, kind, partial(join, names), tuple(names))
    inner = [m for m in held.members if m.name.replace("/", ".").endswith(f".{key}")]
    if len(inner) == 1:
        return inner[0]
    raise unknown_name(where, "array of the file", key, [n for n in found if n][:40] or ["(one array without a name)"])


def _listed_columns(held: Contents, key: str, where: str) -> list[str]:
    """The columns that 'a,b,c', 'a..c' or both name, [] where a key is none of these."""
    order = [m.name for m in held.members if not m.columns]
    found = [_between(part.strip(), order) for part in ([key] if key in order else key.split(","))]
    if len(found) < 2:
        return found[0]
    missing = next((part.strip() for part, names in zip(key.split(","), found, strict=True) if not names), None)
    if missing is not None:
        raise unknown_name(where, "column of the file", missing, order[:40])
    return list(dict.fromkeys(name for names in found for name in names))


def _between(part: str, order: list[str]) -> list[str]:
    """One column, or those from one to another: by their numbers where these have one stem, else as they stand."""
    first, dots, last = part.partition("..")
    if part in order or not (dots and first in order and last in order):
        return [part] if part in order else []
    run = next((r for r in runs(order) if first in r.names and last in r.names), None)
    names, at = (order, order.index) if run is None else (run.names, run.names.index)
    return list(names[at(first) : at(last) + 1])


def _one_array(held: Contents) -> Contents:
    """Where each array is the embedding of one item, called by its id: all of them as one, with the ids."""
    members = held.members
    names, widths = [m.name for m in members], {_width(m) for m in members}
    if len(names) < 3 or held.join is not None or are_weights(names) or any(m.kind != "f" for m in members):
        return held
    if len(widths) != 1 or None in widths:
        return held

    def load() -> np.ndarray:
        return np.stack([np.asarray(m.load()).reshape(-1) for m in members])

    rows = Member("", (len(names), widths.pop()), members[0].dtype, "f", load, remark=EACH)
    ids = Member("the arrays' names", (len(names),), "text", "U", lambda: np.array(names), unnamed=True)
    return Contents([rows, ids], remarks=held.remarks, by_name=held.by_name)


def _width(member: Member) -> int | None:
    """Values of one embedding (d,) or (1, d)."""
    width = member.shape[-1] if len(member.shape) == 1 or (len(member.shape) == 2 and member.shape[0] == 1) else 1
    return width if width is not None and width > 1 else None


def _checked(member: Member, asked: Asked, where: str) -> Member:
    if member.dtype == UNREADABLE:
        return member
    if member.table is None and member.kind == "f":
        raise UserError(where, "an array of shape (items, dimensions)", f"shape {shown_shape(member)}",
                        "Save one embedding per row." if len(member.shape) < 3 else "Pool it to one embedding per item first.")
    if member.kind == "i" and member.table is not None and asked.scale is None:
        todo = ("Add --scale 127 where they are an int8 copy of values from -1 to 1, --scale 1 to take them as they are."
                if asked.options else "Convert it with .astype('float32') if that is meant.")
        raise UserError(where, "an array of floats", f"{member.dtype} of shape {shown_shape(member)}", todo)
    if member.kind not in "fi" or member.table is None:
        raise UserError(where, "an array of floats", f"{member.dtype} of shape {shown_shape(member)}",
                        "Convert it with .astype('float32') if that is meant.")
    return member


def _listed(members: Iterable[Member], most: int = LIMIT_LISTED) -> str:
    members = list(members)
    return ", ".join(map(str, members[:most])) + (", ..." if len(members) > most else "")


def _rows(chosen: Member, asked: Asked, where: str) -> tuple[np.ndarray | Stored, np.ndarray | None, int]:
    """Rows (n, d), the numbers of those that have an embedding where not all have, and how many the file has."""
    found = chosen.load()
    rows, kept, total = (found.rows, found.kept, found.total) if isinstance(found, Kept) else (found, None, len(found))
    if isinstance(rows, np.ndarray) and rows.ndim != 2:
        rows = rows.reshape(as_table(rows.shape))
        total = len(rows)
    if 0 in rows.shape:
        raise UserError(where, "at least one row and one column", f"shape {rows.shape}", "Save the embeddings again.")
    if chosen.kind == "i" and asked.scale is not None:  # `_checked` refused whole numbers without a scale
        stored = rows if isinstance(rows, Stored) else Stored([rows])
        scaled: list[Any] = [Scaled(part, asked.scale) for part in stored.parts]
        rows = Stored(scaled, stored.chosen)
    return rows, kept, total
