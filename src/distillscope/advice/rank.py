"""Results of a study -> what to change: its arms compared at equal compute, student by student. Pure functions, no files.

An arm is ranked against the plain arm where both saw as many images and no labels; the rest is listed apart, with the reason.
Every comparison is paired over seeds. The score of a purpose:

- accuracy, robustness, retrieval, geometry: that axis (`advice.axes`).
- balance: the mean of the four (or of those that were measured), each as the share of the gap from the plain arm to the teacher
  that is closed; under noise to the teacher's clean accuracy, which noise that takes nothing would leave, since a teacher
  may be more brittle than its student. A gap below a tenth of what it leads to counts as that much: where the plain
  student has caught up with the teacher, a trifle is then no whole gap.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from distillscope.advice.axes import FLOOR, NEIGHBOURS, Axis, axes_of, axis_values, mean_of
from distillscope.claims.results import Results, Undecided
from distillscope.files.writing import finite
from distillscope.registry import objectives
from distillscope.results.arms import Arm
from distillscope.results.keys import LATENCY, PARAMETERS, RANK, TRAIN_RANK
from distillscope.results.statistics import ALPHA, Contrast, all_pairs, paired, seeds_for

DEARER = 1.1
"""An arm with another network (`student: ...`) of more than so many times the multiply-adds is not at equal compute."""
COSTS = {"parameters": PARAMETERS, "multiply_adds": "capacity.multiply_adds", "latency_ms": LATENCY,
         "train_seconds": "train.seconds"}


@dataclass(frozen=True)
class Entry:
    """One arm of one student. ``values``: axis -> mean over the seeds that it shares with the plain arm; ``gains``: axis ->
    paired difference to the plain arm; ``score``: that of the purpose; ``apart``: why it is not ranked, where it is not;
    ``neighbours``: the paired difference in kNN accuracy."""

    arm: Arm
    n: int
    values: Mapping[str, float]
    gains: Mapping[str, Contrast]
    costs: Mapping[str, float]
    score: Contrast | None = None
    apart: str = ""
    neighbours: Contrast | None = None

    @property
    def gain(self) -> Contrast:
        """The score of an entry that is ranked."""
        if self.score is None:
            raise ValueError(f"arm {self.arm.name} has no score")
        return self.score


@dataclass(frozen=True)
class Ranking:
    """The arms of one student, best first. ``leaders``: those that no other arm is shown to beat, one alone only if it beats
    each other arm itself (`leaders_of`); ``beaten_by``: arm -> those that are shown to beat it, over all pairs; ``reason`` says
    why nothing was ranked. ``caught_up``: the axes of the balance that leave no gap to speak of; ``not_run``: arms that other
    students ran and this one did not."""

    student: str
    plain: str
    entries: tuple[Entry, ...] = ()
    apart: tuple[Entry, ...] = ()
    leaders: tuple[str, ...] = ()
    reason: str = ""
    seeds_wanted: int | None = None
    fronts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    caught_up: tuple[str, ...] = ()
    not_run: tuple[str, ...] = ()
    beaten_by: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def disputes(self) -> tuple[tuple[str, str], ...]:
        """(better, worse) wherever a leading arm is shown to be the worse one, so that no arm can be named.

        There are none where all arms ran the same seeds: what beats an arm that beats a third then beats the third too.
        """
        return tuple((better, name) for name in self.leaders for better in self.beaten_by.get(name, ()))

    @property
    def improved(self) -> bool:
        """Whether other arms than the plain one lead, and nothing disputes it: then the first of them may be named."""
        return bool(self.leaders) and self.plain not in self.leaders and not self.disputes

    def named(self, name: str) -> Entry:
        return next(e for e in self.entries if e.arm.name == name)

    @property
    def rivals(self) -> int:
        """How many arms beside the plain one were ranked: so many a winner was picked from."""
        return len(self.entries) - 1

    def simultaneous(self, entry: Entry) -> tuple[float, float]:
        """The 95 % interval of an entry's score that holds for all ranked arms at once (Bonferroni), hence for a picked one."""
        return entry.gain.interval(1 - ALPHA / max(1, self.rivals))


@dataclass(frozen=True)
class Recommendation:
    """The rankings of every student under one teacher on one data set, for one purpose."""

    dataset: str
    teacher: str
    purpose: str
    axes: tuple[Axis, ...]
    missing: Mapping[str, str]
    rankings: tuple[Ranking, ...]
    split: str
    items: int | None
    train_items: int | None
    mapped_notes: tuple[str, ...] = ()

    @property
    def accuracy(self) -> str:
        """The key of the accuracy that arms are ranked by; empty without labels."""
        return next((a.measure for a in self.axes if a.name == "accuracy"), "")

    @property
    def timed(self) -> bool:
        """Whether the study measured how long an image takes."""
        return any("latency_ms" in e.costs for r in self.rankings for e in (*r.entries, *r.apart))


def recommend(results: Results, purpose: str = "balance") -> Recommendation:
    """Rank the arms of every student; what cannot be ranked says so in its ``reason``, nothing is raised."""
    return results.once(("recommend", purpose), lambda: _recommended(results, purpose))


def _recommended(results: Results, purpose: str) -> Recommendation:
    axes: list[Axis] = []
    missing: dict[str, str] = {}
    tested, train = (results.frame.loc[results.frame["measure"] == key, "n"] for key in (RANK, TRAIN_RANK))
    try:
        plain = results.baseline()
        axes, missing = axes_of(results)
        rankings = [rank(results, student, plain, axes, missing, purpose) for student in results.students]
    except Undecided as gap:
        rankings = [Ranking(student, "", reason=str(gap)) for student in results.students]
    return Recommendation(results.dataset, results.teacher, purpose, tuple(axes), missing, tuple(rankings), results.split,
                          _most(tested), _most(train), results.mapped_notes)


def _most(counts: pd.Series) -> int | None:
    found = counts.dropna()
    return int(found.max()) if len(found) else None


def shows_two_views(objective: str) -> bool:
    """Whether an objective shows the student a second view of each image: twice the images.

    It does where it takes ``other``; one that is not installed counts once.
    """
    declared = objectives.declared(objective)
    return declared is not None and "other" in declared.needs


def images_seen(arm: Arm) -> int:
    """How often the student sees the training images: epochs, twice where an objective shows two views."""
    return arm.epochs * (2 if any(shows_two_views(t.name) for t in arm.terms) else 1)


def rank(results: Results, student: str, plain: Arm, axes: Sequence[Axis], missing: Mapping[str, str], purpose: str) -> Ranking:
    """One student's arms, ranked for ``purpose``."""
    per_arm = {a: {x.name: axis_values(results, x, a, student) for x in axes} for a in results.arms}
    base = per_arm[plain]
    absent = _not_run([a for a, values in per_arm.items() if not any(len(v) for v in values.values())])
    scored, why = _scored(axes, missing, purpose, base)
    if why:
        return Ranking(student, plain.name, reason=why, not_run=absent)
    entries, scores = [], {}
    for arm, values in per_arm.items():
        if any(len(v) for v in values.values()):
            entry, score = _entry(results, student, arm, plain, values, base, scored)
            entries.append(entry)
            scores[arm.name] = score
    ranked = sorted((e for e in entries if not e.apart), key=lambda e: -e.gain.mean)
    apart = tuple(e for e in entries if e.apart)
    if len(ranked) < 2:
        return Ranking(student, plain.name, tuple(ranked), apart, reason=_alone(plain, apart), not_run=absent)
    leaders, beaten_by, wanted = leading([e.arm.name for e in ranked], scores)
    fronts = {y: front({e.arm.name: (e.values["accuracy"], e.values[y]) for e in ranked})
              for y in ("robustness", "geometry") if all({"accuracy", y} <= set(e.values) for e in ranked)}
    return Ranking(student, plain.name, tuple(ranked), apart, leaders, "", wanted, fronts,
                   _caught_up(axes, base) if purpose == "balance" else (), absent, beaten_by)


def _not_run(arms: Sequence[Arm]) -> tuple[str, ...]:
    """The names of arms; a remedy of one that is named goes without saying."""
    whole = {a.name for a in arms if not a.remedied}
    return tuple(a.name for a in arms if not a.remedied or a.name.rpartition("+")[0] not in whole)


def _caught_up(axes: Sequence[Axis], base: Mapping[str, pd.Series]) -> tuple[str, ...]:
    """The axes on which the plain arm lacks less than the floor, or stands where the teacher does or above it."""
    found = []
    for axis in axes:
        if axis.ceiling is None or not len(base[axis.name]):
            continue
        mean = float(base[axis.name].mean())
        if axis.ceiling - mean < FLOOR * axis.ceiling or (axis.teacher is not None and mean >= axis.teacher):
            found.append(axis.name)
    return tuple(found)


def _scored(axes: Sequence[Axis], missing: Mapping[str, str], purpose: str,
            base: Mapping[str, pd.Series]) -> tuple[dict[str, float], str]:
    """Axis -> its weight in the score, or why the purpose has none. Differences of the weighted sum are the score's."""
    if purpose != "balance":
        axis = next((a for a in axes if a.name == purpose), None)
        if axis is None:
            return {}, missing[purpose]
        if len(base[purpose]):
            return {purpose: axis.scale}, ""
        return {}, "the plain arm has no finished trial with this student"
    known = [a for a in axes if len(base[a.name])]
    if not known:
        return {}, "the plain arm has no finished trial with this student" if axes else "; ".join(missing.values())
    unknown = [a.name for a in known if a.ceiling is None]
    if unknown:
        return {}, f"the teacher's own {' and '.join(unknown)} were not measured, so no gap to it is known; ask for one purpose"
    return {a.name: 1 / (len(known) * a.gap(float(base[a.name].mean()))) for a in known}, ""


def _entry(results: Results, student: str, arm: Arm, plain: Arm, values: Mapping[str, pd.Series], base: Mapping[str, pd.Series],
           scored: Mapping[str, float]) -> tuple[Entry, pd.Series]:
    """One arm beside the plain one, and its score per seed."""
    known = {k: v for k, v in values.items() if len(v) and len(base[k])}
    both = pd.concat([*known.values(), *(base[k] for k in known)], axis=1, join="inner").dropna()
    own, its = both.iloc[:, : len(known)], both.iloc[:, len(known):]
    own.columns = its.columns = pd.Index(list(known))
    costs = {name: mean_of(results.values(arm, student, key)) for name, key in COSTS.items()}
    entry = Entry(arm, len(both), {k: float(own[k].mean()) for k in known} if len(both) else {},
                  {k: paired(own[k] - its[k]) for k in known} if len(both) > 1 else {},
                  {k: v for k, v in costs.items() if v is not None},
                  neighbours=_paired(*(results.values(a, student, NEIGHBOURS) for a in (arm, plain))))
    if set(scored) <= set(known) and len(both) > 1:
        score = sum(own[k] * w for k, w in scored.items())
        entry = replace(entry, score=paired(score - sum(its[k] * w for k, w in scored.items())))
    else:
        score = pd.Series(dtype=float)
    operations, usual = costs["multiply_adds"], mean_of(results.values(plain, student, COSTS["multiply_adds"]))
    more = operations / usual if operations and usual else 1.0
    return replace(entry, apart=_why_apart(arm, plain, entry, set(scored) - set(known), more)), score


def _why_apart(arm: Arm, plain: Arm, entry: Entry, absent: set[str], more: float) -> str:
    """Why an arm is not ranked against the plain one, or nothing; ``more``: its multiply-adds over the plain arm's."""
    if arm.network != plain.network and more > DEARER:
        return f"has a network of {more:.1f} times the multiply-adds of the plain arm's"
    if images_seen(arm) != images_seen(plain):
        return f"sees each image {images_seen(arm)} times, the plain arm {images_seen(plain)} times"
    if "supervised" in arm.families and "supervised" not in plain.families:
        return "is trained with labels, a control"
    if absent:
        return f"was not measured for {' and '.join(sorted(absent))}"
    if entry.n < 2:
        return f"shares {entry.n or 'no'} seed{'' if entry.n == 1 else 's'} with the plain arm, and an interval needs two"
    return ""


def _alone(plain: Arm, apart: Sequence[Entry]) -> str:
    """Why there is nothing to rank."""
    own = next((e for e in apart if e.arm is plain), None)
    if own is not None:
        return "one seed only, and an interval needs two" if own.n == 1 else f"the plain arm '{plain.name}' {own.apart}"
    if not apart:
        return f"only one arm ('{plain.name}') was run"
    return f"no arm can be compared with the plain one ('{plain.name}') at equal compute"


def leading(names: Sequence[str], scores: Mapping[str, pd.Series],
            ) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]], int | None]:
    """Those of ``names`` (best first) that lead, what each arm is shown to be beaten by, and how many seeds would show the
    difference of the first two.

    Paired t over shared seeds, and all pairs in one family: the arms to be compared are picked by their outcome, so that fewer
    would not do. Each arm keeps its own spread: arms differ in it by far, and a pooled one (Tukey's, Hsu's) would be wrong.
    """
    contrasts = {pair: _paired(scores[pair[0]], scores[pair[1]]) for pair in itertools.combinations(names, 2)}
    adjusted = all_pairs({pair: 1.0 if c is None or c.error == 0 else c.p() for pair, c in contrasts.items()})
    shown = [(pair[c.mean <= 0], pair[c.mean > 0]) for pair, c in contrasts.items() if c is not None and adjusted[pair] < ALPHA]
    beaten_by = {name: tuple(better for better, worse in shown if worse == name) for name in names}
    nearest = contrasts[names[0], names[1]]
    wanted = None if nearest is None or not nearest.mean or not nearest.error else seeds_for(nearest.mean, nearest.std)
    return leaders_of(names, beaten_by), beaten_by, wanted


def leaders_of(names: Sequence[str], beaten_by: Mapping[str, Collection[str]]) -> tuple[str, ...]:
    """Those of ``names`` that no other beats, where they are several, or one that beats each other itself.

    One that does not, which only arms of other seeds allow, shares the lead with arms that it does not beat: until none that
    leads beats another, and each other arm is beaten by one that leads. Arms that beat one another in a circle all lead.

    >>> leaders_of("abc", {"a": "", "b": "a", "c": "ab"}), leaders_of("abc", {"a": "", "b": "a", "c": "b"})
    (('a',), ('a', 'c'))
    """
    unbeaten = tuple(name for name in names if not beaten_by[name])
    if len(unbeaten) > 1:
        return unbeaten
    left, kept = list(names), set[str]()
    while left:
        top = {name for name in left if not set(beaten_by[name]) & set(left)} or set(left)
        kept |= top
        left = [name for name in left if name not in top and not set(beaten_by[name]) & top]
    return tuple(name for name in names if name in kept)


def _paired(first: pd.Series, second: pd.Series) -> Contrast | None:
    difference = (first - second).dropna()
    return paired(difference) if len(difference) > 1 else None


def front(points: Mapping[str, tuple[float, float]]) -> tuple[str, ...]:
    """Names of the points that no other is at least as good as in both and better in one, by ascending x.

    >>> front({"a": (1, 3), "b": (2, 2), "c": (1, 2), "d": (3, 0)})
    ('a', 'b', 'd')
    """
    kept = [name for name, (x, y) in points.items()
            if not any(u >= x and v >= y and (u, v) != (x, y) for u, v in points.values())]
    return tuple(sorted(kept, key=lambda n: points[n]))


def to_dict(found: Recommendation) -> dict[str, Any]:
    """Plain values for JSON, null where unknown.

    ``low`` and ``high`` are 95 % t intervals before selection; of a score, ``simultaneous`` holds for all ranked arms at once,
    and so for one that was picked by it.
    """
    def ranked(r: Ranking, e: Entry) -> dict[str, Any]:
        if r.rivals < 1 or e.score is None or e.arm.name == r.plain:
            return entry(e)
        low, high = r.simultaneous(e)
        known = entry(e)
        return {**known, "score": {**known["score"], "simultaneous": {"low": low, "high": high, "arms": r.rivals}}}

    def entry(e: Entry) -> dict[str, Any]:
        def effect(c: Contrast, scale: float = 1.0) -> dict[str, Any]:
            low, high = c.interval()
            return {"mean": scale * c.mean, "low": scale * low, "high": scale * high, "n": c.n}

        scales = {a.name: a.scale for a in found.axes}
        return {"arm": e.arm.name, "n": e.n, "score": effect(e.score) if e.score else None,
                "values": {k: scales[k] * v for k, v in e.values.items()},
                "gains": {k: effect(c, scales[k]) for k, c in e.gains.items()}, "costs": dict(e.costs), "apart": e.apart,
                "knn": effect(e.neighbours, 100.0) if e.neighbours else None}

    values: dict[str, Any] = finite({
        "dataset": found.dataset, "teacher": found.teacher, "purpose": found.purpose, "split": found.split,
        "intervals": "95 % t, paired over seeds, before selection; score.simultaneous holds for all ranked arms at once",
        "axes": [{"name": a.name, "title": a.title, "key": a.measure, "conditions": list(a.conditions), "unit": a.unit,
                  "teacher": None if a.teacher is None else a.scale * a.teacher} for a in found.axes],
        "missing": dict(found.missing),
        "students": [{"student": r.student, "plain": r.plain, "reason": r.reason, "leaders": list(r.leaders),
                      "disputes": [{"better": better, "worse": worse} for better, worse in r.disputes],
                      "caught_up": list(r.caught_up), "not_run": list(r.not_run),
                      "fronts": {k: list(v) for k, v in r.fronts.items()}, "ranked": [ranked(r, e) for e in r.entries],
                      "apart": [entry(e) for e in r.apart]} for r in found.rankings]})
    return values
