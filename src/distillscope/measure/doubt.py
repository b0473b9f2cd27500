"""Whether the rows of both sides belong together: what an audit asks where nothing pairs them."""

from __future__ import annotations

from distillscope.measure.results import Audit, Value

SIMILARITIES = {"linear_cka_debiased": "debiased CKA", "linear_cka": "CKA", "procrustes": "Procrustes", "rsa_spearman": "RSA",
                "mutual_knn_10": "shared neighbours"}
RECALLS = ("retrieval.recall_at_1", "retrieval.mapped_recall_at_1")
NOTHING = 0.02
"""R2 up to which nothing is predicted."""
ENOUGH = 3
"""Measures of pairing that must be there, and say the same, before the rows are doubted."""
DIRECTIONS = 2.0
"""Effective rank from which a side is no collapsed one."""


def question(found: Audit) -> str:
    """The sentence that asks whether these are the same items; empty where something pairs them, or a side has collapsed.

    Every measure of pairing that was taken must lie where shuffled items do, and each side alone must have directions.
    """
    at_null = [*_similarities(found), *_recalls(found), *_content(found)]
    ranks = [found.measured.get(f"{side}.effective_rank") for side in ("teacher", "student")]
    collapsed = any(r is not None and r.value < DIRECTIONS for r in ranks) or "student.effective_rank" in found.left_out
    if len(at_null) < ENOUGH or not all(null for _, null in at_null) or collapsed:
        return ""
    healthy = []
    if known := _both(found, "{}.effective_rank"):
        healthy.append(f"effective rank {known[0]:.1f} and {known[1]:.1f}")
    votes = _both(found, "knn.{}.accuracy")
    fits = [side for side in ("teacher", "student") if votes and _fits(found, side)]
    if votes and fits:
        fit = ("the student's rows, not the teacher's" if "teacher" not in fits else "both" if votes[1] > votes[0] / 2 else
               "the teacher's rows, not the student's")
        healthy.append(f"the labels fit {fit}: a vote of 10 neighbours is right on {votes[0]:.1%} and {votes[1]:.1%}")
    alone = f", though each side has a structure of its own ({'; '.join(healthy)})" if healthy else ""
    return ("Are these the same items in the same order? Nothing pairs the rows of the two sides: "
            f"{_listed([text for text, _ in at_null])} are no more than shuffled items give{alone}.")


def _fits(found: Audit, side: str) -> bool:
    """Whether the labels say anything of that side's rows: more than always guessing the largest class."""
    guess, vote = found.labels.get("largest_share"), found.measured[f"knn.{side}.accuracy"]
    return guess is None or (vote.value if vote.low is None else vote.low) > guess


def _both(found: Audit, key: str) -> tuple[float, float] | None:
    """The values of teacher and student, where both were taken."""
    teacher, student = (found.measured.get(key.format(side)) for side in ("teacher", "student"))
    return None if teacher is None or student is None else (teacher.value, student.value)


def _similarities(found: Audit) -> list[tuple[str, bool]]:
    taken = []
    for name, title in SIMILARITIES.items():
        value, null = found.measured.get(f"similarity.{name}"), found.measured.get(f"similarity.{name}_null")
        if value and null and null.low is not None and null.high is not None:
            taken.append((title, value.value <= null.high + (null.high - null.low)))  # the null has a long upper tail
    return taken


def _recalls(found: Audit) -> list[tuple[str, bool]]:
    taken = []
    for key in RECALLS:
        recall = found.measured.get(key)
        if recall:
            title = "recall at 1" + (" after one fitted matrix" if "mapped" in key else "")
            taken.append((f"{title} ({recall.value:.1%})", _at_chance(recall)))
    return taken


def _at_chance(recall: Value) -> bool:
    """Whether so few queries find their own item that shuffled items give as many in one of a thousand pairs, or the interval
    holds the chance.

    n queries find one of n items by chance, on average 1 (Poisson): up to 5 in all. A narrower bound would go unasked now and
    then where items are shuffled, since each of several measures must lie at its null.
    """
    from scipy.special import pdtrc

    by_chance = pdtrc(max(0.0, round(recall.value * recall.n) - 1), 1.0) > 1e-3  # P(as many or more)
    return bool(by_chance) or (recall.low is not None and recall.low <= 1 / recall.n)


def _content(found: Audit) -> list[tuple[str, bool]]:
    r2, most = found.measured.get("alignment.teacher_r2"), found.measured.get("alignment.teacher_r2_ceiling")
    if not r2 or (most and most.value < 0.5):  # too few items for the map to predict anything
        return []
    return [(f"R\u00b2 ({max(0.0, r2.value):.2f})", r2.value <= NOTHING)]


def _listed(texts: list[str]) -> str:
    return f"{', '.join(texts[:-1])} and {texts[-1]}" if len(texts) > 1 else texts[0]
