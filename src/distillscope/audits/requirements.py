"""Bounds that an audit must meet: ``probe.retention>=0.95``, or ``low(probe.retention)>=0.95`` on its interval's end."""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from distillscope.errors import UserError
from distillscope.measure.results import Audit, Value
from distillscope.registry import measures

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt, "==": operator.eq}
_BOUND = re.compile(r"\s*(?:(?P<end>low|high)\(\s*(?P<inner>[\w.]+)\s*\)|(?P<key>[\w.]+))"
                    r"\s*(?P<operator>>=|<=|==|>|<)\s*(?P<bound>[^\s=<>]\S*)\s*")
EXAMPLE = "Write for instance --require 'probe.retention>=0.95' or --require 'low(probe.retention)>=0.9'."


@dataclass(frozen=True)
class Requirement:
    """A bound on a value, or on the ``end`` ("low" or "high") of its 95 % interval."""

    text: str
    key: str
    operator: str
    bound: float
    shown_bound: str
    end: str | None = None

    @property
    def where(self) -> str:
        return f"--require '{self.text}'"


def check_requirements(found: Audit, requirements: Iterable[str]) -> list[str]:
    """A line for each of ``requirements`` that ``found`` misses, in their order; empty where all are met.

    ``KEY>=NUMBER`` with one of >= <= > < ==, or ``low(KEY)`` and ``high(KEY)`` for the ends of the 95 % interval, which make
    a gate that chance alone does not pass. ``==`` compares exactly and is meant for counts and flags. Raises UserError where
    a requirement cannot be read, or is about something that was not measured: a gate must not pass for that. Of the stages of
    an audit, ``student.KEY`` and ``teacher.KEY`` are theirs, ``artefact.KEY`` that of every file, ``artefact.2.KEY`` of the
    second.

    >>> found = Audit({"probe.retention": Value(0.91, 0.90, 0.92, 1000, "The student's over the teacher's.", "share")})
    >>> check_requirements(found, ["probe.retention>=0.95", "probe.retention > 0.9"])
    ['probe.retention = 0.91 [0.90, 0.92] misses >= 0.95']
    """
    parsed = [read_requirement(text) for text in requirements]  # all are read before any is checked
    return [line for requirement in parsed for line in _misses(found, requirement)]


def read_requirement(text: str) -> Requirement:
    """The bound that ``text`` says.

    >>> read_requirement("low(probe.retention) >= .9")
    Requirement(text='low(probe.retention) >= .9', key='probe.retention', operator='>=', bound=0.9, shown_bound='.9', end='low')
    """
    match = _BOUND.fullmatch(text)
    if match is None:
        raise UserError(f"--require '{text}'", "KEY, one of >= <= > < ==, and a number", f"'{text}'", EXAMPLE)
    try:
        bound = float(match["bound"])
    except ValueError:
        bound = math.nan
    if not math.isfinite(bound):
        raise UserError(f"--require '{text}'", "a finite number after the operator", f"'{match['bound']}'", EXAMPLE)
    return Requirement(text, match["inner"] or match["key"], match["operator"], bound, match["bound"], match["end"])


def _misses(found: Audit, requirement: Requirement) -> list[str]:
    """A line for each value of which the requirement is missed."""
    return [line for name, value in _values(found, requirement) if (line := _miss(name, value, requirement))]


def _miss(name: str, value: Value, requirement: Requirement) -> str:
    """The line that says how the requirement is missed by that value; empty where it is met."""
    got = value.value if requirement.end is None else getattr(value, requirement.end)
    if got is None:
        raise UserError(requirement.where, f"a measure with an interval inside {requirement.end}()",
                        f"'{requirement.key}', which has none here", "Require its value, or audit with intervals.")
    if OPERATORS[requirement.operator](got, requirement.bound):
        return ""
    known = [v for v in (value.value, value.low, value.high) if v is not None]
    shown = dict(zip(known, _digits(known, got, requirement), strict=True))
    interval = f" [{shown[value.low]}, {shown[value.high]}]" if value.low is not None and value.high is not None else ""
    asked = f"misses {requirement.operator} {requirement.shown_bound}"
    if requirement.end is None:
        return f"{name} = {shown[value.value]}{interval} {asked}"
    return f"{requirement.end}({name}) = {shown[got]} {asked} (value {shown[value.value]}{interval})"


def _values(found: Audit, requirement: Requirement) -> list[tuple[str, Value]]:
    """What the requirement is about, by name: one value, or one of every file; or the line that says why there is none."""
    key = requirement.key
    if key in found.measured:
        return [(key, found.measured[key])]
    if key in found.left_out:
        raise UserError(requirement.where, "a measure that applies here",
                        f"'{key}', which was left out because {found.left_out[key]}",
                        "Give what it needs, or drop the requirement.")
    if key in _all_keys():
        raise UserError(requirement.where, "a measure that was taken", f"'{key}', whose group was not chosen",
                        "Choose its group too.")
    head, _, rest = key.partition(".")
    if head == "artefact" and not found.stages:
        raise UserError(requirement.where, "files to hold to it", "none", "Add --artefact FILE.")
    chosen = _stages(found, requirement, head, rest) if rest and found.stages else []
    if chosen:
        return chosen
    sides = [k for k in (f"teacher.{key}", f"student.{key}") if k in found.measured]
    close = sides or difflib.get_close_matches(key, found.measured, n=3, cutoff=0.5)
    guess = f"Did you mean {' or '.join(close)}?" if close else "--json lists every measure."
    raise UserError(requirement.where, "a measure's key", f"'{key}', which is none", guess)


def _stages(found: Audit, requirement: Requirement, head: str, key: str) -> list[tuple[str, Value]]:
    """The value of a stage, or of every file; empty where the key names no stage."""
    files = [stage for stage in found.stages if stage.kind == "artefact"]
    number, _, rest = key.partition(".")
    if head == "artefact" and number.isdecimal():
        if not 1 <= int(number) <= len(files):
            raise UserError(requirement.where, f"a file from artefact.1 to artefact.{len(files)}", f"artefact.{number}",
                            "They are numbered as --artefact names them.")
        files, key = [files[int(number) - 1]], rest
    asked = files if head == "artefact" else [stage for stage in found.stages if stage.kind == head]
    for stage in asked:
        if key not in stage.values:
            why = stage.left_out.get(key)
            if why:
                raise UserError(requirement.where, "a measure that applies here", f"'{key}', which was left out because {why}",
                                "Give what it needs, or drop the requirement.")
            close = difflib.get_close_matches(key, stage.values, n=1, cutoff=0.5)
            guess = f"Did you mean {head}.{close[0]}? " if close else ""
            raise UserError(requirement.where, f"a key of {stage.name}", f"'{key}', which is none",
                            f"{guess}Known: {', '.join(stage.values)}.")
    return [(f"{stage.name}: {key}", stage.values[key]) for stage in asked]


def _all_keys() -> set[str]:
    """The keys of every registered measure."""
    return {key for name in measures for key in ((f"teacher.{name}", f"student.{name}")
                                                 if measures.facts(name).group == "spectrum" else (name,))}


def _digits(values: list[float], got: float, requirement: Requirement) -> list[str]:
    """The values with as many decimals as they need, and with so many that the line does not contradict itself."""
    for decimals in range(2, 9):
        texts = [f"{v:.{decimals}f}" for v in values]
        close = all(abs(float(t) - v) <= 5e-4 * abs(v) for t, v in zip(texts, values, strict=True))
        if close and not OPERATORS[requirement.operator](float(f"{got:.{decimals}f}"), requirement.bound):
            whole = all(float(v).is_integer() for v in values)
            return [t.removesuffix("." + "0" * decimals) for t in texts] if whole else texts
    return [repr(float(v)) for v in values]
