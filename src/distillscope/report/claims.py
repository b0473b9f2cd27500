"""Claims of a run: decided from what was read, written as claims.json and claims.md, shown in the terminal and on the page."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from distillscope.claims.decide import Decision, decide
from distillscope.claims.verdict import Secondary, Verdict, interval, number, p_text
from distillscope.errors import UserError
from distillscope.files.json_reader import read_json
from distillscope.files.writing import write_json, write_text
from distillscope.report.sections import escape
from distillscope.report.sentences.numbers import joined
from distillscope.results.run import Run, read_run
from distillscope.visible import markdown_text

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
        if run.results.empty:
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
    runs = [r for r in (run, *others) if len(r.results)]
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
    write_json(out / JSON, {"sources": sources, "missing": missing, "settings": settings})
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
    lines = ["# Claims", "", *([f"Decided from {say(joined(named(found.sources)))} together.", ""] if len(found.sources) > 1 else [])]
    for d in found.decisions:
        lines += [f"## {say(d.dataset)}, teacher {say(d.teacher)}", "", f"{counts(d)}. Holm over {d.tested} primary endpoints; intervals are not adjusted.", "",
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


def named(paths: Sequence[Path]) -> list[str]:
    """Runs by the name of their folder; by their whole path where two share one."""
    names = [p.resolve().name for p in paths]
    return names if len(set(names)) == len(names) else [str(p) for p in paths]


def _p_cell(v: Verdict) -> str:
    return "-" if v.p_holm is None else p_text(v.p_holm).removeprefix("p ").removeprefix("= ")


def claims_table(decision: Decision):
    """One setting's verdicts as a ``rich.table.Table``."""
    from rich.table import Table
    from rich.text import Text

    caption = f"{counts(decision)}; Holm over {decision.tested} primary endpoints. The sentences stand in {MARKDOWN}."
    table = Table(title=Text(f"claims, {decision.dataset}, teacher {decision.teacher}"), title_justify="left",
                  caption=Text(caption), caption_justify="left")
    for name in ("claim", "verdict", "primary endpoint, or why not", "effect [95 %]", "bound", "p (Holm)", "n"):
        table.add_column(name, overflow="fold", no_wrap=name in ("claim", "verdict"))
    styles = {"supported": "green", "refuted": "red", "undecided": "dim"}
    for v in decision.verdicts:
        table.add_row(v.id, Text(v.verdict, style=styles[v.verdict]), Text(v.endpoint or v.reason), Text(effect_text(v)),
                      number(v.bound), _p_cell(v), str(v.n or "-"))
    return table


# -- the page -------------------------------------------------------------------------------------------------------------


def claims_html(found: Claims) -> str:
    """One entry for each claim: verdict, sentence, the effect beside its bound, and what stands behind it."""
    if not found.decisions:
        return "<p>No trial has finished yet.</p>"
    parts = ["<p>Each verdict holds for this teacher, data, input size and noise alone. Its rule is that of the function that "
             "decides it; p values are adjusted by Holm over the primary endpoints that were tested, intervals are not.</p>"]
    if len(found.sources) > 1:
        parts.append(f'<p class="note">Decided from {escape(joined(named(found.sources)))}.</p>')
    if found.missing:
        parts.append(f'<div class="notice"><p>Not found, and left out: {escape(joined(found.missing))}.</p></div>')
    for d in found.decisions:
        name = f"{d.dataset}, teacher {d.teacher}: " if len(found.decisions) > 1 else ""
        scope = scope_text(d.verdicts[0].scope, ("teacher", "data", "input", "noise", "train images"))
        parts.append(f'<p class="setting">{escape(name)}{counts(d)}</p><p class="note">Scope: {escape(scope)}.</p>')
        parts += [entry(v) for v in d.verdicts if v.p is not None]
        untested = "".join(f'<li id="claim-{escape(v.id)}"><strong>{escape(v.id)}</strong>: {escape(v.claim)} '
                           f'<span class="soft">Undecided: {escape(v.reason)}.</span></li>' for v in d.verdicts if v.p is None)
        count = sum(v.p is None for v in d.verdicts)
        parts.append(f'<details><summary>Not tested, and why ({count})</summary><ul class="findings">{untested}</ul></details>' if untested else "")
    return "\n".join(parts)


def entry(v: Verdict) -> str:
    """One claim of the page that was tested."""
    facts = {"test": f"{v.test}, n = {v.n} {v.replicates}", "p": f"{p_text(v.p)}; after Holm {p_text(v.p_holm)}",
             "sign flips": p_text(v.p_sign_flip) if v.p_sign_flip is not None else "", "power": v.power,
             "scope": scope_text(v.scope), "evidence": "; ".join(v.evidence)}
    listed = "".join(f"<dt>{k}</dt><dd>{evidence_links(x) if k == 'evidence' else escape(x)}</dd>"
                     for k, x in facts.items() if x)
    said, brackets, _ = v.sentence.partition(f" ({v.endpoint}:")  # what the brackets hold stands beside the drawing
    said = f"{said}." if brackets else v.sentence.partition(" Scope: ")[0]
    test = f"{v.endpoint}: {interval(v)}, bound {number(v.bound)}; {v.test}, {p_text(v.p_holm)} after Holm, n = {v.n} {v.replicates}"
    drawn = f'<div class="effect">{forest(v)}<p class="num note">{escape(test)}</p></div>'
    notes = "".join(f"<p class=note>{escape(n)}</p>" for n in v.notes)
    behind = f"<dl>{listed}</dl>{_parts_table(v)}{_secondary_table(v)}{notes}"
    return (f'<article class="claim {v.verdict}" id="claim-{escape(v.id)}"><h3><span class="verdict">{v.verdict}</span> '
            f'{escape(v.claim)} <code>{escape(v.id)}</code></h3><p>{escape(said)}</p>{drawn}'
            f"<details><summary>Test, power, evidence and secondary endpoints</summary>{behind}</details></article>")


def scope_text(scope: Mapping[str, Any], keys: tuple[str, ...] | None = None) -> str:
    """
    >>> scope_text({"teacher": "t", "k": None, "data": "d"}), scope_text({"teacher": "t", "data": "d"}, ("data",))
    ('teacher t, data d', 'data d')
    """
    return ", ".join(f"{k} {x}" for k, x in scope.items() if x not in (None, "") and (keys is None or k in keys))


def evidence_links(text: str) -> str:
    """'figure KEY' becomes a link to that figure of the page."""
    return "; ".join(f'<a href="#figure-{escape(p[7:])}">{escape(p)}</a>' if p.startswith("figure ") else escape(p)
                     for p in text.split("; "))


def forest(v: Verdict) -> str:
    """The effect with its interval, beside its bound, as an inline drawing."""
    ends = [v.low, v.high, v.bound]
    room = 0.08 * ((max(ends) - min(ends)) or 1.0)
    left, right = min(ends) - room, max(ends) + room

    def x(value: float) -> str:
        return f"{280 * (value - left) / (right - left):.1f}"

    place = float(x(v.bound))
    anchor = "start" if place < 40 else "end" if place > 240 else "middle"  # the label stays inside the drawing
    label = escape(f"{v.endpoint}: {interval(v)}, bound {number(v.bound)}")
    return (f'<svg viewBox="0 0 280 30" role="img" aria-label="{label}">'
            f'<line class="bound" x1="{x(v.bound)}" x2="{x(v.bound)}" y1="2" y2="20"/>'
            f'<line class="band" x1="{x(v.low)}" x2="{x(v.high)}" y1="11" y2="11"/>'
            f'<circle cx="{x(v.effect)}" cy="11" r="4"/>'
            f'<text x="{x(v.bound)}" y="29" text-anchor="{anchor}">bound {escape(number(v.bound))}</text></svg>')


def _parts_table(v: Verdict) -> str:
    rows = [(p["endpoint"], f"{number(p['effect'])} {p['unit']}", number(p["bound"]), p_text(p["p_true"]),
             p_text(p["p_false"]), str(p["n"])) for p in v.parts]
    return _table("Parts of the claim", ("part", "effect", "bound", "shown to hold", "shown not to hold", "n"), rows)


def _secondary_table(v: Verdict) -> str:
    rows = [(s.endpoint, interval(s), p_text(s.p) if s.p is not None else "", str(s.n)) for s in v.secondary]
    return _table(SECONDARY, ("endpoint", "effect [95 %]", "p", "n"), rows)


def _table(title: str, head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    top = "".join(f'<th scope="col"{" class=name" if i == 0 else ""}>{h}</th>' for i, h in enumerate(head))
    lines = ""
    for first, *rest in rows:
        cells = "".join(f'<td class="num">{escape(c)}</td>' for c in rest)
        lines += f'<tr><th class="name" scope="row">{escape(first)}</th>{cells}</tr>'
    return (f'<h4>{title}</h4><div class="scroll" tabindex="0" role="region" aria-label="{title}"><table>'
            f"<thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>")
