"""What a file holds, before any of it is read: arrays with a name, a shape and a dtype, and the choice among them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from distillscope.errors import UserError, unknown_name
from distillscope.measure.rows import Stored

EMBEDDINGS = ("embedding", "embeddings", "emb", "embs", "vector", "vectors", "img_emb", "image_embedding",
              "image_embeddings")
IDS = ("id", "ids", "image_path", "key")
LABELS = ("label", "labels", "class")
UNREADABLE = "unreadable"
"""dtype of an array whose ``load`` says why it cannot be read."""


@dataclass(frozen=True)
class Member:
    """One array of a file. ``dtype`` is for people to read; ``is_float`` says whether it can be embeddings.

    ``load()`` gives the array, memory-mapped where the format allows. A column of lists has shape (n, None).
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    is_float: bool
    load: Callable[[], np.ndarray | Stored]

    def __str__(self) -> str:
        return f"{self.name or 'array'}: {self.dtype} {str(self.shape).replace('None', '?')}"


@contextlib.contextmanager
def readable(where: str, what: str) -> Iterator[None]:
    """Whatever a parser raises on a damaged file becomes one line: zip, NumPy, torch, Arrow and pandas share no base."""
    try:
        yield
    except UserError:
        raise
    except MemoryError:
        raise UserError(where, "a file that fits in memory", "one too large",
                        "Save it as .npy, which is memory-mapped.") from None
    except Exception as error:
        line = (str(error).strip().splitlines() or [""])[0][:120].rstrip(".")
        raise UserError(where, what, f"{type(error).__name__}: {line}" if line else type(error).__name__,
                        "It is damaged or of another format: save or fetch it again.") from None


def pick_embeddings(members: Sequence[Member], key: str | None, where: str) -> Member:
    """The member called ``key``; else the one named as embeddings are; else the only float array of two dimensions."""
    if key is not None:
        found = {m.name: m for m in members}
        if key not in found:
            raise unknown_name(where, "array of the file", key, [n for n in found if n] or ["(one array without a name)"])
        return _checked(found[key], where)
    fit = [m for m in members if m.is_float and len(m.shape) == 2]
    named = [m for m in fit if m.name.lower() in EMBEDDINGS]
    if len(named) == 1 or len(fit) == 1:
        return (named if len(named) == 1 else fit)[0]
    if fit:
        raise UserError(where, "one array of embeddings", f"{len(fit)} ({_listed(fit)})",
                        f"Name the one that is meant: FILE:{fit[0].name}.")
    unread = [m for m in members if m.dtype == UNREADABLE]
    if unread or len(members) == 1:
        return _checked((unread or members)[0], where)
    raise UserError(where, "a float array of shape (items, dimensions)", _listed(members) if members else "no array",
                    "Save the embeddings in it, as floats.")


def _checked(member: Member, where: str) -> Member:
    if member.dtype == UNREADABLE:
        return member
    if not member.is_float:
        raise UserError(where, "an array of floats", f"{member.dtype} of shape {member.shape}",
                        "Convert it with .astype('float32') if that is meant.")
    if len(member.shape) != 2:
        raise UserError(where, "an array of shape (items, dimensions)", f"shape {member.shape}", "Save one embedding a row.")
    return member


def _listed(members: Sequence[Member]) -> str:
    return ", ".join(map(str, members[:6])) + (", ..." if len(members) > 6 else "")


def called(members: Sequence[Member], names: Sequence[str]) -> Member | None:
    """The first of ``names`` that the file has as an array of one dimension."""
    have = {m.name.lower(): m for m in members if len(m.shape) == 1}
    return next((have[n] for n in names if n in have), None)


def strings(values: Any, where: str) -> np.ndarray:
    """Ids (n,) as an object array of str: fixed-width strings of a million paths would take some 400 MB."""
    values = np.asarray(values)
    if values.ndim != 1:
        raise UserError(where, "ids of shape (items,)", f"shape {values.shape}", "Save one id an item.")
    if values.dtype.kind in "iu":
        values = values.astype(str)
    listed = [v.decode("utf-8", "backslashreplace") if isinstance(v, bytes) else v for v in values.tolist()]
    wrong = next((i for i, v in enumerate(listed) if not isinstance(v, str)), None)
    if wrong is not None:
        raise UserError(where, "ids that are text or whole numbers", f"{listed[wrong]!r} in row {wrong}",
                        "Give each item an id.")
    out = np.empty(len(listed), object)
    out[:] = listed
    return out


def plain_labels(values: Any, where: str) -> np.ndarray:
    """Labels (n,) as int64 where they are whole numbers, else as text."""
    values = np.asarray(values)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise UserError(where, "labels of shape (items,)", f"shape {values.shape}", "Save one label an item.")
    if values.dtype.kind in "biuf":
        whole = (np.abs(values) < 2.0**62) & (values == np.trunc(values))  # False for NaN and infinity too
        if not whole.all():
            bad = int(np.argmin(whole))
            raise UserError(where, "labels that are whole numbers or text", f"{values[bad]} in row {bad}",
                            "Drop the items that have no label.")
        return values.astype(np.int64)
    texts = strings(values, where)
    if all(re.fullmatch(r"\s*-?\d{1,18}\s*", v) for v in texts):
        return texts.astype(np.int64)
    return texts.astype(str)


@dataclass(frozen=True)
class Embeddings:
    """Embeddings ``rows`` (n, d) of any float dtype, memory-mapped where the format allows, and what is known of each row.

    ``ids`` (n,) is an object array of str, ``labels`` (n,) int64 or str; either may be None. ``name`` is for tables.
    """

    rows: np.ndarray | Stored
    ids: np.ndarray | None
    labels: np.ndarray | None
    name: str

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: np.ndarray) -> Embeddings:
        """The rows of ``index``, which stay where they are until they are read."""
        stored = self.rows if isinstance(self.rows, Stored) else Stored([self.rows])
        return replace(self, rows=stored.take(index), ids=None if self.ids is None else self.ids[index],
                       labels=None if self.labels is None else self.labels[index])


def from_members(members: list[Member], key: str | None, where: str, name: str) -> Embeddings:
    """The embeddings of one file, with its ids and labels where it has them."""
    rows = pick_embeddings(members, key, where).load()
    if 0 in rows.shape:
        raise UserError(where, "at least one row and one column", f"shape {rows.shape}", "Save the embeddings again.")
    ids, labels = called(members, IDS), called(members, LABELS)
    found = Embeddings(rows, None if ids is None else strings(ids.load(), f"{where} {ids.name}"),
                       None if labels is None else plain_labels(labels.load(), f"{where} {labels.name}"), name)
    for what, values in (("ids", found.ids), ("labels", found.labels)):
        if values is not None and len(values) != len(rows):
            raise UserError(f"{where} {what}", f"{len(rows)}, one a row", f"{len(values)}", f"Save one of the {what} a row.")
    return found
