"""Prepared figures -> SVG and PNG with matplotlib, one column of a paper wide per panel."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator, PercentFormatter

from distillscope import progress
from distillscope.files.writing import write_atomic
from distillscope.report.figures.figure import Figure, Grid, Mark, Panel, Series
from distillscope.report.sentences.numbers import count, number, shortened
from distillscope.results.models import CLASS_COLOURS

PANEL_WIDTH, PANEL_HEIGHT = 3.5, 2.75  # inches
LEGEND_ROW, TITLE_ROOM = 0.17, 0.18  # inches: a line of the legend, and what it stands apart
STYLE: Any = {"font.size": 8, "axes.titlesize": 8.5, "axes.labelsize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7,
              "legend.fontsize": 7, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.7,
              "axes.grid": True, "grid.color": "#E4E4E4", "grid.linewidth": 0.6, "axes.axisbelow": True, "lines.linewidth": 1.4,
              "font.family": "DejaVu Sans", "svg.fonttype": "path", "svg.hashsalt": "distillscope",  # same numbers, same file
              "pdf.fonttype": 42,  # TrueType: publishers refuse Type 3
              "savefig.facecolor": "white", "text.parse_math": False}  # a "$" in a name is a dollar
MARKERS = {"circle": "o", "square": "s", "diamond": "D", "triangle-up": "^", "triangle-down": "v", "x": "X", "star": "*"}
DASHES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}


def _label_powers(axis: Axis, values: list[float], written: Callable[[float], str]) -> None:
    """Tick labels of a logarithmic axis; Matplotlib's own are formulae, which are not set here (`text.parse_math`)."""
    decades = math.log10(max(values) / min(values)) if values else 0
    if decades < 1.5:  # one power of ten alone would leave the axis without a readable number
        axis.set_minor_formatter(FuncFormatter(lambda v, _: written(v) if f"{v:.0e}"[0] in "125" else ""))
        axis.set_major_formatter(FuncFormatter(lambda v, _: written(v)))
        return
    plain = min(values) >= 1e-4 and max(values) < 1e6
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda v, _: written(v) if plain else power_text(v)))


def power_text(value: float) -> str:
    """
    >>> power_text(1e-8), power_text(1e6), power_text(2e6)
    ('10⁻⁸', '10⁶', '2·10⁶')
    """
    digits, exponent = f"{value:.0e}".split("e")
    power = "10" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return power if digits == "1" else f"{digits}·{power}"


def _clean(text: str) -> str:
    """Without control characters, which no font has."""
    return "".join(c if c in "\n\u00a0\u202f" or c.isprintable() else "�" for c in text)


def _in_legend(label: str) -> str:
    """A label as the legend takes it, which leaves out what begins with an underscore."""
    return ("\u00a0" if label.startswith("_") else "") + _clean(label)


def _errors(low, high, centre) -> list[list[float]] | None:
    if not low or not high:
        return None
    return [[math.nan if math.isnan(v) else max(0.0, c - v) for c, v in zip(centre, low, strict=True)],
            [math.nan if math.isnan(v) else max(0.0, v - c) for c, v in zip(centre, high, strict=True)]]


def _draw_series(axes, s: Series) -> None:
    colour, marker = s.colour[0], MARKERS.get(s.marker or "")
    label = _in_legend(s.label) if s.legend else "_" + s.label
    if s.kind == "bars":
        hatch = "" if s.dash == "solid" else "///"
        axes.bar(s.x, s.y, width=0.62, color=colour, alpha=0.85, label="_" + s.label, zorder=2, hatch=hatch,
                 edgecolor="white", linewidth=0, yerr=_errors(s.low, s.high, s.y),
                 error_kw={"elinewidth": 1, "capsize": 2, "ecolor": "#333333"})
        for x, y, low, high in zip(s.x, s.y, s.lower, s.upper, strict=True):
            end = max(high, y) if y >= 0 else min(low, y)
            axes.annotate(number(y, 3), (x, end), textcoords="offset points", xytext=(0, 2 if y >= 0 else -2), ha="center",
                          va="bottom" if y >= 0 else "top", fontsize=6.5)
    elif s.kind == "points":
        axes.errorbar(s.x, s.y, yerr=_errors(s.low, s.high, s.y), xerr=_errors(s.x_low, s.x_high, s.x), fmt=marker or "o",
                      color=colour, markersize=5.5, elinewidth=1, capsize=2.5, label=label, zorder=3,
                      markerfacecolor=colour if s.dash == "solid" else "white")
        if s.written:
            axes.annotate(_clean(s.written), (s.x[0], s.y[0]), textcoords="offset points", xytext=(4, 4), fontsize=6.5,
                          color=colour)
    elif s.kind == "cloud":
        colours = [CLASS_COLOURS[g % len(CLASS_COLOURS)][0] for g in s.groups] or colour
        axes.scatter(s.x, s.y, s=5, c=colours, linewidths=0, alpha=0.85, rasterized=True, zorder=3)
    elif s.kind == "faint":
        axes.plot(s.x, s.y, linestyle="", marker=marker or "o", color=colour, alpha=0.35, markersize=3, zorder=2)
    else:
        few = len(s.x) <= 12
        axes.plot(s.x, s.y, linestyle=DASHES.get(s.dash, "-"), color=colour, label=label, zorder=3,
                  marker=marker if few else None, markersize=4)
        if s.gaps:
            axes.errorbar(s.x, s.y, yerr=_errors(s.low, s.high, s.y), fmt="none", ecolor=colour, elinewidth=1, capsize=2.5)
        elif s.low and s.high:
            axes.fill_between(s.x, s.low, s.high, color=colour, alpha=0.15, linewidth=0, zorder=1)


def _draw_mark(axes, mark: Mark) -> None:
    style = {"color": mark.colour[0], "linestyle": DASHES.get(mark.dash, "--"), "linewidth": 1, "zorder": 1.5}
    place = {"fontsize": 6.5, "color": mark.colour[0], "textcoords": "offset points"}
    if mark.axis == "y":
        axes.axhline(mark.value, **style)
        axes.annotate(_clean(mark.label), (1, mark.value), xycoords=("axes fraction", "data"),
                      xytext=(-2, 2 + 0.6 * mark.shift), ha="right",
                      va="bottom", **place)
    else:
        axes.axvline(mark.value, **style)
        axes.annotate(_clean(mark.label), (mark.value, 1), xycoords=("data", "axes fraction"), xytext=(2, -2), ha="left",
                      va="top", **place)


def _draw_grid(axes, grid: Grid) -> None:
    values = np.array([[math.nan if v is None else v for v in row] for row in grid.values], dtype=float)
    norm = PowerNorm(0.5 if grid.root else 1.0, vmin=grid.low, vmax=grid.high)
    image = axes.imshow(values, cmap="Blues", norm=norm, interpolation="nearest", aspect="auto")
    axes.figure.colorbar(image, ax=axes, format=PercentFormatter(1.0, decimals=0) if grid.percent else None, fraction=0.05)
    axes.grid(visible=False)
    for axis, names in ((axes.xaxis, grid.columns), (axes.yaxis, grid.rows)):
        few = names if len(names) <= 20 else []
        axis.set_ticks(list(range(len(few))), [_clean(shortened(n, 12)) for n in few])
    axes.tick_params(axis="x", rotation=60, labelsize=6)
    axes.tick_params(axis="y", labelsize=6)


def _format_axes(axes, panel: Panel) -> None:
    if panel.square:
        axes.set_aspect("equal")
        axes.set_axis_off()
    axes.set_xlabel(_clean(panel.x_label))
    axes.set_ylabel(_clean(panel.y_label))
    if panel.title:
        axes.set_title(_clean(panel.title), loc="left")
    if panel.grid or panel.square:
        return
    if panel.x_log:
        axes.set_xscale("log")
        _label_powers(axes.xaxis, [v for s in panel.series for v in s.x if v > 0], count)
    if panel.y_log:
        axes.set_yscale("log")
        _label_powers(axes.yaxis, [v for s in panel.series for v in s.y if v > 0], "{:g}".format)
    if panel.x_ticks:
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks([p for p, _ in panel.x_ticks], [_clean(t) for _, t in panel.x_ticks],
                        **({"rotation": 40, "ha": "right"} if panel.x_tilt else {}))
    if panel.y_percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    if panel.x_range:
        axes.set_xlim(*panel.x_range)
    if panel.y_range:
        axes.set_ylim(*panel.y_range)
    elif any(s.kind == "bars" for s in panel.series):
        axes.margins(y=0.18)
    if any(s.kind == "bars" for s in panel.series):
        axes.grid(axis="x", visible=False)
        axes.axhline(0, color="#333333", linewidth=0.7)
        axes.set_xlim(-0.6, max(s.x[0] for s in panel.series) + 0.6)


def draw(figure: Figure, columns: int | None = None, panel_width: float = PANEL_WIDTH) -> Canvas:
    """The figure as a matplotlib canvas: ``columns`` panels in a row (by default two at most), one legend below.

    ``panel_width`` in inches; the canvas is ``columns`` of them wide, and as high as its panels and its legend need.
    """
    columns = min(columns or 2, len(figure.panels))
    rows = math.ceil(len(figure.panels) / columns)
    names = dict.fromkeys(_in_legend(s.label) for p in figure.panels for s in p.series
                          if s.legend and s.kind not in ("bars", "cloud", "faint"))
    room = 16 * panel_width * columns  # characters that fit across, with their lines
    across = max(1, min(len(names), int(room // (max(map(len, names), default=0) + 7))))
    legend = TITLE_ROOM + LEGEND_ROW * math.ceil(len(names) / across) if names else 0.0
    with matplotlib.rc_context(STYLE):
        canvas = Canvas(figsize=(panel_width * columns, PANEL_HEIGHT * rows + legend), layout="constrained")
        FigureCanvasAgg(canvas)
        grid = canvas.subplots(rows, columns, squeeze=False)
        handles: dict[str, Any] = {}
        for axes, panel in zip(grid.flat, figure.panels, strict=False):
            for s in panel.series:
                _draw_series(axes, s)
            if panel.grid:
                _draw_grid(axes, panel.grid)
            for mark in panel.marks:
                _draw_mark(axes, mark)
            _format_axes(axes, panel)
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                handles.setdefault(label, handle)
        for axes in list(grid.flat)[len(figure.panels):]:
            axes.set_visible(False)
        if handles:
            canvas.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=across, frameon=False)
    return canvas


def write_figures(figures: list[Figure], folder: Path) -> list[Path]:
    """folder/<key>.svg and .png for each figure that has something to show."""
    shown, written = [figure for figure in figures if figure.panels], []
    with progress.late_task("figures", len(shown), "figures") as advance:
        for figure in shown:
            written += save_as(draw(figure), folder / figure.key, "svg", "png")
            advance(1)
    return written


def save_as(canvas: Canvas, path: Path, *formats: str) -> list[Path]:
    """The canvas as PATH.FORMAT in each of ``formats``, laid out once: that takes as long as to draw it."""
    written = []
    for suffix in formats:
        written.append(save(canvas, path.with_name(f"{path.name}.{suffix}")))
        canvas.set_layout_engine("none")
    return written


FORMATS: dict[str, dict[str, Any]] = {"svg": {"metadata": {"Date": None}}, "png": {"dpi": 200},
                                      "pdf": {"metadata": {"CreationDate": None, "Producer": None}}}


def save(canvas: Canvas, path: Path) -> Path:
    """The canvas as .svg, .png or .pdf by the name of ``path``; the same canvas gives the same bytes."""
    suffix = path.suffix[1:]
    with matplotlib.rc_context(STYLE):
        return write_atomic(path, lambda p: canvas.savefig(p, format=suffix, **FORMATS[suffix]))
