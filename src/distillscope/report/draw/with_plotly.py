"""Prepared figures -> Plotly figures as plain JSON. The page's script adds theme, highlight and unit of the axis."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

from distillscope.report.figures.figure import Figure, Grid, Mark, Panel, Series
from distillscope.report.sentences.numbers import number, shortened
from distillscope.results.models import CLASS_COLOURS, MARKERS

DASHES = {"solid": "solid", "dash": "dash", "dot": "dot", "dashdot": "dashdot"}
LONG = 100  # points of a curve
MOST_GAPS = 20  # cells with lines between them
MARGIN = {"l": 56, "r": 16, "t": 30, "b": 56}


def _text(text: str) -> str:
    """Plotly renders a subset of HTML in its texts: names from data must not be taken for any."""
    return html.escape(text, quote=False).replace("$", "&#36;").replace("\n", "<br>")  # $...$ would be taken for TeX


def rounded(values: Sequence[float | None] | None) -> list[float | None] | None:
    """Seven significant digits, five in long curves: more than a screen shows, at half the size. Not finite becomes null.

    >>> rounded([1.0, 0.123456789, math.nan])
    [1, 0.1234568, None]
    """
    if values is None:
        return None
    digits = 7 if len(values) <= LONG else 5
    kept = [float(f"{v:.{digits}g}") if v is not None and math.isfinite(v) else None for v in values]
    return [int(v) if v is not None and v.is_integer() and abs(v) < 1e9 else v for v in kept]


def _hover(s: Series, panel: Panel) -> str | list[str]:
    """What a point says; one text a point where some have no interval."""
    if not s.gaps:
        return _said(s, panel, bool(s.low and s.high))
    return [_said(s, panel, math.isfinite(v)) for v in s.low or []]


def _said(s: Series, panel: Panel, bounded: bool) -> str:
    name = _text(panel.x_name or panel.x_label)
    x = f"{name} %{{x:,.6~g}}<br>" if panel.x_label and s.kind != "bars" else ""
    x = "%{text}<br>" if s.hover else x
    y = "%{y:.2%}" if panel.y_percent else "%{y:.4~g}"
    shape = ".2%" if panel.y_percent else ".4~g"
    low_high = f"%{{customdata[0]:{shape}}}, %{{customdata[1]:{shape}}}"
    interval = f"<br>95 % [{low_high}]" if bounded else ""
    counted = s.n and (s.highlight != "teacher" or s.n_of != "seed")
    seeds = f"<br>n = {s.n:,} {s.n_of}{'' if s.n == 1 else 's'}" if counted else ""
    if s.kind == "faint":
        seeds = "<br>one seed"
    return f"<b>{_text(s.label)}</b><br>{x}{y}{interval}{seeds}<extra></extra>"


def _errors(centre, low, high) -> dict[str, Any]:
    return {"type": "data", "symmetric": False, "array": rounded([h - c for c, h in zip(centre, high, strict=True)]),
            "arrayminus": rounded([c - v for c, v in zip(centre, low, strict=True)]), "thickness": 1.5, "width": 4}


def _traces(s: Series, panel: Panel) -> list[dict[str, Any]]:
    colour = s.colour[0]
    trace: dict[str, Any] = {"name": _text(s.label), "x": rounded(s.x), "y": rounded(s.y), "hovertemplate": _hover(s, panel),
                             "legendgroup": s.label, "showlegend": False,
                             "meta": {"highlight": s.highlight, "colours": list(s.colour), "kind": s.kind, "label": s.label,
                                      "n": s.n, "arms": list(s.arms)}}
    if s.hover:
        trace["text"] = [_text(h) for h in s.hover]
    if s.low and s.high:
        trace["customdata"] = [list(pair) for pair in zip(rounded(s.low) or [], rounded(s.high) or [], strict=True)]
    if s.kind == "bars":
        pattern = {"shape": "" if s.dash == "solid" else "/", "fillmode": "overlay"}
        trace |= {"type": "bar", "width": 0.62, "marker": {"color": colour, "pattern": pattern}}
        if s.low and s.high:
            trace["error_y"] = _errors(s.y, s.low, s.high)
        return [trace]
    trace["type"] = "scatter"
    if s.kind == "cloud":
        trace["meta"]["groups"] = s.groups
        symbols = [MARKERS[g // len(CLASS_COLOURS) % len(MARKERS)] for g in s.groups]
        return [trace | {"mode": "markers", "opacity": 0.85, "hovertemplate": "%{text}<extra></extra>",
                         "marker": {"size": 5, "symbol": symbols if len(set(symbols)) > 1 else "circle",
                                    "color": [CLASS_COLOURS[g % len(CLASS_COLOURS)][0] for g in s.groups] or colour}}]
    if s.kind in ("points", "faint"):
        faint = s.kind == "faint"
        symbol = (s.marker or "circle") + ("" if s.dash == "solid" else "-open")
        trace |= {"mode": "markers", "opacity": 0.4 if faint else 1,
                  "marker": {"symbol": symbol, "size": 6 if faint else 12, "color": colour, "line": {"width": 2}}}
        if s.written:
            trace |= {"mode": "markers+text", "text": [_text(s.written)], "textposition": "top right",
                      "textfont": {"size": 11.5}, "cliponaxis": False}
        if s.low and s.high:
            trace["error_y"] = _errors(s.y, s.low, s.high)
        if s.x_low and s.x_high:
            trace["error_x"] = _errors(s.x, s.x_low, s.x_high)
        return [trace]
    few = len(s.x) <= 12
    trace |= {"mode": "lines+markers" if few else "lines",
              "line": {"color": colour, "dash": DASHES.get(s.dash, "solid"), "width": 2.2},
              "marker": {"symbol": s.marker or "circle", "size": 8, "color": colour}}
    if s.gaps:
        trace["error_y"] = _errors(s.y, s.low, s.high)
    if s.gaps or not (s.low and s.high):
        return [trace]
    band = {"type": "scatter", "mode": "lines", "x": [], "y": [],  # the page's script has the ends from the line that follows
            "fill": "toself", "line": {"width": 0, "color": colour}, "fillcolor": colour, "opacity": 0.16, "hoverinfo": "skip",
            "showlegend": False, "legendgroup": s.label,
            "meta": {"highlight": s.highlight, "colours": list(s.colour), "kind": "band", "label": s.label,
                     "arms": list(s.arms)}}
    return [band, trace]


def _heat(grid: Grid) -> dict[str, Any]:
    """A table of coloured cells; the page's script puts in the theme's colours."""
    shape = "%{z:.1%}" if grid.percent else "%{z:.4~g}"
    counted = f"<br>n = {grid.n:,} {grid.n_of}{'' if grid.n == 1 else 's'}" if grid.n else ""
    return {"type": "heatmap", "name": _text(grid.label), "z": [rounded(row) for row in grid.values],
            "x": list(range(len(grid.columns))), "y": list(range(len(grid.rows))), "zmin": grid.low, "zmax": grid.high,
            "xgap": 1 if len(grid.columns) <= MOST_GAPS else 0,
            "ygap": 1 if len(grid.rows) <= MOST_GAPS else 0, "hoverongaps": False, "showscale": False,
            "colorbar": {"thickness": 9, "len": 0.9, "outlinewidth": 0, "tickformat": ".0%" if grid.percent else "~g",
                         "nticks": 4},
            "text": [[f"{_text(r)}, {_text(c)}" for c in grid.columns] for r in grid.rows],
            "hovertemplate": f"<b>{_text(grid.label)}</b><br>%{{text}}<br>{_text(grid.of)} {shape}{counted}<extra></extra>",
            "meta": {"highlight": grid.highlight, "colours": ["", ""], "kind": "heat", "label": grid.label, "n": grid.n,
                     "of": grid.of, "root": grid.root,
                     "rows": grid.rows, "columns": grid.columns}}


def _grid_axis(names: list[str], side: str) -> dict[str, Any]:
    few = len(names) <= 20
    written = {"tickvals": list(range(len(names))), "ticktext": [_text(shortened(n, 12)) for n in names]}
    shown = written if few else {"showticklabels": False}
    return {**shown, "showgrid": False, "zeroline": False, "ticks": "", "automargin": True,
            "tickangle": -45 if side == "x" else 0,
            **({"autorange": "reversed"} if side == "y" else {})}


def _mark(mark: Mark, x_log: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    line: dict[str, Any] = {"type": "line", "layer": "below",
            "line": {"color": mark.colour[0], "width": 1.5, "dash": DASHES.get(mark.dash, "dash")}}
    note: dict[str, Any] = {"text": _text(mark.label), "showarrow": False, "font": {"size": 11, "color": mark.colour[0]}}
    if mark.axis == "y":
        line |= {"xref": "paper", "x0": 0, "x1": 1, "yref": "y", "y0": mark.value, "y1": mark.value}
        note |= {"xref": "paper", "x": 1, "xanchor": "right", "yref": "y", "y": mark.value, "yanchor": "bottom",
                 "yshift": mark.shift}
    else:
        line |= {"yref": "paper", "y0": 0, "y1": 1, "xref": "x", "x0": mark.value, "x1": mark.value}
        note |= {"yref": "paper", "y": 1, "yanchor": "bottom", "xref": "x", "xanchor": "left",
                 "x": math.log10(mark.value) if x_log else mark.value}  # annotations, unlike shapes, want the exponent
    return line, note


def _layout(panel: Panel) -> dict[str, Any]:
    marks = [_mark(m, panel.x_log) for m in panel.marks]
    common = {"shapes": [s for s, _ in marks], "annotations": [a for _, a in marks], "margin": MARGIN, "hovermode": "closest",
              "barmode": "overlay", "showlegend": False}
    if panel.grid:
        named = {"x": panel.x_label, "y": panel.y_label}
        axes = {f"{a}axis": {**_grid_axis(names, a), "title": {"text": _text(named[a]), "standoff": 4}}
                for a, names in (("x", panel.grid.columns), ("y", panel.grid.rows))}
        return {**common, **axes, "margin": {"l": 20, "r": 8, "t": 8, "b": 20}}
    if panel.square:
        bare: dict[str, Any] = {"visible": False, "showgrid": False, "zeroline": False}
        bare["title"] = {"text": ""}
        return {**common, "xaxis": bare, "yaxis": {**bare, "scaleanchor": "x"}, "margin": {"l": 4, "r": 4, "t": 4, "b": 4}}
    if not panel.x_label:
        common["margin"] = {**MARGIN, "b": 34}
    reach = max((v for s in panel.series for v in s.x), default=0.0)  # from a thousand on with a letter
    x: dict[str, Any] = {"title": {"text": _text(panel.x_label), "standoff": 8}, "zeroline": False, "automargin": True,
                         "type": "log" if panel.x_log else "linear",
                         "tickformat": ("~s" if reach >= 1000 else "~g") if panel.x_log else ""}
    if panel.x_log:
        x["dtick"] = "D2"
    y: dict[str, Any] = {"title": {"text": _text(panel.y_label), "standoff": 6}, "zeroline": False, "automargin": True}
    if panel.y_log:
        y |= {"type": "log", "dtick": 1, "exponentformat": "power"}
    if panel.x_ticks:
        x |= {"tickvals": [p for p, _ in panel.x_ticks], "ticktext": [_text(t) for _, t in panel.x_ticks], "tickformat": "",
              "tickangle": -40 if panel.x_tilt else 0}
    if panel.y_percent:
        y["tickformat"] = ".1~%"  # half a per cent is not rounded to the next
    if panel.x_range:
        x["range"] = list(panel.x_range)
    if panel.y_range:
        y["range"] = list(panel.y_range)
    if any(s.kind == "bars" for s in panel.series):  # values stand under the names, where no interval runs through them
        value = {s.x[0]: number(s.y[0], 3) for s in panel.series if s.kind == "bars"}
        x["ticktext"] = [f"{_text(t)}<br><b>{value[p]}</b>" if p in value else _text(t) for p, t in panel.x_ticks or []]
        x["range"] = [-0.6, max(s.x[0] for s in panel.series) + 0.6]
        x |= {"showgrid": False}
        y |= {"zeroline": True}
    return {**common, "xaxis": x, "yaxis": y}


def to_plotly(figure: Figure) -> list[dict[str, Any]]:
    """{title, data, layout, mark_colours, mark_arms, can_log, views, units} per panel; data, layout are valid Plotly JSON."""
    return [{"title": panel.title,
             "data": [_heat(panel.grid)] if panel.grid else [t for s in panel.series for t in _traces(s, panel)],
             "layout": _layout(panel), "mark_colours": [list(m.colour) for m in panel.marks],
             "mark_arms": [list(m.arms) for m in panel.marks], "can_log": panel.can_log,
             "views": {name: {"x": rounded(x), "y": rounded(y)} for name, x, y in panel.views},
             "units": {name: {"title": _text(axis), "ticktext": [_text(t) for t in ticks]}
                       for name, axis, ticks in panel.x_units}}
            for panel in figure.panels]
