"""The figures of an audit on what the embeddings are good for: telling items apart, search, similarity, labels."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from distillscope.measure.results import Audit, Curve, Value
from distillscope.report.figures.figure import Figure, Mark, Panel, Series, ends
from distillscope.report.page import AUDIT_FIGURES
from distillscope.report.sentences.audit import ACCURACIES, RECALLS, capital
from distillscope.report.sentences.audit_measures import accuracy_sentence, gallery_size, of_ten, reach, told
from distillscope.report.sentences.numbers import number
from distillscope.report.sentences.stages import stage_titles
from distillscope.results.models import MARKERS, NULL_COLOUR, STUDENT_COLOURS, TEACHER_COLOUR, Model, Setting
from distillscope.results.rows import TEACHER

SHARE = "contrastive.retained_share"


def categories(labels: list[str]) -> dict:
    """One place a label along x."""
    return {"x_ticks": [(float(i), label) for i, label in enumerate(labels)], "x_range": (-0.5, len(labels) - 0.5)}


@AUDIT_FIGURES.register("contrastive", order=50)
def contrastive(found: Audit) -> Figure:
    """Nats kept over the number of candidates, below the ceiling; the loss over the temperature."""
    panels, findings = [], []
    for panel, sentence in (_nats_kept(found), _over_temperature(found)):
        panels += [panel] if panel else []
        findings += [sentence] if sentence else []
    return Figure("contrastive", "Contrastive retention",
                  "Can an item be distinguished from K − 1 others by its student embedding? What is kept can never exceed "
                  "log K, so it is no mutual information; a curve that hugs the ceiling says that K is too small.", panels,
                  "" if panels else absent(found, ("contrastive.infonce",), "It was not measured."), findings)


def _nats_kept(found: Audit) -> tuple[Panel | None, str]:
    curve, value = found.curves.get("contrastive.infonce_by_k"), found.measured.get("contrastive.infonce")
    ceiling, own = found.measured.get("contrastive.ceiling"), found.measured.get("contrastive.teacher_infonce")
    if curve is None or not value or not ceiling:
        return None, ""
    k = [float(v) for v in curve.x]
    logs = [math.log(v) for v in k]
    series = [Series.of(STUDENT_MODEL, k, [c - float(y) for c, y in zip(logs, curve.y, strict=True)], n=value.n, **ITEMS,
                        marker=STUDENT_MODEL.marker)]
    if own:
        ends = None if own.interval is None else [ceiling.value - v for v in own.interval]
        series.insert(0, Series.of(TEACHER_MODEL, [math.exp(ceiling.value)], [ceiling.value - own.value], kind="points",
                                   low=ends and ends[1:], high=ends and ends[:1], marker=TEACHER_MODEL.marker,
                                   label="teacher against itself", n=own.n, **ITEMS))
    series.append(null_line(k, logs, "ceiling, log K"))
    kept, among = ceiling.value - value.value, f"Among {math.exp(ceiling.value):,.0f} candidates the student"
    sentence = f"{among} keeps {number(kept, 2)} of at most {number(ceiling.value, 2)} nats"
    if kept <= 0:
        sentence = (f"{among} keeps nothing: its loss of {number(value.value, 2)} nats is no less than the "
                    f"{number(ceiling.value, 2)} of equal rows")
    retained = found.measured.get(SHARE)
    if retained and kept > 0:
        sentence += f": {told(retained, SHARE)}{reach(retained, SHARE)} of what the teacher keeps of itself"
    least = min(0.0, *(1.08 * v for s in series for v in s.lower))
    return Panel("Nats kept: log K less the loss", "candidates K", "nats kept", series, x_log=True,
                 y_range=(least, 1.08 * max(logs)), x_ticks=[(v, f"{v:,.0f}") for v in k]), f"{sentence}."


def _over_temperature(found: Audit) -> tuple[Panel | None, str]:
    curve, ceiling = found.curves.get("contrastive.infonce_by_temperature"), found.measured.get("contrastive.ceiling")
    if curve is None or not ceiling:
        return None, ""
    y = [float(v) for v in curve.y]
    panel = Panel("Loss over the temperature", "temperature", "InfoNCE loss, nats",
                  [Series.of(STUDENT_MODEL, [float(v) for v in curve.x], y, marker=STUDENT_MODEL.marker)],
                  [Mark(ceiling.value, f"log K {number(ceiling.value, 2)}", dash="dot")], x_log=True,
                  x_ticks=[(float(v), f"{v:g}") for v in curve.x], y_range=(0.0, 1.1 * max(ceiling.value, *y)))
    best = found.measured.get("contrastive.best_temperature")
    least = found.measured.get("contrastive.infonce_best_temperature")
    if not best or not least:
        return panel, ""
    return panel, (f"The loss is smallest, {number(least.value, 2)} nats, at temperature {best.value:g}; the value above is at "
                   "0.1.")


@AUDIT_FIGURES.register("retrieval", order=60)
def retrieval(found: Audit) -> Figure:
    """Recall of the student's queries in the teacher's index, as they are and mapped, and the overlap of both indexes."""
    gallery, ks, series = gallery_size(found), (1, 5, 10), []
    kinds = (("retrieval.recall_at_", -0.1, {"label": "queries as they are"}),
             ("retrieval.mapped_recall_at_", 0.1,
              {"label": "queries after one fitted matrix", "dash": "dash", "marker": "diamond"}))
    for head, shift, more in kinds:
        known = [(i, k) for i, k in enumerate(ks) if f"{head}{k}" in found.measured]
        if known:
            series.append(dots(STUDENT_MODEL, [float(i) for i, _ in known], [found.measured[f"{head}{k}"] for _, k in known],
                               [f"recall at {k}" for _, k in known], shift, **more))
    overlap = found.measured.get("retrieval.neighbour_overlap_10")
    if overlap:
        series.append(dots(STUDENT_MODEL, [3.0], [overlap], ["10 results in common"], label="student's own index",
                           marker="square"))
    panels = []
    if series:
        chance = [Value(min(1.0, k / gallery), None, None, gallery, "", "share") for k in ks]
        series.append(dots(grey_model("chance"), [0.0, 1.0, 2.0], chance, [f"recall at {k}" for k in ks]))
        panels.append(Panel("", "", "share of queries, or of results", series, y_percent=True, y_range=(-0.03, 1.04),
                            **categories(["recall\nat 1", "recall\nat 5", "recall\nat 10", "10 results\nin common"])))
    findings = [f"{told(recall, key)}{reach(recall, key)} of the queries{how} find their own item first among {gallery:,}."
                for key, how in RECALLS.items() if (recall := found.measured.get(key))]
    if overlap:
        findings.append(f"Of the first 10 results in the student's own index, {of_ten(overlap.value)} are the "
                        "teacher's.")
    return Figure("retrieval", "Search",
                  "Student queries in the teacher's index of the same items: as they are, and after one cross-validated matrix "
                  "(which any two dimensions allow). On the right, each side searches an index of its own.", panels,
                  "" if panels else absent(found, ("retrieval.recall_at_1",), "It was not measured."), findings)


SIMILARITIES = {"linear_cka_debiased": "CKA,\ndebiased", "linear_cka": "CKA", "procrustes": "Pro-\ncrustes",
                "rsa_spearman": "RSA", "mutual_knn_10": "10\nnearest"}


@AUDIT_FIGURES.register("similarity", order=70)
def similarity(found: Audit) -> Figure:
    """Every measure of similarity with its interval, beside the range that shuffled items give."""
    names = [n for n in SIMILARITIES if f"similarity.{n}" in found.measured]
    labels, places = [SIMILARITIES[n] for n in names], [float(i) for i in range(len(names))]
    values = [found.measured[f"similarity.{n}"] for n in names]
    nulls = [null for n in names if (null := found.measured.get(f"similarity.{n}_null"))]
    panels, findings = [], []
    if names:
        series = [dots(STUDENT_MODEL, places, values, labels)]
        if len(nulls) == len(names):
            series.append(dots(grey_model("student's items shuffled"), places, nulls, labels, 0.16))
            inside = [label.replace("-\n", "").replace("\n", " ") for label, v, null in zip(labels, values, nulls, strict=True)
                      if null.interval is None or v.value <= null.interval[1]]
            findings.append(f"No more than shuffled items give: {', '.join(inside)}." if inside else
                            "Every measure lies above what shuffled items give.")
        low = min([0.0, *(v for s in series for v in s.lower)])
        panels.append(Panel("", "", "similarity", series, y_range=(low - 0.03, 1.04), **categories(labels)))
    debiased = found.measured.get("similarity.linear_cka_debiased")
    if debiased:
        findings.insert(0, f"Debiased CKA is {told(debiased)}{reach(debiased)}.")
    return Figure("similarity", "Similarity, up to a rotation",
                  "1 is alike up to rotation and scale. Grey is what the same number gives with the student's items shuffled: "
                  "only what lies above it is due to the items.", panels, "" if panels else "It was not measured.", findings)


CLASSIFIERS = {"probe": "probe,\ntuned", "paper.probe": "probe,\npaper", "knn": "10\nnearest", "zero_shot": "zero-\nshot"}


@AUDIT_FIGURES.register("accuracy", order=80)
def accuracy(found: Audit) -> Figure:
    """Accuracies of both sides, and what the student retains."""
    heads = [h for h in CLASSIFIERS if f"{h}.retention" in found.measured]
    labels, places = [CLASSIFIERS[h] for h in heads], [float(i) for i in range(len(heads))]
    panels = []
    if heads:
        sides = [dots(m, places, [found.measured[f"{h}.{m.student}.accuracy"] for h in heads], labels, shift)
                 for m, shift in ((TEACHER_MODEL, -0.1), (STUDENT_MODEL, 0.1))]
        kept = dots(STUDENT_MODEL, places, [found.measured[f"{h}.retention"] for h in heads], labels)
        low, top = min(v for s in sides for v in s.lower), max([1.0, *kept.upper])
        panels = [Panel("Accuracy", "", "accuracy", sides, y_percent=True, y_range=(max(-0.02, low - 0.1), 1.02),
                        **categories(labels)),
                  Panel("Retained of the teacher's", "", "student's over teacher's", [kept],
                        [Mark(1.0, "all retained", dash="dot")], y_percent=True,
                        y_range=(max(-0.02, min(kept.lower) - 0.1), top + 0.08),
                        **categories(labels))]
    return Figure("accuracy", "Accuracy on the labels",
                  "Each classifier is fitted to its own side and judged on the same items, so the exact McNemar test can "
                  "compare them item by item. More dimensions fit more: read the probe beside the neighbours.", panels,
                  "" if panels else absent(found, ("probe.student.accuracy", "knn.student.accuracy"), "It was not measured."),
                  [f"{capital(ACCURACIES[h])}: {accuracy_sentence(found, h)}" for h in heads])


@AUDIT_FIGURES.register("stages", order=5)
def stages(found: Audit) -> Figure | None:
    """What is left after each step from the teacher to the files, and what a stage costs; nothing where there are no files."""
    if not found.stages:
        return None
    decisions = [s for i, (key, label) in enumerate(DECISIONS.items()) if (s := _over_stages(found, key, label, i)).y]
    lacking = [s for i, (key, label) in enumerate(COSINES.items()) if (s := _over_stages(found, key, label, i)).y]
    axis = {**categories(stage_titles(found)), "x_tilt": True}
    panels = [Panel("What is right", "", "share of the items", decisions, y_percent=True, y_range=(-0.02, 1.02), **axis)]
    if lacking:
        panels.append(Panel("How far the step moved the embeddings", "", "1 − cosine with the stage before", lacking,
                            y_log=True, **axis))
    for key, title, label, scale in COSTS:
        cost = replace(_over_stages(found, key, label, 3, scale), legend=False)
        if cost.y:
            panels.append(Panel(title, "", label, [cost], y_log=True, **axis))
    return Figure("stages", "From the teacher to what is shipped",
                  "Every stage embeds the same images. A file is given the student's probe, matrix and index as they are, so "
                  "what falls from the student to a file is what the file lost. Costs and 1 − cosine are on logarithmic axes.",
                  panels)


DECISIONS = {"accuracy": "probe accuracy", "recall_at_1": "recall at 1", "mapped_recall_at_1": "recall at 1, mapped"}
COSINES = {"mean_cosine": "1 − mean cosine", "worst_cosine": "1 − worst cosine"}
COSTS = (("size_bytes", "Size", "MB", 1e-6), ("latency_ms", "Latency of one image", "ms, one thread", 1.0))
"""Key of a stage's value, title of its panel, its unit and what it is multiplied by."""


def _over_stages(found: Audit, key: str, label: str, number: int, scale: float = 1.0) -> Series:
    """A value of every stage that has it; of cosines what they lack of 1, where that is more than rounding."""
    model = replace(STUDENT_MODEL, label=label, highlight=label, colour=STUDENT_COLOURS[number], marker=MARKERS[number])
    cosine = key in COSINES
    known = [(float(i), v) for i, stage in enumerate(found.stages) if (v := stage.values.get(key))
             and not (cosine and 1 - v.value < 1e-12)]
    y = [1 - v.value if cosine else scale * v.value for _, v in known]
    bounds = {} if cosine else {name: side and [scale * v for v in side] for name, side in ends(v for _, v in known).items()}
    return Series.of(model, [x for x, _ in known], y, kind="points", marker=model.marker,
                     n=known[0][1].n if known else None, **bounds, **ITEMS)


MOST_POINTS = 400
"""Points of a curve that are drawn; audit.json keeps them all."""
ITEMS = {"n_of": "item"}

TEACHER_MODEL = Model("", "", "", "", TEACHER, "teacher", TEACHER, TEACHER_COLOUR, "star")
STUDENT_MODEL = Model("", "", "", "", "student", "student", "student", STUDENT_COLOURS[0], "circle")
SIDES = (TEACHER_MODEL, STUDENT_MODEL)
SETTING = Setting("", "", (TEACHER_MODEL,), (STUDENT_MODEL,))
"""What the page's legend shows."""


def grey_model(label: str) -> Model:
    """What is drawn for comparison only: shuffled items, chance."""
    return replace(STUDENT_MODEL, label=label, highlight="null", colour=NULL_COLOUR, marker="x")


def thinned(x: np.ndarray, y: np.ndarray, most: int = MOST_POINTS) -> tuple[list[float], list[float]]:
    """At most ``most`` of the points, evenly spaced on a logarithmic axis, the first and the last among them.

    >>> x, y = thinned(np.arange(1, 10_001), np.arange(1, 10_001) ** 2)
    >>> len(x) <= 400, x[0], x[-1], y[-1]
    (True, 1.0, 10000.0, 100000000.0)
    """
    if len(x) > most:
        kept = np.unique(np.round(np.geomspace(1, len(x), most)).astype(int)) - 1
        x, y = np.asarray(x)[kept], np.asarray(y)[kept]
    return [float(v) for v in x], [float(v) for v in y]


def line(found: Audit, model: Model, key: str, **more) -> Series | None:
    """A curve of the audit as the model's line; None where it was not measured."""
    curve: Curve | None = found.curves.get(key)
    if curve is None or not len(curve.x):
        return None
    x, y = thinned(curve.x, curve.y)
    return Series.of(model, x, y, n=found.num_items, **ITEMS, **more)


def null_line(x: Iterable[float], y: Iterable[float], label: str, **more) -> Series:
    """What is drawn for comparison only, dotted."""
    return Series(label, "null", NULL_COLOUR, list(map(float, x)), list(map(float, y)), dash="dot", **more)


def dots(model: Model, places: list[float], values: list[Value], names: list[str], shift: float = 0.0, **more) -> Series:
    """A point per value with its interval; the hover says the measure, its interval and n."""
    hover = [f"{name.replace(chr(10), ' ')}, n = {v.n:,}" for name, v in zip(names, values, strict=True)]
    return Series.of(model, [p + shift for p in places], [v.value for v in values], kind="points", hover=hover,
                     **ends(values), **{"marker": model.marker, **more})


def absent(found: Audit, keys: tuple[str, ...], otherwise: str) -> str:
    """Why a figure is not there: the audit's own reason, where it gave one."""
    reason = next((found.left_out[k] for k in keys if k in found.left_out), None)
    return f"Left out: {reason}." if reason else otherwise
