"""objective: does the rank come back when the cosine objective is taken away?"""

from __future__ import annotations

from distillscope.claims.results import RANK, Results, Undecided
from distillscope.claims.statements import Endpoint, above, all_of
from distillscope.claims.verdict import Finding, secondary
from distillscope.registry import claims
from distillscope.results.arms import Arm
from distillscope.results.statistics import paired

MARGIN = 0.1
RIVALS = {"regression", "supervised"}
R2, LEARNED = "alignment.teacher_r2", 0.5


@claims.register("objective", sentence="The collapse is caused by the cosine objective.", seeds=5)
def objective(results: Results) -> Finding:
    """The collapse is caused by the cosine objective.

    If cosine is the cause, the same student with the same data, target, view and budget has a higher rank without it. For
    every rival that differs from the plain cosine arm in its loss alone, and holds no cosine term (regression of the same
    targets: mse, smooth_l1; the labels instead: cross_entropy), rank(rival) - 1.1 rank(cosine) is tested against 0
    (paired t), for the smallest student that ran both.

    Supported where every rival's rank is shown to be above; refuted where one rival's is shown not to be (Bonferroni over
    the rivals): the collapse is then there without the cosine. A regression whose mean R^2 of the teacher is below half of
    cosine's was not trained, and decides nothing. It, other targets and further losses are secondary.
    """
    arm = results.cosine()
    rivals = [a for a in results.arms if a.differs(arm) == {"terms"} and a.families <= RIVALS]
    student = results.shared_student(arm, rivals, "an arm that differs from plain cosine in its loss alone, without any "
                                                  "cosine term (mse, smooth_l1 or cross_entropy on the same target)")
    base, parts, read = results.values(arm, student, RANK), [], []
    least = LEARNED * _learned(results, arm, student)
    untrained = [r for r in rivals if "regression" in r.families and _learned(results, r, student) < least]
    for rival in (r for r in rivals if r not in untrained):
        if len(values := results.values(rival, student, RANK)):
            own, reference = results.together(f"rank of {student} under {rival.objective} and cosine", values, base)
            words = f"{own.mean():.1f} dimensions under {rival.objective}, {reference.mean():.1f} under cosine"
            read.append(f"{own.mean():.1f} under {rival.objective}")
            parts.append(above(f"without cosine the rank rises: {words}",
                               f"on the same target, without any cosine, the rank is no higher: {words}",
                               Endpoint(f"rank of {student} under {rival.objective} - 1.1 x that under cosine", "dims"),
                               paired(own - (1 + MARGIN) * reference)))
    if not parts:
        raise Undecided(f"{', '.join(r.name for r in untrained)} learned less than half of what cosine did: train longer or at "
                        "another rate" if untrained else "no rival objective has finished trials")
    others = []
    for other in (a for a in results.arms if (a not in rivals or a in untrained)
                  and a.differs(arm) and a.differs(arm) <= {"terms", "target"}):
        gained = (results.values(other, student, RANK) - base).dropna()
        if len(gained) > 1:
            note = ", which hardly learned" if other in untrained else ""
            named = other.objective + (f", target {results.target_title(other)}" if other.target != arm.target else "")
            others.append(secondary(f"rank of {student} under {named}{note} - under cosine", paired(gained), "dims"))
    text = otherwise = ""
    if len(parts) > 1:
        text = f"without cosine the rank rises under each of {len(parts)} rivals"
        otherwise = ("on the same target, without any cosine, the rank does not rise under each rival: "
                     f"{', '.join(read)}, {base.mean():.1f} under cosine")
    names = ", ".join([arm.name, *(r.name for r in rivals if r not in untrained)])
    evidence = ("figure effective_rank", f"{RANK}, clean, arms {names}")
    return Finding(all_of(parts, text=text, otherwise=otherwise), evidence, {"students": student}, secondary=tuple(others))


def _learned(results: Results, arm: Arm, student: str) -> float:
    """Mean R^2 of the teacher over seeds, at least 0; NaN where it was not measured: nothing is held against the arm."""
    values = results.values(arm, student, R2)
    return max(0.0, float(values.mean())) if len(values) else float("nan")
