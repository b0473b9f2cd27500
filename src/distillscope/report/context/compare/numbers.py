"""All numbers that are compared, and where they come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distillscope.compare.read import AuditSide, StudySide
from distillscope.compare.runs import Comparison, path_of
from distillscope.report.context.provenance import duration
from distillscope.report.context.study.numbers import notes_of, page_table
from distillscope.report.context.tables import PageCell, PageRow, PageTable, heads
from distillscope.report.registered import COMPARISON
from distillscope.report.sentences.audit_values import between, shown, title_of
from distillscope.report.sentences.numbers import MISSING
from distillscope.report.tables import Table


@COMPARISON.register("table", "All numbers", order=70)
def table(found: Comparison, table: Table | None) -> dict[str, Any]:
    """The main table of the studies, or every measure of the audits."""
    if table is not None:
        return {"table": page_table(table), "notes": notes_of(table)}
    return {"table": audits_table([s for s in found.sides if isinstance(s, AuditSide)]), "notes": []}


def audits_table(sides: Sequence[AuditSide]) -> PageTable:
    """Every measure that one of the audits has: the first one's teacher, then each student."""
    lines = [{line.name: line for line in s.audit.lines()} for s in sides]
    rows = []
    for name in dict.fromkeys(name for known in lines for name in known):
        teacher = lines[0][name].teacher if name in lines[0] else None
        values = [teacher, *(known[name].student if name in known else None for known in lines)]
        cells = [PageCell(shown(v.value, v.unit, name) if v else MISSING, (between(v, name),)) for v in values]
        rows.append(PageRow(title_of(name), cells, hint=name))
    return PageTable("All measures", heads("measure", ["teacher", *(s.label for s in sides)]), rows)


@COMPARISON.register("provenance", "Provenance", order=80)
def provenance(found: Comparison, command: str) -> dict[str, Any]:
    """Where each run is and how it was made, and the command of this page."""
    return {"sides": [{"label": side.label, "facts": _facts(side), "made_by": _made_by(side)} for side in found.sides],
            "command": command}


def _facts(side: StudySide | AuditSide) -> dict[str, Any]:
    facts: dict[str, Any] = {"path": path_of(side)}
    if isinstance(side, AuditSide):
        return facts | {"measures": len(side.audit.values)}
    known = side.run.provenance
    return facts | {
        "distillscope": known.get("distillscope"), "commit": known.get("commit"), "hardware": known.get("hardware"),
        "started": known.get("started"), "duration": duration(known.get("seconds")), "trials": len(side.run.trials),
        "seeds": ", ".join(map(str, side.run.study.seeds))}


def _made_by(side: StudySide | AuditSide) -> str | None:
    return side.run.provenance.get("command") if isinstance(side, StudySide) else None
