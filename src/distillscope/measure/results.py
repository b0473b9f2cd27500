"""What a measure gives back, or says where it does not apply; and what an audit gives back: values, curves, ways to look."""

from __future__ import annotations

import difflib
import html
import inspect
import json
from collections.abc import Callable, Iterator, KeysView, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from distillscope.errors import UserError
from distillscope.facts import Group

if TYPE_CHECKING:
    import pandas as pd

GROUPS: tuple[str, ...] = get_args(Group)
MOST = 6
SAME = 1e-9
NEAR_ZERO = 3
"""What differs by less is equal but for rounding in the computation."""
SIGNIFICANT = 0.05
"""Adjusted p below which a step is said to have lost something."""


@dataclass(frozen=True)
class Value:
    """One measured number, its interval over items where there is one, the items behind it, and what it is."""

    value: float
    low: float | None
    high: float | None
    n: int
    definition: str
    unit: str

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends, where there is an interval."""
        return None if self.low is None or self.high is None else (self.low, self.high)


@dataclass(frozen=True)
class Curve:
    """``y`` over ``x``, with a band where there is one; ``unit`` is y's."""

    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None
    unit: str
    definition: str = ""


@dataclass(frozen=True)
class Line:
    """A measure of both sides, of one, or of the pair, which stands in the student's place. ``name`` is without a side."""

    name: str
    teacher: Value | None
    student: Value | None
    keys: tuple[str, ...]

    @property
    def both(self) -> tuple[Value, Value] | None:
        """The teacher's and the student's value, where both have one."""
        return None if self.teacher is None or self.student is None else (self.teacher, self.student)

    @property
    def known(self) -> Value:
        """The student's value or the pair's, else the teacher's."""
        value = self.student or self.teacher
        assert value is not None, self.name  # a line is made of a value
        return value

    @property
    def retained(self) -> float | None:
        """The student's share of the teacher's: it means something for counts of dimensions and for accuracies."""
        if self.teacher is None or self.student is None or not self.teacher.value > 0:
            return None
        if self.teacher.unit != "dims" and not self.name.endswith("accuracy"):
            return None
        return self.student.value / self.teacher.value


@dataclass(frozen=True)
class Subset:
    """The ``n`` items of one class or subgroup, and what both sides classify rightly of them.

    ``values`` are ``teacher.accuracy``, ``student.accuracy``, ``retention`` and ``negative_flips``, by the ``classifier``,
    probe or knn; their intervals hold for all subsets of one ``kind`` at once.
    """

    kind: Literal["class", "subgroup"]
    classifier: str
    name: str
    n: int
    values: dict[str, Value]

    def without_intervals(self) -> Subset:
        """The same values alone."""
        return replace(self, values={key: replace(v, low=None, high=None) for key, v in self.values.items()})


@dataclass(frozen=True)
class WorstItem:
    """An item that a step changed most: its ``row`` and id, the cosine of both embeddings, the rank of its own item in the
    teacher's index, and whether it was right ``before`` and ``after`` the step, each None where it was not measured."""

    row: int
    cosine: float | None = None
    rank: int | None = None
    before: bool | None = None
    after: bool | None = None
    id: str = ""


@dataclass(repr=False)
class Stage:
    """The teacher, the student, or a file made of the student: what it keeps, and what the step to it lost.

    ``values`` are under short keys (``accuracy``, ``accuracy_lost``, ``mean_cosine``, ``latency_ms``, ...), ``left_out`` says
    why one is missing. ``p`` are exact McNemar p of the losses, Holm-adjusted over all steps of the audit, what tells most
    first. ``worst`` are the items that the step changed most, most changed first. ``content`` is a hash of the file that was
    opened.
    """

    kind: Literal["teacher", "student", "artefact"]
    name: str
    values: dict[str, Value] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    p: dict[str, float] = field(default_factory=dict)
    worst: list[WorstItem] = field(default_factory=list)
    content: str = ""

    def __repr__(self) -> str:
        """
        >>> Stage("artefact", "s.onnx", {"accuracy": Value(0.9, None, None, 300, "", "share")})
        s.onnx (artefact): accuracy 0.9
        """
        return f"{self.name} ({self.kind}): {', '.join(f'{key} {_short(value)}' for key, value in self.values.items())}"

    @property
    def lost(self) -> dict[str, Value]:
        """The losses that chance does not explain (p below 0.05), by what was lost."""
        found = {key: self.values[f"{key}_lost"] for key, p in self.p.items() if p < SIGNIFICANT}
        return {key: value for key, value in found.items() if value.value > 0}


class UnknownMeasure(UserError, KeyError):
    """The error for a key that an audit has not: why it was left out, or what was meant."""

    __str__ = Exception.__str__  # a KeyError would put the line in quotes


@dataclass
class Audit(Mapping[str, float]):
    """Everything measured on a teacher and a student: a mapping from keys to numbers, with what stands behind each.

    ``left_out`` says what was not measured, and why; ``inputs`` how what was measured was read and paired, where it came
    from files or models: a mapping per side, with its sentence as ``said``. ``repeats`` holds the number of rows and of
    distinct items among them, ``precision`` what each side's values are rounded to, ``scaled`` the power of two that a side
    was multiplied by, and ``labels``, where there are labels, the number of classes, the share of the largest, and
    ``train_items``, to how many training items probes and neighbours were fitted (0: they were cross-validated). ``doubt`` is
    the question whether the rows of both sides belong together, where nothing pairs them; ``notes`` is what else a
    reader must know. ``subsets`` are classes, and subgroups where they were given, each with what the student keeps of it.
    ``stages`` are teacher, student and files made of the student, where files were audited too.

    >>> found = Audit({"alignment.teacher_r2": Value(0.9, 0.8, 1.0, 50, "Share predicted.", "R2")})
    >>> list(found), found["alignment.teacher_r2"], "alignment.r2" in found
    (['alignment.teacher_r2'], 0.9, False)
    """

    measured: dict[str, Value] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    repeats: dict[str, int] = field(default_factory=dict)
    precision: dict[str, str] = field(default_factory=dict)
    scaled: dict[str, int] = field(default_factory=dict)
    labels: dict[str, float] = field(default_factory=dict)
    doubt: str = ""
    stages: list[Stage] = field(default_factory=list)
    subsets: list[Subset] = field(default_factory=list)

    @property
    def num_items(self) -> int:
        """The items of the audit: the most that any of its measures is over."""
        return max((value.n for value in self.measured.values()), default=0)

    @property
    def reasons(self) -> dict[str, list[str]]:
        """Why something was left out, and the keys that were left out for it."""
        found: dict[str, list[str]] = {}
        for key, reason in self.left_out.items():
            found.setdefault(reason, []).append(key)
        return found

    def __getitem__(self, key: str) -> float:
        if key not in self.measured:
            raise self._unknown(key)
        return self.measured[key].value

    def __iter__(self) -> Iterator[str]:
        return iter(self.measured)

    def __contains__(self, key: object) -> bool:
        return key in self.measured

    def __len__(self) -> int:
        return len(self.measured)

    def keys(self) -> KeysView[str]:
        """The keys of everything that was measured."""
        return self.measured.keys()

    def _unknown(self, key: object) -> UnknownMeasure:
        if key in self.left_out:
            got = f"'{key}', which was left out because {self.left_out[key]}"
            return UnknownMeasure("audit", "a measure that applies here", got, "Give what it needs.")
        sides = [k for k in (f"teacher.{key}", f"student.{key}") if k in self.measured]
        close = sides or difflib.get_close_matches(str(key), self.measured, n=3, cutoff=0.5)
        return UnknownMeasure("audit", "a measure's key", f"'{key}', which is none",
                              f"Did you mean {' or '.join(close)}?" if close else "list(found) has them all.")

    def to_frame(self) -> pd.DataFrame:
        """A pandas DataFrame with one row per value, indexed by its key."""
        import pandas as pd

        frame = pd.DataFrame({key: asdict(value) for key, value in self.measured.items()}).T
        frame.index.name = "measure"
        return frame.astype({"value": float, "low": float, "high": float, "n": int}) if len(frame) else frame

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists: ``inputs``, ``measures``, ``curves`` and the other attributes, by their names."""
        return {
            "inputs": dict(self.inputs),
            "measures": {key: asdict(value) for key, value in self.measured.items()},
            "curves": {key: {name: _plain(getattr(c, name)) for name in ("x", "y", "low", "high", "unit", "definition")}
                       for key, c in self.curves.items()},
            "left_out": dict(self.left_out),
            "doubt": self.doubt,
            "notes": list(self.notes),
            "repeats": dict(self.repeats),
            "precision": dict(self.precision),
            "scaled": dict(self.scaled),
            "labels": dict(self.labels),
            **({"subsets": [asdict(subset) for subset in self.subsets]} if self.subsets else {}),
            **({"stages": [asdict(stage) for stage in self.stages]} if self.stages else {}),
        }

    def to_json(self, path: str | Path | None = None) -> str:
        """The same as JSON text, written to ``path`` where one is given."""
        text = json.dumps(self.to_dict(), indent=2, allow_nan=False)
        if path is not None:
            from distillscope.files.writing import write_text

            write_text(Path(path), text + "\n")
        return text

    def lines(self) -> list[Line]:
        """Every measure once: both sides of one, such as ``teacher.x`` and ``student.x``, share a line."""
        found: list[Line] = []
        seen: set[str] = set()
        for key in self.measured:
            teacher, student = _side(key, "teacher"), _side(key, "student")
            if key in seen:
                continue
            if teacher in self.measured and student in self.measured and teacher != student:
                line = Line(without_side(key), self.measured[teacher], self.measured[student], (teacher, student))
            elif without_side(key) != key and key == teacher:
                line = Line(without_side(key), self.measured[key], None, (key,))
            else:
                line = Line(without_side(key), None, self.measured[key], (key,))
            found.append(line)
            seen.update(line.keys)
        return found

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """(measure, teacher, student, retained, interval) as text; the interval is the student's, or the only side's."""
        return [(line.name, "" if line.teacher is None else _short(line.teacher),
                 "" if line.student is None else _short(line.student),
                 "" if line.retained is None else f"{100 * line.retained:.1f} %", _between(line.known))
                for line in self.lines()]

    def _said(self) -> list[str]:
        """What a reader must know, in sentences: the doubt, the notes, and what was left out."""
        left_out = (f"left out, because {reason}: {', '.join(keys)}." for reason, keys in self.reasons.items())
        return [*filter(None, [self.doubt]), *self.notes, *left_out]

    def __repr__(self) -> str:
        rows = [("measure", "teacher", "student", "retained", "95 % interval"), *self.rows()]
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        lines = ["  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
                 for row in rows]
        said = [*map(repr, self.stages), *(f"note: {note}" for note in self._said())]
        return "\n".join([*(line.rstrip() for line in lines), *said])

    def _repr_html_(self) -> str:
        cells = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in self.rows())
        head = "".join(f"<th>{name}</th>" for name in ("measure", "teacher", "student", "retained", "95 % interval"))
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self._said())
        return f"<table><thead><tr>{head}</tr></thead><tbody>{cells}</tbody></table>{notes}"


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _short(value: Value) -> str:
    return _texts(value)[0]


def _between(value: Value | None) -> str:
    return "" if value is None or value.low is None else " to ".join(_texts(value)[1:])


def _texts(value: Value) -> list[str]:
    """The value and the ends of its interval, in four significant digits or as many as `decimals` asks for."""
    known = [v for v in (value.value, value.low, value.high) if v is not None]
    digits = decimals(*known, least=4, full=1.0) if max(map(abs, known)) <= 1 else 4
    form = f".{digits}f" if digits > 4 else ".4g"
    return [f"{v:.0f}" if float(v).is_integer() and abs(v) < 1e9 else f"{v:{form}}" for v in known]


def _side(key: str, side: str) -> str:
    """``key`` with the part that names a side naming ``side``."""
    return ".".join(side if part in ("teacher", "student") else part for part in key.split("."))


def without_side(key: str) -> str:
    """``key`` without the part that names a side.

    >>> without_side("probe.student.accuracy"), without_side("teacher.rankme"), without_side("alignment.teacher_r2")
    ('probe.accuracy', 'rankme', 'alignment.teacher_r2')
    """
    return ".".join(part for part in key.split(".") if part not in ("teacher", "student"))


class Points(NamedTuple):
    """What a curve function returns: ``y`` over ``x``, where known with a band."""

    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None


class NotMeasured(Exception):
    """Raised by the pool where a measure does not apply; the audit leaves the measure out and prints the reason."""


def definition(function: Callable[..., Any]) -> str:
    """First line of the docstring."""
    return (inspect.getdoc(function) or "").split("\n")[0]


def decimals(value: float, low: float | None = None, high: float | None = None, *, least: int, full: float | None = None,
             most: int = MOST) -> int:
    """Decimals, ``least`` to ``most``, with which a value and its interval read as what they are.

    A value that is not ``full`` (1, or 100 in per cent) does not read as full, and two different ends of an interval do not
    read as one. Where ``most`` are too few for that, ``least`` is enough. Nor does an end read as 0 that is not, which would
    leave open on which side of 0 it lies, or a value whose side is known, where `NEAR_ZERO` decimals more show it.

    >>> decimals(0.02, -0.004, 0.05, least=2), decimals(0.0004, -0.2, 0.2, least=2), decimals(0.0004, least=2)
    (3, 2, 4)
    >>> decimals(0.99988, 0.99987, 0.99989, least=3, full=1), decimals(1 - 1e-16, 1.0, 1.0, least=3, full=1)
    (5, 3)
    >>> decimals(99.97, least=1, full=100), decimals(31.04, 30.6, 31.4, least=1)
    (2, 1)
    """
    known = [v for v in (value, low, high) if v is not None]
    one = low is None or high is None or high - low < SAME
    sided = [v for v in ((value, low, high) if low is None or high is None or not low < 0 < high else (low, high)) if v]
    for as_zero in (False, True):
        for digits in range(least, (most if as_zero else min(most, least + NEAR_ZERO)) + 1):
            if (all(_reads(v, digits, full) for v in known) and (one or len({round(v, digits) for v in known[1:]}) > 1)
                    and (as_zero or all(round(v, digits) for v in sided))):
                return digits
    return least


def _reads(value: float, digits: int, full: float | None) -> bool:
    """Whether the value does not read as full where it is not."""
    return full is None or abs(abs(value) - full) < SAME * full or round(abs(value), digits) != full
