"""The page of a comparison, part by part. Every text that comes from data goes through `escape`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distillscope.compare.differences import Difference, Pair
from distillscope.compare.read import AuditSide, StudySide
from distillscope.compare.runs import Comparison, path_of
from distillscope.measure.results import Audit
from distillscope.report.draw.with_plotly import to_plotly
from distillscope.report.figures.figure import Figure
from distillscope.report.page import assembled
from distillscope.report.provenance import command_html, duration, facts_html
from distillscope.report.sections import escape, figure_html, legend, table_html
from distillscope.report.sentences import compare as words
from distillscope.report.sentences.audit_measures import between, shown, title_of
from distillscope.report.sentences.numbers import joined
from distillscope.report.tables import Table
from distillscope.results.models import Setting

COLUMNS = ("figure", "A", "B", "B − A", "95 % interval", "over items", "n", "p (Holm)")
READING = ("B − A, each run with its own seeds: where both have a seed, its difference is taken first and Student's t interval is over those "
           "differences; where they share none, the interval is Welch's. “Over items” is a paired bootstrap over the test images of the same "
           "trained models: it holds for other images, not for other seeds. p is Holm's over every difference on this page. A difference that "
           "does not remain is not shown to be absent.")
OVER_ITEMS = ("B − A of the values of both audits. The interval joins both audits' intervals (MOVER) as if their items were not the same, which is "
              "too wide where they are; none of it speaks of other seeds. p is Holm's over every difference on this page.")


def render_comparison(found: Comparison, figures: Sequence[Figure], settings: Sequence[Setting], table: Table | None, folder: Path,
                      command: str) -> str:
    """The page as text; ``folder`` holds the static figures that stand in where scripts are off."""
    drawn = {f.key: figure_html(f, folder) for f in figures}
    against = f"{joined(found.labels[1:])} against {found.labels[0]}"
    data = {"study": against, "comparison": found.to_dict(), "figures": [{"key": f.key, "panels": to_plotly(f)} for f in figures]}
    return assembled(
        title=f"{against}: what differs", data=data, styles=("page.css", "compare.css"), study=f"<strong>{escape(against)}</strong>",
        headline=escape(words.headline(found.labels, found.differences)), notices=notices(found), merits=merits(found),
        legend=legend(list(settings), pick=False), sections=body(found, drawn, table, command),
        footer="Made by Distillscope. This file is complete: it loads nothing.")


def notices(found: Comparison) -> str:
    """What to know before any number."""
    if not found.warnings:
        return ""
    lines = "".join(f"<li>{escape(w)}</li>" for w in found.warnings)
    return f'<div class="notice"><p><strong>Before reading the differences:</strong></p><ul>{lines}</ul></div>'


def merits(found: Comparison) -> str:
    """A card a quantity with the difference of every model: a row of cards for each pair of studies, one for all audits."""
    parts = []
    for pair in found.pairs if found.kind == "study" else [Pair(found.labels[0], joined(found.labels[1:]), found.differences)]:
        if len(found.pairs) > 1:
            parts.append(f'<p class="setting">{escape(pair.second)} against {escape(pair.first)}</p>')
        cards = []
        known = [d for d in pair.differences if d.known]
        for title in dict.fromkeys(words.title_text(d) for d in known if d.quantity.tested):
            rows = "".join(_merit_row(d) for d in known if words.title_text(d) == title)
            cards.append(f'<div class="merit"><h3>{escape(title)}</h3><p class="note">{escape(_unit(known, title))}</p><ul>{rows}</ul></div>')
        parts.append(f'<div class="merits">{"".join(cards)}</div>')
    return "\n".join(parts)


def _unit(known: Sequence[Difference], title: str) -> str:
    d = next(d for d in known if words.title_text(d) == title)
    several = len({d.second for d in known}) > 1
    return f"{'minus' if several else f'{d.second} −'} {d.first}{f', {d.quantity.unit}' if d.quantity.unit else ''}"


def _merit_row(d: Difference) -> str:
    kind = ' class="shown"' if d.shown else ""
    return (f'<li data-model="{_highlight(d)}"{kind}><span>{escape(d.name or d.second)}</span>'
            f'<span class="interval num">{escape(words.interval_text(d))}</span>'
            f'<b class="num">{escape(words.difference_text(d))}</b></li>')


def _highlight(d: Difference) -> str:
    return escape(d.match.first.student if d.match else d.second)


def body(found: Comparison, drawn: dict[str, str], table: Table | None, command: str) -> str:
    """What differs, how it looks, what was set otherwise, all numbers, and where they come from."""
    def of(*keys: str) -> str:
        return "".join(drawn[k] for k in keys if k in drawn)

    tables = "".join(differences_html(p, named=len(found.pairs) > 1) for p in found.pairs)
    reading = READING if found.kind == "study" else OVER_ITEMS
    study = found.kind == "study"
    numbers = table_html(table) if table is not None else audits_html(found.sides)
    parts = [
        ("lost", "What differs", f"<p>{escape(reading)}</p>{of('differences')}{tables}"),
        *([("matter", "Does it matter?", of("noise"))] if study else []),
        ("geometry", "Geometry", of("cumulative_variance") + (f'<div class="pair">{of("effective_rank", "cosine_rank")}</div>' if study else "")
         + of("alignment", "component_r2")),
        *([("information", "Information", of("information")), ("training", "Training", of("training"))] if study else []),
        *([("settings", "What was set otherwise", settings_html(found))] if study else []),
        ("table", "All numbers", numbers),
        ("provenance", "Provenance", provenance_html(found, command)),
    ]
    return "\n".join(f'<section id="{key}" aria-labelledby="{key}-title"><h2 id="{key}-title">{title}</h2>{content}</section>'
                     for key, title, content in parts)


def _scrolled(name: str, head: str, rows: str) -> str:
    return (f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(name)}"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div>")


def differences_html(pair: Pair, named: bool) -> str:
    """One row a difference, and what was left out with the reason."""
    models, items = any(d.match for d in pair.differences), any(d.items for d in pair.differences)
    columns = [c for c in COLUMNS if items or c != "over items"]
    head = ('<th class="name" scope="col">model</th>' if models else "") + "".join(f'<th scope="col">{escape(c)}</th>' for c in columns)
    rows, previous = [], None
    for d in (d for d in pair.differences if d.known):
        group = d.match and (d.match.first.dataset, d.match.first.teacher, d.name)
        kinds = " ".join(["shown"] * d.shown + ["first"] * (previous not in (None, group)))
        previous = group
        cells = [words.title_text(d), words.value_text(d, d.a), words.value_text(d, d.b), words.difference_text(d), words.interval_text(d),
                 *([words.items_text(d)] if items else []), words.n_text(d), words.p_text(d.p_holm)]
        name = f'<th class="name" scope="row">{escape(d.name)}</th>' if models else ""
        rows.append(f'<tr class="{kinds}" data-model="{_highlight(d)}">{name}'
                    + "".join(f'<td class="num">{escape(c)}</td>' for c in cells) + "</tr>")
    title = f"<h3>A = {escape(pair.first)}, B = {escape(pair.second)}</h3>"
    reasons = words.left_out_lines(pair.differences)
    left_out = f'<p class="note">Left out: {escape("; ".join(reasons))}.</p>' if reasons else ""
    return title + _scrolled(f"Differences of {pair.second} from {pair.first}" if named else "Differences", head, "".join(rows)) + left_out


def settings_html(found: Comparison) -> str:
    """Every setting in which the configurations differ, a column a run."""
    if not found.differs:
        return "<p>The configurations are the same, seeds apart.</p>"
    head = '<th class="name" scope="col">setting</th>' + "".join(f'<th scope="col">{escape(label)}</th>' for label in found.labels)
    rows = "".join(f'<tr><th class="name" scope="row">{escape(key)}</th>' + "".join(f'<td class="setting">{escape(values[label] or "–")}</td>' for label in found.labels)
                   + "</tr>" for key, values in found.differs)
    return _scrolled("Settings that differ", head, rows)


def audits_html(sides: Sequence[AuditSide]) -> str:
    """Every measure that one of the audits has: the first one's teacher, then each student."""
    keys = list(dict.fromkeys(line.name for s in sides for line in s.audit.lines()))
    lines = [{line.name: line for line in s.audit.lines()} for s in sides]
    head = '<th class="name" scope="col">measure</th><th scope="col">teacher</th>' + "".join(f'<th scope="col">{escape(s.label)}</th>' for s in sides)
    rows = []
    for name in keys:
        teacher = lines[0][name].teacher if name in lines[0] else None
        values = [teacher, *(known[name].student if name in known else None for known in lines)]
        cells = "".join(f'<td class="num">{escape(shown(v.value, v.unit, name) if v else "–")}<small>{escape(between(v, name))}</small></td>' for v in values)
        rows.append(f'<tr><th class="name" scope="row" title="{escape(name)}">{escape(title_of(name))}</th>{cells}</tr>')
    return _scrolled("All measures", head, "".join(rows))


def provenance_html(found: Comparison, command: str) -> str:
    """Where each run is and how it was made, and the command of this page."""
    parts = []
    for side in found.sides:
        facts: dict[str, Any] = {"path": path_of(side)}
        facts |= _study_facts(side) if isinstance(side, StudySide) else _audit_facts(side.audit)
        made = facts.pop("made by", None)
        parts.append(f"<h3>{escape(side.label)}</h3>{facts_html(facts)}" + (f"<pre>{escape(made)}</pre>" if made else ""))
    return "".join(parts) + command_html(command)


def _study_facts(side: StudySide) -> dict[str, Any]:
    known = side.run.provenance
    return {"distillscope": known.get("distillscope"), "commit": known.get("commit"), "hardware": known.get("hardware"),
            "started": known.get("started"), "duration": duration(known.get("seconds")), "trials": len(side.run.trials),
            "seeds": ", ".join(map(str, side.run.study.get("seeds") or [])), "made by": known.get("command")}


def _audit_facts(audit: Audit) -> dict[str, Any]:
    return {"measures": len(audit.values)}
