"""The figures of an audit on the shape of the embeddings: spectrum, rank, alignment, what is recovered."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from distillscope.measure.results import Audit
from distillscope.report.figures.audit_items import (
    ITEMS,
    SIDES,
    STUDENT_MODEL,
    TEACHER_MODEL,
    absent,
    line,
    null_line,
    thinned,
)
from distillscope.report.figures.figure import Figure, Mark, Panel, Series
from distillscope.report.page import AUDIT_FIGURES
from distillscope.report.sentences.audit_measures import reach, told
from distillscope.report.sentences.numbers import NBSP, number, percent

ROUNDING = 3e-7
"""Singular values below this share of the largest are rounding noise of the scatter matrix."""
PER_COMPONENT = "alignment.teacher_r2_per_component"
OF_STUDENT = "alignment.student_variance_top20"


@AUDIT_FIGURES.register("spectrum", order=10)
def spectrum(found: Audit) -> Figure:
    """Singular values of both over the component, and the cumulative variance."""
    series = []
    for model in SIDES:
        curve = found.curves.get(f"{model.student}.spectrum")
        if curve is not None and curve.y[0] > 0:
            kept = curve.y > ROUNDING * curve.y[0]
            x, y = thinned(curve.x[kept], curve.y[kept] / curve.y[0])
            series.append(Series.of(model, x, y, n=found.num_items, **ITEMS))
    cumulative = [s for m in SIDES if (s := line(found, m, f"{m.student}.cumulative_variance"))]
    panels = []
    if series:
        panels.append(Panel("Singular values", "component k", "singular value, largest = 1", series, x_log=True,
                            can_log=True, y_log=True))
    if cumulative:
        panels.append(Panel("Cumulative variance", "principal components k", "variance in the first k", cumulative,
                            [Mark(0.9, f"90{NBSP}%", dash="dot")], x_log=True, can_log=True, y_percent=True,
                            y_range=(0.0, 1.02)))
    findings = []
    dims = [value for m in SIDES if (value := found.measured.get(f"{m.student}.dims_90"))]
    if len(dims) == len(SIDES):
        teacher, student = (f"{number(v.value, 0)}{reach(v)}" for v in dims)
        findings.append(f"90{NBSP}% of the variance lies in {student} components of the student, and in {teacher} of the "
                        "teacher.")
    return Figure("spectrum", "Spectrum",
                  "A curve that falls early (left) and rises early (right) is a cloud with few directions. Where a curve "
                  f"crosses 90{NBSP}% is the number of components that hold it.", panels,
                  "" if panels else "Spectra were not measured.", findings)


@AUDIT_FIGURES.register("rank_by_n", order=20)
def rank_by_n(found: Audit) -> Figure:
    """Effective rank of nested subsamples, with the corrected value that they tend to."""
    series, marks, sizes = [], [], []
    for model in SIDES:
        curve = found.curves.get(f"{model.student}.rank_by_n")
        if curve is None:
            continue
        sizes = [float(v) for v in curve.x]
        series.append(Series.of(model, sizes, [float(v) for v in curve.y], marker=model.marker))
        corrected = found.measured.get(f"{model.student}.effective_rank_corrected")
        if corrected:
            marks.append(Mark(corrected.value, f"{model.label}, corrected {number(corrected.value, 1)}", colour=model.colour,
                              dash="dash", highlight=model.highlight))
    findings = []
    for side in ("teacher", "student"):
        raw, corrected = found.measured.get(f"{side}.effective_rank"), found.measured.get(f"{side}.effective_rank_corrected")
        if raw and corrected:
            low = 1 - raw.value / corrected.value
            findings.append(f"The {side}'s rank reads {number(raw.value, 1)} with {raw.n:,} items, about "
                            f"{number(100 * max(0.0, low), 1)}{NBSP}% below its corrected value of {number(corrected.value, 1)}"
                            f"{reach(corrected)}.")
    if len(marks) == 2 and abs(marks[0].value - marks[1].value) < 0.06 * max(m.value for m in marks):
        lower = min(range(2), key=lambda i: marks[i].value)  # keeps the two names apart
        marks[lower] = replace(marks[lower], shift=-17)
    top = max([m.value for m in marks] + [v for s in series for v in s.y], default=1.0)
    panels = [Panel("", "items n", "effective rank", series, marks, x_log=True, x_ticks=[(s, f"{s:,.0f}") for s in sizes],
                    y_range=(0.0, 1.12 * top))] if series else []
    return Figure("rank_by_n", "Rank against the number of items",
                  "Every rank is biased low by few items. A curve that still rises at the right needs more of them; the dashed "
                  "lines are the values with that bias removed.", panels,
                  "" if panels else "Spectra were not measured.", findings)


@AUDIT_FIGURES.register("alignment", order=30)
def alignment(found: Audit) -> Figure:
    """The student's variance on the teacher's components, between the teacher's own curve and k/d."""
    series = [s for s in (line(found, TEACHER_MODEL, "alignment.teacher_on_teacher", label="teacher, its own curve"),
                          line(found, STUDENT_MODEL, "alignment.student_on_teacher")) if s]
    null = found.curves.get("alignment.null")
    if null is not None:
        series.append(null_line(*thinned(null.x, null.y), "null, k/d"))
    drawn = any(s.highlight == "student" for s in series)
    panels = [Panel("", "the teacher's components k", "variance in the first k", series, x_log=True, can_log=True,
                    y_percent=True, y_range=(0.0, 1.02))] if drawn else []
    findings = []
    own, theirs = found.measured.get("alignment.teacher_variance_top20"), found.measured.get(OF_STUDENT)
    if own and theirs:
        findings.append(f"The teacher's first 20 components hold {percent(theirs.value)}{reach(theirs, OF_STUDENT)} of the "
                        f"student's variance and {percent(own.value)} of the teacher's own.")
    return Figure("alignment", "Where the student's variance lies",
                  "Read the student between the teacher's own curve (a perfect copy) and k/d (no relation). Above the "
                  "teacher's curve it puts more into the leading components, which any imperfect regressor does.", panels,
                  "" if panels else absent(found, ("alignment.student_on_teacher",), "Alignment was not measured."), findings)


@AUDIT_FIGURES.register("component_r2", order=40)
def component_r2(found: Audit) -> Figure:
    """R2 of each component of the teacher, predicted from the student."""
    series = line(found, STUDENT_MODEL, PER_COMPONENT)
    whole = found.measured.get("alignment.teacher_r2")
    marks, findings, panels = [Mark(0.0, "", dash="dot")], [], []
    if whole:
        marks.append(Mark(whole.value, f"all together {number(whole.value, 2)}", colour=STUDENT_MODEL.colour,
                          highlight="student"))
        findings.append(f"All together R² is {told(whole)}{reach(whole)}{_well_predicted(found)}.")
    if series:
        low = min([*series.y, 0.0])
        panels = [Panel("", "the teacher's component", "R²", [series], marks, x_log=True, can_log=True,
                        y_range=(max(-0.3, low - 0.05), 1.03),
                        note="Components below −0.3 lie under the drawing." * (low < -0.3))]
    return Figure("component_r2", "What is recovered of each component",
                  "A cross-validated linear map from the student predicts each principal component of the teacher: 1 is all of "
                  "it, 0 is no better than its mean. Where the curve falls is what the student did not learn.", panels,
                  "" if panels else absent(found, (PER_COMPONENT,), "Alignment was not measured."), findings)


def _well_predicted(found: Audit) -> str:
    """How many of the teacher's leading components come out with an R2 of one half or more."""
    curve = found.curves.get(PER_COMPONENT)
    if curve is None:
        return ""
    poor = np.flatnonzero(np.asarray(curve.y) < 0.5)
    if not len(poor):
        return "; every component of the teacher comes out with 0.5 or more"
    if poor[0] == 0:
        return "; not even the teacher's first component comes out with 0.5"
    if poor[0] == 1:
        return "; only the teacher's first component comes out with 0.5 or more"
    return f"; the teacher's first {poor[0]:,} come out with 0.5 or more"
