"""What a recommendation says, in sentences: the arm to train with, what it wins, what it costs, and on what that rests."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from distillscope.advice.axes import PAPER, TUNED
from distillscope.advice.rank import Entry, Ranking, Recommendation
from distillscope.report.sentences.numbers import NBSP, bracket, number, quoted
from distillscope.visible import joined

if TYPE_CHECKING:
    from distillscope.results.statistics import Contrast

BALANCE = "balance score"


def signed(value: float, digits: int = 1) -> str:
    """
    >>> signed(2.34), signed(-0.5)
    ('+2.3', '−0.5')
    """
    return f"{'+' if value > 0 else ''}{number(value, digits)}"


def gain(contrast: Contrast, scale: float = 1.0, digits: int = 1, interval: tuple[float, float] | None = None) -> str:
    """'+2.3 [1.1, 3.5]', with the 95 % t interval unless another is given.

    >>> from distillscope.results.statistics import paired
    >>> gain(paired([0.15, 0.16, 0.17]), 100)
    '+16.0 [13.5, 18.5]'
    >>> gain(paired([0.15, 0.15]), 100)
    '+15.0 [spread unknown]'
    """
    low, high = interval or contrast.interval()
    if not math.isfinite(low):
        return f"{signed(scale * contrast.mean, digits)} [spread unknown]"
    return f"{signed(scale * contrast.mean, digits)} {bracket(scale * low, scale * high, digits)}"


def following_text(study: Mapping[str, Any]) -> str:
    """The study to run next in one line.

    >>> following_text({"arms": [{"name": "a"}, {"name": "b"}], "students": [{"name": "s", "label": "S"}], "seeds": [7, 8]})
    'a and b with S, seeds 7, 8'
    """
    arms, students = (joined(p.get("label") or p["name"] for p in study[key]) for key in ("arms", "students"))
    return f"{arms} with {students}, seeds {', '.join(map(str, study['seeds']))}"


def score_value(entry: Entry, found: Recommendation, ranking: Ranking) -> str:
    """The score as a difference to the plain arm, with the interval that holds for all ranked arms at once.

    The balance's is hundredths of a gap (docs/recommend.md); another's has the unit of its quantity.
    """
    if found.purpose == "balance":
        return gain(scored(entry), 100, 1, ranking.simultaneous(entry))
    axis = next(a for a in found.axes if a.name == found.purpose)
    return f"{gain(scored(entry), interval=ranking.simultaneous(entry))} {axis.unit}"


def score_text(entry: Entry, found: Recommendation, ranking: Ranking) -> str:
    """`score_value` with its name, where it is the balance's."""
    value = score_value(entry, found, ranking)
    return f"{BALANCE} {value}" if found.purpose == "balance" else value


def scored(entry: Entry) -> Contrast:
    """The score of an arm that has one."""
    if entry.score is None:
        raise ValueError(f"{entry.arm.name} has no score")
    return entry.score


def level(ranking: Ranking) -> str:
    """What the interval of a score is."""
    return f"95{NBSP}%" if ranking.rivals < 2 else f"95{NBSP}% for all {ranking.rivals} arms at once"


def won(ranking: Ranking, found: Recommendation) -> str:
    """What the arm that reads best wins (a share of the gap to the teacher, or where there is none the score) and its price."""
    first = ranking.named(ranking.leaders[0])
    if found.purpose != "balance":
        text = f"gains {score_text(first, found, ranking)} over the plain arm"
    elif ranking.caught_up:
        better = [f"{signed(a.scale * first.gains[a.name].mean)} {a.unit} in {a.title}" for a in found.axes
                  if a.name in first.gains and first.gains[a.name].interval()[0] > 0]
        score = gain(scored(first), 100, 0, ranking.simultaneous(first))
        text = f"gains {joined(better) or 'overall'} (balance score of {score})"
    else:
        share = gain(scored(first), 100, 0, ranking.simultaneous(first)).lstrip("+")
        text = f"closes {share}{NBSP}% of the gap to the teacher, the mean of {joined(found_axes(first, found))}"
    worse = losses(first, found)
    return f"{text}, but loses {joined(worse)}" if worse else text


def found_axes(entry: Entry, found: Recommendation) -> list[str]:
    """The titles of the axes that the entry was scored on."""
    return [a.title for a in found.axes if a.name in entry.gains]


def losses(entry: Entry, found: Recommendation) -> list[str]:
    """The axes on which an arm is shown to be worse than the plain one, with the difference."""
    return [f"{a.title} ({gain(entry.gains[a.name], a.scale)} {a.unit})" for a in found.axes
            if a.name in entry.gains and entry.gains[a.name].interval()[1] < 0]


def sentence(ranking: Ranking, found: Recommendation) -> str:
    """What to do with one student: an arm by name, a set without a significant difference, or why nothing can be said."""
    who = ranking.student
    if ranking.reason:
        return f"{who}: cannot be ranked for {found.purpose}: {ranking.reason}.{not_run(ranking)}"
    best, *others = ranking.leaders
    first, rest = ranking.named(best), not_run(ranking)
    if ranking.leaders == (ranking.plain,):
        return (f"{who}: keep “{best}”, the plain arm: {beaten(ranking)} shown to be worse for {found.purpose} "
                f"(n = {first.n} seeds).{rest}")
    if not others:
        return (f"{who}: train with “{best}”. For {found.purpose} it {won(ranking, found)} ({level(ranking)}, paired over "
                f"{first.n} seeds), and {beaten(ranking)} shown to be worse. It changes: {changes(first, found)}{rest}")
    if ranking.disputes:
        return f"{who}: for {found.purpose} {undecided(ranking)}.{rest}"
    names = quoted(ranking.leaders)
    text = f"{who}: no significant difference for {found.purpose} between {names}."
    if ranking.plain in ranking.leaders:
        return f"{text} The plain arm is among them, so no arm is significantly better.{rest}"
    score = "has the best score" if ranking.entries[0] is first else "has the best score of these"
    return (f"{text} “{best}” {score}: it {won(ranking, found)} ({level(ranking)}, paired over {first.n} seeds). "
            f"It changes: {changes(first, found)}{rest}")


def other_arms(ranking: Ranking) -> str:
    """The ranked arms beside the one that leads, by name where they are one or two."""
    names = [e.arm.name for e in ranking.entries if e.arm.name not in ranking.leaders]
    return quoted(names) if len(names) < 3 else f"each of the {len(names)} other arms"


def beaten(ranking: Ranking) -> str:
    """`other_arms` as the subject of a sentence."""
    return f"{other_arms(ranking)} {'are' if len(ranking.entries) - len(ranking.leaders) == 2 else 'is'}"


def undecided(ranking: Ranking) -> str:
    """Why no arm can be named though some lead: which arms are shown to be better than one that leads, and what beats them."""
    each = []
    for better in dict.fromkeys(better for better, _ in ranking.disputes):
        worse = [name for other, name in ranking.disputes if other == better]
        by = [name for name in ranking.beaten_by.get(better, ()) if name in ranking.leaders]
        each.append(f"“{better}” is shown to be better than {quoted(worse)}{f', but worse than {quoted(by)}' if by else ''}")
    return (f"no arm can be named of {quoted(ranking.leaders)}: {'; '.join(each)} (each pair over the seeds that both ran; "
            "give all arms the same seeds)")


def not_run(ranking: Ranking) -> str:
    """The arms that only other students ran, as a sentence to be added; empty where there are none."""
    return f" Not run on {ranking.student}: {', '.join(ranking.not_run)}." if ranking.not_run else ""


def changes(entry: Entry, found: Recommendation) -> str:
    """What an arm changes on every axis: what it wins, and what it costs."""
    each = [f"{a.title} {gain(entry.gains[a.name], a.scale)} {a.unit}" for a in found.axes if a.name in entry.gains]
    return f"{'; '.join(each)} (95{NBSP}% each, before selection: optimistic for an arm that was picked by them)."


def marked(ranking: Ranking) -> str:
    """What the star in a table says."""
    if ranking.disputes:
        return "* is undecided: the arms ran different seeds, and what pairs of them show does not agree. "
    if len(ranking.leaders) > 1:
        return ("* is not shown to be worse than any other arm: that depends on the spread of the paired differences, not on "
                "how far apart the means are. ")
    return "* leads: every other ranked arm is shown to be worse. " if ranking.leaders else ""


def intervals(ranking: Ranking) -> str:
    """What the intervals in a table are."""
    score = f"The score's is {level(ranking)}; the others are" if ranking.rivals > 1 else "They are"
    return (f"Intervals are of the difference to the plain arm, paired over seeds. {score} 95{NBSP}% t intervals of one arm "
            "and quantity, before selection.")


PROBES = {TUNED: "Accuracies here are those of the tuned probe, whose C is chosen on held-out images.",
          PAPER: "Accuracies here are those of the paper's probe (C 1 on unit rows), which favours embeddings with an even "
                 "spectrum; set probes.tuned: true to rank by a probe whose C is chosen on held-out images."}


def notes(found: Recommendation) -> list[str]:
    """What a reader must know of a ranking: the probe that it rests on, and what was not measured."""
    of_paper = found.accuracy == PAPER
    said = [f"{PROBES[found.accuracy]}{_neighbours(found) if of_paper else ''}"] if found.accuracy in PROBES else []
    said += found.mapped_notes
    timed = found.timed or not any(r.entries or r.apart for r in found.rankings)
    return said if timed else [*said, ("Latency was not measured: add the stress latency to the study (stresses: [{name: "
                                      "latency}]).")]


def _neighbours(found: Recommendation) -> str:
    """What the leading arms gain by nearest neighbours, which have no C, as a sentence to be added."""
    best = [(r.student, r.named(r.leaders[0])) for r in found.rankings if r.improved]
    each = [f"{who}, “{e.arm.name}” {gain(e.neighbours, 100)} points" for who, e in best if e.neighbours]
    return f" By nearest neighbours (kNN) against the plain arm: {'; '.join(each)}." if each else ""


def teacher_row(found: Recommendation) -> str:
    """The teacher's own values, and what the noisy accuracy is the mean of."""
    noisy = next((f" Noisy: mean over {', '.join(a.conditions)}." for a in found.axes if a.name == "robustness"), "")
    known = [f"{a.title} {number(a.scale * a.teacher, 1)}{NBSP}{'%' if a.unit == 'points' else a.unit}" for a in found.axes
             if a.teacher is not None]
    return (f"Teacher: {'; '.join(known)}." if known else "The teacher's own values were not measured.") + noisy
