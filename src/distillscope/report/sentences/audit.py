"""What an audit says as a whole: what was lost most, whether it matters, and what it gives reason to try."""

from __future__ import annotations

from dataclasses import dataclass

from distillscope.measure.results import Audit, Value
from distillscope.measure.spectrum import ALL_EQUAL
from distillscope.report.sentences.audit_measures import (
    accuracy_sentence,
    between,
    gallery_size,
    of_ten,
    p_text,
    reach,
    share,
    told,
)
from distillscope.report.sentences.numbers import NBSP, number, percent
from distillscope.report.sentences.stages import stages_headline

ACCURACIES = {"probe": "a linear probe", "paper.probe": "the paper's linear probe", "knn": "a vote of 10 neighbours",
              "zero_shot": "the nearest class name"}
RECALLS = {"retrieval.recall_at_1": "", "retrieval.mapped_recall_at_1": " after one fitted matrix"}
RESULTS = {"retrieval.recall_at_1": ("swap.student_in_teacher.recall_10", "retrieval.neighbour_overlap_10"),
           "retrieval.mapped_recall_at_1": ("swap.mapped_student_in_teacher.recall_10", "retrieval.neighbour_overlap_10")}
"""What says whether the first ten results are the teacher's: to its queries in the teacher's index, else to its own in its own.

To find one's own item is not to give the same results: a student may do the first always, and the second one time in ten.
"""
ITEMS = "distinguishing individual items"
WHOLE, LITTLE, SOME, HALF = 0.99, 0.95, 0.80, 0.50
"""Retained shares from which the words are 'nothing', 'little', 'some' and 'much': conventions, printed with the verdict."""
ALLOWED = 0.95
"""R2 of the teacher from itself below which a fitted matrix says little: there are too few items for it."""
SHIFTED = 0.05
"""Where one fitted matrix gains at least this much, nothing is lost: the information is there, in other coordinates."""


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
    few = any((flag := found.measured.get(f"{side}.undersampled")) and flag.value for side in ("teacher", "student"))
    name = "effective_rank_corrected" if few and "student.effective_rank_corrected" in found.measured else "effective_rank"
    teacher, student = found.measured.get(f"teacher.{name}"), found.measured.get(f"student.{name}")
    if not teacher or not student:
        return None
    kept = student.value / teacher.value
    how = ", both corrected for so few items" if name != "effective_rank" else ""
    if kept > 1.02:
        clause = f"the student uses {percent(kept, 0)} of the teacher's effective dimensions, which noise alone can cause"
    else:
        clause = (f"the student uses {number(student.value, 1)} of the teacher's {number(teacher.value, 1)} effective "
                  f"dimensions ({share(min(kept, 1.0))})")
    sentence = (f"Directions: the student uses {number(student.value, 1)}{reach(student)} effective dimensions, the teacher "
                f"{number(teacher.value, 1)}{reach(teacher)}: {share(kept)}"
                f"{', which noise alone can cause' if kept > 1.02 else ''}{how} (n = {student.n:,}).")
    return Loss("the number of directions used", min(1.0, kept), clause, sentence)


def _ceiling(found: Audit) -> float:
    """R2 of the teacher from itself: below 1 where there are few items."""
    most = found.measured.get("alignment.teacher_r2_ceiling")
    return most.value if most else 1.0


def _content(found: Audit) -> Loss | None:
    r2, most = found.measured.get("alignment.teacher_r2"), _ceiling(found)
    if not r2 or most < HALF:
        return None
    kept = max(0.0, min(1.0, r2.value / most))
    some = share(max(0.0, r2.value)) if r2.value >= 0.005 else "nothing"
    clause = f"{some} of the teacher's variance can be predicted from the student"
    if most < WHOLE:
        clause += f", of {share(most)} that so few items allow"
    sentence = f"Content: {clause} by a linear map: R² {told(r2)}{reach(r2)} (n = {r2.n:,})."
    return Loss("predicting the teacher's embeddings", kept, clause, sentence)


def recall_key(found: Audit) -> str | None:
    """The recall that tells whether single items are lost: after one fitted matrix where that finds more, else as they are.

    None where there are too few items to fit the matrix and the queries as they are do not find theirs: they may lie in other
    coordinates.
    """
    raw, mapped = (found.measured.get(key) for key in RECALLS)
    if mapped and _ceiling(found) >= ALLOWED and (not raw or mapped.value > raw.value + SHIFTED):
        return "retrieval.mapped_recall_at_1"
    return "retrieval.recall_at_1" if raw and (mapped is None or _ceiling(found) >= ALLOWED or raw.value >= SOME) else None


def _items(found: Audit) -> Loss | None:
    key = recall_key(found)
    if not key:
        return None
    recall, raw = found.measured[key], found.measured.get("retrieval.recall_at_1")
    find = f"of the student's queries{RECALLS[key]} find their own item first in the teacher's index of {gallery_size(found):,}"
    plain = f" (as they are, {share(raw.value)} do)" if raw and raw is not recall else ""
    return Loss(ITEMS, recall.value, f"{share(recall.value)} {find}{plain}",
                f"Single items: {told(recall, key)}{reach(recall, key)} {find}{plain} (n = {recall.n:,}).")


def accuracy_head(found: Audit) -> str | None:
    """The first accuracy that the audit has: the head of its keys."""
    return next((head for head in ACCURACIES if f"{head}.retention" in found.measured), None)


def headline(found: Audit) -> str:
    """What was lost most and whether it matters, in one sentence; before it the question whether the rows belong together.

    Of an audit with stages, the step that lost most.
    """
    said = stages_headline(found) if found.stages else _verdict(found)
    return f"{found.doubt} If they are: {said}" if found.doubt else said


def _verdict(found: Audit) -> str:
    known = losses(found)
    worst = min(known, key=lambda loss: loss.retained) if known else None
    return f"{_first(found, worst)}; {_matters(found, worst)}."


def _first(found: Audit, worst: Loss | None) -> str:
    """What was lost most."""
    if found.left_out.get("student.effective_rank") == ALL_EQUAL:
        return "The student has collapsed: all its embeddings are equal, so nothing of the teacher is in them"
    if worst is None:
        few = "alignment.teacher_r2" in found.measured and _ceiling(found) < HALF
        return (f"{found.num_items:,} items are too few to tell whether anything was lost" if few else
                "No measure that could show a loss was taken")
    words = ((WHOLE, "No loss was found"), (LITTLE, f"Little was lost, mostly in {worst.what}"),
             (SOME, f"Some was lost, mostly in {worst.what}"), (HALF, f"Much was lost, most of it in {worst.what}"))
    how = next((text for least, text in words if worst.retained >= least), f"Most was lost, above all in {worst.what}")
    cosine = found.measured.get("alignment.mean_cosine")
    close = cosine is not None and cosine.value > WHOLE and worst.retained >= LITTLE
    near = f", and the mean cosine with the teacher is {told(cosine)}" if cosine is not None and close else ""
    if _ceiling(found) < HALF and not (near and worst.retained >= WHOLE):  # too few to fit what would tell more
        return f"{found.num_items:,} items are too few to measure the loss well: {worst.clause}"
    return f"{how}: {worst.clause}{near}{_other_coordinates(found) if worst.what != ITEMS else ''}"


def _other_coordinates(found: Audit) -> str:
    """That the student's queries do not fit the teacher's index, where one matrix makes them fit."""
    raw, mapped = (found.measured.get(key) for key in RECALLS)
    if not raw or not mapped or recall_key(found) != "retrieval.mapped_recall_at_1":
        return ""
    return (f", but in other coordinates: in the teacher's index {share(raw.value)} of the student's queries find their own "
            f"item as they are, {share(mapped.value)} after one fitted matrix")


def _matters(found: Audit, worst: Loss | None) -> str:
    head = accuracy_head(found)
    if head is None:
        search = _search(found) if worst is None or worst.what != ITEMS else ""
        unknown = _unread(found) or "no accuracy was measured, so we cannot tell what that costs a classifier"
        return f"{search}, and {unknown}" if search else unknown
    kept, teacher = found.measured[f"{head}.retention"], found.measured[f"{head}.teacher.accuracy"]
    against = f"{share(found[f'{head}.student.accuracy'], 1)} against {share(teacher.value, 1)}"
    accuracies = f"{ACCURACIES[head]} keeps {share(kept.value, 1)} of the teacher's accuracy ({against})"
    p = found.measured.get(f"{head}.mcnemar_p")
    chance = p.value >= 0.05 if p else kept.interval is not None and kept.interval[0] <= 1 <= kept.interval[1]
    if _unread(found):
        return _unread(found)
    if chance and kept.value < WHOLE:
        return f"on these labels the loss is not significant: {accuracies}{f', McNemar {p_text(p.value)}' if p else ''}"
    if kept.value >= WHOLE and kept.low is not None and kept.low < LITTLE:
        return (f"on these labels no loss of accuracy is seen ({ACCURACIES[head]}: {against}), but {kept.n:,} items cannot "
                f"rule one out (retained: 95{NBSP}% interval {between(kept, 'retention')}{NBSP}%)")
    if kept.value >= WHOLE:
        said = f"{ACCURACIES[head]} does no worse on the student ({against})" if kept.value > 1 else accuracies
        nothing = worst is not None and worst.retained >= WHOLE and _ceiling(found) >= HALF and not _other_coordinates(found)
        return f"nor on these labels, where {said}" if nothing else f"on these labels that does not matter, since {said}"
    if kept.value >= LITTLE:
        return f"on these labels it matters little, since {accuracies}"
    return f"on these labels it matters{'' if kept.value >= SOME else ' a lot'}, since {accuracies}"


def _unread(found: Audit) -> str:
    """Why accuracies tell nothing: the teacher itself does no better on these labels than guessing; empty where it does."""
    guess = found.labels.get("largest_share")
    taken = [(name, teacher) for head, name in ACCURACIES.items()
             if (teacher := found.measured.get(f"{head}.teacher.accuracy"))]
    least = [teacher.value if teacher.low is None else teacher.low for _, teacher in taken]
    if guess is None or not taken or max(least) > guess:
        return ""
    name, best = max(taken, key=lambda pair: pair[1].value)
    return (f"these {found.labels['classes']:,} classes cannot show a loss, since the teacher itself does no better than "
            f"guessing ({name} is right on {share(best.value, 1)}{_reach(best)} of the items, always guessing the largest "
            f"class on {share(guess, 1)}); check that they are the labels of these items")


def _reach(value: Value) -> str:
    return "" if value.interval is None else f" [{', '.join(share(v, 1) for v in value.interval)}]"


def _search(found: Audit) -> str:
    key = recall_key(found)
    if key is None:
        return ""
    recall = found[key]
    finds = f"{share(recall)} of its queries{RECALLS[key]} find their own item first among {gallery_size(found):,}"
    results = next((found[same] for same in RESULTS[key] if same in found.measured), None)
    if results is None:
        return f"in the teacher's index {finds}, and whether what comes next is alike was not measured"
    how = f"{of_ten(results)} of the first 10 results are the teacher's, and {finds}"
    if min(recall, results) >= LITTLE:
        return f"in a search index it can stand in for the teacher ({how})"
    return f"in a search index it gives {'most of' if results >= HALF else 'few of'} the teacher's results ({how})"


def does_it_matter(found: Audit) -> list[str]:
    """The sentences below the verdict: what it costs a classifier and a search index."""
    head = accuracy_head(found)
    sentences = [f"{capital(_unread(found))}."] if _unread(found) else [
        f"{capital(ACCURACIES[head])}: {_against(found, head)} {accuracy_sentence(found, head)}" if head else
        f"No accuracy was measured{_why(found)}, so we cannot tell what a classifier would lose."]
    overlap = found.measured.get("retrieval.neighbour_overlap_10")
    if overlap:
        sentences.append(f"In an index of the student's own, {of_ten(overlap.value)} of the first 10 results are those "
                         f"that the teacher would give{_tenths(overlap)}.")
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
    teacher, student = found.measured[f"{head}.teacher.accuracy"], found.measured[f"{head}.student.accuracy"]
    theirs, own = (f"{told(v, 'accuracy')}{reach(v, 'accuracy')}" for v in (teacher, student))
    return f"on the student {own}, on the teacher {theirs} (n = {student.n:,})."


def _tenths(value: Value) -> str:
    return "" if value.interval is None else f" [{', '.join(of_ten(v) for v in value.interval)}]"


def bands() -> str:
    """What the verdict's words stand for."""
    return (f"The words of the verdict are conventions: no loss from {percent(WHOLE, 0)} retained, little from "
            f"{percent(LITTLE, 0)}, some from {percent(SOME, 0)}, much from {percent(HALF, 0)}, most below. What was lost most "
            "is the smallest of these shares; they are of different things.")


COMMON = 0.5  # share of the energy in one common mean from which a high cosine says little
HOW = "run a study with an arm for each, then distillscope recommend."
UNPROVEN = f"An audit compares one pair, so it cannot show that any of this helps: {HOW}"


def advice(found: Audit) -> list[str]:
    """What to try, each with the number that speaks for it; one sentence where nothing does."""
    known = sorted(losses(found), key=lambda loss: loss.retained)
    tries = [*_matrix(found), *_mean(found)]
    if known and known[0].retained < SOME:
        tries.append("Add a term that separates items or spreads them (infonce, similarity_kl, vicreg_variance with "
                     f"vicreg_covariance), since {known[0].clause}.")
    if tries:
        return [*tries, UNPROVEN]
    return ["Nothing that was measured calls for a change." if known and known[0].retained >= WHOLE else
            f"Nothing stands out. An audit compares one pair, so it cannot show what would help: {HOW}"]


def _matrix(found: Audit) -> list[str]:
    raw, mapped = (found.measured.get(f"retrieval.{name}") for name in ("recall_at_1", "mapped_recall_at_1"))
    if not raw or not mapped or raw.high is None or mapped.low is None or mapped.low <= raw.high:
        return []
    return [("To search in the teacher's index, apply one fitted matrix to the student's embeddings: recall at 1 goes from "
            f"{percent(raw.value)} to {percent(mapped.value)} without training.")]


def _mean(found: Audit) -> list[str]:
    share = found.measured.get("teacher.mean_energy")
    if not share or share.value < COMMON:
        return []
    return [("Train towards centred or standardised targets, or with centred_cosine: one common mean is "
            f"{percent(share.value, 0)} of the teacher's energy, so a high cosine is easy to reach.")]
