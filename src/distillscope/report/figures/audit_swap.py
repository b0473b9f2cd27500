"""The figure of an audit on search where either side is query or index."""

from __future__ import annotations

from distillscope.measure.results import Audit, Value
from distillscope.report.figures.audit_items import STUDENT_MODEL, TEACHER_MODEL, categories, dots
from distillscope.report.figures.figure import Figure, Panel, Series
from distillscope.report.page import AUDIT_FIGURES
from distillscope.report.sentences.audit_measures import reach, told
from distillscope.results.models import Model

HOW = {"teacher": "teacher\nalone", "student": "student\nalone", "student_in_teacher": "old index,\nnew queries",
       "teacher_in_student": "new index,\nold queries"}
OTHERS = ("student", "student_in_teacher", "teacher_in_student")
"""Who asks in whose index -> what that is while an index is rebuilt."""

KEY = "swap.student_in_teacher.recall_10"


@AUDIT_FIGURES.register("swap", order=65)
def swap(found: Audit) -> Figure | None:
    """How many of the teacher's first results are found, and nDCG by class; nothing where neither was measured."""
    if not any(key.startswith("swap.") for key in found.measured):
        return None
    wanted = (_panel(found, "recall_10", "The teacher's own first 10 that are found", "share of the results"),
              _panel(found, "label_ndcg_10", "By class: nDCG of the first 10", "nDCG"))
    panels = [panel for panel in wanted if panel]
    return Figure("swap", "While the index is rebuilt",
                  "Old embeddings stay in an index while new queries come, or the other way round. Where the mixed ones are "
                  "low and each side alone is high, queries and index must change at once, or through one fitted matrix.",
                  panels, "",
                  [said for said in (_said(found),) if said])


def _value(found: Audit, how: str, what: str) -> Value | None:
    if (how, what) == ("student", "recall_10"):
        return found.measured.get("similarity.mutual_knn_10")
    return found.measured.get(f"swap.{how}.{what}")


def _panel(found: Audit, what: str, title: str, unit: str) -> Panel | None:
    kinds: tuple[tuple[Model, str, tuple[str, ...], float, dict[str, str]], ...] = (
        (TEACHER_MODEL, "", ("teacher",), 0.0, {}), (STUDENT_MODEL, "", OTHERS, -0.1, {"label": "as they are"}),
        (STUDENT_MODEL, "mapped_", OTHERS[1:], 0.1, {"label": "after one fitted matrix", "dash": "dash", "marker": "diamond"}))
    series: list[Series] = []
    for model, head, hows, shift, more in kinds:
        known = [(list(HOW).index(how), value) for how in hows if (value := _value(found, f"{head}{how}", what))]
        if known:
            names = [HOW[list(HOW)[place]] for place, _ in known]
            series.append(dots(model, [float(place) for place, _ in known], [v for _, v in known], names, shift, **more))
    if not any(len(s.x) for s in series):
        return None
    return Panel(title, "", unit, series, y_percent=True, y_range=(-0.03, 1.04), **categories(list(HOW.values())))


def _said(found: Audit) -> str:
    old, new = (found.measured.get(f"swap.{how}.recall_10") or found.measured.get(f"swap.mapped_{how}.recall_10")
                for how in ("student_in_teacher", "teacher_in_student"))
    if not old or not new:
        return ""
    matrix = "" if KEY in found.measured else ", after one fitted matrix,"
    first, second = (f"{told(v, KEY)}{reach(v, KEY)}" for v in (old, new))
    return (f"New queries in the old index{matrix} find {first} of the teacher's own first 10, old queries in a new index "
            f"{second} (n = {old.n:,}).")
