"""capacity-limit: can the network not fill more dimensions, or was it not asked to?"""

from __future__ import annotations

from distillscope.claims.collapse import half_way
from distillscope.claims.results import RANK, Results, Undecided
from distillscope.claims.statements import Endpoint, all_of, below
from distillscope.claims.verdict import Finding, secondary
from distillscope.registry import claims
from distillscope.results.arms import DEMANDING
from distillscope.results.keys import TRAIN_RANK
from distillscope.results.statistics import ALPHA, paired

PUBLISHED, NETWORK = 82.0, "paper_cnn"
"""Effective rank that the second paper calls the limit of its network."""
SHARE = 1.1
SPREADING = {"spread"}


@claims.register("capacity-limit", sentence="About 82 dimensions are the network's topological limit.", seeds=5)
def capacity_limit(results: Results) -> Finding:
    """About 82 dimensions are the network's topological limit.

    A limit of the network holds whatever it is asked for. For every arm that asks for more, by a target whose own rank is
    above the limit (whitened, standardised, PHI-S, random teacher) or by a loss that spreads embeddings (VICReg terms,
    KoLeo), and every student, the student's effective rank is tested against the limit (t over seeds), on train images
    where the study measured it there, else on test images. The limit is 82 for the papers' CNN; for another network 1.1
    times its rank under the plain arm, the limit that a reader would see.

    Refuted where one arm and student are shown to be above (Bonferroni over them). Supported where all are shown to be
    below, and to have been fitted: the rank at the last epoch within 10 % of that at half of the epochs (paired TOST,
    held-out images of the training log). A target of fewer dimensions than the limit cannot decide it, whatever the
    loss, and is left out.
    """
    parts, others, low, tried = [], [], [], []
    for arm in (a for a in results.arms if a.remedied is None and (a.target_name in DEMANDING or SPREADING & a.families)):
        title = results.target_title(arm)
        asked = results.teacher_values("teacher.effective_rank", target=title)
        for student, spec in results.students.items():
            limit = PUBLISHED
            if spec.name != NETWORK:
                plain = results.values(results.baseline(), student, RANK)
                if plain.empty:
                    continue
                limit = SHARE * float(plain.mean())
            spectrum = results.reference_curve(title, "teacher.spectrum")
            narrow = spectrum is not None and len(spectrum) <= limit  # the student's output itself
            if narrow or (not SPREADING & arm.families and (asked.empty or asked.mean() <= limit)):
                low.append(f"{title} ({asked.mean():.0f} dimensions)" if len(asked) else title)
                continue
            on_train = results.values(arm, student, TRAIN_RANK)
            ranks, split = (on_train, "train") if len(on_train) else (results.values(arm, student, RANK), results.split)
            if ranks.empty:
                continue
            (own,) = results.together(f"rank of {student} under {arm.objective} on {title}", ranks)
            named = f"{student} under {arm.objective} on {title} ({arm.name})"
            words = f"{student} fills {own.mean():.1f} dimensions on {split} images under {arm.objective} on {title} targets"
            parts.append(below(f"{words}, below {limit:.0f}", f"{words}, above {limit:.0f}",
                               Endpoint(f"rank of {named}, {split} images", "dims"), paired(own, "t"), limit))
            tried.append((arm, student))
            if len(asked):
                share = paired(own / float(asked.mean()))
                others.append(secondary(f"rank of {named} over the target's own", share, "times", tested=False))
    if not parts:
        few = f"the targets that ask for more have no more dimensions than the limit themselves: {', '.join(sorted(set(low)))}"
        raise Undecided(few if low else
                        "no arm with a whitened, standardised or random target, or a loss that spreads embeddings, was run")
    statement = all_of(parts, text="" if len(parts) == 1 else f"none of {len(parts)} takes a student above the limit")
    if statement.yes <= statement.no:
        for arm, student in tried:
            fitted = half_way(results, arm, student)
            if fitted.yes >= ALPHA:
                raise Undecided(f"every student stays below the limit, but {fitted.otherwise}: it was not trained until it "
                                "filled what it can")
    names = ", ".join(dict.fromkeys(a.name for a, _ in tried))
    return Finding(statement, ("figure effective_rank", f"{RANK}, clean, arms {names}"), secondary=tuple(others))
