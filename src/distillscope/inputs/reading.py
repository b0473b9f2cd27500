"""What a reader decided, as values for a program and as one sentence for people."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

MOST_UNUSED = 6


@dataclass(frozen=True)
class Reading:
    """What one file or folder was taken to hold: ``embedding``, ``ids`` and ``labels`` name an array or columns of it.

    ``rows`` of ``dims`` values were read; ``dropped`` more had no embedding. ``unlabelled`` of them have no class, ``repeated``
    are a second time the same. ``unused`` is what else the file holds, ``remarks`` what else a reader must know. ``weights``
    names the weights of the model that made them, where one did; ``what`` is what a sentence calls the labels.
    """

    file: str
    embedding: str | None = None
    rows: int = 0
    dims: int = 0
    ids: str | None = None
    labels: str | None = None
    unused: tuple[str, ...] = ()
    dropped: int = 0
    unlabelled: int = 0
    repeated: int = 0
    remarks: tuple[str, ...] = ()
    weights: str = ""
    what: str = "labels"

    def said(self) -> str:
        """The reading in one line.

        >>> Reading("t.csv", "columns e0..e47", 400, 48, ids="file_name", unused=("score (float)",)).said()
        "t.csv: 400 rows of 48 from columns e0..e47; ids from 'file_name'; no labels. Not used: score (float)."
        """
        if self.embedding is None:
            text = f"{self.file}: {self.rows:,} {self.what}" + (f" from '{self.labels}'" if self.labels != self.file else "")
            text += f", by '{self.ids}'" if self.ids else ", in row order"
            text += f"; {self.unlabelled:,} items have none." if self.unlabelled else "."
        else:
            text = f"{self.file}: {self.rows:,} rows of {self.dims:,} from {self.embedding}; "
            text += f"ids from '{self.ids}'; " if self.ids else "no ids; "
            text += f"labels from '{self.labels}'" if self.labels else "no labels"
            text += f" ({self.unlabelled:,} rows have none)." if self.unlabelled else "."
        if self.dropped:
            text += f" Dropped {self.dropped:,} rows without an embedding."
        if self.repeated:
            text += f" {self.repeated:,} of its rows repeat an item."
        if self.unused:
            more = len(self.unused) - MOST_UNUSED
            text += f" Not used: {', '.join(self.unused[:MOST_UNUSED])}{f' and {more} more' if more > 0 else ''}."
        return " ".join([text, *(f"{remark[:1].upper()}{remark[1:]}." for remark in self.remarks)])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with the sentence as ``said``."""
        known = asdict(self)
        del known["what"]  # only words
        return {**known, "unused": list(self.unused), "remarks": list(self.remarks), "said": self.said()}


@dataclass(frozen=True)
class Pairing:
    """How the rows of both sides were put together: ``by`` "id" or "order". ``note`` is what a reader must know of it."""

    by: str
    matched: int
    dropped: tuple[int, int] = (0, 0)
    columns: tuple[str | None, str | None] = (None, None)
    note: str | None = None

    def said(self) -> str:
        """The pairing in one line."""
        return self.note or f"paired by id: all {self.matched:,} items are in both."

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with the sentence as ``said``."""
        return {"by": self.by, "columns": list(self.columns), "matched": self.matched, "dropped_teacher": self.dropped[0],
                "dropped_student": self.dropped[1], "said": self.said()}
