"""What the further arms of a study changed, as a table on its page."""

from __future__ import annotations

import math

from distillscope.report.sections import escape, model_cell
from distillscope.report.sentences.numbers import NBSP, interval_text, number
from distillscope.report.sentences.study import other_arms
from distillscope.results.models import Setting
from distillscope.results.run import Run
from distillscope.results.summary import Statistic, Summary

MOST_OPEN = 4  # rows that do not get in the way of what follows


def arms_html(run: Run, setting: Setting, summary: Summary) -> str:
    """Each further arm against the first, paired over seeds; nothing where there is one arm."""
    rows = other_arms(run, setting, summary)
    if not rows:
        return ""
    plain, titles = rows[0][1].arm, list(dict.fromkeys(t for _, _, found in rows for t in found))
    head = "".join(f'<th scope="col">{escape(t)}</th>' for t in titles)
    lines = "".join(
        f'<tr data-model="{escape(model.highlight)}">{model_cell(model)}{"".join(_cell(found.get(t)) for t in titles)}'
        f'<td class="num">{max(d.n_seeds for d, _, _ in found.values())}</td></tr>' for model, _, found in rows)
    table = (f'<div class="scroll narrow" tabindex="0" role="region" aria-label="What the other arms changed"><table><thead><tr>'
             f'<th class="name" scope="col">instead of “{escape(plain)}”</th>{head}<th scope="col">seeds</th></tr></thead><tbody>{lines}</tbody></table></div>'
             f'<p class="note">Differences to “{escape(plain)}” with 95{NBSP}% t intervals, paired over seeds. Grey: it includes zero or is missing, '
             "so a difference is neither shown nor ruled out.</p>")
    if len(rows) <= MOST_OPEN:
        return table
    return f'<details><summary>What the other {len({m.arm for m, _, _ in rows})} arms changed</summary>{table}</details>'


def _cell(found: tuple[Statistic, int, float] | None) -> str:
    if found is None:
        return "<td></td>"
    d, digits, scale = found
    unsure = not math.isfinite(d.low) or d.low <= 0 <= d.high
    sign = "+" if d.mean > 0 else ""
    return (f'<td class="num{" unsure" * unsure}">{sign}{escape(number(scale * d.mean, digits))}'
            f"<small>{escape(interval_text(d, digits, scale) or 'no interval')}</small></td>")
