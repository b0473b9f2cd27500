"""What the pages are made of, as HTML. Every text that comes from data goes through `escape`."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from distillscope.report.figures.figure import Figure, Panel
from distillscope.report.sentences import study as verdict
from distillscope.report.sentences.numbers import number, percent
from distillscope.report.tables import Table, interval_line
from distillscope.results.keys import OLD_FIT, OLD_FIT_SAYS
from distillscope.results.models import MOST_ARMS, Model, Setting
from distillscope.results.rows import TEACHER
from distillscope.results.run import Run
from distillscope.results.summary import Statistic

SHAPES = {"circle": "M11 6m-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0", "square": "M7 2h8v8h-8z", "diamond": "M11 1l5 5l-5 5l-5 -5z",
          "triangle-up": "M11 1.5l4.6 8h-9.2z", "triangle-down": "M11 10.5l4.6 -8h-9.2z",
          "x": "M7 2l8 8m0 -8l-8 8", "star": "M11 0.6l1.6 3.6l4 .4l-3 2.6l.9 3.9l-3.5 -2l-3.5 2l.9 -3.9l-3 -2.6l4 -.4z"}
PANEL_CLASS = {1: "single", 3: "three"}
RESULTS_CSV = ('<p class="note">Every value behind this page, one a row: <button class="tool" type="button" id="all-results">results.csv</button></p>')
STAND_IN = 900  # pixels across of the drawings that stand in where scripts are off
STROKES = {"solid": "", "dash": "5 3", "dot": "2 3", "dashdot": "6 2 1.5 2"}


def escape(text: Any) -> str:
    """HTML text and attribute values alike."""
    return html.escape(str(text), quote=True)


def listed(sentences: list[str]) -> str:
    return f'<ul class="findings">{"".join(f"<li>{escape(s)}</li>" for s in sentences)}</ul>' if sentences else ""


def notices(run: Run) -> str:
    """What is missing, what is broken, and what the trials warned of, before any number is read."""
    parts = []
    if run.missing:
        total = len(run.missing) + len(run.trials)
        names = "".join(f"<li><code>{escape(name)}</code></li>" for name in run.missing)
        parts.append(f'<details class="notice"><summary><strong>Partial run:</strong> {len(run.trials)} of {total} trials are '
                     f"complete; every figure shows those alone. Finish with <code>--resume</code>.</summary><ul>{names}</ul></details>")
    if run.unstarted:
        parts.append(f'<div class="notice"><p><strong>Partial run:</strong> {run.unstarted} combinations of data set and teacher '
                     "have no finished trial, and are not shown.</p></div>")
    bad = run.results[~np.isfinite(run.results["value"])]
    if len(bad):
        kinds = listed([f"{r.arm} {r.student} seed {r.seed}, {r.condition}: {r.measure}" for r in bad.itertuples()][:50])
        parts.append(f'<details class="notice"><summary><strong>{len(bad)} values are not finite</strong> and are left out of every '
                     f"mean; the n beside it says how many remain.</summary>{kinds}</details>")
    if run.problems:
        parts.append(f'<div class="notice"><p><strong>Unreadable, and left out:</strong></p>{listed(run.problems)}</div>')
    if run.mapped_fit == OLD_FIT:
        parts.append(f'<div class="notice quiet"><p>{escape(OLD_FIT_SAYS)}</p></div>')
    warnings = [f"{t.folder}: {w}" for t in run.trials for w in t.warnings]
    if warnings:
        parts.append(f'<details class="notice quiet"><summary>{len(warnings)} warning{"" if len(warnings) == 1 else "s"} from training</summary>'
                     f"{listed(warnings)}</details>")
    return "\n".join(parts)


def _colours(pair: tuple[str, str]) -> str:
    return f"--l:{pair[0]};--d:{pair[1]}"


def swatch(colour: tuple[str, str], marker: str | None, dash: str) -> str:
    """A model's line and marker as they are in the figures."""
    shape = f'<path d="{SHAPES[marker]}"/>' if marker in SHAPES else ""
    stroke = f' stroke-dasharray="{STROKES[dash]}"' if STROKES.get(dash) else ""
    hollow = " open" if marker and dash != "solid" else ""
    return (f'<svg class="swatch{hollow}" style="{_colours(colour)}" viewBox="0 0 22 12" aria-hidden="true">'
            f'<line x1="0" y1="6" x2="22" y2="6"{stroke}/>{shape}</svg>')


def tiles(merits: list[verdict.Merit]) -> str:
    """Figures of merit, one card each, a row and a bar a model."""
    cards = []
    for merit in merits:
        rows = "".join(
            f'<li data-model="{escape(m.highlight)}"><span title="{escape(m.label)}">{escape(TEACHER if m.is_teacher else m.label)}'
            f'</span><span class="interval num">{escape(interval)}</span>'
            f'<b class="num">{escape(value)}</b>{_bar(m, s, merit.full)}</li>'
            for m, s, value, interval in merit.rows if merit.full)
        cards.append(f'<div class="merit"><h3>{escape(merit.title)}</h3><p class="note">{escape(merit.note)}</p><ul>{rows}</ul></div>')
    return f'<div class="merits">{"".join(cards)}</div>'


def _bar(model: Model, s: Statistic, full: float) -> str:
    """A bar with its interval as a whisker, drawn by the style sheet alone."""
    def place(value: float) -> float:
        return max(0.0, min(100.0, 100 * value / full))

    known = math.isfinite(s.low) and s.high > s.low
    whisker = f'<u style="left:{place(s.low):.2f}%;width:{place(s.high) - place(s.low):.2f}%"></u>' if known else ""
    return f'<span class="bar" style="{_colours(model.colour)}"><i style="width:{place(s.mean):.2f}%"></i>{whisker}</span>'


def legend(settings: list[Setting], pick: bool = True) -> str:
    """One legend for the whole page, which highlights a model everywhere; where arms are many (and ``pick``), a choice of arms too."""
    arms = list(dict.fromkeys(m.arm for s in settings for m in s.students))
    many = pick and len(arms) > MOST_ARMS
    models: dict[str, Model] = {}
    for setting in settings:
        for model in setting.main if many else setting.models:
            models.setdefault(model.label, model)
    chips = "".join(
        f'<button class="chip" type="button" aria-pressed="false" data-highlight="{escape(m.highlight)}" style="{_colours(m.colour)}">'
        f"{swatch(m.colour, m.marker, m.dash)}{escape(m.label)}</button>" for m in models.values())
    chips = f'<span class="hint">Highlight</span>{chips}' if chips else ""
    return f'<nav class="legend" aria-label="Models: click to highlight">{chips}{_arms(arms) if many else ""}</nav>' if chips else ""


def _arms(arms: list[str]) -> str:
    """The figures begin with the first arm alone: dozens of lines would show nothing."""
    first = escape(arms[0])
    chosen = "".join(f'<option value="{escape(a)}">{first} and {escape(a)}</option>' for a in arms[1:])
    return (f'<label class="arms"><span class="hint">Arms</span><select id="arms"><option value="{first}">{first} alone</option>{chosen}'
            f'<option value="">all {len(arms)} arms</option></select></label>')


def _switch(kind: str, names: list[str], what: str) -> str:
    """Buttons of which one is pressed."""
    buttons = "".join(f'<button class="tool" type="button" data-do="{kind}" data-choice="{escape(n)}" aria-pressed="{str(i == 0).lower()}">'
                      f"{escape(n)}</button>" for i, n in enumerate(names))
    return f'<span class="switch" role="group" aria-label="{what}">{buttons}</span>' if names else ""


def figure_html(figure: Figure, folder: Path, known: Collection[str] | None = None, below: str = "") -> str:
    """A figure with its tools and how to read it; without JavaScript the static drawing stands in.

    Nulls are named below the figure; so is, where the page's ``known`` labels are given, every other series. ``below`` is HTML
    between the drawing and its caption.
    """
    if not figure.panels:
        return f'<figure class="absent" id="figure-{figure.key}"><h3>{escape(figure.title)}</h3><p>{escape(figure.absent)}</p></figure>'
    scale = ('<button class="tool" type="button" data-do="log" aria-pressed="true">log x</button>'
             if any(p.can_log for p in figure.panels) else "")
    scale += _switch("unit", next(([n for n, *_ in p.x_units] for p in figure.panels if p.x_units), []), "unit of sigma")
    scale += _switch("view", next(([n for n, *_ in p.views] for p in figure.panels if p.views), []), "method of the map")
    panels = "".join(
        f'<div class="panel"{_whose(p)}>{f"<h4>{escape(p.title)}</h4>" if p.title else ""}<div class="plot" role="img" '
        f'aria-label="{escape(f"{p.title}. " if p.title else "")}{escape(figure.alt)}"></div>'
        f'{f"<p class=note>{escape(p.note)}</p>" if p.note else ""}</div>' for p in figure.panels)
    static = folder / "figures" / f"{figure.key}.png"
    fallback = f'<noscript><img alt="{escape(figure.alt)}" src="{_small_png(static)}"></noscript>' if static.exists() else ""
    named = {s.label: s for p in figure.panels for s in p.series
             if s.highlight == "null" or (known is not None and s.label not in known and s.legend)}
    key = "".join(f'<span class="key">{swatch(s.colour, s.marker, s.dash)} {escape(s.label)}</span> ' for s in named.values())
    key = f"<p>{key.strip()}</p>" if key else _scale(figure)
    kind = "squares" if any(p.grid or p.square for p in figure.panels) else PANEL_CLASS.get(len(figure.panels), "")
    across = f' style="--across:{_columns(len(figure.panels))}"' if kind == "squares" else ""
    return (f'<figure id="figure-{figure.key}"><div class="bar-top"><h3>{escape(figure.title)}</h3><div class="tools">{scale}'
            '<button class="tool" type="button" data-do="csv">CSV</button>'
            '<button class="tool" type="button" data-do="svg">SVG</button></div></div>'
            f'<div class="panels {kind}"{across}>{panels}</div>{fallback}{below}'
            f"<figcaption>{key}{listed(figure.findings)}<p>{escape(figure.reading)}</p></figcaption></figure>")


def _columns(panels: int) -> int:
    """How many squares to a row: five at most, in rows of about one length."""
    return math.ceil(panels / math.ceil(panels / 5)) if panels else 1


def _scale(figure: Figure) -> str:
    """One colour scale for all panels of cells."""
    grid = next((p.grid for p in figure.panels if p.grid), None)
    if grid is None:
        return ""
    low, high = (percent(v, 0) if grid.percent else number(v, 2) for v in (grid.low, grid.high))
    return f'<p class="key">{escape(grid.of)} {low} <span class="heat{" root" * grid.root}"></span> {high}</p>'


def _small_png(path: Path) -> str:
    """A drawing as a data: address in 64 colours: a tenth of the SVG, whose curves hold every point."""
    with Image.open(path) as image, io.BytesIO() as kept:
        image.thumbnail((STAND_IN, 10 * STAND_IN))
        image.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(kept, "PNG", optimize=True)
        return f"data:image/png;base64,{base64.b64encode(kept.getvalue()).decode()}"


def _whose(panel: Panel) -> str:
    """A panel of one model alone fades with it when another is highlighted."""
    alone = panel.grid or (panel.series[0] if panel.square and panel.series else None)
    return f' data-model="{escape(alone.highlight)}"' if alone else ""


def model_cell(model: Model) -> str:
    """The head of a table's row: a model as it is drawn."""
    return f'<th class="name" scope="row">{swatch(model.colour, model.marker, model.dash)} {escape(model.label)}</th>'


def table_html(table: Table) -> str:
    """The main table with intervals and seeds in every cell."""
    places = ["data", "teacher"] if table.settings > 1 else []
    head = '<th class="name" scope="col">model</th>' + "".join(f'<th class="place" scope="col">{p}</th>' for p in places)
    head += "".join(f'<th scope="col" title="{escape(c.hint)}">{escape(c.title)}</th>' for c in table.columns)
    rows, previous = [], None
    for row in table.rows:
        m = row.model
        group = (m.dataset, m.teacher, m.arm, m.is_teacher)
        kind = ["teacher"] * m.is_teacher + ["first"] * (previous not in (None, group))
        previous = group
        cells = "".join(f'<td class="place">{escape(v)}</td>' for v in ((m.dataset, m.teacher) if places else ()))
        for cell, column in zip(row.cells, table.columns, strict=True):
            shown, _, paper = table.text(cell, column).partition(" (paper ")
            small = f"<small>{escape(interval_line(cell, column, table.usual_seeds))}</small>" if not (m.is_teacher or column.constant) else ""
            small += f'<small class="paper">paper {escape(paper.removesuffix(")"))}</small>' if paper else ""
            cells += f'<td class="num">{escape(shown)}{small}</td>'
        rows.append(f'<tr class="{" ".join(kind)}" data-model="{escape(m.highlight)}">{model_cell(m)}{cells}</tr>')
    explained = [*table.notes, "Brackets: 95 % t interval over seeds."] if table.usual_seeds > 1 else table.notes
    notes = "".join(f"<p class=note>{escape(n)}</p>" for n in explained)
    return (f'<div class="scroll" tabindex="0" role="region" aria-label="Main table"><table><thead><tr>{head}</tr></thead>'
            f'<tbody>{"".join(rows)}</tbody></table></div>{notes}')


def contents(parts: list[tuple[str, str, str]]) -> str:
    """Links to the page's sections."""
    links, before = "", ""
    for key, title, _ in parts:  # "Why? Directions", and then what else is why
        head, _, rest = title.partition("? ")
        links += f'<a href="#{key}">{escape(rest if rest and head == before else title)}</a>'
        before = head
    return f'<nav class="contents" aria-label="Sections">{links}</nav>'
