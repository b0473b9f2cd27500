"""The curves of several audits in one figure each: the teacher of the first, and every student in its run's colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from distillscope.compare.read import AuditSide
from distillscope.report.figures.audit_series import STUDENT_MODEL, TEACHER_MODEL, line, null_line, thinned
from distillscope.report.figures.figure import Figure, Mark, Panel, Series
from distillscope.results.models import MARKERS, STUDENT_COLOURS, Model, Setting


def audit_models(sides: Sequence[AuditSide]) -> list[Model]:
    """One model an audit: its student, under the audit's label."""
    return [replace(STUDENT_MODEL, label=s.label, highlight=s.label, colour=STUDENT_COLOURS[i % len(STUDENT_COLOURS)],
                    marker=MARKERS[i % len(MARKERS)]) for i, s in enumerate(sides)]


def audit_setting(sides: Sequence[AuditSide]) -> Setting:
    """What the page's legend shows."""
    return Setting("", "", (TEACHER_MODEL,), tuple(audit_models(sides)))


def overlaid_audits(sides: Sequence[AuditSide]) -> list[Figure]:
    """Cumulative variance, alignment and recovery per component; one that no audit has says so."""
    cumulative = _lines(sides, "student.cumulative_variance", "teacher.cumulative_variance")
    aligned = _lines(sides, "alignment.student_on_teacher", "alignment.teacher_on_teacher", "teacher, its own curve")
    null = next((s.audit.curves["alignment.null"] for s in sides if "alignment.null" in s.audit.curves), None)
    if aligned and null is not None:
        aligned.append(null_line(*thinned(null.x, null.y), "null, k/d"))
    recovered = _lines(sides, "alignment.teacher_r2_per_component")
    absent = "No audit here holds this curve; a page alone does not keep them."

    def share(x_label: str, series: list[Series], *marks: Mark) -> list[Panel]:
        return [Panel("", x_label, "variance in the first k", series, list(marks), x_log=True, can_log=True, y_percent=True,
                      y_range=(0.0, 1.02))] if series else []

    return [
        Figure("cumulative_variance", "Cumulative variance", "A curve that rises early is a cloud with few directions.",
               share("principal components k", cumulative, Mark(0.9, "90 %", dash="dot")), "" if cumulative else absent),
        Figure("alignment", "Where the students' variance lies",
               "Read each student between the teacher's own curve (a perfect copy) and k/d (no relation).",
               share("the teacher's components k", aligned), "" if aligned else absent),
        Figure("component_r2", "What is recovered of each component",
               "R² with which a linear map from the student predicts each principal component of the teacher: where a curve "
               "falls is what that student did not learn.",
               [Panel("", "the teacher's component", "R²", recovered, [Mark(0.0, "", dash="dot")], x_log=True, can_log=True)]
               if recovered else [], "" if recovered else absent)]


def _lines(sides: Sequence[AuditSide], key: str, own: str = "", own_label: str = "teacher") -> list[Series]:
    students = [s for side, model in zip(sides, audit_models(sides), strict=True) if (s := line(side.audit, model, key))]
    teacher = line(sides[0].audit, TEACHER_MODEL, own, label=own_label) if own and students else None
    return [teacher, *students] if teacher else students
