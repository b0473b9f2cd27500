"""All measures of an audit, what was left out, and where the numbers come from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from distillscope.measure.results import Audit
from distillscope.report.audit_lines import ShownLine, ShownValue, full_lines, shown_line
from distillscope.report.context.provenance import duration
from distillscope.report.registered import AUDIT

UNKNOWN: tuple[Any, ...] = (None, "", 0, {}, [])
"""Values of a provenance that say nothing."""


@dataclass(frozen=True)
class Row:
    """A line of the table; ``key`` is in the pieces between which it may be broken."""

    line: ShownLine
    key: list[str]

    @property
    def sides(self) -> list[tuple[str, ShownValue | None]]:
        """The teacher's value, and the student's or the pair's."""
        return [("teacher", self.line.teacher), ("pair" if self.line.of_pair else "student", self.line.student)]


@AUDIT.register("table", "All measures", order=90)
def table(found: Audit) -> dict[str, Any]:
    """Every measure with both sides, what is retained, n, unit, what the value means, and the definition."""
    lines = [shown_line(line, found) for line in full_lines(found)]
    return {"rows": [Row(line, pieces(shared_key(line.keys))) for line in lines]}


def shared_key(keys: tuple[str, ...]) -> str:
    """Both sides' keys in one, as a shell would expand it.

    >>> shared_key(("teacher.dims_90", "student.dims_90")), shared_key(("probe.c",))
    ('{teacher,student}.dims_90', 'probe.c')
    """
    if len(keys) == 1:
        return keys[0]
    return ".".join("{teacher,student}" if a != b else a for a, b in zip(*(k.split(".") for k in keys), strict=True))


def pieces(key: str) -> list[str]:
    """A key in the pieces between which it may be broken: behind dots and underscores.

    >>> pieces("student.dims_90")
    ['student.', 'dims_', '90']
    """
    return re.findall(r"[^._]*[._]|[^._]+$", key)


@AUDIT.register("left-out", "What was left out, and why", order=100)
def left_out(found: Audit) -> dict[str, Any]:
    """Reason by reason, the keys that were not measured."""
    return {"reasons": found.reasons}


@AUDIT.register("provenance", "Provenance", order=110)
def provenance(provenance: dict[str, Any], teacher: str, student: str, command: str) -> dict[str, Any]:
    """Where the numbers come from, and the command that makes them again."""
    facts: dict[str, Any] = {"teacher": teacher, "student": student}
    for key, value in provenance.items():
        if key == "seconds":
            facts["duration"] = duration(value) if value else ""
        elif key != "command" and value not in UNKNOWN:
            facts[key.replace("_", " ")] = _plain(value)
    return {"facts": facts, "command": command}


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items())
    return ", ".join(map(_plain, value)) if isinstance(value, (list, tuple)) else str(value)
