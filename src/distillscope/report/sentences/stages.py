"""What an audit says of the steps from the teacher to what is shipped: their table, and which of them lost most."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from distillscope.measure.results import Audit, Stage, Value, WorstItem
from distillscope.report.sentences.audit_measures import p_text, share
from distillscope.report.sentences.numbers import NBSP, bracket, number

WHAT = {"accuracy": "probe accuracy", "recall_at_1": "recall at 1 in the teacher's index",
        "mapped_recall_at_1": "recall at 1 in the teacher's index, after one fitted matrix"}
ROWS = {
    "accuracy": "accuracy, %", "recall_at_1": "recall at 1, %", "mapped_recall_at_1": "mapped recall, %",
    "student_recall_at_1": "own index, %", "negative_flips": "flips, %", "mean_cosine": "mean cosine",
    "worst_cosine": "worst cosine", "teacher_cosine": "to the teacher", "effective_rank": "effective rank",
    "size_bytes": "size, MB", "latency_ms": "latency, ms", "peak_mib": "memory, MiB"}
"""Key of a stage's value -> title of its row."""
LIKE_ONE = 1e-6
"""A cosine closer to 1 than this is written as what it lacks of 1."""


@dataclass(frozen=True)
class StageCell:
    """A stage's value and its interval as text; what the step before it lost stands ``below``."""

    text: str
    interval: str = ""
    below: str = ""
    exact: float | None = None


@dataclass(frozen=True)
class StageRow:
    """One measure of every stage."""

    key: str
    title: str
    cells: list[StageCell]
    definition: str


def stage_titles(found: Audit) -> list[str]:
    """The stages' names as heads of columns: files without what the names of all of them begin with."""
    files = [stage.name for stage in found.stages if stage.kind == "artefact"]
    common = os.path.commonprefix(files)
    cut = max(common.rfind(mark) for mark in "._-") + 1 if len(files) > 1 else 0
    return [stage.name[cut:] if stage.kind == "artefact" else stage.kind for stage in found.stages]


def stage_rows(found: Audit) -> list[StageRow]:
    """A row for each measure that any stage has."""
    rows = []
    for key, title in ROWS.items():
        values = [stage.values.get(key) for stage in found.stages]
        known = [value for value in values if value is not None]
        if known:
            cells = [_cell(stage, key, value) for stage, value in zip(found.stages, values, strict=True)]
            rows.append(StageRow(key, title, cells, known[-1].definition))
    return rows


def _cell(stage: Stage, key: str, value: Value | None) -> StageCell:
    if value is None:
        return StageCell("")
    lost = stage.values.get(f"{key}_lost")
    below = "" if lost is None else f"{loss_text(lost)}{'*' if key in stage.lost else ''}"
    return StageCell(value_text(value), _between(value), below, value.value)


def value_text(value: Value) -> str:
    """A stage's value in the unit of its row.

    >>> value_text(Value(0.9999999803, None, None, 300, "", "cosine")), value_text(Value(1.23e6, None, None, 1, "", "bytes"))
    ('1 − 2e-08', '1.23')
    """
    return _texts(value.unit)(value.value)


def _texts(unit: str) -> Callable[[float], str]:
    return {"share": lambda v: share(v, 1).removesuffix(f"{NBSP}%"), "cosine": cosine_text, "bytes": lambda v: f"{v / 1e6:.3g}",
            "ms": lambda v: f"{v:.3g}", "MiB": lambda v: number(v, 0)}.get(unit, lambda v: number(v, 1))


def cosine_text(value: float) -> str:
    """A cosine with as many digits as show what it lacks of 1.

    >>> cosine_text(0.91234), cosine_text(0.99991), cosine_text(0.9999962), cosine_text(1.0)
    ('0.912', '0.99991', '0.9999962', '1')
    """
    lacks = 1 - value
    if lacks < 1e-15:
        return "1"
    if lacks < LIKE_ONE:
        return f"1 − {lacks:.0e}"
    digits = next(d for d in range(3, 9) if lacks >= 5 * 10.0 ** -d) if lacks < 0.05 else 3
    return number(value, digits)


def _between(value: Value) -> str:
    if value.interval is None:
        return ""
    texts = _texts(value.unit)
    return f"[{', '.join(texts(v) for v in value.interval)}]"


def loss_text(lost: Value) -> str:
    """A loss with its sign turned, in points or as a cosine: what the step changed.

    >>> loss_text(Value(0.021, 0.01, 0.03, 300, "", "share")), loss_text(Value(-0.004, -0.01, 0.0, 300, "", "share"))
    ('−2.1', '+0.4')
    """
    if lost.unit == "cosine":
        return f"{'+' if -lost.value >= 5e-4 else ''}{number(-lost.value, 3)}"
    points = -100 * lost.value
    return f"{'+' if points > 0.05 else ''}{number(points, 1)}"


def points_text(lost: Value) -> str:
    """
    >>> points_text(Value(0.021, 0.01, 0.034, 300, "", "share")).replace(NBSP, " ")
    '2.1 points [1.0, 3.4]'
    """
    ends = "" if lost.interval is None else f" {bracket(100 * lost.interval[0], 100 * lost.interval[1], 1)}"
    return f"{number(100 * lost.value, 1)}{NBSP}points{ends}"


def stages_headline(found: Audit) -> str:
    """Which step lost most, and what the files lost; that none did, where none is shown to."""
    steps = found.stages[1:]
    tested = list(steps[0].p)
    if not tested:
        return "No step could be tested: neither a probe nor recall was measured."
    key = next((key for key in tested if any(key in stage.lost for stage in steps)), tested[0])
    losing = [stage for stage in steps if key in stage.lost]
    if not losing:
        n = steps[0].values[f"{key}_lost"].n
        most = max(steps, key=lambda stage: stage.values[f"{key}_lost"].value)
        return (f"No step lost significantly on {n:,} items ({' and '.join(WHAT[k] for k in tested)}); the largest "
                f"difference is {points_text(most.values[f'{key}_lost'])}, {_step(most, steps)}.")
    worst = max(losing, key=lambda stage: stage.values[f"{key}_lost"].value)
    first = (f"The step {_step(worst, steps)} lost most: {points_text(worst.values[f'{key}_lost'])} of {WHAT[key]} "
             f"({p_text(worst.p[key])})")
    return f"{first}; {_others(steps, worst, key)}."


def _step(stage: Stage, steps: list[Stage]) -> str:
    return "from the teacher to the student" if stage is steps[0] else f"to {stage.name}"


def _others(steps: list[Stage], worst: Stage, key: str) -> str:
    """What the other steps lost: the significant losses, those that the interval alone shows, and the other steps together."""
    rest = [stage for stage in steps if stage is not worst]
    first = [(stage, key if key in stage.lost else next(iter(stage.lost))) for stage in rest if stage.lost]
    said = [f"{_named(stage, steps)} lost {points_text(stage.values[f'{lost}_lost'])}" + f" of {WHAT[lost]}" * (lost != key)
            for stage, lost in first]
    alone = [stage for stage in rest if not stage.lost and (stage.values[f"{key}_lost"].low or 0.0) > 0]
    said += [f"{_named(stage, steps)} lost {points_text(stage.values[f'{key}_lost'])}, which is not significant after Holm's "
             "correction" for stage in alone]
    quiet = [stage for stage in rest if not stage.lost and stage not in alone]
    if quiet:
        names = [_named(stage, steps) for stage in quiet]
        most = max(stage.values[f"{key}_lost"].high or 0.0 for stage in quiet)
        room = f"; at most {number(100 * most, 1)}{NBSP}points by the interval's end" if most > 0 else ""
        listed = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
        said.append(f"{listed} show{'s' * (len(names) == 1)} no significant loss of {WHAT[key]} (Holm's correction{room})")
    return "; ".join(said)


def _named(stage: Stage, steps: list[Stage]) -> str:
    return "the step to the student" if stage is steps[0] else stage.name


def stage_findings(found: Audit) -> list[str]:
    """A sentence for each step: what changed of decisions, of embeddings, and of costs."""
    teacher, student, *files = found.stages
    said = [_finding(student, teacher), *(_finding(file, student) for file in files)]
    return [sentence for sentence in said if sentence]


def _finding(stage: Stage, before: Stage) -> str:
    values = stage.values
    parts = []
    if "negative_flips" in values:
        lost, won = values["negative_flips"], values["positive_flips"]
        n = lost.n
        parts.append(f"{round(n * lost.value):,} of {n:,} items were right before and are wrong after it "
                     f"({share(lost.value, 1)}{_flip_interval(lost)}), {round(n * won.value):,} the other way round"
                     if lost.value or won.value else f"none of {n:,} items changed between right and wrong")
    if "mean_cosine" in values:
        mean, least = (cosine_text(values[key].value) for key in ("mean_cosine", "worst_cosine"))
        parts.append(f"mean cosine with the {before.kind} {mean}, the worst item's {least}")
    words = {"size_bytes": ("smaller", "larger"), "latency_ms": ("faster", "slower")}
    costs = [_times(before, stage, key, *pair) for key, pair in words.items() if key in values and key in before.values]
    if costs:
        parts.append(", ".join(costs))
    who = "The student" if stage.kind == "student" else stage.name
    return f"{who}: {'; '.join(parts)}." if parts else ""


def _times(before: Stage, stage: Stage, key: str, less: str, more: str) -> str:
    """How many times smaller a value became, or larger."""
    ratio = before.values[key].value / stage.values[key].value
    if 0.95 < ratio < 1.05:
        return "of the same size" if key == "size_bytes" else "as fast"
    return f"{number(max(ratio, 1 / ratio), 1)} times {less if ratio >= 1 else more}"


def _flip_interval(value: Value) -> str:
    return "" if value.interval is None else f" {bracket(100 * value.interval[0], 100 * value.interval[1], 1)}"


def worst_measure(item: WorstItem) -> str:
    """What an item is among the worst by."""
    return f"rank {item.rank:,}" if item.cosine is None else cosine_text(item.cosine)


def worst_text(item: WorstItem) -> str:
    """An item for readers who cannot see it."""
    words = {True: "right", False: "wrong"}
    by = f"its own item at rank {item.rank:,}" if item.cosine is None else f"cosine {cosine_text(item.cosine)}"
    judged = [] if item.before is None or item.after is None else [f"{words[item.before]} before, {words[item.after]} after"]
    return ", ".join([item.id, by, *judged])


def unshown(stage: Stage) -> str:
    """Why no images of a step are shown; empty where some are."""
    worst = [item for item in stage.worst if item.cosine is not None]
    if stage.worst and worst and min(item.cosine for item in worst if item.cosine is not None) > 1 - 1e-4:
        return "No item's cosine with the stage before is below 0.9999."
    return ""
