"""bottleneck: can brittleness not be trained away?"""

from __future__ import annotations

from distillscope.claims.results import Results, Undecided
from distillscope.claims.statements import Endpoint, all_of, below
from distillscope.claims.verdict import Finding, Secondary, secondary
from distillscope.registry import claims
from distillscope.results.arms import Arm
from distillscope.results.statistics import paired

HALF, LOSS = 0.5, 0.05


@claims.register("bottleneck", sentence="Brittleness is geometric and cannot be trained away.", seeds=5)
def bottleneck(results: Results) -> Finding:
    """Brittleness is geometric and cannot be trained away.

    What the plain student loses at sigma is its clean less its noisy accuracy; a remedy recovers its own noisy accuracy less
    the plain student's. For every remedy that changes nothing but what the student sees (a view with noise; batch norms
    re-estimated on noisy images; a view with noise and consistency between two of them), won - lost / 2 is tested against 0 at
    the deciding sigma (`noise.decides`; else 0.1, or the middle of the sweep; paired t), for the smallest student that ran
    both.

    Refuted where one remedy is shown to recover more than half (Bonferroni over the remedies); supported where every one
    is shown to recover less, training on noise among them. Undecided where the plain student loses less than five points, as
    there is then nothing to recover. Crops and flips, other sigmas and the cost on clean images are secondary.
    """
    arm, sigma = results.baseline(), results.sigma()
    remedies = [a for a in results.arms if is_remedy(a, arm)]
    student = results.shared_student(arm, remedies, "an arm that differs from the plain one by noise on the student's input, "
                                                    "or by batch norms re-estimated on noisy images,")
    clean, noisy = results.accuracy(arm, student), results.accuracy(arm, student, sigma)
    parts, beside, tried = [], [], []
    for remedy in remedies:
        remedied = results.accuracy(remedy, student, sigma)
        if remedied.empty:
            continue
        ours, before, after = results.together(f"accuracy of {student} under {remedy.name}", clean, noisy, remedied)
        lost, won = float((ours - before).mean()), float((after - before).mean())
        if lost < LOSS:
            raise Undecided(f"at {sigma} the plain student loses {100 * lost:.1f} points, less than {100 * LOSS:.0f}: too "
                            "little to recover")
        words = f"{remedy.name} recovers {100 * won:.1f} of the {100 * lost:.1f} points that {student} loses at {sigma}"
        parts.append(below(f"less than half is recovered: {words}", f"more than half is recovered: {words}",
                           Endpoint(f"points recovered by {remedy.name} - half of the points lost, {sigma}", "points", 100.0),
                           paired(after - before - HALF * (ours - before))))
        beside += others(results, arm, remedy, student)
        tried.append(remedy)
    for other in (a for a in results.arms if a.differs(arm) == {"view"} and a not in remedies):
        beside += others(results, arm, other, student)
    if not parts:
        raise Undecided(f"no remedy was measured at {sigma}")
    results.spared(sigma, noisy, *(results.accuracy(r, student, sigma) for r in tried))
    text = "" if len(parts) == 1 else f"none of {len(parts)} remedies recovers half of what {student} loses at {sigma}"
    names = ", ".join([arm.name, *(r.name for r in tried)])
    statement = all_of(parts, text=text)
    if statement.yes <= statement.no and not any(r.view_name == "noise" for r in tried):
        raise Undecided(f"no arm was trained on noisy images (view: noise) with {student}, and without that brittleness was "
                        "not put to the test")
    return Finding(statement, ("figure noise", f"{results.accuracy_key()}, clean and {sigma}, arms {names}"),
                   {"students": student}, secondary=tuple(beside))


def is_remedy(arm: Arm, plain: Arm) -> bool:
    """Nothing changed but a noisy view in training (and consistency between its views), or a remedy on the plain student.

    A post-hoc transform changes what its probes see, not what the student sees, and is none.
    """
    added = set(arm.terms) - set(plain.terms)
    noisy = arm.view_name == "noise" and set(plain.terms) <= set(arm.terms) and all(t.family == "consistency" for t in added)
    return ((noisy and arm.differs(plain) <= {"terms", "view"})
            or (arm.differs(plain) == {"rest"} and arm.remedied not in (None, "posthoc")))


def others(results: Results, arm: Arm, remedy: Arm, student: str) -> list[Secondary]:
    """What the remedy wins or costs, clean and at each sigma."""
    found = []
    for condition in ["clean", *results.sigmas()]:
        gained = (results.accuracy(remedy, student, condition) - results.accuracy(arm, student, condition)).dropna()
        if len(gained) > 1:
            found.append(secondary(f"accuracy of {student}, {remedy.name} - {arm.name}, {condition}", paired(gained), "points",
                                   100.0))
    return found
