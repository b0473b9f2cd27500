"""The recommendation on the page of a run: one line at its head, and the section "What to change"."""

from __future__ import annotations

from pathlib import Path

from distillscope.advice.rank import PURPOSES, Ranking, Recommendation, recommend
from distillscope.claims.results import Results
from distillscope.report.figures.figure import Figure
from distillscope.report.recommendation import (
    Advice,
    beaten,
    changes,
    intervals,
    marked,
    not_run,
    notes,
    score_text,
    table_of,
    teacher_row,
    won,
)
from distillscope.report.sections import escape, figure_html, listed
from distillscope.report.sentences.numbers import NBSP, joined

TITLES = {"balance": "all four", "accuracy": "clean accuracy", "robustness": "accuracy under noise", "retrieval": "retrieval", "geometry": "rank, mapped"}


def head_html(advice: Advice) -> str:
    """What to change, in one line below the verdict."""
    if not advice.found:
        return ""
    said = []
    for one, results in zip(advice.found, advice.results, strict=True):
        deeds: dict[str, list[str]] = {}
        for ranking in [r for r in one.rankings if not r.reason] or one.rankings:
            deeds.setdefault(_deed(ranking, one, results), []).append(ranking.student)
        named = f"{one.dataset}, {one.teacher}: " if len(advice.found) > 1 else ""
        said.append(named + "; ".join(f"{joined(who)}: {text}" if len(one.rankings) > 1 else text for text, who in deeds.items()))
    return f'<p class="advice"><strong>What to change</strong> {escape(". ".join(said))}. <a href="#advice">More</a></p>'


def _deed(ranking: Ranking, one: Recommendation, results: Results) -> str:
    """What to do with one student; where nothing helps on the whole, what helps for one purpose."""
    if ranking.reason:
        return f"not known: {ranking.reason}"
    names = [f"“{n}”" for n in ranking.leaders]
    if ranking.plain not in ranking.leaders:
        text = won(ranking, one)
        return f"train with {names[0]}, which {text}" if len(names) == 1 else f"between {joined(names)} there is no significant difference; the first {text}"
    helps = []
    for found in (recommend(results, p) for p in PURPOSES if p != one.purpose):
        own = next((r for r in found.rankings if r.student == ranking.student and not r.reason and r.plain not in r.leaders), None)
        if own:
            helps.append(f"“{own.leaders[0]}” helps {TITLES[found.purpose]} ({score_text(own.named(own.leaders[0]), found, own)})")
    kept = f"keep {names[0]}" if len(names) == 1 else "no arm is shown to help on the whole" if helps else "no arm is shown to help"
    return kept + (f", but {joined(helps)}" if helps else "")


def advice_html(advice: Advice, figure: Figure, folder: Path) -> str:
    """The section "What to change": the choice by purpose, the figure, the comparison, what it rests on, and the study to run next."""
    if not advice.found:
        return ""
    parts = []
    for one, results in zip(advice.found, advice.results, strict=True):
        named = f'<p class="setting">{escape(f"{one.dataset}, teacher {one.teacher}")}</p>' if len(advice.found) > 1 else ""
        reasons: dict[str, list[str]] = {}
        for ranking in one.rankings:
            reasons.setdefault(ranking.reason, []).append(ranking.student)
        unranked = listed([f"{joined(who)} cannot be ranked: {why}." for why, who in reasons.items() if why])
        skipped = [not_run(r).strip() for r in one.rankings if r.not_run]
        said = "".join(f'<p class="note">{escape(n)}</p>' for n in [*notes(one), *skipped])
        parts.append(named + unranked + _purposes(one, results) + said)
    if advice.following is None:
        return "\n".join([*parts, '<p class="note">Arms, remedies and seeds are added in the study\'s YAML; see docs/recommend.md.</p>'])
    parts.append(f'<p class="note">{escape(advice.chosen_on)}</p>')
    parts += [figure_html(figure, folder, known=())] if figure.panels else []
    for one in advice.found:
        parts += [f"<details><summary>All arms of {escape(r.student)}, with differences and costs</summary>{_table(r, one)}</details>"
                  for r in one.rankings if r.entries or r.apart]
    commands = "\n".join(advice.screen_commands("DIR"))
    parts.append(f"<p>To choose properly, with this run's folder for DIR:</p><pre>{escape(commands)}</pre>" if commands else "")
    parts.append(f'<details><summary>The study to run next, as YAML</summary><pre id="next-study">{escape(advice.yaml)}</pre>'
                 '<button class="tool" type="button" data-copy="next-study">copy</button></details>')
    return "\n".join(parts)


def _purposes(one: Recommendation, results: Results) -> str:
    """A row a purpose, a column a student: the arm to train with, and what it gains."""
    students = [r.student for r in one.rankings if not r.reason]
    if not students:
        return ""
    rows, helped = "", []
    for purpose in PURPOSES:
        found = recommend(results, purpose)
        rankings = {r.student: r for r in found.rankings if not r.reason}
        cells = "".join(_choice(rankings[s], found) if s in rankings else "<td>–</td>" for s in students)
        rows += f'<tr><th class="name" scope="row">{escape(TITLES.get(purpose, purpose))}</th>{cells}</tr>' if rankings else ""
        if purpose == one.purpose:
            helped = [f"{s}, “{r.leaders[0]}”: {changes(r.named(r.leaders[0]), found).removeprefix('It changes: ')}"
                      for s, r in rankings.items() if r.plain not in r.leaders]
    head = "".join(f'<th scope="col">{escape(s)}</th>' for s in students)
    return (f'<div class="scroll narrow choices" tabindex="0" role="region" aria-label="The arm to train with, by purpose"><table><thead><tr>'
            f'<th class="name" scope="col">best for</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
            f'<p class="note">The gain over the plain arm, paired over seeds, with an interval that holds at 95{NBSP}% for all ranked arms at once, '
            "and so for the one that was picked; the gain itself is optimistic, since it was picked by it. All four: the balance "
            "score, the mean over the four of the gain in hundredths of what the plain arm lacks to the teacher, but of no less than a tenth of "
            f"the teacher's value.</p>{listed(helped)}")


def _choice(ranking: Ranking, found: Recommendation) -> str:
    names = [f"“{n}”" for n in ranking.leaders]
    if ranking.leaders == (ranking.plain,):
        return f"<td>keep {escape(names[0])}<small>{escape(beaten(ranking))} worse</small></td>"
    if ranking.plain in ranking.leaders:
        return '<td class="unsure">no arm is shown to help</td>'
    more = f"no significant difference to {joined(names[1:])}" if len(names) > 1 else ""
    return (f"<td><strong>{escape(names[0])}</strong><small>{escape(score_text(ranking.named(ranking.leaders[0]), found, ranking))}</small>"
            + (f"<small>{escape(more)}</small>" if more else "") + "</td>")


def _table(ranking: Ranking, found: Recommendation) -> str:
    head, rows = table_of(ranking, found)
    top = "".join(f'<th scope="col"{" class=name" if i == 0 else ""}>{escape(h)}</th>' for i, h in enumerate(head))
    lines = ""
    for first, score, *rest in rows:
        cells = f"<td>{escape(score)}</td>"
        for cell in rest:
            own, _, small = cell.partition("\n")
            cells += f'<td class="num">{escape(own)}{f"<small>{escape(small)}</small>" if small else ""}</td>'
        lines += f'<tr><th class="name" scope="row">{escape(first)}</th>{cells}</tr>'
    return (f'<div class="scroll" tabindex="0" role="region" aria-label="Arms of {escape(ranking.student)}"><table>'
            f"<thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div><p class=note>{escape(teacher_row(found))} "
            f"{marked(ranking)}Below each value its difference to the plain arm. {intervals(ranking)}</p>")
