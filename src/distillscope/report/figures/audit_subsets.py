"""The figure of an audit on its classes and subgroups: what the student keeps of each, the worst first."""

from __future__ import annotations

from distillscope.measure.results import Audit, Subset
from distillscope.report.figures.audit_items import STUDENT_MODEL, categories, dots
from distillscope.report.figures.figure import Figure, Mark, Panel
from distillscope.report.page import AUDIT_FIGURES
from distillscope.report.sentences.audit import ACCURACIES, capital
from distillscope.report.sentences.audit_measures import reach, told
from distillscope.report.sentences.numbers import alike, several

MOST = 16
"""Classes that are drawn, the worst first; audit.json has them all."""
PLURAL = {"class": "classes", "subgroup": "subgroups"}


@AUDIT_FIGURES.register("subsets", order=85)
def subsets(found: Audit) -> Figure | None:
    """Retention and negative flips of the worst classes, and of subgroups where they were given; nothing without labels."""
    panels, findings = [], []
    for kind in PLURAL:
        every = [s for s in found.subsets if s.kind == kind and "retention" in s.values]
        classifier = next((c for c in ACCURACIES if any(s.classifier == c for s in every)), "")
        worst = sorted((s for s in every if s.classifier == classifier), key=lambda s: s.values["retention"].value)
        if worst:
            panels += [_panel(kind, worst[:MOST], "retention"), _panel(kind, worst[:MOST], "negative_flips")]
            findings.append(_said(kind, classifier, worst))
    if not panels:
        return None
    return Figure("subsets", "The classes that lost most",
                  "An accuracy is a mean: a class may be lost behind it. Intervals hold for all classes at once, those not "
                  "drawn too; the worst of many small classes reads worse than it is, and its interval says by how much.",
                  panels, "", findings)


def _panel(kind: str, worst: list[Subset], what: str) -> Panel:
    values, names = [s.values[what] for s in worst], [s.name for s in worst]
    series = dots(STUDENT_MODEL, [float(i) for i in range(len(worst))], values, names)
    title = "Retained of the teacher's accuracy" if what == "retention" else "Right on the teacher, wrong on the student"
    top = max([1.0 if what == "retention" else 0.0, *series.y, *(min(v, 1.5) for v in series.upper)])
    marks = [Mark(1.0, "all retained", dash="dot")] if what == "retention" else []
    short = categories([name if len(name) <= 18 else f"{name[:17]}…" for name in names])
    return Panel(title, f"{kind}, the worst first", "share", [series], marks, y_percent=True,
                 y_range=(-0.02, 1.06 * top + 0.02), x_tilt=True, **short)


def _said(kind: str, classifier: str, worst: list[Subset]) -> str:
    first, kept = worst[0], worst[0].values["retention"]
    same = [worst[i].name for i in alike([s.values["retention"].value for s in worst], kept.value)]
    shown = sum(1 for s in worst if (high := s.values["retention"].high) is not None and high < 1)
    lost = f"{shown:,} of them {'is' if shown == 1 else 'are'}" if shown else "none of them is"
    who = (f"of {len(worst):,} {PLURAL[kind]}, “{first.name}” keeps the least of the teacher's accuracy, "
           f"{told(kept, 'retention')}{reach(kept, 'retention')} (n = {first.n:,})")
    if len(same) > 1:
        who = f"of {len(worst):,} {PLURAL[kind]}, {several(same)} keep the least of the teacher's accuracy"
        who = f"all {len(worst):,} {PLURAL[kind]} keep one share of the teacher's accuracy" if len(same) == len(worst) else who
        who += f", {told(kept, 'retention')}"
    return f"{capital(ACCURACIES[classifier])}: {who}; {lost} shown to have lost something."
