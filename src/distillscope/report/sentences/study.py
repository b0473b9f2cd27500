"""What the numbers say, in sentences computed from them. None of it is typed by hand, and each says its n."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import NamedTuple

from distillscope.claims.results import HARM
from distillscope.report.figures.noise import Sigma, by_size, noise_conditions
from distillscope.report.sentences.numbers import (
    NBSP,
    accuracy_of,
    bracket,
    by,
    count,
    interval_text,
    number,
    percent,
    second_accuracy,
    seeds_text,
    span,
)
from distillscope.report.tables import sample_note, undersampled
from distillscope.results.keys import COSINE, LATENCY, PARAMETERS, RANK, facts_of
from distillscope.results.models import Model, Setting
from distillscope.results.rows import CLEAN
from distillscope.results.run import Run
from distillscope.results.summary import Statistic, Summary
from distillscope.visible import joined


def _main_arm(setting: Setting) -> list[Model]:
    """The students of the study's first arm: what the verdict is about."""
    return [m for m in setting.students if m.arm == setting.students[0].arm] if setting.students else []


def _found(models, summary: Summary, key: str, condition: str = "clean") -> list[tuple[Model, Statistic]]:
    return [(m, s) for m in models if (s := summary.get(m, key, condition))]


def _seeds(found: list[tuple[Model, Statistic]]) -> str:
    counts = sorted({s.n_seeds for _, s in found})
    return seeds_text(counts[0]) if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]} seeds"


def headline(setting: Setting, summary: Summary) -> str:
    """What was lost under one teacher on one data set, in one sentence."""
    students = _main_arm(setting)
    accuracy, second, parts, seen, best = accuracy_of(summary), second_accuracy(summary), [], [], None
    teacher, ending = setting.reference, "s" if len(students) == 1 else ""
    scores = _found(students, summary, accuracy[0]) if accuracy else []
    if scores and accuracy:
        seen += scores
        best = summary.get(teacher, accuracy[0]) if teacher else None
        if best:
            are, whose = ("is", "its") if ending else ("are", "their")
            parts.append(f"{are} {against(best, scores)} {whose} teacher {setting.teacher} ({percent(best.mean)})")
            other, own = (_found(students, summary, second[0]), summary.get(teacher, second[0])) if second else ([], None)
            if accuracy and second and other and own:
                turned = all(s.mean < best.mean for _, s in scores) != all(s.mean < own.mean for _, s in other)
                how = f"{'but' if turned else 'and'} {against(own, other)} it ({percent(own.mean)}) {by(second[1])}"
                parts[-1] += f" {by(accuracy[1])}, {how},"
        else:
            parts.append(f"reach{'es' if ending else ''} {span(100 * s.mean for _, s in scores)}{NBSP}% accuracy")
    own = summary.get(teacher, RANK) if teacher else None
    ranks = _found(students, summary, RANK)
    if ranks:
        seen += ranks
        parts.append(f"use{ending} {span(s.mean for _, s in ranks)} effective dimensions")
        if own:
            whose = "the teacher" if scores and best else f"teacher {setting.teacher}"
            parts[-1] += f", against {number(own.mean, 0 if own.mean >= 100 else 1)} for {whose}"
    if not parts:
        return f"On {setting.dataset} no student of {setting.teacher} has a finished trial yet."
    who = f"student {students[0].label}" if len(students) == 1 else f"students {joined(m.label for m in students)}"
    return f"On {setting.dataset}, {who} {' and '.join(parts)} ({_seeds(seen)})."


def against(teacher: Statistic, students: list[tuple[Model, Statistic]]) -> str:
    """'1.2 to 3.4 points less accurate than'; a difference that is there does not read as 0.0.

    >>> from distillscope.results.summary import statistic
    >>> own, some = statistic([0.8]), [(None, statistic([v])) for v in (0.7, 0.75, 0.8, 0.81)]
    >>> against(own, some[:2]), against(own, some[2:3]), against(own, some[3:])
    ('5.0 to 10.0 points less accurate than', 'as accurate as', '1.0 points more accurate than')
    >>> against(own, some[1:]), against(own, [(None, statistic([0.7998]))])
    ('between 5.0 points less and 1.0 points more accurate than', '0.02 points less accurate than')
    """
    lost = [100 * (teacher.mean - s.mean) for _, s in students]
    lost = [0.0 if abs(v) < 1e-9 else v for v in lost]
    if not any(lost):
        return "as accurate as"
    digits = 1 if all(round(v, 1) or not v for v in lost) else 2
    if min(lost) < 0 < max(lost):
        return (f"between {number(max(lost), digits)} points less and {number(-min(lost), digits)} points more accurate than")
    way = "less" if max(lost) > 0 else "more"
    return f"{span((abs(v) for v in lost), digits)} points {way} accurate than"


def what_was_lost(setting: Setting, summary: Summary) -> list[str]:
    """The gap of the best student, and what size changed."""
    sentences, students = [], _main_arm(setting)
    accuracy, teacher = accuracy_of(summary), setting.reference
    if accuracy and teacher:
        scores, own = _found(students, summary, accuracy[0]), summary.get(teacher, accuracy[0])
        if scores and own:
            s = max((s for _, s in scores), key=lambda s: s.mean)
            first = [m for m, other in scores if math.isclose(other.mean, s.mean, abs_tol=1e-12)]
            gap = 100 * (own.mean - s.mean)
            direction = 1 if gap >= 0 else -1  # the sentence's
            ends = sorted(100 * (own.mean - end) * direction for end in (s.low, s.high))
            interval = f" {bracket(ends[0], ends[1], 1)}" if math.isfinite(s.low) and len(first) == 1 else ""
            who = _highest(first, [m for m, _ in scores if m not in first], summary, accuracy)
            sentences.append(f"{who} {against(own, [(first[0], s)])} the teacher on clean images {by(accuracy[1])}{interval}, "
                             f"{seeds_text(s.n_seeds)}.")
    ordered = by_size(setting, summary, students[0].arm) if students else []
    if len(ordered) > 1:
        small, large = ordered[0], ordered[-1]
        least, most = summary.get(small, PARAMETERS), summary.get(large, PARAMETERS)
        times = f" ({count(most.mean)} parameters, {most.mean / least.mean:.1f} times as many)" if least and most else ""
        sentence = _difference(summary, large, small, RANK, f"From {small.label} to {large.label}{times} the effective rank",
                               2, 1, "")
        sentences += [sentence] if sentence else []
    note = sample_note([setting], summary) if undersampled([setting], summary) else ""
    return sentences + ([note] if note else [])


def _highest(first: list[Model], others: list[Model], summary: Summary, accuracy: tuple[str, str]) -> str:
    """Who is named, and by what: the mean alone, where other students are not shown to be below it."""
    names = f"{joined(m.label for m in first)} {'are' if len(first) > 1 else 'is'}"
    if len(first) + len(others) == 1:
        return names
    beside = {m: summary.difference(first[0], m, accuracy[0]) for m in others}
    alike = [m.label for m, d in beside.items() if d is None or not d.low > 0]
    return (f"{names}, by the mean, the most accurate student{'s' * (len(first) > 1)}"
            f"{f', not shown to be ahead of {joined(alike)}' if alike else ''}:")


Changes = dict[str, tuple[Statistic, int, float]]
"""What an arm changed, by the quantity's title: the paired difference, its digits, its scale."""


def other_arms(run: Run, setting: Setting, summary: Summary) -> list[tuple[Model, Model, Changes]]:
    """(arm's model, plain model, what the arm changed) for each model of an arm but the first."""
    first = {m.student: m for m in _main_arm(setting)}
    accuracy, second, level = accuracy_of(summary), second_accuracy(summary), middle_noise(run, summary)
    wanted: list[tuple[str, str, str]] = [(facts_of(RANK).title, RANK, CLEAN)]
    wanted += [("clean accuracy, points", accuracy[0], CLEAN)] if accuracy else []
    wanted += [(f"the same {by(second[1])}", second[0], CLEAN)] if second else []
    wanted += [(f"accuracy at σ {level.value:g}, points", accuracy[0], level.condition)] if accuracy and level else []
    rows = []
    for model in setting.students[len(first):]:
        plain = first.get(model.student)
        found = {title: (d, facts_of(key).num_few, facts_of(key).scale) for title, key, condition in wanted
                 if plain and (d := summary.difference(model, plain, key, condition)) and d.n_seeds}
        rows += [(model, plain, found)] if plain and found else []
    return rows


def _difference(summary: Summary, a: Model, b: Model, key: str, subject: str, digits: int, scale: float, unit: str) -> str:
    """'<subject> changes by +0.75 [0.1, 1.4], paired over n = 3 seeds.' and what such an interval can and cannot say."""
    d = summary.difference(a, b, key)
    if d is None:
        return ""
    sign = "+" if d.mean > 0 else ""
    text = f"{subject} changes by {sign}{number(scale * d.mean, digits)}{unit}"
    if not math.isfinite(d.low):
        return f"{text}; {seeds_text(d.n_seeds)}, so we cannot tell how much it varies."
    text += f" {interval_text(d, digits, scale)} (95{NBSP}%, paired over {d.n_seeds} seeds)"
    if d.low <= 0 <= d.high:
        return f"{text}: no significant difference, which does not prove that there is none."
    return f"{text}."


def middle_noise(run: Run, summary: Summary) -> Sigma | None:
    """The noise level in the middle of the study's list: fixed by the design, not picked by its outcome."""
    levels = noise_conditions(run, summary)
    return levels[len(levels) // 2] if levels else None


def does_it_matter(run: Run, setting: Setting, summary: Summary) -> list[str]:
    """How much accuracy noise costs the teacher and each student, at the middle and at the strongest level."""
    accuracy = accuracy_of(summary)
    levels = noise_conditions(run, summary)
    if not accuracy:
        return ["This run has no labels, so no accuracy was measured, clean or noisy."]
    if not levels:
        return ["Only clean images were tested, so we cannot tell what noise costs."]
    sentences, models = [], [*setting.teachers[:1], *(m for m in setting.named if not m.is_teacher)]
    for level, (key, hint) in itertools.product(dict.fromkeys((levels[len(levels) // 2], levels[-1])),
                                                filter(None, (accuracy, second_accuracy(summary)))):
        falls = []
        for model in models:
            clean, noisy = summary.get(model, key), summary.get(model, key, level.condition)
            if clean and noisy:
                falls.append((model.label, 100 * (clean.mean - noisy.mean)))
        if falls:
            each = joined(f"{label}{NBSP}{number(fall, 1)}" for label, fall in falls)
            sentences.append(f"Accuracy lost under noise of {level.text}, in points, {by(hint)}: {each}.")
    return sentences + _guessing(setting, summary, models, accuracy)


def _guessing(setting: Setting, summary: Summary, models: list[Model], accuracy: tuple[str, str]) -> list[str]:
    """The models from which noise can take nothing, since they only guess on clean images."""
    guess = summary.get(setting.reference, "knn.largest_class") if setting.reference else None
    low = [m.label for m in models if guess and (s := summary.get(m, accuracy[0])) and s.mean < guess.mean + HARM]
    if not guess or not low:
        return []
    said = (f"On clean images {joined(low)} {'do' if len(low) > 1 else 'does'} hardly better than always guessing the largest "
            f"class ({percent(guess.mean)}) {by(accuracy[1])}: noise can take nothing there.")
    return [said]


class MeritRow(NamedTuple):
    """One model's value as it is shown, with its interval."""

    model: Model
    statistic: Statistic
    value: str
    interval: str

    @property
    def bounded(self) -> bool:
        """Whether the interval can be drawn."""
        return math.isfinite(self.statistic.low) and self.statistic.high > self.statistic.low


@dataclass(frozen=True)
class Merit:
    """A figure of merit at the head of the page: one value per model."""

    title: str
    note: str
    rows: list[MeritRow]
    full: float  # the value that fills the bar


RETRIEVAL = (("Retrieval", "the teacher's embedding of the same image found first, after one fitted matrix",
              "mapped.recall_at_1"),
             ("Neighbours kept", "of the teacher's 10 nearest", "similarity.mutual_knn_10"))
OF_TEACHER = {"mapped.recall_at_1": 1.0, "similarity.mutual_knn_10": 1.0, COSINE: 1.0}


def merits(run: Run, setting: Setting, summary: Summary) -> list[Merit]:
    """Clean and noisy accuracy, rank, retrieval, and size with latency, teacher beside students."""
    wanted: list[tuple[str, str, str, str, float, int, str, float | None]] = []
    accuracy, level, measured = accuracy_of(summary), middle_noise(run, summary), summary.measures()
    if accuracy:
        wanted.append(("Accuracy, clean", accuracy[1], accuracy[0], "clean", 100, 1, f"{NBSP}%", 1.0))
        if level:
            wanted.append(("Accuracy under noise", level.text, accuracy[0], level.condition, 100, 1, f"{NBSP}%", 1.0))
    wanted.append(("Effective rank", "directions that are filled", RANK, "clean", 1, 1, "", None))
    near = next((r for r in RETRIEVAL if r[2] in measured), None)
    wanted.append((*near, "clean", 100, 1, f"{NBSP}%", 1.0) if near else
                  ("Mean cosine", "with the teacher", COSINE, "clean", 1, 3, "", 1.0))
    size = ("Size and latency", "parameters; one image, one thread") if LATENCY in measured else ("Parameters", "")
    wanted.append((*size, PARAMETERS, "clean", 1, 0, "", None))
    found = []
    for title, note, key, condition, scale, digits, unit, full in wanted:
        rows = []
        for model, s in _found([*setting.teachers[:1], *_main_arm(setting)], summary, key, condition):
            value = count(s.mean) if key == PARAMETERS else number(scale * s.mean, digits) + unit
            rows.append(MeritRow(model, s, value, _time(model, summary) if key == PARAMETERS
                                 else interval_text(s, digits, scale)))
        if rows and key in OF_TEACHER and setting.reference:  # what a teacher has of itself needs no measurement
            full = OF_TEACHER[key]
            whole = Statistic(full, math.nan, math.nan, math.nan, math.nan, 0, ())
            rows.insert(0, MeritRow(setting.reference, whole, number(scale * full, 0) + unit, ""))
        if rows:
            found.append(Merit(title, note, rows, full or max(s.mean for _, s, _, _ in rows)))
    return found


def _time(model: Model, summary: Summary) -> str:
    time = summary.get(model, LATENCY)
    return f"{number(time.mean, 1)}{NBSP}ms" if time else ""
