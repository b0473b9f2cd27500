"""The figure of an audit on embeddings that are kept short: first dimensions, int8 and binary codes."""

from __future__ import annotations

from distillscope.measure.compressed import CODES
from distillscope.measure.results import Audit, Value
from distillscope.report.figures.audit_items import SIDES, categories, dots, line
from distillscope.report.figures.figure import Figure, Mark, Panel, Series
from distillscope.report.page import AUDIT_FIGURES
from distillscope.report.sentences.audit_measures import reach, told

TITLES = {"half": "half of the\ndimensions", "quarter": "a quarter\nof them", "int8": "int8", "binary": "binary"}
WHAT = {"overlap_10": ("First 10 results kept", "share of the results"),
        "knn_retention": ("Accuracy of neighbours kept", "share of the accuracy")}


@AUDIT_FIGURES.register("codes", order=75)
def codes(found: Audit) -> Figure | None:
    """What each side's index keeps of its own results; nothing where it was not measured."""
    panels = [*_by_dims(found), *(panel for what in WHAT for panel in _by_code(found, what))]
    if not panels:
        return None
    return Figure("codes", "If embeddings are kept short",
                  "Each side against itself with whole rows, index and queries both compressed. A side that loses more here "
                  "than the other has its content spread over more dimensions, or over finer steps.", panels, "",
                  [f"With {CODES[code][0]} the student's index keeps {told(v, key)}{reach(v, key)} of its first 10 results."
                   for code in ("int8", "half") if (v := found.measured.get(key := f"codes.student.{code}_overlap_10"))])


def _by_dims(found: Audit) -> list[Panel]:
    drawn = (line(found, model, f"codes.{model.student}_overlap_by_dims", marker=model.marker) for model in SIDES)
    series = [s for s in drawn if s]
    if not series:
        return []
    ticks = sorted({x for s in series for x in s.x})
    return [Panel("First dimensions alone", "dimensions", "share of the results", series, x_log=True, y_percent=True,
                  y_range=(-0.03, 1.04), x_ticks=[(x, f"{x:,.0f}") for x in ticks])]


def _by_code(found: Audit, what: str) -> list[Panel]:
    series: list[Series] = []
    for model, shift in zip(SIDES, (-0.1, 0.1), strict=True):
        known: list[tuple[int, Value]] = [(i, v) for i, code in enumerate(CODES)
                                          if (v := found.measured.get(f"codes.{model.student}.{code}_{what}"))]
        if known:
            names = [list(TITLES.values())[i] for i, _ in known]
            series.append(dots(model, [float(i) for i, _ in known], [v for _, v in known], names, shift))
    if not series:
        return []
    top = max([1.0, *(v for s in series for v in s.upper)])
    title, unit = WHAT[what]
    return [Panel(title, "", unit, series, [Mark(1.0, "all kept", dash="dot")], y_percent=True, y_range=(-0.03, top + 0.08),
                  **categories(list(TITLES.values())))]
