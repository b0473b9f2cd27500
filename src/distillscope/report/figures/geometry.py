"""The figures on the shape of the embeddings: cumulative variance, effective rank, cosine, alignment."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from distillscope.report.figures.figure import Figure, Mark, Panel, Series, curve_over_seeds
from distillscope.report.page import STUDY_FIGURES
from distillscope.report.sentences.numbers import count, number, span
from distillscope.results.keys import COSINE, PARAMETERS, RANK, facts_of
from distillscope.results.models import NULL_COLOUR, Setting, shared_curve
from distillscope.results.run import Run
from distillscope.results.summary import Summary

RANK_LABEL = facts_of(RANK).title


def panel_title(settings: list[Setting], setting: Setting) -> str:
    """A panel needs the name of its data set and teacher only where there are several."""
    return setting.title if len(settings) > 1 else ""


def of_setting(settings: list[Setting], setting: Setting) -> str:
    """' (data, teacher)' for a sentence, where there are several to tell apart."""
    return f" ({setting.title})" if len(settings) > 1 else ""


@STUDY_FIGURES.register("cumulative_variance", order=20)
def cumulative_variance(run: Run, settings: list[Setting], summary: Summary) -> Figure:
    """Share of the variance held by the first k principal components, teacher and students."""
    panels = []
    for setting in settings:
        sides = [(m, "teacher" if m.is_teacher else "student") for m in setting.models]
        series = [s for m, side in sides if (s := curve_over_seeds(run, m, f"{side}.cumulative_variance"))]
        if series:
            panels.append(Panel(panel_title(settings, setting), "principal components k", "cumulative variance", series,
                                [Mark(0.9, "90 %", dash="dot")], x_log=True, can_log=True, y_percent=True,
                                y_range=(0.0, 1.02)))
    findings = []
    for setting in settings:
        named = [(m.label, summary.get(m, "student.dims_90")) for m in setting.named]
        known = [f"{label} {number(s.mean, 0 if float(s.mean).is_integer() else 1)}" for label, s in named if s]
        if known:
            findings.append(f"Components that hold 90 % of the variance{of_setting(settings, setting)}: {', '.join(known)}.")
    return Figure("cumulative_variance", "Cumulative variance",
                  "Each curve says how much of the variance of the embeddings its first k principal components hold. "
                  "A curve that rises early is a cloud with few effective dimensions; where it crosses 90 % is the number "
                  "in the table.", panels, "" if panels else "This run has no spectra.", findings)


LEAST_SHARE = 1e-6
"""What is smaller is rounding, and has no logarithm."""


def _shares(spectrum: Series) -> Series:
    """Singular values as shares of the largest."""
    largest = spectrum.y[0]
    kept = [i for i, v in enumerate(spectrum.y) if v / largest > LEAST_SHARE]

    def share(values: list[float] | None) -> list[float] | None:
        return [max(values[i] / largest, LEAST_SHARE) for i in kept] if values else values

    return replace(spectrum, x=[spectrum.x[i] for i in kept], y=share(spectrum.y) or [], low=share(spectrum.low),
                   high=share(spectrum.high))


@STUDY_FIGURES.register("spectrum", order=30)
def spectrum(run: Run, settings: list[Setting], summary: Summary) -> Figure:
    """Singular values as shares of each model's largest."""
    panels = []
    for setting in settings:
        series = []
        for model in setting.models:
            found = curve_over_seeds(run, model, f"{'teacher' if model.is_teacher else 'student'}.spectrum")
            if found and found.y[0] > 0:
                series.append(_shares(found))
        if series:
            panels.append(Panel(panel_title(settings, setting), "component", "singular value, largest = 1", series,
                                x_log=True, can_log=True, y_log=True))
    return Figure("spectrum", "Spectrum",
                  "Singular values of the centred test embeddings. A straight fall is a power law; a cliff is where a model "
                  "stops using directions; the teacher's line above a student's says how much thinner the student's cloud is "
                  "in its trailing directions.",
                  panels, "" if panels else "This run has no spectra.")


def _points(model, x, y, n) -> list[Series]:
    """A point with its intervals, and a faint one per seed, where x and y are statistics paired over seeds."""
    nan_free = [s.low == s.low for s in (x, y)]
    main = Series.of(model, [x.mean], [y.mean], kind="points", marker=model.marker, n=n,
                     low=[y.low] if nan_free[1] else None, high=[y.high] if nan_free[1] else None,
                     x_low=[x.low] if nan_free[0] and x.std else None, x_high=[x.high] if nan_free[0] and x.std else None)
    if len(y.values) < 2:
        return [main]
    xs = x.values if len(x.values) == len(y.values) else (x.mean,) * len(y.values)
    return [main, Series.of(model, xs, y.values, kind="faint", marker=model.marker, legend=False)]


def _teacher_marks(setting: Setting, summary: Summary, axis: str) -> list[Mark]:
    found = [(rank.mean, teacher) for teacher in setting.teachers if (rank := summary.get(teacher, RANK))]
    lowest = min((value for value, _ in found), default=0.0)
    return [Mark(value, f"{teacher.label} {number(value, 1)}", axis, teacher.colour, "dash", "teacher", teacher.arms,
                 shift=-17 if value == lowest and len(found) > 1 else 0) for value, teacher in found]


def _size_ticks(sizes: list[float]) -> list[tuple[float, str]] | None:
    """The students' own sizes as ticks, where there is room to print them."""
    distinct = sorted(set(sizes))
    roomy = all(b / a > 1.25 for a, b in pairwise(distinct))
    return [(s, count(s)) for s in distinct] if roomy and len(distinct) <= 5 else None


@STUDY_FIGURES.register("effective_rank", order=40)
def rank_and_size(run: Run, settings: list[Setting], summary: Summary) -> Figure:
    """Effective rank against the logarithm of the number of parameters."""
    panels, findings = [], []
    for setting in settings:
        series = []
        for model in setting.students:
            size, rank = summary.get(model, PARAMETERS), summary.get(model, RANK)
            if size and rank:
                series += _points(model, size, rank, rank.n_seeds)
        marks = _teacher_marks(setting, summary, "y")
        if series:
            top = max([m.value for m in marks] + [v for s in series for v in s.upper])
            panels.append(Panel(panel_title(settings, setting), "parameters of the student", RANK_LABEL, series, marks,
                                x_log=True, x_ticks=_size_ticks([s.x[0] for s in series]), y_range=(0.0, 1.08 * top)))
            named = {m.label for m in setting.named}
            means = [s.y[0] for s in series if s.kind == "points" and s.label in named]
            findings.append(f"Effective rank of the students{of_setting(settings, setting)}: {span(means)}"
                            f"{'; ' + marks[0].label if marks else ''}.")
    return Figure("effective_rank", "Effective rank against size",
                  "The number of directions that the embeddings fill evenly: exp of the entropy of p = s²/Σs², on centred test "
                  "embeddings. Bars are 95 % t intervals over seeds, faint points single seeds, the dashed line the teacher. A "
                  "flat row of points shows no gain in dimensions by size in this training, which does not prove that there is "
                  "none.",
                  panels, "" if panels else "This run has no effective rank with a number of parameters.", findings)


@STUDY_FIGURES.register("cosine_rank", order=50)
def cosine_and_rank(run: Run, settings: list[Setting], summary: Summary) -> Figure:
    """Mean cosine with the teacher against effective rank."""
    panels = []
    for setting in settings:
        series = []
        for model in setting.students:
            rank, cosine = summary.get(model, RANK), summary.get(model, COSINE)
            if rank and cosine:
                series += _points(model, rank, cosine, cosine.n_seeds)
        if series:
            panels.append(Panel(panel_title(settings, setting), RANK_LABEL, "mean cosine with the teacher", series))
    return Figure("cosine_rank", "Mean cosine against effective rank",
                  "Every student by how closely it points where the teacher points (up) and by how many dimensions it fills "
                  "(right). Points that rise without moving right imitate better inside the same few dimensions.",
                  panels, "" if panels else "This run has no mean cosine.")


@STUDY_FIGURES.register("alignment", order=60)
def alignment(run: Run, settings: list[Setting], summary: Summary) -> Figure:
    """Students' variance on the teacher's components, with the teacher's own curve and the k/d null."""
    panels = []
    for setting in settings:
        title = panel_title(settings, setting)
        series = [s for m in setting.students if (s := curve_over_seeds(run, m, "alignment.student_on_teacher"))]
        own = shared_curve(run, setting.students, "alignment.teacher_on_teacher")
        if own and setting.reference:
            series.insert(0, Series.of(setting.reference, own["x"], own["y"], label="teacher, its own curve", dash="solid"))
        null = shared_curve(run, setting.students, "alignment.null")
        if null:
            series.append(Series("null, k/d", "null", NULL_COLOUR, list(null["x"]), list(null["y"]),
                                 low=null.get("low"), high=null.get("high"), dash="dot"))
        if series:
            name = "Where the student's variance lies"
            panels.append(Panel(f"{title}: {name[0].lower()}{name[1:]}" if title else name, "the teacher's components k",
                                "student's variance in the first k", series,
                                x_log=True, can_log=True, y_percent=True, y_range=(0.0, 1.02)))
        per_component = [s for m in setting.students
                         if (s := curve_over_seeds(run, m, "alignment.teacher_r2_per_component"))]
        if per_component:
            panels.append(Panel(f"{title}: what is predicted" if title else "What is predicted of each component",
                                "the teacher's component", "R² of the teacher's component", per_component, x_log=True,
                                can_log=True))
    return Figure("alignment", "Alignment with the teacher's components",
                  "How much of a student's variance lies in the teacher's first k principal components. Read it against the "
                  "teacher's own curve (a perfect copy) and against k/d (no relation). A student above the teacher's curve "
                  "puts more into the leading components than the teacher does, which any imperfect regressor does.",
                  panels, "" if panels else "This run has no alignment curves.")
