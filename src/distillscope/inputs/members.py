"""What a file holds, before any of it is read: arrays with a name, a shape and a dtype, and the choice among them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distillscope.errors import UserError, unknown_name
from distillscope.measure.rows import Stored

EMBEDDINGS = ("embedding", "embeddings", "emb", "embs", "vector", "vectors", "image_embedding", "image_embeddings", "img_emb")
IDS = ("id", "ids", "image_path", "key")
LABELS = ("label", "labels", "class")


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
def readable(where: str, what: str, todo: str) -> Iterator[None]:
    """Whatever a parser raises on a damaged file becomes one line: zip, zlib, NumPy, torch, Arrow, pandas have no common base."""
    try:
        yield
    except UserError:
        raise
    except MemoryError:
        raise UserError(where, "a file that fits in memory", "one too large", "Save it as .npy, which is memory-mapped.") from None
    except Exception as error:
        line = (str(error).strip().splitlines() or [""])[0][:120].rstrip(".")
        raise UserError(where, what, f"{type(error).__name__}: {line}" if line else type(error).__name__, todo) from None


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
    if len(members) == 1:
        return _checked(members[0], where)
    raise UserError(where, "a float array of shape (items, dimensions)", _listed(members) if members else "no array",
                    "Save the embeddings in it, as floats.")


def _checked(member: Member, where: str) -> Member:
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
        raise UserError(where, "ids that are text or whole numbers", f"{listed[wrong]!r} in row {wrong}", "Give each item an id.")
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
    if values.dtype.kind in "biu" or (values.dtype.kind == "f" and (np.isfinite(values) & (values == np.trunc(values))).all()):
        return values.astype(np.int64)
    if values.dtype.kind == "f":
        bad = int(np.argmax(~(np.isfinite(values) & (values == np.trunc(values)))))
        raise UserError(where, "labels that are whole numbers or text", f"{values[bad]} in row {bad}",
                        "Drop the items that have no label.")
    texts = strings(values, where)
    if all(re.fullmatch(r"\s*-?\d{1,18}\s*", v) for v in texts):
        return texts.astype(np.int64)
    return texts.astype(str)
