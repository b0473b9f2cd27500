"""What stresses cost a student beside what they cost its teacher, as tables on the page: common corruptions, and the noise probe."""

from __future__ import annotations

import pandas as pd

from distillscope.report.sections import escape, model_cell
from distillscope.report.sentences.numbers import NBSP, accuracy_of, interval_text, number
from distillscope.results.models import Model, Setting
from distillscope.results.robustness import MEAN, against_teacher
from distillscope.results.robustness import of_suite as rows_of_suite
from distillscope.results.rows import Condition
from distillscope.results.run import Run, of_test
from distillscope.results.summary import Statistic, Summary, statistic

MOST_OPEN = 6  # rows that do not get in the way of what follows


def relative_html(run: Run, settings: list[Setting], summary: Summary) -> str:
    """The tables that the run has numbers for, setting by setting; nothing where it ran neither stress."""
    accuracy = accuracy_of(summary)
    if accuracy is None or not accuracy[0].endswith("probe.student.accuracy"):
        return ""
    probe, parts = accuracy[0].removesuffix(".student.accuracy"), []
    suite = corruption_table(run, probe)
    for setting in settings:
        tables = _corruptions(setting, suite) + _noise_probe(setting, summary, "paper" if probe.startswith("paper") else "tuned")
        named = f'<p class="setting">{escape(setting.title)}</p>' if len(settings) > 1 and tables else ""
        parts.append(named + tables)
    return "".join(parts)


def corruption_table(run: Run, probe: str) -> pd.DataFrame:
    """`measure.robustness.against_teacher` for one probe, on the split that the report shows, for the corruptions alone."""
    results = run.results
    if not rows_of_suite(results).any():
        return pd.DataFrame()
    table = against_teacher(of_test(results))
    return table[(table["probe"] == probe) & (rows_of_suite(table) | (table["condition"] == MEAN))]


def of_suite(model: Model, suite: pd.DataFrame) -> dict[str, Statistic]:
    """Over seeds: the mean accuracy, its share of the clean one relative to the teacher's share, and the relative error."""
    own = suite[(suite["dataset"] == model.dataset) & (suite["teacher"] == model.teacher) & (suite["target"] == model.target)
                & (suite["arm"] == model.arm) & (suite["student"] == model.student)]
    whole = own["condition"] == MEAN
    n = int(own["n"].max()) if len(own) else None
    each = own[~whole].groupby("seed")[["accuracy", "relative_retention"]].mean()
    if not len(own):
        return {}
    return {**{c: statistic(each[c], n) for c in each}, "error": statistic(own.loc[whole, "mean_corruption_error"], n)}


def _corruptions(setting: Setting, suite: pd.DataFrame) -> str:
    if suite.empty:
        return ""
    found = [(m, s) for m in setting.students if (s := of_suite(m, suite))]
    rows = [(m, [_cell(s["accuracy"], 1, 100), _cell(s["error"]), _cell(s["relative_retention"]), str(s["accuracy"].n_seeds)]) for m, s in found]
    names = suite.loc[suite["condition"] != MEAN, "condition"].nunique()
    items = next((s["accuracy"].n for _, s in found if s["accuracy"].n), None)
    note = (f"Means over {names} corruptions and severities, on {items:,} test images, with 95{NBSP}% t intervals over seeds. Error: 1 is as often "
            "wrong as the teacher. Retention: the share of the clean accuracy that is left, over the teacher's share; 1 is as robust as "
            "the teacher. A dash: undefined, since the teacher is never wrong there.") if items else ""
    head = ["accuracy, %", "error relative to the teacher's", "retention relative to the teacher's", "seeds"]
    return _table("Common corruptions beside the teacher", head, rows, note)


def _noise_probe(setting: Setting, summary: Summary, kind: str) -> str:
    """Accuracy under noise with the clean probe, and with one that was fitted to noise: what noise moves, and what it destroys."""
    key = f"noise_probe.{kind}.student"
    levels = sorted((c for c in summary.conditions() if c.kind == "noise_probe" and c.strength), key=lambda c: c.strength or 0)
    rows = []
    for condition in levels:
        for model in setting.models:
            clean, under, fitted = (summary.per_seed(model, f"{key}.{what}", c) for what, c in (
                ("accuracy", Condition.of("noise_probe", level=0)), ("clean_fit_accuracy", condition), ("accuracy", condition)))
            shared = [s for s in fitted if s in clean and s in under]
            if shared:
                columns = [[d[s] for s in shared] for d in (clean, under)]
                columns += [[fitted[s] - under[s] for s in shared], [clean[s] - fitted[s] for s in shared]]
                rows.append((model, [condition.level, *(_cell(statistic(c), 1, 100) for c in columns), str(len(shared))]))
    note = (f"Points of accuracy with 95{NBSP}% t intervals over seeds. Won back: what a probe fitted to equally noisy train images regains over the clean "
            "probe, which the noise only moved. Lost: what is still missing to the accuracy without noise.")
    head = ["σ", "clean probe, no noise, %", "clean probe under noise, %", "won back", "lost", "seeds"]
    return _table("What noise moves, and what it destroys", head, rows, note)


def _cell(s: Statistic, digits: int = 2, scale: float = 1.0) -> str:
    """The mean, and below it the interval."""
    return f"{number(scale * s.mean, digits)}\n{interval_text(s, digits, scale)}"


def _table(title: str, head: list[str], rows: list[tuple[Model, list[str]]], note: str) -> str:
    if not rows:
        return ""
    lines = ""
    for model, cells in rows:
        lines += f'<tr data-model="{escape(model.highlight)}">{model_cell(model)}'
        for own, _, small in (c.partition("\n") for c in cells):
            lines += f'<td class="num">{escape(own)}{f"<small>{escape(small)}</small>" if small else ""}</td>'
        lines += "</tr>"
    top = "".join(f'<th scope="col">{escape(h)}</th>' for h in head)
    table = (f'<div class="scroll narrow" tabindex="0" role="region" aria-label="{escape(title)}"><table><thead><tr>'
             f'<th class="name" scope="col">model</th>{top}</tr></thead><tbody>{lines}</tbody></table></div><p class="note">{escape(note)}</p>')
    return f"<h3>{escape(title)}</h3>{table}" if len(rows) <= MOST_OPEN else f"<details><summary>{escape(title)}</summary>{table}</details>"
