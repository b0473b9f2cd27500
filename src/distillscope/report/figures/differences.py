"""The figures of a comparison: differences (a panel a quantity), curves of several audits, a study with several runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from distillscope.compare.differences import Difference, Pair
from distillscope.compare.read import AuditSide
from distillscope.report.figures import geometry, outcome
from distillscope.report.figures.audit_items import STUDENT_MODEL, TEACHER_MODEL, line, null_line, thinned
from distillscope.report.figures.figure import Figure, Mark, Panel, Series
from distillscope.report.sentences.compare import difference_text, headline, interval_text, n_text, title_text
from distillscope.report.sentences.numbers import shortened
from distillscope.results.models import DASHES, Model, Setting, look
from distillscope.results.run import Run
from distillscope.results.summary import Summary

READING = ("Each point is the later run minus the first. Bars are 95 % intervals; one that stays clear of zero is not yet a "
           "difference that is shown: the table has p after Holm's correction for all of them together. Several students that "
           "lie to one side say more than one that lies far out.")


def differences_figure(pairs: Sequence[Pair]) -> Figure:
    """Every tested difference with its interval; a model keeps its colour and marker, a further pair of runs is hollow."""
    known = [d for p in pairs for d in p.differences if d.known and d.quantity.tested]
    names, panels = list(dict.fromkeys(_who(d, pairs) for d in known)), []
    looks = {p.second: look(i) for i, p in enumerate(pairs, start=1)}
    looks |= {_who(d, pairs): (d.match.first.colour, d.match.first.marker) for d in known if d.match}
    for title in dict.fromkeys(title_text(d) for d in known):
        here = [d for d in known if title_text(d) == title]
        present = [n for n in names if any(_who(d, pairs) == n for d in here)]
        series = [_point(d, present.index(_who(d, pairs)), pairs, *looks[_who(d, pairs)]) for d in here]
        unit = here[0].quantity.unit
        against = f"{here[0].second} − {here[0].first}" if len(pairs) == 1 else f"difference from {here[0].first}"
        panels.append(Panel(title[0].upper() + title[1:], "", f"{against}{f', {unit}' if unit else ''}", series,
                            [Mark(0.0, "", dash="dot")], x_ticks=[(float(i), shortened(n, 18)) for i, n in enumerate(present)],
                            x_range=(-0.6, len(present) - 0.4), y_range=_around_zero(series)))
    labels = [pairs[0].first, *(p.second for p in pairs)]
    return Figure("differences", "Differences", READING, panels, "" if panels else "No difference could be formed.",
                  [headline(labels, known)] if known else [])


def _around_zero(series: Sequence[Series]) -> tuple[float, float]:
    """An axis that holds every interval and zero, with room around them."""
    ends = [0.0, *(v for s in series for v in (*s.lower, *s.upper))]
    room = 0.08 * (max(ends) - min(ends)) or 1.0
    return min(ends) - room, max(ends) + room


def _who(d: Difference, pairs: Sequence[Pair]) -> str:
    if d.match is None:
        return d.second
    several = len({(m.match.first.dataset, m.match.first.teacher) for p in pairs for m in p.differences if m.match}) > 1
    return f"{d.name}, {d.match.first.dataset}, {d.match.first.teacher}" if several else d.name


def _point(d: Difference, place: int, pairs: Sequence[Pair], colour: tuple[str, str], marker: str) -> Series:
    index = next(i for i, p in enumerate(pairs) if p.second == d.second)
    shift = 0.0 if d.match is None else (index - (len(pairs) - 1) / 2) * min(0.24, 0.7 / len(pairs))
    bounded = math.isfinite(d.low)
    scale = d.quantity.scale
    said = " ".join(p for p in (difference_text(d), interval_text(d), n_text(d)) if p)
    return Series(_who(d, pairs) if len(pairs) == 1 or d.match is None else f"{_who(d, pairs)}: {d.second} − {d.first}",
                  d.match.first.student if d.match else d.second, colour, [place + shift], [scale * d.value], kind="points",
                  low=[scale * d.low] if bounded else None, high=[scale * d.high] if bounded else None, hover=[said],
                  marker=marker, dash=DASHES[index % len(DASHES)] if d.match else "solid", legend=False)


def audit_models(sides: Sequence[AuditSide]) -> list[Model]:
    """One model an audit: its student, under the audit's label."""
    return [replace(STUDENT_MODEL, label=s.label, highlight=s.label, colour=look(i)[0], marker=look(i)[1])
            for i, s in enumerate(sides)]


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


FIGURES = (outcome.robustness, geometry.cumulative_variance, geometry.rank_and_size, geometry.cosine_and_rank,
           geometry.alignment, outcome.information, outcome.training)


def overlaid(run: Run, settings: list[Setting], summary: Summary) -> list[Figure]:
    """The figures of a joined run (`compare.overlay`), with every run in them."""
    return [prepare(run, settings, summary) for prepare in FIGURES]
