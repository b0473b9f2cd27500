"""The figure of an audit on probes that are fitted to few labels."""

from __future__ import annotations

from distillscope.measure.few import SIZES
from distillscope.measure.results import Audit
from distillscope.report.figures.audit_items import SIDES, categories, dots
from distillscope.report.figures.figure import Figure, Panel
from distillscope.report.page import AUDIT_FIGURES
from distillscope.report.sentences.audit_measures import reach, told


@AUDIT_FIGURES.register("few", order=82)
def few(found: Audit) -> Figure | None:
    """Accuracy of both sides over the number of labels per class; nothing where none was measured."""
    sizes = [size for size in SIZES if f"few.student.accuracy_at_{size}" in found.measured]
    if not sizes:
        return None
    names, places = [f"{size} per class" for size in sizes], [float(i) for i in range(len(sizes))]
    series = []
    for model, shift in zip(SIDES, (-0.1, 0.1), strict=True):
        values = [found.measured[f"few.{model.student}.accuracy_at_{size}"] for size in sizes]
        series.append(dots(model, places, values, names, shift))
    kept = [(size, found.measured[key]) for size in sizes if (key := f"few.retention_at_{size}") in found.measured]
    said = [f"With {size} label{'s' * (size > 1)} per class the student keeps {told(v, 'retention')}{reach(v, 'retention')} of "
            "the teacher's accuracy." for size, v in (kept[:1] + kept[-1:] if len(kept) > 1 else kept)]
    return Figure("few", "With few labels",
                  "A linear probe fitted to the first labels of each class in disjoint parts of the items; intervals are "
                  "over parts, so they hold for other labels too. All labels together are in the figure beside it.",
                  [Panel("", "labels", "accuracy", series, y_percent=True, y_range=(-0.03, 1.04), **categories(names))], "",
                  said)
