"""low-pass: does a small student let low frequencies through and keep high ones out?"""

from __future__ import annotations

from distillscope.claims.results import Results, Undecided
from distillscope.claims.statements import Endpoint, above, all_of
from distillscope.claims.verdict import Finding, Secondary, secondary
from distillscope.registry import claims
from distillscope.results.rows import Condition, in_order
from distillscope.results.statistics import paired

POINT = 0.01


@claims.register("low-pass", sentence="Small students act as low-pass filters.", seeds=5)
def low_pass(results: Results) -> Finding:
    """Small students act as low-pass filters.

    A low-pass filter keeps high frequencies out, so noise there does less harm than noise of equal power in low ones. For the
    smallest student under the plain arm, at the deciding sigma (`noise.decides`; else 0.1, or the middle one), its advantage
    is the accuracy under noise in the highest band less that under noise in the lowest (bands in fractions of the source
    image's Nyquist frequency; above 1 is out of band). Undecided where neither band takes two points from it. Two parts (t
    over seeds):

    1. its own advantage is above one point;
    2. it is more than one point above the teacher's on the same images: a filter that the student is and the teacher is not.

    Supported where both are shown; refuted where one is shown to be false (Bonferroni over the two). Larger students and the
    share of the input gradient's energy above half of Nyquist are secondary.
    """
    arm = results.baseline()
    low, high, sigma = bands(results)
    sizes = results.sizes(arm, least=1)
    student = sizes[0]
    advantage = {s: results.accuracy(arm, s, high) - results.accuracy(arm, s, low) for s in sizes}
    (own,) = results.together(f"accuracy of {student} under {high}", advantage[student])
    teacher = [results.teacher_accuracy(c) for c in (high, low)]
    if any(t.empty for t in teacher):
        raise Undecided("the teacher's accuracy under band-limited noise was not measured")
    clean = results.accuracy(arm, student)
    results.harmed(f"band-limited noise at sigma {sigma:g}", *((clean, results.accuracy(arm, student, c)) for c in (low, high)))
    its = float(teacher[0].mean() - teacher[1].mean())
    hit = [100 * results.accuracy(arm, student, c)[advantage[student].dropna().index].mean() for c in (high, low)]
    shown = (f"at sigma {sigma:g} {student} reaches {hit[0]:.1f} % under noise in the highest band and {hit[1]:.1f} % in the "
             f"lowest (teacher {100 * teacher[0].mean():.1f} and {100 * teacher[1].mean():.1f} %)")
    name = f"accuracy of {student} under {high} - under {low}"
    statement = all_of([
        above("", f"high frequencies do no less harm: {shown}", Endpoint(name, "points", 100.0), paired(own, "t"), POINT),
        above("", f"the student filters no more than its teacher: {shown}",
              Endpoint(f"{name} - the teacher's", "points", 100.0), paired(own - its, "t"), POINT),
    ], text=f"high frequencies do less harm, and less than to the teacher: {shown}")
    rows = f"{results.accuracy_key()}, {low} and {high}, arm {arm.name} and teacher"
    return Finding(statement, ("figure bands", rows, "gradient.student.high_share"),
                   {"students": student, "noise": results.noise_text("band_noise"),
                    "bands": f"band={low.what} and band={high.what}"},
                   secondary=tuple(beside(results, sizes, advantage)))


def bands(results: Results) -> tuple[Condition, Condition, float]:
    """The conditions of the lowest and the highest band at the claim's sigma, and that sigma."""
    known = [c for c in in_order(results.frame["condition"]) if c.bounds and c.strength is not None]
    places = {bool(c.place) for c in known}  # at the source, or on the model's input: never one against the other
    wanted = results.study.noise.where == "input" if len(places) > 1 else True in places
    found = [c for c in known if bool(c.place) == wanted]
    sigmas = sorted({c.strength for c in found if c.strength})
    if not sigmas:
        raise Undecided("no accuracy under band-limited noise was measured (stresses: [band_noise])")
    wanted_sigma = results.deciding_sigma()
    sigma = wanted_sigma if wanted_sigma in sigmas else sigmas[(len(sigmas) - 1) // 2]
    ordered = sorted((c for c in found if c.strength == sigma), key=lambda c: c.bounds or (0.0, 0.0))
    if len(ordered) < 2:
        raise Undecided("only one frequency band was measured, and this claim compares the lowest with the highest")
    return ordered[0], ordered[-1], sigma


def beside(results: Results, sizes: list[str], advantage: dict) -> list[Secondary]:
    """The smallest student against the largest, in advantage and in the frequencies of the input gradient."""
    arm, found = results.baseline(), []
    small, large = sizes[0], sizes[-1]
    share = {s: results.values(arm, s, "gradient.student.high_share") for s in (small, large)}
    if large != small:
        for name, values, unit, scale in (("advantage of high over low frequencies", advantage, "points", 100.0),
                                          ("gradient's energy above half of Nyquist", share, "share", 1.0)):
            difference = (values[small] - values[large]).dropna()
            if len(difference) > 1:
                found.append(secondary(f"{name}, {small} - {large}", paired(difference), unit, scale))
    teacher = results.teacher_values("gradient.teacher.high_share")
    if len(teacher) and len(share[small]) > 1:
        against = paired(share[small] - float(teacher.mean()))
        found.append(secondary(f"gradient's energy above half of Nyquist, {small} - teacher", against, "share"))
    return found
