"""What a file holds, before any of it is read: arrays and columns with a name, a shape and a dtype."""

from __future__ import annotations

import contextlib
import gzip
import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from distillscope.errors import UserError
from distillscope.measure.rows import Stored
from distillscope.naming import embedding_rank, is_coordinate, is_index, label_rank

UNREADABLE = "unreadable"
"""dtype of an array whose ``load`` says why it cannot be read."""


@dataclass(frozen=True)
class Member:
    """One array or column of a file. ``dtype`` is for people to read; ``kind`` is NumPy's: f, i (unsigned too), b, U (text), O.

    ``load()`` gives the array, memory-mapped where the format allows. A column of lists has shape (n, None). ``columns`` are
    those that make up a run of columns. ``remark`` says what a reader did to get here. A member that is ``unnamed`` is called
    by its place alone. One that is ``implied`` is no column of the file: the numbers that pandas has for its rows.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    kind: str
    load: Callable[[], np.ndarray | Stored | Kept]
    columns: tuple[str, ...] = ()
    remark: str | None = None
    unnamed: bool = False
    implied: bool = False

    def __str__(self) -> str:
        return f"{self.name or 'array'}: {self.dtype} {shown_shape(self)}"

    @property
    def column(self) -> str:
        """How a column is named after the @: row labels of pandas without a name of their own are the index."""
        return "index" if not self.name or (self.implied and is_index(self.name)) else self.name

    @property
    def title(self) -> str:
        """How it is called in a sentence."""
        if self.columns:
            return f"columns {self.name}"
        return f"'{self.name}'" if self.name else "the array"

    @property
    def table(self) -> tuple[int, int | None] | None:
        """(items, dimensions), where axes of length 1 are passed over; None where it is no table."""
        return as_table(self.shape)

    @property
    def items(self) -> int:
        """Rows of a table; 0 where it is none."""
        return self.table[0] if self.table else 0

    @property
    def dims(self) -> int | None:
        """Dimensions of a table; None where it is none, or where only its rows will tell."""
        return self.table[1] if self.table else None

    @property
    def count(self) -> int | None:
        """Items of a list (n,) or (n, 1); None where it is no list."""
        return self.shape[0] if len(self.shape) == 1 or (len(self.shape) == 2 and self.shape[1] == 1) else None


@dataclass(frozen=True)
class Kept:
    """Rows of which some in the file had no embedding: ``kept`` (n,) are the numbers of those that have."""

    rows: np.ndarray | Stored
    kept: np.ndarray
    total: int


class Scaled:
    """Whole numbers that become floats as they are read: an array for `Stored`, not a copy."""

    def __init__(self, part: np.ndarray, scale: float) -> None:
        self.part, self.scale = part, scale
        self.dtype, self.shape, self.ndim = np.dtype(np.float32), part.shape, 2

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, index: Any) -> np.ndarray:
        return np.divide(self.part[index], self.scale, dtype=np.float32)


@dataclass(frozen=True)
class Contents:
    """All that a file holds. ``join(names)`` puts columns of a table side by side; ``remarks`` are for the reader's sentence.

    ``by_name`` formats sort their arrays by name, so that the order in which they were saved is lost. ``by_item`` is what the
    columns are where each is the embedding of one item, called by its id, which the file does not tell.
    """

    members: list[Member] = field(default_factory=list)
    join: Callable[[Sequence[str]], np.ndarray | Stored] | None = None
    remarks: tuple[str, ...] = ()
    by_name: bool = False
    by_item: Contents | None = None


def shown_shape(member: Member) -> str:
    """Its shape for people: (40, ?) where only its rows will tell."""
    return str(member.shape).replace("None", "?")


def as_table(shape: tuple[int | None, ...]) -> tuple[int, int | None] | None:
    """(items, dimensions) of an array whose other axes have length 1.

    >>> as_table((400, 48, 1, 1)), as_table((1, 400, 48)), as_table((400, 7, 7, 48)), as_table((400,))
    ((400, 48), (400, 48), None, None)
    """
    rest = [n for n in shape[1:] if n != 1]
    if len(shape) == 2:
        items, dims = shape
    elif len(shape) > 2 and len(rest) == 1:
        items, dims = shape[0], rest[0]
    elif len(shape) > 2 and len(rest) == 2 and shape[0] == 1:
        items, dims = rest
    else:
        return None
    return None if items is None else (items, dims)


def columns_called(members: Iterable[Member], name: str) -> list[Member]:
    """The columns called ``name``; 'index' is the row labels of pandas too, by whatever name a file holds them."""
    members = list(members)
    exact = [m for m in members if name in (m.name, m.column)]
    return exact or ([m for m in members if is_index(m.name)] if name == "index" else [])


def ranked(members: Iterable[Member], rank: Callable[[str], int | None]) -> list[Member]:
    """Those whose name ``rank`` knows, the surest first."""
    known = [(place, member) for member in members if (place := rank(member.name)) is not None]
    return [member for _, member in sorted(known, key=lambda pair: pair[0])]


def of_another(member: Member, chosen: Member, members: Iterable[Member]) -> bool:
    """Whether a member belongs to other embeddings than the ``chosen``: 'train.labels' says nothing of 'test.features'."""
    mine = [chosen.name, *_above(chosen.name)]
    last = re.split("[./]", chosen.name)[-1]
    arrays: set[str] = set()
    for m in members:
        if m is not chosen and m.table is not None:
            alike = embedding_rank(m.name) is not None or re.split("[./]", m.name)[-1] == last
            arrays |= {m.name, *(_above(m.name) if alike else ())}
    return any(above in arrays and above not in mine for above in _above(member.name))


def _above(name: str) -> list[str]:
    """The paths that a name lies under, without the root."""
    cuts = [i for i, c in enumerate(name) if c in "./" and i]
    return [name[:i] for i in cuts]


def as_labels(members: Iterable[Member]) -> list[Member]:
    """Those that are named as labels are, the surest first; numbers called y beside an x of numbers are a place, no class."""
    members = list(members)
    places = coordinates(members)
    return [m for m in ranked(members, label_rank) if not any(m is place for place in places)]


def coordinates(members: Iterable[Member]) -> list[Member]:
    """The columns of numbers that are the other half of an x."""
    numbers = {m.name: m for m in members if m.count is not None and m.kind in "fi"}
    return [m for m in numbers.values() if is_coordinate(m.name, numbers)]


@contextlib.contextmanager
def readable(where: str, what: str) -> Iterator[None]:
    """Whatever a parser raises on a damaged file becomes one line: zip, NumPy, torch, Arrow and pandas share no base."""
    try:
        yield
    except UserError:
        raise
    except (MemoryError, RecursionError) as error:
        got = "one too large" if isinstance(error, MemoryError) else "one nested too deep"
        raise UserError(where, "a file that fits in memory", got, "Save it as .npy, which is memory-mapped.") from None
    except UnicodeDecodeError:
        raise UserError(where, what, "text that is not UTF-8", "Save it again as UTF-8.") from None
    except Exception as error:
        line = (str(error).strip().splitlines() or [""])[0][:120].rstrip(".")
        raise UserError(where, what, f"{type(error).__name__}: {line}" if line else type(error).__name__,
                        "It is damaged or of another format: save or fetch it again.") from None


def strings(values: Any, where: str) -> np.ndarray:
    """Ids (n,) as an object array of str: fixed-width strings of a million paths would take some 400 MB."""
    values = np.asarray(values)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise UserError(where, "ids of shape (items,)", f"shape {values.shape}", "Save one id per item.")
    if values.dtype.kind == "f" and bool((np.isfinite(values) & (values == np.trunc(values)) & (np.abs(values) < 2**53)).all()):
        values = values.astype(np.int64)  # what pandas makes of whole numbers when one was missing
    if values.dtype.kind in "iu":
        values = values.astype(str)
    listed = [v.decode("utf-8", "backslashreplace") if isinstance(v, bytes) else v for v in values.tolist()]
    if values.dtype.kind == "O":
        listed = [str(v) if isinstance(v, (int, np.integer)) and not isinstance(v, bool) else v for v in listed]
    wrong = next((i for i, v in enumerate(listed) if not isinstance(v, str)), None)
    empty = sum(v is None or v != v for v in listed) if wrong is not None else listed.count("")
    if empty:
        raise UserError(where, "a value in every row", f"{empty} empty", "Drop these rows, or give each item an id.")
    if wrong is not None:
        raise UserError(where, "ids that are text or whole numbers", f"{listed[wrong]!r} in row {wrong}"[:120],
                        "Give each item an id.")
    out = np.empty(len(listed), object)
    out[:] = listed
    return out


def check_memory(need: int, held: int, where: str, advice: str) -> None:
    """Refuse to unpack ``need`` bytes from ``held`` where that is absurd, or more than half of what the machine has free.

    Embeddings seldom shrink to a half; what shrinks a hundredfold and is large was made to fill the memory.
    """
    if need > 2**28 and need > 100 * held:
        raise UserError(where, "embeddings that were packed", f"{held:,} bytes that unpack to {need:,}", advice)
    free = _free_memory()
    if free is not None and need > free // 2:
        raise UserError(where, "an array that fits in memory",
                        f"{need / 2**30:.1f} GiB unpacked, {free / 2**30:.1f} GiB are free", advice)


def _free_memory() -> int | None:
    """Bytes that this process may still take, where the system says so."""
    found = []
    with contextlib.suppress(OSError, ValueError, StopIteration), open("/proc/meminfo", encoding="ascii") as handle:
        found.append(1024 * next(int(line.split()[1]) for line in handle if line.startswith("MemAvailable:")))
    with contextlib.suppress(OSError, ValueError):
        limit, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text("ascii").strip() for name in ("max", "current"))
        found.append(max(0, int(limit) - int(used)))
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        soft = resource.getrlimit(resource.RLIMIT_AS)[0]
        if soft not in (resource.RLIM_INFINITY, -1):
            found.append(soft)
    return min(found) if found else None


def size_of(shape: tuple[int, ...], itemsize: int) -> int:
    """Bytes of an array, as a Python integer, which does not overflow."""
    return math.prod(shape) * itemsize


MOST_TIMES = 200
ALWAYS = 2**26
"""Bytes that may come out of any file."""


def opened(path: Path, where: str) -> IO[bytes]:
    """The bytes of a file; those of a .gz unpacked, up to 200 times as many as it has, or 64 MiB."""
    if path.suffix.lower() != ".gz":
        return open(path, "rb")
    return io.BufferedReader(_Bounded(path, where), 2**20)


class _Bounded(io.RawIOBase):
    def __init__(self, path: Path, where: str) -> None:
        self.inner, self.where = gzip.open(path, "rb"), where  # noqa: SIM115 - closed by `close`
        self.left = max(ALWAYS, MOST_TIMES * path.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self.inner.readinto(buffer)
        self.left -= count
        if self.left < 0:
            raise UserError(self.where, "a table that was packed",
                            f"one that unpacks to over {MOST_TIMES} times its size", "Unpack it by hand.")
        return count

    def close(self) -> None:
        self.inner.close()
        super().close()
