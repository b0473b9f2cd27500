"""The figure of an audit on items from elsewhere: how well each side's distances find them."""

from __future__ import annotations

from distillscope.measure.results import Audit
from distillscope.report.figures.audit_items import SIDES, categories, dots, line, null_line
from distillscope.report.figures.figure import Figure, Panel
from distillscope.report.page import AUDIT_FIGURES
from distillscope.report.sentences.audit_measures import reach, told

WHAT = {"auroc": "AUROC", "fpr95": "passes for known\n(FPR95)"}


@AUDIT_FIGURES.register("ood", order=78)
def ood(found: Audit) -> Figure | None:
    """Receiver operating curves of both sides, AUROC and FPR95; nothing where no items from elsewhere were given."""
    if "ood.student.auroc" not in found.measured:
        return None
    drawn = [line(found, model, f"ood.{model.student}_roc") for model in SIDES]
    curves = [series for series in drawn if series]
    names = list(WHAT.values())
    values = [dots(model, [0.0, 1.0], [found.measured[f"ood.{model.student}.{what}"] for what in WHAT], names, shift)
              for model, shift in zip(SIDES, (-0.1, 0.1), strict=True)]
    panels = [Panel("Others found, over known ones mistaken", "share of known items taken for others",
                    "share of others that is found", [*curves, null_line([0, 1], [0, 1], "chance")], y_percent=True,
                    x_range=(-0.03, 1.03), y_range=(-0.03, 1.04)),
              Panel("Summed up", "", "share", values, y_percent=True, y_range=(-0.03, 1.04), **categories(names))]
    key = "ood.auroc_difference"
    said = [f"{told(found.measured[f'ood.{side}.auroc'], f'ood.{side}.auroc')} of pairs are in order on the {side}."
            for side in ("teacher", "student")]
    if change := found.measured.get(key):
        said.append(f"The student's AUROC less the teacher's is {told(change, key)}{reach(change, key)}.")
    return Figure("ood", "Items from elsewhere",
                  "An item is taken for one from elsewhere where its 10th nearest known item is far. Who filters by distance "
                  "sets the threshold on known items alone; it must be set again for the student.", panels, "", said)
