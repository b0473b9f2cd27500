"""The figures of what was done to the images: noise in bands, corruptions, Fourier waves, gradients; fewer components; time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from distillscope.report.figures.figure import Figure, Grid, Mark, Panel, Series, curve_over_seeds, ends, gaps_said
from distillscope.report.figures.geometry import of_setting, panel_title
from distillscope.report.page import STUDY_FIGURES
from distillscope.report.sentences.numbers import accuracy_of, alike, bracket, percent
from distillscope.results.keys import LATENCY
from distillscope.results.models import Model, Setting, trials_of_model
from distillscope.results.robustness import MEAN
from distillscope.results.rows import Condition
from distillscope.results.run import Run
from distillscope.results.summary import Statistic, Summary
from distillscope.visible import joined


def not_run(name: str) -> str:
    return f"Not run: add {name} to the study's `stresses`."


def _over(model: Model, summary: Summary, key: str, places: Sequence[tuple[float, str]], **more) -> Series | None:
    """A model's statistic at each (x, condition) that it has."""
    found = [(x, s) for x, c in places if (s := summary.get(model, key, c))]
    if not found:
        return None
    return Series.of(model, [x for x, _ in found], [s.mean for _, s in found], marker=model.marker, n=found[0][1].n_seeds,
                     **ends(s for _, s in found), **more)


@STUDY_FIGURES.register("bands", order=90)
def bands(run: Run, settings: list[Setting], summary: Summary) -> Figure:
    """Accuracy under noise of equal power in bands of radial frequency."""
    accuracy, panels, findings = accuracy_of(summary), [], []
    key = accuracy[0] if accuracy else ""
    named = [c for c in summary.conditions() if c.bounds and c.strength is not None]
    for setting in settings if accuracy else []:
        for sigma, where in sorted({(c.strength or 0.0, c.place) for c in named}):
            own = sorted((*c.bounds, c) for c in named if c.bounds and (c.strength, c.place) == (sigma, where))
            ticks = [(float(i), f"{low:g}–{high:g}") for i, (low, high, _) in enumerate(own)]
            places = [(float(i), c) for i, (_, _, c) in enumerate(own)]
            series = [s for m in setting.models if (s := _over(m, summary, key, places, hover=[t for _, t in ticks]))]
            if not series:
                continue
            title = panel_title(settings, setting)
            panels.append(Panel(f"{title}: σ {sigma:g}" if title else f"σ {sigma:g}{', added to the input' if where else ''}",
                                "band, fractions of Nyquist", "accuracy", series, x_ticks=ticks, y_percent=True,
                                y_range=(0.0, 1.02), x_range=(-0.35, len(own) - 0.65)))
            deaf = [f"{s.label} {joined(ticks[i][1] for i in alike(s.y, min(s.y)))} ({percent(min(s.y))})" for s in series
                    if len(s.y) == len(own) and s.label in {m.label for m in setting.named}]
            if deaf:
                findings.append(f"Most hurt at σ {sigma:g}{of_setting(settings, setting)} by the band: {', '.join(deaf)}.")
    return Figure("bands", "Noise, band by band",
                  "Noise of equal power, limited to a band of radial frequency of the stored image: 0 is flat, 1 is half a "
                  "cycle per pixel. A model whose accuracy stays up in the high bands ignores them, as a low-pass "
                  "filter would." + gaps_said(panels),
                  panels, "" if panels else not_run("band_noise"), findings)


@STUDY_FIGURES.register("corruptions", order=100)
def corruptions(run: Run, settings: list[Setting], summary: Summary) -> Figure:
    """What each common corruption leaves of the clean accuracy, and the plain mean error."""
    accuracy, panels, findings = accuracy_of(summary), [], []
    key = accuracy[0] if accuracy else ""
    names = list(dict.fromkeys(c.what for c in summary.conditions() if c.kind == "corruption" and c.strength is not None))
    for setting in settings if accuracy and names else []:
        title = panel_title(settings, setting)
        means = {m: _by_corruption(m, summary, key, names) for m in setting.models}
        first = next((v for v in means.values() if v), None)
        if first is None:
            continue
        order = sorted(first, key=lambda name: first[name], reverse=True)
        shown = [m for m, v in means.items() if v]
        step = min(0.09, 0.6 / len(shown))  # side by side, in the order of the legend
        beside = {m: step * (place - (len(shown) - 1) / 2) for place, m in enumerate(shown)}
        series = [Series.of(m, [i + beside[m] for i, name in enumerate(order) if name in v],
                            [v[name] for name in order if name in v], kind="points",
                            marker=m.marker, hover=[name.replace("_", " ") for name in order if name in v],
                            n=_seeds(m, summary, key))
                  for m, v in means.items() if v]
        panels.append(Panel(title, "", "accuracy, mean over severities", series,
                            x_ticks=[(float(i), name.replace("_", " ")) for i, name in enumerate(order)], y_percent=True,
                            y_range=(0.0, 1.02), x_range=(-0.6, len(order) - 0.4), x_tilt=True))
        error_key = key.rpartition(".")[0] + ".corruption_error"
        errors = [(m, s) for m in setting.named if (s := summary.get(m, error_key, MEAN))]
        if errors:
            findings.append(f"Mean corruption error{of_setting(settings, setting)} (plain mean over {len(order)} corruptions "
                            "and their severities): "
                            + ", ".join(f"{m.label} {_with_interval(s)}" for m, s in errors) + ".")
    return Figure("corruptions", "Common corruptions",
                  "Accuracy of the clean probe on corrupted test images, corruption by corruption, from what hurts the teacher "
                  "least to what hurts it most. Where a student stands above its teacher, it has lost what the corruption "
                  "destroys.",
                  panels, "" if panels else not_run("corruptions"), findings)


def _by_corruption(model: Model, summary: Summary, key: str, names: list[str]) -> dict[str, float]:
    found = {}
    for name in names:
        values = [s.mean for c in summary.conditions() if c.kind == "corruption" and c.what == name
                  and (s := summary.get(model, key, c))]
        if values:
            found[name] = float(np.mean(values))
    return found


def _seeds(model: Model, summary: Summary, key: str) -> int | None:
    found = summary.get(model, key)
    return found.n_seeds if found else None


def _with_interval(s: Statistic) -> str:
    return percent(s.mean) + (f" {bracket(100 * s.low, 100 * s.high, 1)}" if math.isfinite(s.low) else "")


@STUDY_FIGURES.register("fourier", order=110)
def fourier(run: Run, settings: list[Setting], summary: Summary) -> Figure:
    """Fourier heat maps, the mean over seeds: the error that each wave causes."""
    accuracy = accuracy_of(summary)
    panels, grids = [], []
    head = accuracy[0].partition(".student")[0] if accuracy else ""
    for setting in settings:
        for model in setting.models:
            kind = "references" if model.is_teacher else "trials"
            paths = [run.path / kind / t.folder / "stress" / f"fourier.{head}.npy" for t in trials_of_model(run, model)]
            tables = [np.load(p, allow_pickle=False) for p in paths if p.is_file()]
            if not tables or len({t.shape for t in tables}) > 1:
                continue
            mean = np.mean(tables, axis=0)
            rows, columns = (np.flatnonzero(np.isfinite(mean).any(axis=axis)) for axis in (1, 0))
            if not len(rows):
                continue
            values = [[None if math.isnan(v) else float(v) for v in row] for row in mean[np.ix_(rows, columns)]]
            down, right = ([str(int(i) - size // 2) for i in kept]
                           for kept, size in ((rows, mean.shape[0]), (columns, mean.shape[1])))
            title = panel_title(settings, setting)
            grids.append(Grid(model.label, model.highlight, values, down, right, "error",
                              n=None if model.is_teacher else len(tables)))
            panels.append(Panel(f"{title}: {model.label}" if title else model.label, "cycles across", "cycles down", []))
    cells = [v for grid in grids for row in grid.values for v in row if v is not None]  # one scale for all
    panels = [replace(p, grid=replace(g, low=min(cells), high=max(cells))) for p, g in zip(panels, grids, strict=True)]
    return Figure("fourier", "Fourier heat map",
                  "The error that one wave causes, for each frequency: slow waves in the middle, fast ones at the edge. A "
                  "strong colour is a high error: in the middle alone, of a model that responds to coarse shape; at the "
                  "edges, a sensitivity to fine detail.",
                  panels, "" if panels else not_run("fourier"))


@STUDY_FIGURES.register("gradient", order=120)
def gradient(run: Run, settings: list[Setting], summary: Summary) -> Figure:
    """Energy of the input gradient by radial frequency."""
    panels = []
    for setting in settings:
        sides = [(m, "teacher" if m.is_teacher else "student") for m in setting.models]
        series = [s for m, side in sides if (s := curve_over_seeds(run, m, f"stress.gradient.{side}", marker=m.marker))]
        if series:
            panels.append(Panel(panel_title(settings, setting), "radial frequency, fractions of Nyquist",
                                "share of the gradient's energy",
                                series, y_percent=True))
    return Figure("gradient", "What detail the models respond to",
                  "How the energy of the gradient of the embedding with respect to the pixels is spread over radial frequency, "
                  "with no noise at all. A curve further left responds to coarser detail. The last point is the corners beyond "
                  "Nyquist.",
                  panels, "" if panels else not_run("gradient"))


@STUDY_FIGURES.register("top_k", order=130)
def top_k(run: Run, settings: list[Setting], summary: Summary) -> Figure:
    """Accuracy of embeddings that are cut to their top k components, clean and under noise."""
    panels, accuracy = [], accuracy_of(summary)
    key = f"top_k.{'paper' if accuracy and accuracy[0].startswith('paper.') else 'tuned'}.student.accuracy"
    named = [c for c in summary.conditions() if c.kind == "top_k" and c.what.isdecimal()]
    sigmas = sorted({c.strength or 0.0 for c in named})
    for setting in settings if named else []:
        series, marks = [], []
        for model in setting.models:
            for place, sigma in enumerate(sigmas):
                places = sorted((float(c.what), c) for c in named if (c.strength or 0.0) == sigma)
                how = f"σ {sigma:g}" if sigma else "clean"
                found = _over(model, summary, key, places, label=f"{model.label}, {how}",
                              dash=("solid", "dash", "dot", "dashdot")[place % 4])
                if not found:
                    continue
                series.append(found)
                whole = summary.get(model, key, Condition.top_k("all", sigma or None))
                if whole:
                    marks.append(Mark(whole.mean, f"all, {how} {percent(whole.mean)}", colour=model.colour, dash="dot"))
        if series:
            panels.append(Panel(panel_title(settings, setting), "components k that are kept", "accuracy", series, marks,
                                x_log=True, can_log=True, y_percent=True, y_range=(0.0, 1.02),
                                x_ticks=[(x, f"{x:g}") for x in sorted({v for s in series for v in s.x})]))
    return Figure("top_k", "Robustness of fewer dimensions",
                  "The teacher cut to its k leading components, its probe refitted each time. If dimensions made it robust, "
                  "the noisy curve would climb with k; where it falls while the clean one climbs, the trailing components "
                  "carry what noise destroys." + gaps_said(panels),
                  panels, "" if panels else not_run("top_k"))


@STUDY_FIGURES.register("latency", order=140)
def latency(run: Run, settings: list[Setting], summary: Summary) -> Figure:
    """Clean accuracy against the time of one image."""
    accuracy, panels = accuracy_of(summary), []
    key = accuracy[0] if accuracy else ""
    for setting in settings if accuracy else []:
        series = []
        for model in setting.models:
            time, score = summary.get(model, LATENCY), summary.get(model, key)
            if time and score:
                series.append(Series.of(model, [time.mean], [score.mean], kind="points", marker=model.marker, n=score.n_seeds,
                                        **ends([score])))
        if series:
            panels.append(Panel(panel_title(settings, setting), "ms per image (batch 1, median)", "accuracy, clean", series,
                                x_name="ms per image", x_log=True,
                                can_log=True, y_percent=True))
    return Figure("latency", "Accuracy against time",
                  "What a student's speed costs. Timed on the machine named below, one image at a time, preprocessing left "
                  "out; other work on the machine lengthens it.", panels, "" if panels else not_run("latency"))

