"""The recommendation of a run: read, said in sentences, as a table in the terminal, and as JSON."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from distillscope.advice.next_study import chosen_on, next_study, screen_size, screened
from distillscope.advice.rank import COSTS, PAPER, PURPOSES, TUNED, Axis, Entry, Ranking, Recommendation, recommend, to_dict
from distillscope.claims.results import Results, results_of
from distillscope.errors import UserError
from distillscope.report.sentences.numbers import NBSP, count, joined, number
from distillscope.results.keys import facts_of
from distillscope.results.run import Run, names_of, read_run, student_key
from distillscope.results.statistics import Contrast


@dataclass(frozen=True)
class Advice:
    """What was found for one purpose, from which runs, and the study to run next (None where nothing could be ranked)."""

    purpose: str
    found: tuple[Recommendation, ...]
    results: tuple[Results, ...]
    study: Mapping[str, Any]
    following: dict[str, Any] | None
    paths: tuple[Path, ...]

    @property
    def chosen_on(self) -> str:
        return chosen_on(self.found, self.study)

    @property
    def yaml(self) -> str:
        return yaml.safe_dump(self.following, sort_keys=False, allow_unicode=True) if self.following else ""

    def screen_commands(self, named: str | None = None) -> list[str]:
        """How to screen properly, where the test split was measured on; ``named`` stands for the run's path."""
        if screened(self.study):
            return []
        sets, dirs = f"--set screen={screen_size(self.found)}", [named] if named else [shlex.quote(str(p.resolve() if p.name in ("", "..") else p)) for p in self.paths]
        return [*(f"distillscope run {d}/study.yaml {sets} --out {d}-screen" for d in dirs),
                f"distillscope recommend {' '.join(f'{d}-screen' for d in dirs)}"]

    def to_json(self) -> str:
        """The comparison, what it rests on, and the study to run next."""
        return json.dumps({"purpose": self.purpose, "chosen_on": self.chosen_on, "screen": self.screen_commands(),
                           "settings": [{**to_dict(r), "sentences": [sentence(s, r) for s in r.rankings], "notes": notes(r)}
                                        for r in self.found],
                           "next": self.following}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def advise(runs: Sequence[Run], purpose: str = "balance") -> Advice:
    """The advice that runs of one teacher, data set and noise give together; nothing is raised where none can be given."""
    finished = [r for r in runs if len(r.results)]
    results = tuple(results_of(finished, "recommend")) if finished else ()
    found = tuple(recommend(r, purpose) for r in results)
    following = next_study(found, [r.study for r in finished]) if finished else None
    return Advice(purpose, found, results, runs[0].study, following, tuple(r.path for r in runs))


def recommend_runs(run_dirs: Sequence[Path], purpose: str = "balance") -> Advice:
    """Read the runs and advise. Raises UserError where one is no run, or nothing can be ranked."""
    runs = [read_run(path) for path in dict.fromkeys(Path(d) for d in run_dirs)]
    for run in runs:
        if run.results.empty:
            raise UserError(f"recommend {run.path}", "a run with finished trials", "none finished",
                            f"Finish it with `distillscope run ... --out {run.path} --resume`.")
    advice = advise(runs, purpose)
    if advice.following is None:
        reasons = dict.fromkeys(r.reason for one in advice.found for r in one.rankings)
        raise UserError(f"recommend {runs[0].path}", f"two arms or more that can be compared for {purpose}", "; ".join(reasons),
                        f"Run more arms or seeds, or ask for another purpose (--for {'|'.join(PURPOSES)}).")
    return advice


# -- words ----------------------------------------------------------------------------------------------------------------


def gain(contrast: Contrast, scale: float = 1.0, digits: int = 1, interval: tuple[float, float] | None = None) -> str:
    """'+2.3 [1.1, 3.5]', with the 95 % t interval unless another is given.

    >>> from distillscope.results.statistics import paired
    >>> gain(paired([0.15, 0.16, 0.17]), 100)
    '+16.0 [13.5, 18.5]'
    """
    low, high = interval or contrast.interval()
    sign = "+" if contrast.mean > 0 else ""
    return f"{sign}{number(scale * contrast.mean, digits)} [{number(scale * low, digits)}, {number(scale * high, digits)}]"


BALANCE = "balance score"


def following_text(study: Mapping[str, Any]) -> str:
    """The study to run next in one line.

    >>> following_text({"arms": [{"name": "a"}, {"name": "b"}], "students": [{"name": "s", "label": "S"}], "seeds": [7, 8]})
    'a and b with S, seeds 7, 8'
    """
    arms, students = (joined(student_key(p) for p in names_of(study.get(key))) for key in ("arms", "students"))
    return f"{arms} with {students}, seeds {', '.join(map(str, study['seeds']))}"


def score_text(entry: Entry, found: Recommendation, ranking: Ranking) -> str:
    """The score as a difference to the plain arm, with its unit and the interval that holds for all ranked arms at once; the balance's is
    hundredths of a gap (docs/recommend.md)."""
    at_once = ranking.simultaneous(entry)
    if found.purpose == "balance":
        return f"{BALANCE} {gain(entry.score, 100, 1, at_once)}"
    axis = next(a for a in found.axes if a.name == found.purpose)
    return f"{gain(entry.score, interval=at_once)} {axis.unit}"


def level(ranking: Ranking) -> str:
    """What the interval of a score is."""
    return f"95{NBSP}%" if ranking.rivals < 2 else f"95{NBSP}% for all {ranking.rivals} arms at once"


def won(ranking: Ranking, found: Recommendation) -> str:
    """What the arm that reads best wins: a share of the gap to the teacher where every gap is one, else the score; and its price."""
    first = ranking.named(ranking.leaders[0])
    if found.purpose != "balance":
        text = f"stands {score_text(first, found, ranking)} from the plain arm"
    elif ranking.caught_up:
        better = [f"{a.title} {gain(first.gains[a.name], a.scale).partition(' ')[0]} {a.unit}" for a in found.axes
                  if a.name in first.gains and first.gains[a.name].interval()[0] > 0]
        text = f"wins {joined(better) or 'on the whole'} (balance score of {gain(first.score, 100, 0, ranking.simultaneous(first))})"
    else:
        share = gain(first.score, 100, 0, ranking.simultaneous(first)).lstrip("+")
        text = f"closes {share}{NBSP}% of the gap to the teacher, the mean of {joined(found_axes(first, found))}"
    worse = losses(first, found)
    return f"{text}, at the cost of {joined(worse)}" if worse else text


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
        return f"{who}: keep “{best}”, the plain arm: {beaten(ranking)} shown to be worse for {found.purpose} (n = {first.n} seeds).{rest}"
    if not others:
        return (f"{who}: train with “{best}”. For {found.purpose} it {won(ranking, found)} ({level(ranking)}, paired over {first.n} seeds), "
                f"and {beaten(ranking)} shown to be worse. {changes(first, found)}{rest}")
    names = joined(f"“{n}”" for n in ranking.leaders)
    text = f"{who}: no significant difference for {found.purpose} between {names}."
    if ranking.plain in ranking.leaders:
        return f"{text} The plain arm is among them: no arm is shown to help.{rest}"
    return f"{text} “{best}” reads best: it {won(ranking, found)} ({level(ranking)}, paired over {first.n} seeds). {changes(first, found)}{rest}"


def other_arms(ranking: Ranking) -> str:
    """The ranked arms beside the one that leads, by name where they are one or two."""
    names = [e.arm.name for e in ranking.entries if e.arm.name not in ranking.leaders]
    return joined(f"“{n}”" for n in names) if len(names) < 3 else f"each of the {len(names)} other arms"


def beaten(ranking: Ranking) -> str:
    """`other_arms` as the subject of a sentence."""
    return f"{other_arms(ranking)} {'are' if len(ranking.entries) - len(ranking.leaders) == 2 else 'is'}"


def not_run(ranking: Ranking) -> str:
    """The arms that only other students ran, as a sentence to be added; empty where there are none."""
    return f" Not run on {ranking.student}: {', '.join(ranking.not_run)}." if ranking.not_run else ""


def changes(entry: Entry, found: Recommendation) -> str:
    """What an arm changes on every axis: what it wins, and what it costs."""
    each = [f"{a.title} {gain(entry.gains[a.name], a.scale)} {a.unit}" for a in found.axes if a.name in entry.gains]
    return f"It changes: {'; '.join(each)} (95{NBSP}% each, before selection: optimistic for an arm that was picked by them)."


def axis_cell(entry: Entry, axis: Axis, ranking: Ranking) -> str:
    """The mean, and below it the difference to the plain arm."""
    if axis.name not in entry.values:
        return "-"
    own = number(axis.scale * entry.values[axis.name], 1)
    other = entry.arm.name != ranking.plain and axis.name in entry.gains
    return f"{own}\n{gain(entry.gains[axis.name], axis.scale)}" if other else own


COST_TITLES = {c: facts_of(COSTS[c]).title for c in ("parameters", "multiply_adds", "latency_ms")}


def table_of(ranking: Ranking, found: Recommendation) -> tuple[list[str], list[list[str]]]:
    """Head and rows of one student's comparison, the arms that are listed apart last."""
    entries = [*ranking.entries, *ranking.apart]
    costs = [c for c in COST_TITLES if any(c in e.costs for e in entries)]
    head = ["arm", BALANCE if found.purpose == "balance" else f"for {found.purpose}",
            *(f"{a.title}, {'%' if a.unit == 'points' else a.unit}" for a in found.axes),
            *(COST_TITLES[c] for c in costs), "seeds"]
    rows = []
    for entry in entries:
        mark = " *" if entry.arm.name in ranking.leaders else ""
        unscored = entry.arm.name == ranking.plain or not entry.score
        score = f"apart: {entry.apart}" if entry.apart else "plain" if unscored else score_text(entry, found, ranking).removeprefix(f"{BALANCE} ")
        sizes = [number(entry.costs[c], 2) if c == "latency_ms" and c in entry.costs else count(entry.costs[c]) if c in entry.costs else "-"
                 for c in costs]
        rows.append([entry.arm.name + mark, score, *(axis_cell(entry, a, ranking) for a in found.axes), *sizes, str(entry.n)])
    return head, rows


def marked(ranking: Ranking) -> str:
    """What the star in a table says."""
    if len(ranking.leaders) > 1:
        return ("* is not shown to be worse than any other arm: that depends on the spread of the paired differences, not on how far "
                "apart the means are. ")
    return "* leads: every other ranked arm is shown to be worse. " if ranking.leaders else ""


def intervals(ranking: Ranking) -> str:
    """What the intervals in a table are."""
    score = f"The score's is {level(ranking)}; the others are" if ranking.rivals > 1 else "They are"
    return (f"Intervals are of the difference to the plain arm, paired over seeds. {score} 95{NBSP}% t intervals of one arm and quantity, before "
            "selection.")


PROBES = {TUNED: "Accuracies here are those of the tuned probe, whose C is chosen on held-out images.",
          PAPER: "Accuracies here are those of the paper's probe (C 1 on unit rows), which favours embeddings of an even spectrum; set "
                 "probes.tuned: true to rank by a probe whose C is chosen on held-out images."}


def notes(found: Recommendation) -> list[str]:
    """What a reader must know of a ranking: the probe that it rests on, and what was not measured."""
    said = [f"{PROBES[found.accuracy]}{_neighbours(found) if found.accuracy == PAPER else ''}"] if found.accuracy in PROBES else []
    said += found.mapped_notes
    timed = found.timed or not any(r.entries or r.apart for r in found.rankings)
    return said if timed else [*said, "Latency was not measured: add the stress latency to the study (stresses: [{name: latency}])."]


def _neighbours(found: Recommendation) -> str:
    """What the leading arms gain by nearest neighbours, which have no C, as a sentence to be added."""
    best = [(r.student, r.named(r.leaders[0])) for r in found.rankings if r.leaders and r.plain not in r.leaders]
    each = [f"{who}, “{e.arm.name}” {gain(e.neighbours, 100)} points" for who, e in best if e.neighbours]
    return f" By nearest neighbours (kNN) against the plain arm: {'; '.join(each)}." if each else ""


def teacher_row(found: Recommendation) -> str:
    """The teacher's own values, and what the noisy accuracy is the mean of."""
    noisy = next((f" Noisy: mean over {', '.join(a.conditions)}." for a in found.axes if a.name == "robustness"), "")
    known = [f"{a.title} {number(a.scale * a.teacher, 1)}" for a in found.axes if a.teacher is not None]
    return (f"Teacher: {'; '.join(known)}." if known else "The teacher's own values were not measured.") + noisy


# -- terminal -------------------------------------------------------------------------------------------------------------


def advice_tables(advice: Advice) -> list[Any]:
    """One ``rich.table.Table`` a student; * marks the arms that no other is shown to beat."""
    from rich.table import Table
    from rich.text import Text

    tables = []
    for one in advice.found:
        for ranking in one.rankings:
            if not ranking.entries and not ranking.apart:
                continue
            head, rows = table_of(ranking, one)
            table = Table(title=Text(f"{one.dataset}, teacher {one.teacher}, student {ranking.student}"), title_justify="left",
                          caption=Text(f"{teacher_row(one)} {marked(ranking)}Second lines: difference to the plain arm. {intervals(ranking)}"),
                          caption_justify="left")
            for i, name in enumerate(head):
                table.add_column(Text(name), justify="left" if i < 2 else "right", overflow="fold")
            for row in rows:
                table.add_row(*(Text(c, style="bold" if row[0].endswith(" *") else "") for c in row))
            tables.append(table)
    return tables
