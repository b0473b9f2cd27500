"""expansion: is there a way to the same rank without contrast, and without loss?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from distillscope.claims.arms import Arm
from distillscope.claims.results import RANK, Results, Undecided
from distillscope.claims.statements import Endpoint, Statement, above, all_of, any_of, denied
from distillscope.claims.statistics import paired
from distillscope.claims.verdict import Finding, Secondary, claim, secondary
from distillscope.registry import claims

MARGIN, POINT = 0.1, 0.01
BESIDE = (("knn.student.accuracy", "kNN accuracy", "points", 100.0), ("retrieval.recall_at_1", "recall at 1", "points", 100.0),
          ("alignment.teacher_r2", "R^2 of the teacher", "share", 1.0))


@claims.register("expansion")
@claim("A contrastive term is required to expand the rank.", seeds=5)
def expansion(results: Results) -> Finding:
    """A contrastive term is required to expand the rank.

    The contrastive arm is the one with the highest mean rank among those with a contrastive term, the default target and
    nothing else changed from the plain arm but its loss (and its view, where the term needs one): the claim's best case. Two parts:

    1. it expands: rank(contrastive) - 1.1 rank(plain) is above 0;
    2. nothing else does: no arm without a contrastive term, with the same view, training and student, is a counterexample.

    An arm is a counterexample where all of three are shown (paired t): its rank is at least 0.9 of the contrastive arm's, it is
    above 1.1 of the plain arm's, and its clean accuracy is not more than one point below the contrastive arm's.

    Supported where the first part is shown and every such arm is shown to miss one of the three; refuted where one arm is
    shown to be a counterexample (Bonferroni over arms). kNN, retrieval, R^2 and noise are secondary: rank alone can be gamed.
    """
    arm = results.baseline()
    contrastive = [a for a in results.arms if "contrastive" in a.families and "other" not in a.families
                   and a.differs(arm) <= {"terms", "view", "rest"} and a.view_name in (None, "crop_flip")]
    student = results.shared_student(arm, contrastive, "an arm with a contrastive term (infonce, crd, ...) beside the plain arm")
    best = max((a for a in contrastive if len(results.values(a, student, RANK))),
               key=lambda a: float(results.values(a, student, RANK).mean()))
    rivals = [a for a in results.arms if not a.families & {"contrastive", "other", "supervised"} and a.view == best.view
              and a.training == best.training and a.differs(arm) & {"terms", "target"} and len(results.values(a, student, RANK))]
    if not rivals:
        raise Undecided("no arm expands the rank by other means than contrast (another loss or target, same training and view) was run")
    plain = results.values(arm, student, RANK)
    rank, reference = results.together(f"rank of {student} under {best.objective} and plain", results.values(best, student, RANK), plain)
    expands = above(f"{best.objective} expands the rank of {student}: {reference.mean():.1f} to {rank.mean():.1f}",
                    f"{best.objective} does not expand the rank of {student}: {reference.mean():.1f} to {rank.mean():.1f}",
                    Endpoint(f"rank of {student} under {best.objective} - 1.1 x plain", "dims"), paired(rank - (1 + MARGIN) * reference))
    counter = [counterexample(results, rival, best, student, plain) for rival in rivals]
    names = ", ".join(describe(results, r) for r in rivals)
    statement = all_of([expands, denied(any_of(counter, otherwise=f"no other arm ({names}) reaches {rank.mean():.1f} dimensions without "
                                                                  "losing accuracy"))],
                       text=f"of the arms run, only contrast expands the rank of {student} without loss of accuracy")
    return Finding(statement, ("figure effective_rank", "figure noise", f"{RANK} and {results.accuracy_key()}, clean, all arms"),
                   {"students": student, "contrastive arm": best.name},
                   secondary=tuple(s for r in rivals for s in beside(results, r, best, student)))


def describe(results: Results, arm: Arm) -> str:
    """What an arm is, in a few words."""
    return arm.objective + ("" if arm.default_target else f" on {results.target_title(arm)}")


def counterexample(results: Results, rival: Arm, best: Arm, student: str, plain: pd.Series) -> Statement:
    """That ``rival`` reaches the rank of the contrastive arm, expands the plain one, and loses no accuracy."""
    rank, accuracy = (lambda a: results.values(a, student, RANK)), (lambda a: results.accuracy(a, student))
    own, its, base, hit, aim = results.together(f"{student} under {rival.objective}", rank(rival), rank(best), plain, accuracy(rival),
                                                accuracy(best))
    name = describe(results, rival)
    reached = f"{name} gives {own.mean():.1f} dimensions at {100 * hit.mean():.1f} %, contrast {its.mean():.1f} at {100 * aim.mean():.1f} %"
    return all_of([
        above("", f"{name} falls short of the contrastive arm's rank", Endpoint(f"rank under {name} - 0.9 x contrastive", "dims"),
              paired(own - (1 - MARGIN) * its)),
        above("", f"{name} does not expand the rank", Endpoint(f"rank under {name} - 1.1 x plain", "dims"),
              paired(own - (1 + MARGIN) * base)),
        above("", f"{name} loses accuracy against contrast", Endpoint(f"clean accuracy under {name} - contrastive", "points", 100.0),
              paired(hit - aim), -POINT),
    ], text=f"contrast is not required: {reached}")


def beside(results: Results, rival: Arm, best: Arm, student: str) -> list[Secondary]:
    """What else the rival gains or loses against the contrastive arm."""
    wanted = [(results.values(a, student, key), name, unit, scale, a) for key, name, unit, scale in BESIDE for a in (rival, best)]
    wanted += [(results.accuracy(a, student, c), f"accuracy at {c}", "points", 100.0, a) for c in results.sigmas() for a in (rival, best)]
    found = []
    for (own, name, unit, scale, _), (its, *_) in zip(wanted[::2], wanted[1::2], strict=True):
        common = own.index.intersection(its.index)
        if len(common) > 1:
            found.append(secondary(f"{name}, {describe(results, rival)} - contrastive", paired(np.asarray((own - its)[common])), unit, scale))
    return found
