"""The figures on what the geometry is good for: information kept, accuracy under noise, the course of training."""

from __future__ import annotations

import math

from distillscope.report.figures.figure import Figure, Mark, Panel, Series, curve_over_seeds, ends, gaps_said
from distillscope.report.figures.geometry import of_setting, panel_title
from distillscope.report.figures.noise import SIGMA, crossovers, sigma_info, sigma_label, sigma_ticks, sigma_units
from distillscope.report.page import STUDY_FIGURES
from distillscope.report.sentences.numbers import INFONCE, UNIFORMITY, accuracy_of, first_known, number, seeds_text, shortened
from distillscope.results.models import NULL_COLOUR, TEACHER_COLOUR, Model, Setting, shared_curve
from distillscope.results.run import Run
from distillscope.results.summary import Summary, training_curve, within_unit

MOST_TICKS = 6  # bars of which each can say its arm


def _tick(model: Model, group: list[Model], few: bool) -> str:
    """A bar's name. Where bars are many an arm is named once, under the middle of its bars: names must not run together."""
    if model.is_teacher:
        return model.label.replace(" (", "\n(")  # "teacher (raw)" on two lines
    name = shortened(model.student)
    named = model.label != model.student and (few or model is group[len(group) // 2])
    return f"{name}\n({shortened(model.arm)})" if named else name


def _bars(models, summary: Summary, key: str) -> tuple[list[Series], list[tuple[float, str]]]:
    series: list[Series] = []
    ticks: list[tuple[float, str]] = []
    for model in models:
        found = summary.get(model, key)
        if found:
            place = float(len(ticks))
            ticks.append((place, _tick(model, [m for m in models if m.arm == model.arm and not m.is_teacher],
                                       len(models) <= MOST_TICKS)))
            series.append(Series.of(model, [place], [found.mean], kind="bars", n=found.n_seeds,
                                    **ends([found])))
    return series, ticks


@STUDY_FIGURES.register("information", order=70)
def information(run: Run, settings: list[Setting], summary: Summary) -> Figure:
    """InfoNCE with its ceiling, uniformity, and InfoNCE over the number of candidates."""
    panels, findings = [], []
    for setting in settings:
        title = panel_title(settings, setting)
        prefix = f"{title}: " if title else ""
        loss = first_known(INFONCE, summary)
        if loss:
            key, ceiling_key, how = loss
            series, ticks = _bars(setting.students, summary, key)
            ceilings = [c.mean for m in setting.students if (c := summary.get(m, ceiling_key))]
            marks = [Mark(ceilings[0], f"ceiling {number(ceilings[0], 3)}: nothing kept", shift=15)] if ceilings else []
            if series:
                top = max([m.value for m in marks] + [s.high[0] if s.high else s.y[0] for s in series])
                panels.append(Panel(f"{prefix}InfoNCE", "", "nats (lower keeps more)", series, marks,
                                    x_ticks=ticks, y_range=(0.0, 1.2 * top), note=how))
                if ceilings:
                    shown = [s for s in series if s.label in {m.label for m in setting.named}]
                    kept = [f"{s.label} {number(ceilings[0] - s.y[0], 3) if s.y[0] < ceilings[0] else 'none (it is above)'}"
                            for s in shown]
                    findings.append(f"Nats below the ceiling{of_setting(settings, setting)}: {', '.join(kept)}.")
        spread = first_known(UNIFORMITY, summary)
        if spread:
            series, ticks = _bars(setting.models if spread[0] == "student.uniformity" else setting.students, summary, spread[0])
            own = [u.mean for m in setting.students if (u := summary.get(m, "paper.teacher_uniformity"))]
            marks = [Mark(own[0], f"teacher {number(own[0], 3)}", colour=TEACHER_COLOUR, highlight="teacher")] if own else []
            if series:
                panels.append(Panel(f"{prefix}{'u' if prefix else 'U'}niformity", "", "lower is more spread", series, marks,
                                    x_ticks=ticks, note=spread[1]))
        by_k = [s for m in setting.students if (s := curve_over_seeds(run, m, "contrastive.infonce_by_k", marker=m.marker))]
        if by_k:
            x = by_k[0].x
            ceiling = shared_curve(run, setting.students, "contrastive.ceiling_by_k")
            x, y = (ceiling["x"], ceiling["y"]) if ceiling else (x, [math.log(v) for v in x])
            bound = Series("ceiling: log K", "null", NULL_COLOUR, list(x), list(y), dash="dot")
            panels.append(Panel(f"{prefix}InfoNCE over K", "candidates K", "InfoNCE loss, nats", [*by_k, bound], x_log=True))
    return Figure("information", "Contrastive retention",
                  "How well a student's embedding picks its own image's teacher embedding out of a batch. The ceiling is what "
                  "equal rows give; the distance below it is what is kept, and cannot exceed the ceiling itself, so it is "
                  "no mutual information. Uniformity says how evenly the embeddings cover the sphere.",
                  panels, "" if panels else "This run has no InfoNCE and no uniformity.", findings)


@STUDY_FIGURES.register("noise", order=10)
def robustness(run: Run, settings: list[Setting], summary: Summary) -> Figure:
    """Accuracy against the noise's sigma, teacher and students, with the crossover."""
    accuracy = accuracy_of(summary)
    title = "Accuracy under noise"
    if not accuracy:
        return Figure("noise", title, "", absent="No accuracy: this run has no labels, so nothing was probed under noise.")
    key, name = accuracy
    panels, findings = [], []
    for setting in settings:
        series = []
        conditions = [c for c in summary.conditions() if c.sigma is not None]
        for model in setting.models:
            measured = [(c, s) for c in conditions if (s := summary.get(model, key, c))]
            points = [(c.sigma, s) for c, s in measured]
            if points:
                series.append(Series.of(model, [x for x, _ in points], [s.mean for _, s in points], marker=model.marker,
                                        **ends(s for _, s in points), n=points[0][1].n_seeds,
                                        hover=["clean" if c == "clean" else sigma_info(run, c).text for c, _ in measured]))
        if not series:
            continue
        found = crossovers(setting, summary, key)
        findings += [c.sentence for c in found]
        marks = [Mark(c.sigma, c.label, "x", dash="dot") for c in found]
        sigmas = sorted({x for s in series for x in s.x})
        panels.append(Panel(panel_title(settings, setting), sigma_label(run), "accuracy", series, marks,
                            x_ticks=sigma_ticks(run, sigmas), x_units=sigma_units(run, sigmas), x_name=SIGMA,
                            y_percent=True, y_range=(0.0, 1.02),
                            note=f"{name}{'' if len(sigmas) > 1 else '; only clean images were probed'}"))
    return Figure("noise", title,
                  "Top-1 accuracy of a probe that was fitted on clean embeddings, as noise is added to the images. Bands are "
                  "95 % t intervals over seeds. The dotted line marks where the means of the smallest and the largest student "
                  "cross." + gaps_said(panels),
                  panels, "" if panels else "No accuracy was found for any model.", findings)


TRAINING = [("loss", "training loss", "loss", False),
            ("effective_rank", "effective rank on the held-out part of train", "effective rank", False),
            ("cosine", "cosine with the target, held-out part of train", "mean cosine", False),
            ("knn_accuracy", "kNN accuracy on the held-out part of train", "accuracy", True)]


def _of_accuracy(series: list[Series]) -> tuple[float, float]:
    """An axis that holds every mean with room around it, and never leaves 0 to 100 % where an interval does."""
    low = min(v for s in series for v in s.lower)
    high = max(v for s in series for v in s.upper)
    room = 0.05 * max(high - low, 0.02)
    return max(-0.01, low - room), min(1.01, high + room)


def _epoch_ticks(epochs: list[float]) -> list[tuple[float, str]]:
    """Whole epochs, ten at most."""
    first, last = int(min(epochs)), int(max(epochs))
    step = max(1, math.ceil((last - first) / 9))
    return [(float(e), str(e)) for e in range(first, last + 1, step)]


@STUDY_FIGURES.register("training", order=80)
def training(run: Run, settings: list[Setting], summary: Summary) -> Figure:
    """Loss, cosine, effective rank and kNN accuracy over epochs, mean over seeds."""
    panels = []
    log = run.training
    for setting in settings if len(log) else []:
        for column, label, short, as_percent in TRAINING:
            if column not in log or not log[column].notna().any():
                continue
            series = []
            for model in setting.students:
                points = [(e, within_unit(s) if as_percent else s) for e, s in training_curve(log, model, column)]
                if points:
                    series.append(Series.of(model, [e for e, _ in points], [s.mean for _, s in points],
                                            **ends(s for _, s in points), n=points[-1][1].n_seeds))
            if series:
                title = panel_title(settings, setting)
                name = (label[0].upper() + label[1:] if label[1:2].islower() else label) if not title else f"{title}: {label}"
                panels.append(Panel(name, "epoch", short, series, y_percent=as_percent,
                                    y_range=_of_accuracy(series) if as_percent else None,
                                    x_ticks=_epoch_ticks([x for s in series for x in s.x])))
    seeds = max((s.n or 0 for p in panels for s in p.series), default=0)
    return Figure("training", "Training, epoch by epoch",
                  "Means over seeds with 95 % t intervals. A rank that still rises at the last epoch says that training was "
                  "stopped, not that it had converged." + (f" Here {seeds_text(seeds)}." if seeds else "") + gaps_said(panels),
                  panels, "" if panels else "This run has no training log.")
