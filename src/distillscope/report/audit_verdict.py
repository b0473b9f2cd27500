"""What an audit says as a whole: what was lost most, whether it matters, and the figures of merit."""

from __future__ import annotations

import math
from dataclasses import dataclass

from distillscope.measure.pairing import question
from distillscope.measure.results import Audit, Value
from distillscope.report.audit_series import STUDENT_MODEL, TEACHER_MODEL, reach
from distillscope.report.audit_words import accuracy_sentence, between, gallery_size, p_text, shown
from distillscope.report.models import Model, Setting
from distillscope.report.summary import Statistic
from distillscope.report.verdict import Merit
from distillscope.report.words import number, percent

ACCURACIES = {"probe": "a linear probe", "paper.probe": "the paper's linear probe", "knn": "a vote of 10 neighbours",
              "zero_shot": "the nearest class name"}
RECALLS = {"retrieval.recall_at_1": "", "retrieval.mapped_recall_at_1": " after one fitted matrix"}
ITEMS = "what tells one item from another"
WHOLE, LITTLE, SOME = 0.99, 0.95, 0.80
"""Retained shares from which the words are 'nothing', 'little' and 'some': conventions, printed with the verdict."""

SETTING = Setting("", "", (TEACHER_MODEL,), (STUDENT_MODEL,))


@dataclass(frozen=True)
class Loss:
    """One way to lose: what it is, the retained share in 0 to 1, the clause of the verdict, and the whole sentence."""

    what: str
    retained: float
    clause: str
    sentence: str


def losses(found: Audit) -> list[Loss]:
    """The losses that were measured. Their shares are of different things; the verdict names the smallest."""
    return [loss for loss in (_directions(found), _content(found), _items(found)) if loss]


def _directions(found: Audit) -> Loss | None:
    few = any((flag := found.values.get(f"{side}.undersampled")) and flag.value for side in ("teacher", "student"))
    name = "effective_rank_corrected" if few and "student.effective_rank_corrected" in found.values else "effective_rank"
    teacher, student = found.values.get(f"teacher.{name}"), found.values.get(f"student.{name}")
    if not teacher or not student:
        return None
    share = student.value / teacher.value
    how = ", both corrected for so few items" if name != "effective_rank" else ""
    if share > 1.02:
        clause = f"the student fills {percent(share, 0)} of the teacher's effective dimensions, as noise does too"
    else:
        clause = (f"the student fills {number(student.value, 1)} of the teacher's {number(teacher.value, 1)} effective dimensions"
                  f" ({percent(share, 0)})")
    sentence = (f"Directions: the student fills {number(student.value, 1)}{reach(student)} effective dimensions, the teacher "
                f"{number(teacher.value, 1)}{reach(teacher)}: {percent(share, 0)}"
                f"{', which noise does too' if share > 1.02 else ''}{how} (n = {student.n:,}).")
    return Loss("the number of directions", min(1.0, share), clause, sentence)


def _content(found: Audit) -> Loss | None:
    r2 = found.values.get("alignment.teacher_r2")
    if not r2:
        return None
    share = max(0.0, min(1.0, r2.value))
    clause = (f"{percent(share, 0)} of the teacher's variance can be predicted from the student" if share >= 0.005 else
              "nothing of the teacher's variance can be predicted from the student")
    sentence = f"Content: {clause} by a linear map: R² {number(r2.value, 3)}{reach(r2)} (n = {r2.n:,})."
    return Loss("what the teacher's embeddings say", share, clause, sentence)


def _items(found: Audit) -> Loss | None:
    key = next((k for k in RECALLS if k in found.values), None)
    if not key:
        return None
    recall = found.values[key]
    find = f"of the student's queries{RECALLS[key]} find their own item first in the teacher's index of {gallery_size(found):,}"
    return Loss(ITEMS, recall.value, f"{percent(recall.value, 0)} {find}",
                f"Single items: {percent(recall.value)}{reach(recall, key)} {find} (n = {recall.n:,}).")


def accuracy_head(found: Audit) -> str | None:
    """The first accuracy that the audit has: the head of its keys."""
    return next((head for head in ACCURACIES if f"{head}.retention" in found.values), None)


def headline(found: Audit) -> str:
    """What was lost most and whether it matters, in one sentence; before it the question whether the rows belong together."""
    doubt = question(found)
    return f"{doubt} If they are: {_verdict(found)}" if doubt else _verdict(found)


def _verdict(found: Audit) -> str:
    known = losses(found)
    matter = _matters(found, min(known, key=lambda loss: loss.retained) if known else None)
    if not known:
        first = "None of the measures that tell a loss was taken"
    else:
        worst = min(known, key=lambda loss: loss.retained)
        first = ("No loss shows" if worst.retained >= WHOLE else f"Most was lost in {worst.what}") + f": {worst.clause}"
    return f"{first}; {matter}."


def _matters(found: Audit, worst: Loss | None) -> str:
    head = accuracy_head(found)
    if head is None:
        search = _search(found) if worst is None or worst.what != ITEMS else ""
        unknown = "no accuracy was measured, so it is not known what that costs a classifier"
        return f"{search}, and {unknown}" if search else unknown
    kept = found.values[f"{head}.retention"]
    accuracies = (f"{ACCURACIES[head]} keeps {percent(kept.value)} of the teacher's accuracy "
                  f"({percent(found[f'{head}.student.accuracy'])} against {percent(found[f'{head}.teacher.accuracy'])})")
    p = found.values.get(f"{head}.mcnemar_p")
    chance = p.value >= 0.05 if p else kept.low is not None and kept.low <= 1 <= kept.high
    if chance and kept.value < WHOLE:
        return f"for these labels chance may explain the loss, since {accuracies}{f', McNemar {p_text(p.value)}' if p else ''}"
    if kept.value > 1:
        return (f"for these labels that does not matter, since {ACCURACIES[head]} does no worse on the student "
                f"({percent(found[f'{head}.student.accuracy'])} against {percent(found[f'{head}.teacher.accuracy'])})")
    if kept.value >= WHOLE:
        return f"for these labels that does not matter, since {accuracies}"
    if kept.value >= LITTLE:
        return f"for these labels it matters little, since {accuracies}"
    return f"for these labels it matters{'' if kept.value >= SOME else ' much'}, since {accuracies}"


def _search(found: Audit) -> str:
    key = next((k for k in RECALLS if k in found.values), None)
    if key is None:
        return ""
    recall = found[key]
    finds = f"{percent(recall, 0)} of its queries{RECALLS[key]} find their own item first"
    if recall >= LITTLE:
        return f"in a search index it can stand in for the teacher ({finds})"
    return f"in a search index it {'comes close to' if recall >= SOME else 'cannot stand in for'} the teacher ({finds})"


def does_it_matter(found: Audit) -> list[str]:
    """The sentences below the verdict: what it costs a classifier and a search index."""
    head = accuracy_head(found)
    sentences = [f"{capital(ACCURACIES[head])}: {_against(found, head)} {accuracy_sentence(found, head)}"] if head else [
        f"No accuracy was measured{_why(found)}, so nothing is known of what a classifier would lose."]
    overlap = found.values.get("retrieval.neighbour_overlap_10")
    if overlap:
        sentences.append(f"In an index of the student's own, {number(10 * overlap.value, 1)} of the first 10 results are those that the "
                         f"teacher would give{_tenths(overlap)}.")
    return sentences


def capital(text: str) -> str:
    """
    >>> capital("a linear probe")
    'A linear probe'
    """
    return text[0].upper() + text[1:]


def _why(found: Audit) -> str:
    reason = next((found.left_out[f"{head}.retention"] for head in ACCURACIES if f"{head}.retention" in found.left_out), None)
    return f" ({reason})" if reason else ""


def _against(found: Audit, head: str) -> str:
    teacher, student = found.values[f"{head}.teacher.accuracy"], found.values[f"{head}.student.accuracy"]
    return (f"on the student {percent(student.value)}{reach(student, 'accuracy')}, on the teacher {percent(teacher.value)}"
            f"{reach(teacher, 'accuracy')} (n = {student.n:,}).")


def _tenths(value: Value) -> str:
    return f" [{number(10 * value.low, 1)}, {number(10 * value.high, 1)}]" if value.low is not None else ""


def _row(model: Model, value: Value, name: str) -> tuple[Model, Statistic, str, str]:
    low, high = (math.nan, math.nan) if value.low is None else (value.low, value.high)
    statistic = Statistic(value.value, math.nan, math.nan, low, high, 1, (value.value,), value.n, value.unit)
    return model, statistic, shown(value.value, value.unit, name), between(value, name)


def merits(found: Audit) -> list[Merit]:
    """Four or five figures of merit, the teacher beside the student where both have one."""
    gallery, head = gallery_size(found), accuracy_head(found)
    wanted = [("Effective rank", "directions that are filled evenly", ("teacher.effective_rank", "student.effective_rank"), None),
              ("R² of the teacher", "the teacher's variance, predicted linearly from the student", (None, "alignment.teacher_r2"), 1.0)]
    if head:
        wanted.append(("Accuracy", f"{ACCURACIES[head]}; n = {found.values[f'{head}.student.accuracy'].n:,}",
                       (f"{head}.teacher.accuracy", f"{head}.student.accuracy"), 1.0))
    recall = next((k for k in RECALLS if k in found.values), "")
    wanted += [("Recall at 1", f"own item first in the teacher's index of {gallery:,}{RECALLS.get(recall, '')}", (None, recall), 1.0),
               ("Shared neighbours", "of the first 10, each side in an index of its own", (None, "retrieval.neighbour_overlap_10"), 1.0),
               ("CKA, debiased", "similarity up to a rotation", (None, "similarity.linear_cka_debiased"), 1.0),
               ("Contrastive retention", "nats kept, of what the teacher keeps of itself", (None, "contrastive.retained_share"), 1.0)]
    cards = []
    for title, note, keys, full in wanted:
        rows = [_row(model, found.values[key], key) for model, key in zip((TEACHER_MODEL, STUDENT_MODEL), keys, strict=True)
                if key in found.values]
        if rows:
            cards.append(Merit(title, note, rows, full or max(s.mean for _, s, _, _ in rows)))
    return cards[:5]


def bands() -> str:
    """What the verdict's words stand for."""
    return (f"The words of the verdict are conventions: no loss from {percent(WHOLE, 0)} retained, little from "
            f"{percent(LITTLE, 0)}, much below {percent(SOME, 0)}. What was lost most is the smallest of these shares; they are of "
            "different things.")
