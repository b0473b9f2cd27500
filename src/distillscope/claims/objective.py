"""objective: does the rank come back when the cosine objective is taken away?"""

from __future__ import annotations

import pandas as pd

from distillscope.claims.results import RANK, Results, Undecided
from distillscope.claims.statements import Endpoint, Statement, above, each_of
from distillscope.claims.verdict import Finding, Secondary, secondary
from distillscope.registry import claims
from distillscope.results.arms import Arm
from distillscope.results.statistics import ALPHA, paired

MARGIN = 0.1
R2, LEARNED = "mapped.teacher_r2", 0.9
SOFT, TUNED = {"soft_labels"}, "probe.student.accuracy"
ROTATED = "phi_s"
"""The same target after a rotation, times one factor: a regression's task but for its scale."""


@claims.register("objective", sentence="The collapse is caused by the cosine objective.", seeds=5)
def objective(results: Results) -> Finding:
    """The collapse is caused by the cosine objective.

    If cosine is the cause, the same student with the same data, target, view and epochs has a higher rank without it. A rival
    regresses the same target without any cosine (mse, smooth_l1; the target may be rotated and scaled by one factor, as PHI-S
    does), at a learning rate of its own if need be, and has learned as much: its mean R^2 of the teacher, after the ridge map,
    is at least 0.9 of cosine's. Or it learns the soft labels of the teacher's own classes, and its accuracy by the tuned probe
    (the paper's, where none was tuned) is at least 0.9 of cosine's. For each of them rank(rival) - 1.1 rank(cosine) is tested
    against 0 (paired t), for the smallest student that ran both.

    Supported where every rival's rank is shown to be above; refuted where every rival's is shown not to be: the collapse is
    then there without the cosine. Where some rise and some do not, it depends on the rival, and the claim is undecided. Labels
    are no rival, since their rank is tied to the number of classes; they, other targets, and regressions that learned less are
    secondary.
    """
    arm = results.cosine()
    rivals = [a for a in results.arms if is_rival(a, arm)]
    student = results.shared_student(arm, rivals, "an arm that regresses the plain arm's target without any cosine term (mse, "
                                                  "smooth_l1)")
    base = results.values(arm, student, RANK)
    untrained = [r for r in rivals if learned_less(results, r, arm, student)]
    measured = [r for r in rivals if r not in untrained and len(results.values(r, student, RANK))]
    parts = [_rises(results, rival, student, base) for rival in measured]
    if not parts:
        raise Undecided(f"{', '.join(r.name for r in untrained)} learned less than {100 * LEARNED:.0f} % of what cosine did: "
                        "train at another rate" if untrained else "no rival objective has finished trials")
    up, down = ([r.name for r, p in zip(measured, parts, strict=True) if getattr(p, side) < ALPHA] for side in ("yes", "no"))
    if up and down:
        raise Undecided(f"it depends on the rival: without cosine the rank rises by more than a tenth under {', '.join(up)}, "
                        f"and not under {', '.join(down)}")
    read = _in_words([(describe(results, r), results.values(r, student, RANK), base) for r in measured])
    soft = any(r.families == SOFT for r in measured)  # which regresses no embedding
    how = ("without cosine the rank rises by no tenth under any rival" if soft else
           "the same target is regressed without any cosine, and the rank rises by no tenth")
    statement = each_of(parts, text=f"without cosine the rank rises by more than a tenth under every rival: {read}",
                        otherwise=f"{how}: {read}")
    names = ", ".join([arm.name, *(r.name for r in measured)])
    return Finding(statement, ("figure effective_rank", f"{RANK}, clean, arms {names}"), {"students": student},
                   secondary=tuple(beside(results, arm, student, measured, untrained)))


def is_rival(arm: Arm, plain: Arm) -> bool:
    """A regression of the plain arm's target, or the teacher's soft labels, without cosine; its rate, and the scale of the
    target, may be its own."""
    same_target = arm.target == plain.target or arm.target_name == ROTATED
    return (arm.families in ({"regression"}, SOFT) and same_target and arm.view == plain.view and arm.rest == plain.rest
            and arm.trained_otherwise(plain) <= {"learning_rate"} and "cosine" not in {t.name for t in arm.terms})


def _in_words(compared: list[tuple[str, pd.Series, pd.Series]]) -> str:
    """(rival, its ranks, cosine's) in words, each pair by its own shared seeds: cosine's once, where it is one number."""
    pairs = [(name, *(s.mean() for s in own.align(base, join="inner"))) for name, own, base in compared]
    if len({f"{of_cosine:.1f}" for _, _, of_cosine in pairs}) > 1:
        return ", ".join(f"{rank:.1f} under {name} against {of_cosine:.1f} under cosine" for name, rank, of_cosine in pairs)
    return ", ".join([*(f"{rank:.1f} under {name}" for name, rank, _ in pairs), f"{pairs[0][2]:.1f} under cosine"])


def _rises(results: Results, rival: Arm, student: str, base: pd.Series) -> Statement:
    """That the rank under a rival is more than a tenth above that under cosine."""
    own, reference = results.together(f"rank of {student} under {rival.objective} and cosine",
                                      results.values(rival, student, RANK), base)
    words = f"{own.mean():.1f} dimensions under {describe(results, rival)}, {reference.mean():.1f} under cosine"
    return above(f"without cosine the rank rises: {words}", f"without cosine the rank rises by no tenth: {words}",
                 Endpoint(f"rank of {student} under {describe(results, rival)} - 1.1 x that under cosine", "dims"),
                 paired(own - (1 + MARGIN) * reference))


def describe(results: Results, arm: Arm) -> str:
    """The loss, and the target where it is not the study's; the arm's name where another has this loss with other settings."""
    alike = any(a.objective == arm.objective and a.terms != arm.terms for a in results.arms)
    return (arm.objective + (f" ({arm.name})" if alike else "")
            + ("" if arm.default_target else f" on {results.target_title(arm)}"))


def beside(results: Results, arm: Arm, student: str, measured: list[Arm], untrained: list[Arm]) -> list[Secondary]:
    """The rank under every other loss or target, against that under cosine."""
    found = []
    for other in (a for a in results.arms if a not in measured and a.differs(arm) and a.view == arm.view and a.rest == arm.rest
                  and a.trained_otherwise(arm) <= {"learning_rate"} and a.differs(arm) != {"training"}):
        gained = (results.values(other, student, RANK) - results.values(arm, student, RANK)).dropna()
        if len(gained) > 1:
            what = "accuracy" if other.families == SOFT else "R^2"
            note = f", which learned less than {100 * LEARNED:.0f} % of cosine's {what}" if other in untrained else ""
            name = f"rank of {student} under {describe(results, other)}{note} - under cosine"
            found.append(secondary(name, paired(gained), "dims"))
    return found


def learned_less(results: Results, rival: Arm, plain: Arm, student: str) -> bool:
    """Whether a rival's mean is below 0.9 of the plain arm's on their shared seeds: of R^2, for soft labels of accuracy.

    Where it was not measured on any such seed, nothing is held against the rival.
    """
    key = R2
    if rival.families == SOFT:
        known = set(results.once("measures", lambda: set(results.frame["measure"])))
        key = TUNED if TUNED in known else results.accuracy_key()
    own, base = results.values(rival, student, key).align(results.values(plain, student, key), join="inner")
    if not len(own):
        return False
    return max(0.0, float(own.mean())) < LEARNED * max(0.0, float(base.mean()))
