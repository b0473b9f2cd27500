"""What each number of an audit means for the pair at hand, in a sentence computed from it; and how its values are written."""

from __future__ import annotations

import math
from collections.abc import Callable

from distillscope.measure.pool import Settings
from distillscope.measure.results import SAME, Audit, Line, Value, decimals
from distillscope.report.sentences.numbers import alike, number, percent, several
from distillscope.results.keys import NBSP, facts_of


def meaning(line: Line, found: Audit) -> str:
    """What this value says, in a sentence; the definition where there is nothing to say of the value."""
    say = SENTENCES.get(line.name)
    try:
        sentence = say(line, found) if say else ""
    except KeyError:  # the sentence compares with a measure that this audit does not have
        sentence = ""
    return sentence or line.known.definition


def accuracy_sentence(found: Audit, head: str) -> str:
    """What the student retains of an accuracy, and whether that could be chance."""
    kept, p = found.measured[f"{head}.retention"], found.measured.get(f"{head}.mcnemar_p")
    reach = f" {between(kept, 'retention')}" if kept.low is not None else ""
    text = f"The student keeps {share(kept.value, 1)}{reach} of the teacher's accuracy"
    if p is None:
        return f"{text}."
    how = p_text(p.value)
    return f"{text}; " + (f"the difference is significant (McNemar {how})." if p.value < 0.05 else
                          f"no significant difference (McNemar {how}), which does not prove equality.")


def read_as(found: Audit) -> list[str]:
    """One line per side: how each input was read, and how the rows were paired."""
    lines = [said if name.endswith("pairing") else f"{name.replace('_', ' ')} {said}" for name, held in found.inputs.items()
             if (said := held.get("said"))]
    return [line for line in lines if line not in found.notes]


def gallery_size(found: Audit) -> int:
    """Items in the search index of `retrieval`: all, repeats counted once, up to the usual cap."""
    return min(found.repeats.get("items", found.num_items), Settings().gallery_items)


def _rank(line: Line, found: Audit) -> str:
    if line.both is None:
        return ""
    t, s = (v.value for v in line.both)
    if s > 1.02 * t:
        return (f"The student spreads over more directions than the teacher ({s / t:.2f} times), as noise does too: read it "
                "with R².")
    if s > 0.98 * t:
        return "Both fill about the same number of directions."
    return f"The student's variance fills about {number(s, 0)} directions evenly, the teacher's {number(t, 0)}."


def _corrected(line: Line, found: Audit) -> str:
    parts = []
    for side, value in (("teacher", line.teacher), ("student", line.student)):
        if value is not None:
            parts.append(f"{number(100 * (1 - found[f'{side}.effective_rank'] / value.value), 1)}{NBSP}% ({side})")
    return f"With this many items the raw rank reads low by about {' and '.join(parts)}."


def _dims(line: Line, found: Audit) -> str:
    if line.both is None:
        return ""
    teacher, student = line.both
    share = f"{line.name.rpartition('_')[2]}{NBSP}%"
    return (f"{number(student.value, 0)} principal components hold {share} of the student's variance; the teacher needs "
            f"{number(teacher.value, 0)}.")


def _strongest(line: Line, found: Audit) -> str:
    other = f", of the teacher's {percent(1 / line.both[0].value, 0)}" if line.both else ""
    return f"The strongest component alone holds {percent(1 / line.known.value, 0)} of the variance{other}."


def _algebraic(line: Line, found: Audit) -> str:
    side = "student" if line.student else "teacher"
    dim = len(found.curves[f"{side}.spectrum"].x)
    empty = dim - round(line.known.value)
    return (f"{empty} of the {side}'s {dim} dimensions are empty or copies of others." if empty > 0
            else f"All {dim} dimensions of the {side} carry something.")


def _twonn(line: Line, found: Audit) -> str:
    if line.both is None:
        return ""
    teacher, student = line.both
    return (f"From one item to its nearest, the student varies in about {number(student.value, 0)} ways, the teacher in "
            f"{number(teacher.value, 0)}.")


def _decay(line: Line, found: Audit) -> str:
    if line.both is None:
        return ""
    t, s = (v.value for v in line.both)
    gap = s - t
    return ("Both spectra fall at about the same rate." if abs(gap) < 0.05 else
            f"The student's spectrum falls {'faster' if gap > 0 else 'more slowly'} than the teacher's.")


def _mean_energy(line: Line, found: Audit) -> str:
    high = {side: v.value > 0.5 for side, v in (("teacher", line.teacher), ("student", line.student)) if v is not None}
    if len(set(high.values())) > 1:
        who = next(side for side, above in high.items() if above)
        return f"Most of the {who}'s energy is one common mean, so its cosines are high whatever the items; not the other's."
    return ("Most of the energy is one common mean, so cosines are high whatever the items." if any(high.values()) else
            "The common mean is a minor part of the energy.")


def _uniformity(line: Line, found: Audit) -> str:
    if line.both is None:
        return ""
    t, s = (v.value for v in line.both)
    gap = s - t
    return ("Both are spread over the sphere about equally evenly." if abs(gap) < 0.05 else
            f"The student is {'more crowded' if gap > 0 else 'spread more evenly'} on the sphere than the teacher.")


def _duplicates(line: Line, found: Audit) -> str:
    worst = max(v.value for v in (line.teacher, line.student) if v is not None)
    return ("No sampled row repeats another." if worst == 0 else
            "The spectrum counts every repeat of a row; elsewhere an item counts once.")


def _undersampled(line: Line, found: Audit) -> str:
    low = any(v is not None and v.value for v in (line.teacher, line.student))
    return ("Too few items for the raw ranks: compare the corrected ones." if low else
            "There are enough items for the ranks (n ≥ 2 d).")


def _cosine(line: Line, found: Audit) -> str:
    angle = math.degrees(math.acos(max(-1.0, min(1.0, line.known.value))))
    constant = math.sqrt(found["teacher.mean_energy"])
    return (f"About {number(angle, 0 if angle >= 10 else 1)}° away from the teacher; a constant, the teacher's mean, would "
            f"score about {constant:.2f}.")


def _top20(line: Line, found: Audit) -> str:
    own, value = found["alignment.teacher_variance_top20"], line.known
    more = value.value > own + SAME and (value.low is None or value.low > own)
    less = value.value < own - SAME and (value.high is None or value.high < own)
    leans = "more on the leading components than" if more else "less on the leading components than" if less else \
        "about as much on the leading components as"
    return f"The teacher's own share there is {percent(own)}: the student leans {leans} the teacher does."


def _captured(line: Line, found: Audit) -> str:
    most = found["alignment.teacher_variance_top20"]
    return f"Of the {percent(most)} that any 20 directions could hold, the student's 20 hold {share(line.known.value, 1)}."


def _r2(line: Line, found: Audit) -> str:
    value, low = line.known.value, line.known.low
    if value < 0.02 and (value < SAME or low is None or low <= 0):
        return "Nothing of the teacher can be predicted linearly from the student."
    text = f"{share(value, 1)} of the teacher's variance can be predicted linearly from the student"
    most = found.measured.get("alignment.teacher_r2_ceiling")
    if most and most.value < 0.99:
        return f"{text}, of {share(most.value, 1)} that so few items allow."
    return f"{text}." if value > 1 - 1e-9 else f"{text}; {percent(1 - value, 1 if value < 0.9995 else 4)} cannot."


def _angle(line: Line, found: Audit) -> str:
    return "0° would be the same leading subspace, 90° one at right angles."


def _against_null(line: Line, found: Audit) -> str:
    null = found.measured[f"{line.name}_null"]
    above = null.interval is not None and line.known.value > null.interval[1]
    where = "above" if above else "within or below"
    return f"Shuffled items give {told(null, line.name)}; this lies {where} their range."


def _infonce(line: Line, found: Audit) -> str:
    ceiling = found[f"{line.name}_ceiling" if line.name.startswith("paper") else "contrastive.ceiling"]
    if line.known.value >= ceiling:
        return f"Nothing is kept: the loss is at or above the {number(ceiling, 2)} nats of equal rows."
    return f"{number(ceiling - line.known.value, 2)} of at most {number(ceiling, 2)} nats are kept."


def _retained(line: Line, found: Audit) -> str:
    if line.known.value <= 0:
        return "It keeps nothing of the nats by which the teacher distinguishes its own items: unrelated rows read below 0."
    if line.known.value > 1.02:
        return (f"It distinguishes the items by {number(line.known.value, 1)} times the nats by which the teacher does itself, "
                "whose own rows lie close together.")
    return f"It keeps {share(line.known.value, 1)} of the nats by which the teacher distinguishes its own items."


def _saturated(line: Line, found: Audit) -> str:
    return "K is too small to distinguish students." if line.known.value else "K is large enough to distinguish students."


def _recall(line: Line, found: Audit) -> str:
    k = int(line.name.rpartition("_")[2])
    mapped = " after one fitted matrix" if "mapped" in line.name else ""
    where = "first" if k == 1 else f"among the first {k}"
    return (f"{share(line.known.value, 1)} of the student's queries find their own item {where} in the teacher's index"
            f"{mapped}; chance is about {percent(k / gallery_size(found), 2)}.")


def _overlap(line: Line, found: Audit) -> str:
    return f"{of_ten(line.known.value)} of the first 10 results of a student's index are the teacher's."


def _gradient(line: Line, found: Audit) -> str:
    worst = max(v.value for v in (line.teacher, line.student) if v is not None)
    return "Both fits converged." if worst <= 1e-3 else "A fit did not converge, so its accuracy is that of an unfinished fit."


def _flips(line: Line, found: Audit) -> str:
    head = line.name.rpartition(".")[0]
    lost, won = found.measured[f"{head}.negative_flips"], found.measured[f"{head}.positive_flips"]
    wrong = "right on the teacher and wrong on the student"
    return (f"{round(lost.value * lost.n):,} of {lost.n:,} items are {wrong}, {round(won.value * won.n):,} the other way "
            "round: an accuracy shows only the difference.")


def _worst(line: Line, found: Audit) -> str:
    head, _, what = line.name.rpartition(".")
    kind = "class" if "class" in what else "subgroup"
    key = "retention" if what.endswith("retention") else "negative_flips"
    known = [s for s in found.subsets if (s.kind, s.classifier) == (kind, head) and key in s.values]
    if not known:
        return ""
    values = [s.values[key].value for s in known]
    worst = [known[i] for i in alike(values, (min if key == "retention" else max)(values))]
    who = f"It is “{worst[0].name}” (n = {worst[0].n:,})"
    if len(worst) > 1:
        who = f"It is {several([s.name for s in worst])} alike"
    if len(worst) == len(known) > 1:
        who = f"All {len(known):,} have it alike"
    return (f"{who}. The interval is of the worst {kind}, whichever that truly is, since "
            f"those of all {len(known):,} hold together.")


def _accuracy(head: str) -> Callable[[Line, Audit], str]:
    return lambda line, found: accuracy_sentence(found, head)


SENTENCES: dict[str, Callable[[Line, Audit], str]] = {
    "effective_rank": _rank, "effective_rank_by_s": _rank, "participation_ratio": _rank, "effective_rank_corrected": _corrected,
    "dims_90": _dims, "dims_95": _dims, "dims_99": _dims, "stable_rank": _strongest, "algebraic_rank": _algebraic,
    "twonn_dimension": _twonn, "spectral_decay": _decay, "mean_energy": _mean_energy, "uniformity": _uniformity,
    "duplicates": _duplicates, "undersampled": _undersampled,
    "alignment.mean_cosine": _cosine, "alignment.student_variance_top20": _top20,
    "alignment.teacher_variance_captured": _captured,
    "alignment.teacher_r2": _r2, "alignment.principal_angle_mean": _angle, "alignment.principal_angle_max": _angle,
    **{f"similarity.{name}": _against_null
       for name in ("linear_cka", "linear_cka_debiased", "procrustes", "rsa_spearman", "mutual_knn_10")},
    "contrastive.infonce": _infonce, "paper.infonce": _infonce, "contrastive.retained_share": _retained,
    "contrastive.saturated": _saturated,
    **{f"retrieval.{kind}recall_at_{k}": _recall for kind in ("", "mapped_") for k in (1, 5, 10)},
    "retrieval.neighbour_overlap_10": _overlap, "probe.gradient_norm": _gradient, "paper.probe.gradient_norm": _gradient,
    **{f"{head}.{what}": _accuracy(head)
       for head in ("probe", "paper.probe", "knn", "zero_shot") for what in ("accuracy", "retention")},
    **{f"{head}.worst_{kind}_{what}": _worst
       for head in ("probe", "knn") for kind in ("class", "subgroup") for what in ("retention", "flips")},
    **{f"{head}.{sign}_flips": _flips for head in ("probe", "knn", "zero_shot") for sign in ("negative", "positive")},
}


BOUNDED = ("share", "cosine", "R2", "correlation")
"""Units of which 1 is the most."""


def title_of(name: str) -> str:
    """
    >>> title_of("dims_90").replace(NBSP, " "), title_of("retrieval.recall_at_5")
    ('dims for 90 %', 'recall at 5')
    """
    return facts_of(name).title


def shown(value: float, unit: str, name: str = "", digits: int | None = None) -> str:
    """A value as a reader wants it: shares that count items or variance as per cent, the rest in its unit.

    ``digits`` are the decimals of those units that have a choice; without it as many as the value alone asks for.

    >>> shown(0.758, "share", "probe.accuracy").replace(NBSP, " "), shown(0.91234, "share", "similarity.procrustes")
    ('75.8 %', '0.912')
    >>> shown(31.04, "dims"), shown(3, "dims"), shown(1, "flag"), shown(0.2, "p"), shown(2e-9, "norm")
    ('31.0', '3', 'yes', '0.200', '2e-09')
    >>> shown(0.99988, "cosine"), shown(0.9997, "share", "retention").replace(NBSP, " ")
    ('0.9999', '99.97 %')
    """
    digits = _decimals(value, None, None, unit, name) if digits is None else digits
    if unit == "share" and facts_of(name).percent:
        return percent(value, digits)
    if unit == "dims":
        return number(value, 0 if float(value).is_integer() else digits)
    if unit == "flag":
        return "yes" if value else "no"
    if unit == "p":
        return p_text(value).removeprefix(f"p{NBSP}").removeprefix(f"={NBSP}")
    if unit == "norm":
        return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"
    if unit in ("C", "temperature"):
        return f"{value:g}"
    if unit == "degrees":
        return f"{number(value, digits)}°"
    return number(value, digits)


def _decimals(value: float, low: float | None, high: float | None, unit: str, name: str) -> int:
    if unit == "share" and facts_of(name).percent:
        low, high = (None if v is None else 100 * v for v in (low, high))
        return decimals(100 * value, low, high, least=1, full=100.0)
    if unit in ("dims", "degrees"):
        return decimals(value, low, high, least=1)
    least, full = 2 if unit in ("exponent", "log kernel") else 3, 1.0 if unit in BOUNDED else None
    return decimals(value, low, high, least=least, full=full)


def told(value: Value, name: str = "") -> str:
    """The value with the decimals that it and its interval ask for."""
    return shown(value.value, value.unit, name, _decimals(value.value, value.low, value.high, value.unit, name))


def between(value: Value | None, name: str = "") -> str:
    """'[30.6, 31.4]' in the units and decimals of `told`; empty where there is no interval."""
    if value is None or value.interval is None:
        return ""
    digits = _decimals(value.value, value.low, value.high, value.unit, name)
    low, high = (shown(v, value.unit, name, digits) for v in value.interval)
    return f"[{low.replace(f'{NBSP}%', '')}, {high.replace(f'{NBSP}%', '')}]"


def share(value: float, least: int = 0) -> str:
    """A share as per cent in a sentence: what is not all does not read as 100 %.

    >>> [share(v).replace(NBSP, " ") for v in (0.59, 0.9962, 0.99997, 1.0)]
    ['59 %', '99.6 %', '99.997 %', '100 %']
    """
    return percent(value, decimals(100 * value, least=least, full=100.0, most=3))


def of_ten(value: float) -> str:
    """A share of the first ten results, as how many; fewer than ten do not read as ten.

    >>> of_ten(0.39), of_ten(0.996), of_ten(1.0)
    ('3.9', '9.96', '10.0')
    """
    return number(10 * value, decimals(10 * value, least=1, full=10.0, most=3))


def p_text(p: float) -> str:
    """
    >>> p_text(0.0321).split(NBSP), p_text(1e-12).split(NBSP), p_text(0.0498).split(NBSP)
    (['p', '=', '0.032'], ['p', '<', '0.001'], ['p', '=', '0.0498'])
    """
    if p < 0.001:
        return f"p{NBSP}<{NBSP}0.001"
    return f"p{NBSP}={NBSP}{p:.{next((d for d in range(3, 7) if float(f'{p:.{d}f}') != 0.05), 3)}f}"


def reach(value: Value | None, name: str = "") -> str:
    """' [30.6, 31.4]' to stand behind a number; empty where there is no interval."""
    text = between(value, name)
    return f" {text}" if text else ""
