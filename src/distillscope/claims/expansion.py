"""expansion: is there a way to the same rank without contrast, and without loss?"""

from __future__ import annotations

import pandas as pd

from distillscope.claims.results import RANK, Results, Undecided
from distillscope.claims.statements import Endpoint, Statement, above, all_of, any_of, denied
from distillscope.claims.verdict import Finding, Secondary, secondary
from distillscope.registry import claims
from distillscope.results.arms import DEMANDING, Arm
from distillscope.results.statistics import paired

MARGIN, POINT = 0.1, 0.01
BESIDE = (("mapped.effective_rank", "rank after the ridge map to the teacher", "dims", 1.0),
          ("mapped.recall_at_1", "recall at 1 after that map", "points", 100.0),
          ("mapped.teacher_r2", "R^2 of the teacher", "share", 1.0), ("knn.student.accuracy", "kNN accuracy", "points", 100.0))


@claims.register("expansion", sentence="A contrastive term is required to expand the rank.", seeds=5)
def expansion(results: Results) -> Finding:
    """A contrastive term is required to expand the rank.

    The contrastive arm is the one with the highest mean rank among those with a contrastive term, the default target and
    nothing else changed from the plain arm but its loss (and its view, where the term needs one): the claim's best case.
    Two parts:

    1. it expands: rank(contrastive) - 1.1 rank(plain) is above 0 (of several such arms, for one: Bonferroni, since the best
       was picked by its outcome);
    2. nothing else does: no arm without a contrastive term, with the same view, training and student, is a counterexample.

    An arm is a counterexample where all of three are shown (paired t): its rank is at least 0.9 of the contrastive arm's, it
    is above 1.1 of the plain arm's, and its clean accuracy is not more than one point below the contrastive arm's.

    Supported where the first part is shown and every such arm is shown to miss one of the three, among them one that asks
    for more dimensions (a whitened or standardised target, VICReg or KoLeo terms); refuted where one arm is shown to be a
    counterexample, or the first part to be false (Bonferroni over arms and parts). Rank alone can be gamed, so
    what is left of it after a ridge map to the teacher, retrieval, R^2, kNN and noise stand beside it as secondary.
    """
    arm = results.baseline()
    contrastive = [a for a in results.arms if "contrastive" in a.families and "other" not in a.families and a.remedied is None
                   and a.differs(arm) <= {"terms", "view", "rest"} and a.view_name in (None, "crop_flip")]
    student = results.shared_student(arm, contrastive, "an arm with a contrastive term (infonce, crd, ...)")
    best = max((a for a in contrastive if len(results.values(a, student, RANK))),
               key=lambda a: float(results.values(a, student, RANK).mean()))
    rivals = [a for a in results.arms if is_rival(a, arm, best) and len(results.values(a, student, RANK))]
    if not rivals:
        raise Undecided("no arm with other means than contrast (another loss or target, same training and view) was run")
    plain = results.values(arm, student, RANK)
    (rank,) = results.together(f"rank of {student} under {best.objective}", results.values(best, student, RANK))
    expands = any_of([widens(results, a, student, plain) for a in contrastive if len(results.values(a, student, RANK))])
    counter = [counterexample(results, rival, best, student, plain) for rival in rivals]
    names = ", ".join(describe(results, r) for r in rivals)
    none = f"no other arm ({names}) reaches {rank.mean():.1f} dimensions without losing accuracy"
    statement = all_of([expands, denied(any_of(counter, otherwise=none))],
                       text=f"of {len(rivals)} arms without contrast ({names}) each was shown to miss contrast's rank or "
                            "accuracy; of arms not run, or tuned, this says nothing")
    if statement.yes <= statement.no and not any(r.target_name in DEMANDING or "spread" in r.families for r in rivals):
        raise Undecided("no arm asks for more dimensions without contrast (a whitened target, VICReg or KoLeo terms), and "
                        "without that the need for contrast was not put to the test")
    evidence = ("figure effective_rank", "figure noise", f"{RANK} and {results.accuracy_key()}, clean, all arms")
    return Finding(statement, evidence, {"students": student, "contrastive arm": best.name},
                   secondary=tuple(s for r in rivals for s in beside(results, r, best, student)),
                   notes=results.mapped_notes)


def widens(results: Results, arm: Arm, student: str, plain: pd.Series) -> Statement:
    """That a contrastive arm has a tenth more rank than the plain one."""
    own = results.values(arm, student, RANK)
    rank, reference = results.together(f"rank of {student} under {arm.objective} and plain", own, plain)
    words = f"expand the rank of {student}: {reference.mean():.1f} to {rank.mean():.1f}"
    return above(f"{arm.objective} does {words}", f"{arm.objective} does not {words}",
                 Endpoint(f"rank of {student} under {arm.objective} - 1.1 x plain", "dims"),
                 paired(rank - (1 + MARGIN) * reference))


def is_rival(arm: Arm, plain: Arm, best: Arm) -> bool:
    """Another loss or target than the plain arm's, without contrast and labels, trained and shown what the best was."""
    return (not arm.families & {"contrastive", "other", "supervised"} and arm.remedied is None and arm.view == best.view
            and arm.training == best.training and bool(arm.differs(plain) & {"terms", "target"}))


def describe(results: Results, arm: Arm) -> str:
    """What an arm is, in a few words."""
    return arm.objective + ("" if arm.default_target else f" on {results.target_title(arm)}")


def counterexample(results: Results, rival: Arm, best: Arm, student: str, plain: pd.Series) -> Statement:
    """That ``rival`` reaches the rank of the contrastive arm, expands the plain one, and loses no accuracy."""
    def measured(arm: Arm) -> tuple[pd.Series, pd.Series]:
        return results.values(arm, student, RANK), results.accuracy(arm, student)

    own, hit, its, aim, base = results.together(f"{student} under {rival.objective}", *measured(rival), *measured(best), plain)
    name = describe(results, rival)
    reached = (f"{name} gives {own.mean():.1f} dimensions at {100 * hit.mean():.1f} %, contrast {its.mean():.1f} at "
               f"{100 * aim.mean():.1f} %")
    return all_of([
        above("", f"{name} falls short of the contrastive arm's rank",
              Endpoint(f"rank under {name} - 0.9 x contrastive", "dims"), paired(own - (1 - MARGIN) * its)),
        above("", f"{name} does not expand the rank", Endpoint(f"rank under {name} - 1.1 x plain", "dims"),
              paired(own - (1 + MARGIN) * base)),
        above("", f"{name} loses accuracy against contrast",
              Endpoint(f"clean accuracy under {name} - contrastive", "points", 100.0), paired(hit - aim), -POINT),
    ], text=f"contrast is not required: {reached}")


def beside(results: Results, rival: Arm, best: Arm, student: str) -> list[Secondary]:
    """What else the rival gains or loses against the contrastive arm."""
    def both(key: str, condition: str = "clean") -> pd.Series:
        return results.values(rival, student, key, condition) - results.values(best, student, key, condition)

    wanted = [(both(key), name, unit, scale) for key, name, unit, scale in BESIDE]
    wanted += [(both(results.accuracy_key(), c), f"accuracy at {c}", "points", 100.0) for c in results.sigmas()]
    return [secondary(f"{name}, {describe(results, rival)} - contrastive", paired(difference.dropna()), unit, scale)
            for difference, name, unit, scale in wanted if len(difference.dropna()) > 1]
