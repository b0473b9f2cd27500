"""The HTML of an audit's page, part by part. Every text that comes from data goes through `escape`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distillscope.measure.results import Audit, Line, Value
from distillscope.report.audit_terminal import full_lines
from distillscope.report.figures.figure import Figure
from distillscope.report.provenance import command_html, duration, facts_html
from distillscope.report.sections import escape, figure_html
from distillscope.report.sentences import audit as verdict
from distillscope.report.sentences.audit_advice import advice
from distillscope.report.sentences.audit_measures import (
    GROUPS,
    between,
    group_of,
    meaning,
    num_items,
    read_as,
    reasons,
    title_of,
    told,
    warnings,
)
from distillscope.report.sentences.numbers import NBSP, percent

KNOWN = ("teacher", "student")
"""Labels that the page's legend has."""


def study_line(found: Audit, teacher: str, student: str) -> str:
    """Who against whom, over how many items and dimensions, and how each side was read."""
    dims = [len(found.curves[f"{side}.spectrum"].x) for side in KNOWN if f"{side}.spectrum" in found.curves]
    text = f"<strong>{escape(student)}</strong> against its teacher <strong>{escape(teacher)}</strong>: {num_items(found):,} items"
    if len(dims) == 2:
        text += f", {dims[0]:,} dimensions" + (f" against {dims[1]:,}" if dims[0] != dims[1] else "")
    return text + "." + "".join(f'<small class="read">{escape(line)}</small>' for line in read_as(found))


def notices(found: Audit) -> str:
    """What a reader must know before any number."""
    if not warnings(found):
        return ""
    listed = "".join(f"<li>{escape(note)}</li>" for note in warnings(found))
    return f'<div class="notice"><p><strong>Before you read on</strong></p><ul>{listed}</ul></div>'


def sentences(texts: list[str]) -> str:
    """A list of computed sentences."""
    return f'<ul class="findings">{"".join(f"<li>{escape(t)}</li>" for t in texts)}</ul>' if texts else ""


def _value_cell(value: Value | None, name: str, label: str) -> str:
    if value is None:
        return '<td class="num" data-sort=""></td>'
    interval = between(value, name)
    small = f"<small>{escape(interval)}</small>" if interval else ""
    exact = repr(float(value.value))
    return (f'<td class="num" data-sort="{exact}" data-label="{label}" title="{exact}">'
            f"{escape(told(value, name))}{small}</td>")


def _keys(line: Line) -> str:
    """'{teacher,student}.dims_90': both keys in one, as a shell would expand it."""
    if len(line.keys) == 1:
        return line.keys[0]
    return ".".join("{teacher,student}" if a != b else a for a, b in zip(*(k.split(".") for k in line.keys), strict=True))


def _breakable(key: str) -> str:
    """A key that may be broken behind its dots and underscores."""
    return escape(key).replace(".", ".<wbr>").replace("_", "_<wbr>")


def table_html(found: Audit) -> str:
    """Every measure with both sides, what is retained, n, unit, what the value means, and the definition."""
    heads = ("measure", "teacher", "student, or pair", "retained", "n", "unit", "meaning and definition")
    kinds = ["name", "", "", "", "", "place", "place"]
    head = "".join(f'<th class="{kind}" scope="col"><button type="button">{name}</button></th>'
                   for name, kind in zip(heads, kinds, strict=True))
    rows = []
    for line in full_lines(found):
        value, group = line.student or line.teacher, group_of(line.name)
        kept = "" if line.retained is None else percent(line.retained)
        said = meaning(line, found)
        definition = "" if said == value.definition else f"<small>{escape(value.definition)}</small>"
        rows.append(
            f'<tr data-keys="{escape(" ".join(line.keys))} {escape(GROUPS[group])}"><th class="name" scope="row">'
            f"{escape(title_of(line.name))}<code>{_breakable(_keys(line))}</code></th>{_value_cell(line.teacher, line.name, 'teacher')}"
            f"{_value_cell(line.student, line.name, 'student' if line.teacher or 'student' in line.keys[0] else 'pair')}"
            f'<td class="num" data-label="retained" data-sort="{"" if line.retained is None else line.retained}">{kept}</td>'
            f'<td class="num" data-label="n" data-sort="{value.n}">{value.n:,}</td><td class="place">{escape(value.unit)}</td>'
            f'<td class="text">{escape(said)}{definition}</td></tr>')
    return ('<div class="search"><input type="search" data-search="measures" aria-label="Search the measures" placeholder="search, for '
            'instance: recall"><span id="measures-count" role="status"></span></div>'
            '<div class="scroll" tabindex="0" role="region" aria-label="All measures"><table class="measures" id="measures">'
            f'<thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div><p class="note">Brackets are 95{NBSP}% intervals over '
            "items, for this pair of models: they say nothing of other seeds. Click a column to sort; measures.csv and audit.json hold "
            "the same with all digits.</p>")


def left_out_html(found: Audit) -> str:
    """Reason by reason, the keys that were not measured."""
    if not found.left_out:
        return "<p>Nothing: every measure applied.</p>"
    listed = "".join(f"<dt>{escape(reason[0].upper() + reason[1:])}</dt><dd>{', '.join(f'<code>{escape(k)}</code>' for k in keys)}</dd>"
                     for reason, keys in reasons(found).items())
    return f'<dl class="left">{listed}</dl>'


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items())
    return ", ".join(map(_plain, value)) if isinstance(value, (list, tuple)) else str(value)


def provenance_html(provenance: dict[str, Any], teacher: str, student: str, command: str) -> str:
    """Where the numbers come from, and the command that makes them again."""
    facts: dict[str, Any] = {"teacher": teacher, "student": student}
    for key, value in provenance.items():
        if key == "seconds":
            facts["duration"] = duration(value) if value else ""
        elif key != "command" and value not in (None, "", 0, {}, []):
            facts[key.replace("_", " ")] = _plain(value)
    return facts_html(facts) + command_html(command)


def body(found: Audit, figures: dict[str, Figure], folder: Path, provenance: str) -> str:
    """The sections in the order in which a reader asks: what was lost, does it matter, why, what to change, and is it to be believed."""
    def drawn(*keys: str) -> str:
        return "".join(figure_html(figures[k], folder, KNOWN) for k in keys)

    lost = sentences([loss.sentence for loss in verdict.losses(found)]) + f'<p class="note">{escape(verdict.bands())}</p>'
    matter = sentences(verdict.does_it_matter(found)) or "<p>Nothing that was measured tells: there are no labels, and no search index.</p>"
    parts = [
        ("lost", "What was lost", lost),
        ("matter", "Does it matter?", matter),
        ("labels", "Labels", drawn("accuracy")),
        ("directions", "Directions", drawn("spectrum", "rank_by_n")),
        ("alignment", "What of the teacher is in it", f'<div class="pair">{drawn("alignment", "component_r2")}</div>'),
        ("search", "Search and similarity", f'<div class="pair">{drawn("retrieval", "similarity")}</div>'),
        ("items", "Telling items apart", drawn("contrastive")),
        ("advice", "What to change", sentences(advice(found))),
        ("table", "All measures", table_html(found)),
        ("left-out", "What was left out, and why", left_out_html(found)),
        ("provenance", "Provenance", provenance),
    ]
    shown_parts = [f'<section id="{key}" aria-labelledby="{key}-title"><h2 id="{key}-title">{title}</h2>{content}</section>'
                   for key, title, content in parts]
    return "\n".join([f'<div class="pair">{shown_parts[0]}{shown_parts[1]}</div>', *shown_parts[2:]])
