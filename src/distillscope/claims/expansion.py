"""expansion: is there a way to more rank without contrast, and without loss?"""

from __future__ import annotations

import pandas as pd

from distillscope.claims.objective import describe
from distillscope.claims.results import RANK, Results, Undecided
from distillscope.claims.statements import Endpoint, Statement, above, all_of, any_of, denied
from distillscope.claims.verdict import Finding, Secondary, secondary
from distillscope.registry import claims
from distillscope.results.arms import DEMANDING, Arm
from distillscope.results.statistics import paired

MARGIN, POINT = 0.1, 0.01
TUNED = "probe.student.accuracy"
USES = {"knn.student.accuracy": "nearest neighbours", "mapped.recall_at_1": "recall at 1 in the teacher's space"}
"""What embeddings are used for, beside a probe; each must not fall."""


@claims.register("expansion", sentence="A contrastive term is required to expand the rank.", seeds=5)
def expansion(results: Results) -> Finding:
    """A contrastive term is required to expand the rank.

    Two parts, for the smallest student that ran both the plain arm and one with a contrastive term (the default target, nothing
    else changed but its loss, and its view, where the term needs one):

    1. contrast expands: rank(contrastive) - 1.1 rank(plain) is above 0 (of several such arms, for one: Bonferroni);
    2. nothing else does without loss: no other way is a counterexample. A way is another loss or target without a contrastive
       term and without labels, trained on the plain arm's view for as long (its rate may be its own), or a whitening of the
       plain student's embeddings after training (posthoc).

    A way is a counterexample where all four are shown (paired t): its rank is above 1.1 of the plain arm's; and its accuracy
    by the tuned probe (the study's, where none was tuned), by nearest neighbours, and its recall at 1 in the teacher's space
    are each above the plain arm's less one point. So rank alone, which whitening moves at will, is not enough; nor is
    contrast's own rank asked for.

    Supported where the first part is shown and every way is shown to miss one of the four, among them one with a target that
    asks for more dimensions (whitened, standardised) and one with a loss that spreads embeddings (VICReg, KoLeo).
    Refuted where one way is shown to be a counterexample, or the first part to be false (Bonferroni over ways and parts). How
    each way compares with contrast in the same quantities, and under noise, is secondary.
    """
    arm = results.baseline()
    contrastive = [a for a in results.arms if "contrastive" in a.families and "other" not in a.families and a.remedied is None
                   and a.differs(arm) <= {"terms", "view", "rest"} and a.view_name in (None, "crop_flip")]
    student = results.shared_student(arm, contrastive, "an arm with a contrastive term (infonce, crd, ...)")
    best = max((a for a in contrastive if len(results.values(a, student, RANK))),
               key=lambda a: float(results.values(a, student, RANK).mean()))
    ways = [a for a in results.arms if is_way(a, arm) and len(results.values(a, student, RANK))]
    if not ways:
        raise Undecided("no arm with a means other than contrast (another loss or target, same view and epochs) was run")
    expands = any_of([widens(results, a, student, arm) for a in contrastive if len(results.values(a, student, RANK))])
    counter = [counterexample(results, way, student, arm) for way in ways]
    names = ", ".join(describe_way(results, w) for w in ways)
    none = f"no other way ({names}) expands the rank without losing a point in its uses"
    statement = all_of([expands, denied(any_of(counter, otherwise=none))],
                       text=f"of {len(ways)} ways without contrast ({names}) each was shown to expand nothing or to lose; "
                            "of ways not run, or tuned, this says nothing")
    tried = [any(w.target_name in DEMANDING for w in ways), any("spread" in w.families for w in ways)]
    if statement.yes <= statement.no and not all(tried):
        raise Undecided("no arm asks for more dimensions without contrast by its target (whitened, standardised) and by its "
                        "loss (VICReg or KoLeo terms), and without both the need for contrast was not tested")
    evidence = ("figure effective_rank", "figure noise", f"{RANK}, {', '.join(uses(results))}, clean, all arms")
    return Finding(statement, evidence, {"students": student, "contrastive arm": best.name},
                   secondary=tuple(s for w in ways for s in beside(results, w, best, student)), notes=results.mapped_notes)


def widens(results: Results, arm: Arm, student: str, plain: Arm) -> Statement:
    """That an arm has more than a tenth more rank than the plain one."""
    rank, reference = results.together(f"rank of {student} under {arm.objective} and plain",
                                       results.values(arm, student, RANK), results.values(plain, student, RANK))
    way = describe_way(results, arm)
    words = f"expand the rank of {student}: {reference.mean():.1f} to {rank.mean():.1f}"
    return above(f"{way} does {words}", f"{way} does not {words}",
                 Endpoint(f"rank of {student} under {way} - 1.1 x plain", "dims"), paired(rank - (1 + MARGIN) * reference))


def is_way(arm: Arm, plain: Arm) -> bool:
    """Other means than contrast and labels, with the plain arm's view and epochs; of remedies, whitening of plain ones."""
    if arm.families & {"contrastive", "other", "supervised", "soft_labels"} or arm.view != plain.view:
        return False
    if arm.remedied == "posthoc":
        return arm.differs(plain) == {"rest"}
    return (arm.rest == plain.rest and arm.trained_otherwise(plain) <= {"learning_rate"}
            and bool(arm.differs(plain) & {"terms", "target"}))


def describe_way(results: Results, arm: Arm) -> str:
    """What an arm is, in a few words."""
    return f"{arm.name.rpartition('+')[2]} after training" if arm.remedied else describe(results, arm)


def uses(results: Results) -> dict[str, str]:
    """Key -> name of what must not fall, of what was measured."""
    known = set(results.once("measures", lambda: set(results.frame["measure"])))
    probe = {TUNED: "tuned probe"} if TUNED in known else {results.accuracy_key(): "probe"}
    return probe | {key: name for key, name in USES.items() if key in known}


def counterexample(results: Results, way: Arm, student: str, plain: Arm) -> Statement:
    """That a way expands the plain arm's rank, and loses no point in any use."""
    name, parts, read = describe_way(results, way), [widens(results, way, student, plain)], []
    for key, use in uses(results).items():
        own, before = results.together(f"{use} of {student} under {name} and plain", results.values(way, student, key),
                                       results.values(plain, student, key))
        read.append(f"{use} {100 * (own.mean() - before.mean()):+.1f} points")
        parts.append(above("", f"{name} loses: {read[-1]}", Endpoint(f"{use}, {name} - plain", "points", 100.0),
                           paired(own - before), -POINT))
    ranks = results.values(way, student, RANK).align(results.values(plain, student, RANK), join="inner")
    rank, reference = (series.mean() for series in ranks)
    return all_of(parts, text=f"contrast is not required: {name} expands the rank from {reference:.1f} to {rank:.1f}, "
                              f"{', '.join(read)} against plain")


def beside(results: Results, way: Arm, best: Arm, student: str) -> list[Secondary]:
    """What a way gains or loses against the contrastive arm."""
    def both(key: str, condition: str = "clean") -> pd.Series:
        return results.values(way, student, key, condition) - results.values(best, student, key, condition)

    wanted = [(both(RANK), "rank", "dims", 1.0)]
    wanted += [(both(key), use, "points", 100.0) for key, use in uses(results).items()]
    wanted += [(both(results.accuracy_key(), c), f"accuracy at {c}", "points", 100.0) for c in results.sigmas()]
    return [secondary(f"{name}, {describe_way(results, way)} - contrastive", paired(difference.dropna()), unit, scale)
            for difference, name, unit, scale in wanted if len(difference.dropna()) > 1]
