"""Claims of a run: decided from what was read, written as claims.json and claims.md, shown in the terminal and on the page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from distillscope.claims.verdict import (
    Decision,
    Secondary,
    Verdict,
    decide,
    interval,
    number,
    p_number,
    p_text,
    together,
)
from distillscope.errors import UserError
from distillscope.files.json_reader import read_json
from distillscope.files.writing import write_json, write_text
from distillscope.results.run import Run, read_run
from distillscope.visible import joined, markdown_text

JSON, MARKDOWN = "claims.json", "claims.md"
SECONDARY = "Secondary endpoints (not adjusted, they decide nothing)"
OUTCOMES = ("supported", "refuted", "undecided")


@dataclass(frozen=True)
class Claims:
    """What was decided, from which runs (the first is the one that it is written to), and what could not be read."""

    decisions: tuple[Decision, ...]
    sources: tuple[Path, ...]
    missing: tuple[str, ...] = ()


class _Sources(BaseModel):
    """What claims.json says of the runs that it was decided from."""

    sources: list[str]
    missing: list[str]


def decide_claims(run_dirs: Sequence[Path]) -> Claims:
    """Decide every claim on the trials of these runs together. Raises UserError where one holds no finished trial."""
    runs = [read_run(path) for path in dict.fromkeys(Path(d).resolve() for d in run_dirs)]
    for run in runs:
        if run.all_results.empty:
            raise UserError(f"claims {run.path}", "a run with finished trials", "none finished",
                            f"Finish it with `distillscope run ... --out {run.path} --resume`.")
    return Claims(tuple(decide(runs)), tuple(run.path for run in runs))


def claims_of(run: Run) -> Claims:
    """The claims of a run that was read, with the other runs that its claims.json was made from, where they can be read."""
    others, missing = [], []
    for source in known_sources(run.path):
        try:
            others.append(read_run(source))
        except UserError:
            missing.append(str(source))
    runs = [r for r in (run, *others) if len(r.all_results)]
    return Claims(tuple(decide(runs)) if runs else (), tuple(r.path for r in (run, *others)), tuple(missing))


def known_sources(run_dir: Path) -> list[Path]:
    """The other runs that a run's claims were decided from."""
    try:
        known = read_json(run_dir / JSON, _Sources)
        return [(run_dir / s).resolve() for s in (*known.sources, *known.missing) if s != "."]
    except (UserError, OSError, RuntimeError, ValueError):  # a path with NUL, a link that leads to itself
        return []


def write_claims(found: Claims, out: Path) -> None:
    """claims.json and claims.md; the runs are named relative to ``out``."""
    settings = [{"dataset": d.dataset, "teacher": d.teacher, "tested": d.tested, "verdicts": [v.to_dict() for v in d.verdicts]}
                for d in found.decisions]
    sources, missing = ([os.path.relpath(Path(p).resolve(), out.resolve()) for p in paths]
                        for paths in (found.sources, found.missing))
    all_teachers = [one._asdict() for one in together(found.decisions)]
    write_json(out / JSON, {"sources": sources, "missing": missing, "settings": settings,
                            **({"together": all_teachers} if all_teachers else {})})
    write_text(out / MARKDOWN, markdown(found))


def counts(decision: Decision) -> str:
    """
    >>> counts(Decision("digits", "t", ()))
    '0 supported, 0 refuted, 0 undecided'
    """
    return ", ".join(f"{sum(v.verdict == o for v in decision.verdicts)} {o}" for o in OUTCOMES)


def effect_text(v: Verdict | Secondary) -> str:
    """'11.1 [-4.2, 26.3] points', or a dash."""
    return "-" if v.effect is None else interval(v)


def markdown(found: Claims) -> str:
    """A table and a sentence for each claim, secondary endpoints apart."""
    say = markdown_text
    lines = ["# Claims", "", *([f"Decided from {say(joined(named(found.sources)))} together.", ""] if len(found.sources) > 1
                               else [])]
    for dataset, head, rows in together_tables(found):
        lines += [f"## {say(dataset)}, {len(head) - 2} teachers together", "", f"| {' | '.join(map(say, head))} |",
                  f"| {' | '.join(['---'] * len(head))} |", *(f"| {' | '.join(map(say, row))} |" for row in rows), ""]
    for d in found.decisions:
        lines += [f"## {say(d.dataset)}, teacher {say(d.teacher)}", "",
                  f"{counts(d)}. Holm over {d.tested} primary endpoints; intervals are not adjusted.", "",
                  "| claim | verdict | primary endpoint | effect [95 %] | bound | p (Holm) | n |",
                  "| --- | --- | --- | --- | --- | --- | --- |"]
        lines += [f"| {say(v.id)} | {v.verdict} | {say(v.endpoint or v.reason)} | {effect_text(v)} | {number(v.bound)} | "
                  f"{_p_cell(v)} | {v.n or '-'} |" for v in d.verdicts]
        for v in d.verdicts:
            lines += ["", f"### {say(v.id)}: {say(v.claim)}", "", say(v.sentence)]
            lines += [f"Power: {say(v.power)}."] if v.power else []
            lines += [f"Evidence: {say('; '.join(v.evidence))}."] if v.evidence else []
            lines += map(say, v.notes)
            lines += ["", f"{SECONDARY}:", ""] if v.secondary else []
            lines += [f"- {say(s.endpoint)}: {interval(s)} (n = {s.n}{', ' + p_text(s.p) if s.p is not None else ''})"
                      for s in v.secondary]
        lines.append("")
    lines += [f"Not read, and left out: {say(joined(found.missing))}.", ""] if found.missing else []
    return "\n".join(lines)


def together_tables(found: Claims) -> list[tuple[str, list[str], list[list[str]]]]:
    """(data set, head, rows) for each data set with several teachers: what holds under all, then under each."""
    tables: dict[str, tuple[list[str], list[list[str]]]] = {}
    for one in together(found.decisions):
        _, rows = tables.setdefault(one.dataset, (["claim", "together", *one.under], []))
        rows.append([one.id, one.outcome, *one.under.values()])
    return [(dataset, head, rows) for dataset, (head, rows) in tables.items()]


def named(paths: Sequence[Path]) -> list[str]:
    """Runs by the name of their folder; by their whole path where two share one."""
    names = [p.resolve().name for p in paths]
    return names if len(set(names)) == len(names) else [str(p) for p in paths]


def _p_cell(v: Verdict) -> str:
    return "-" if v.p_holm is None else p_number(v.p_holm)


def claims_table(decision: Decision):
    """One setting's verdicts as a ``rich.table.Table``."""
    from rich.text import Text

    from distillscope.progress import WholeWords

    caption = f"{counts(decision)}; Holm over {decision.tested} primary endpoints. The sentences stand in {MARKDOWN}."
    table = WholeWords(title=Text(f"claims, {decision.dataset}, teacher {decision.teacher}"), title_justify="left",
                       caption=Text(caption), caption_justify="left")
    for name in ("claim", "verdict", "primary endpoint, or why not", "effect [95 %]", "bound", "p (Holm)", "n"):
        table.add_column(name, overflow="fold")  # an id that has no room goes on in the next line, it is not cut
    styles = {"supported": "green", "refuted": "red", "undecided": "dim"}
    for v in decision.verdicts:
        table.add_row(v.id, Text(v.verdict, style=styles[v.verdict]), Text(v.endpoint or v.reason), Text(effect_text(v)),
                      number(v.bound), _p_cell(v), str(v.n or "-"))
    return table
