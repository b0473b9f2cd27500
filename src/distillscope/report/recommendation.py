"""The recommendation of a run: read, compared arm by arm, as a table in the terminal, and as JSON."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from distillscope.advice.axes import PURPOSES, Axis
from distillscope.advice.next_study import chosen_on, next_study, screen_size, screened
from distillscope.advice.rank import COSTS, Entry, Ranking, Recommendation, recommend, to_dict
from distillscope.claims.results import Results, results_of
from distillscope.errors import UserError
from distillscope.report.sentences.numbers import count, number
from distillscope.report.sentences.recommendation import (
    BALANCE,
    gain,
    intervals,
    marked,
    notes,
    score_value,
    sentence,
    teacher_row,
)
from distillscope.results.keys import facts_of
from distillscope.results.run import Run, read_run


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
        sets = f"--set screen={screen_size(self.found)}"
        dirs = [named] if named else [shlex.quote(str(p.resolve() if p.name in ("", "..") else p)) for p in self.paths]
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
    finished = [r for r in runs if len(r.all_results)]
    results = tuple(results_of(finished, "recommend")) if finished else ()
    found = tuple(recommend(r, purpose) for r in results)
    following = next_study(found, [r.study.dump() for r in finished]) if finished else None
    return Advice(purpose, found, results, runs[0].study.dump(), following, tuple(r.path for r in runs))


def recommend_runs(run_dirs: Sequence[Path], purpose: str = "balance") -> Advice:
    """Read the runs and advise. Raises UserError where one is no run, or nothing can be ranked."""
    runs = [read_run(path) for path in dict.fromkeys(Path(d) for d in run_dirs)]
    for run in runs:
        if run.all_results.empty:
            raise UserError(f"recommend {run.path}", "a run with finished trials", "none finished",
                            f"Finish it with `distillscope run ... --out {run.path} --resume`.")
    advice = advise(runs, purpose)
    if advice.following is None:
        reasons = dict.fromkeys(r.reason for one in advice.found for r in one.rankings)
        raise UserError(f"recommend {runs[0].path}", f"two arms or more that can be compared for {purpose}", "; ".join(reasons),
                        f"Run more arms or seeds, or ask for another purpose (--for {'|'.join(PURPOSES)}).")
    return advice


# -- the comparison of a student's arms -------------------------------------------------------------------------------------

COST_TITLES = {c: facts_of(COSTS[c]).title for c in ("parameters", "multiply_adds", "latency_ms")}
NOTHING = "-"
"""In place of what was not measured."""


@dataclass(frozen=True)
class ArmLine:
    """One arm of a comparison: its score, and for each axis its mean and the difference to the plain arm (empty: none)."""

    name: str
    leads: bool
    score: str
    values: list[tuple[str, str]]
    costs: list[str]
    num_seeds: int


@dataclass(frozen=True)
class ArmsCompared:
    """One student's arms, those that are listed apart last, under the names of their columns."""

    axes: list[str]
    costs: list[str]
    score: str
    lines: list[ArmLine]

    @property
    def head(self) -> list[str]:
        """The names of all columns."""
        return ["arm", self.score, *self.axes, *self.costs, "seeds"]


def arms_compared(ranking: Ranking, found: Recommendation) -> ArmsCompared:
    """The arms of one student."""
    entries = [*ranking.entries, *ranking.apart]
    costs = [c for c in COST_TITLES if any(c in e.costs for e in entries)]
    lines = [ArmLine(e.arm.name, e.arm.name in ranking.leaders, _score(e, ranking, found),
                     [_value(e, a, ranking) for a in found.axes],
                     [_cost(e, c) for c in costs], e.n) for e in entries]
    return ArmsCompared([f"{a.title}, {'%' if a.unit == 'points' else a.unit}" for a in found.axes],
                        [COST_TITLES[c] for c in costs],
                        BALANCE if found.purpose == "balance" else f"for {found.purpose}", lines)


def _score(entry: Entry, ranking: Ranking, found: Recommendation) -> str:
    if entry.apart:
        return f"apart: {entry.apart}"
    return "plain" if entry.arm.name == ranking.plain or not entry.score else score_value(entry, found, ranking)


def _value(entry: Entry, axis: Axis, ranking: Ranking) -> tuple[str, str]:
    if axis.name not in entry.values:
        return NOTHING, ""
    other = entry.arm.name != ranking.plain and axis.name in entry.gains
    return number(axis.scale * entry.values[axis.name], 1), gain(entry.gains[axis.name], axis.scale) if other else ""


def _cost(entry: Entry, name: str) -> str:
    if name not in entry.costs:
        return NOTHING
    return number(entry.costs[name], 2) if name == "latency_ms" else count(entry.costs[name])


def advice_tables(advice: Advice) -> list[Any]:
    """One ``rich.table.Table`` a student; * marks the arms that no other is shown to beat."""
    from rich.text import Text

    from distillscope.progress import WholeWords

    tables = []
    for one in advice.found:
        for ranking in one.rankings:
            if not ranking.entries and not ranking.apart:
                continue
            compared = arms_compared(ranking, one)
            title = Text(f"{one.dataset}, teacher {one.teacher}, student {ranking.student}")
            caption = f"{teacher_row(one)} {marked(ranking)}Second lines: difference to the plain arm. {intervals(ranking)}"
            table = WholeWords(title=title, title_justify="left", caption=Text(caption), caption_justify="left")
            for i, name in enumerate(compared.head):
                table.add_column(Text(name), justify="left" if i < 2 else "right", overflow="fold")
            for line in compared.lines:
                cells = [starred(line), line.score, *("\n".join(filter(None, v)) for v in line.values), *line.costs,
                         str(line.num_seeds)]
                table.add_row(*(Text(c, style="bold" if line.leads else "") for c in cells))
            tables.append(table)
    return tables


def starred(line: ArmLine) -> str:
    """The name of an arm, with a star where it leads (`marked` says what that means)."""
    return f"{line.name} *" if line.leads else line.name
