"""The page of a study from top to bottom: its head, its sections in their order, and its foot."""

from __future__ import annotations

from collections.abc import Mapping

from distillscope.report.arms import arms_html
from distillscope.report.figures.figure import Figure
from distillscope.report.provenance import provenance_html
from distillscope.report.relative import relative_html
from distillscope.report.sections import RESULTS_CSV, contents, escape, figure_html, listed, table_html, tiles
from distillscope.report.sentences import study as verdict
from distillscope.report.tables import Table
from distillscope.results.models import Setting
from distillscope.results.run import Run
from distillscope.results.summary import Summary


def study_line(run: Run) -> str:
    text = f"<strong>{escape(run.name)}</strong>"
    return text + (f". {escape(run.study['description'])}" if run.study.get("description") else "")


def headline(settings: list[Setting], summary: Summary) -> str:
    return escape(verdict.headline(settings[0], summary)) if settings else "No trial of this study has finished yet."


def merit_tiles(run: Run, settings: list[Setting], summary: Summary) -> str:
    parts = []
    for setting in settings:
        if len(settings) > 1:
            parts.append(f'<p class="setting">{escape(setting.title)}</p>')
        parts.append(tiles(verdict.merits(run, setting, summary)))
    return "\n".join(parts)


def body(run: Run, settings: list[Setting], summary: Summary, figures: dict[str, Figure], table: Table, claims: str = "",
         advice: str = "", pictures: Mapping[str, str] | None = None) -> str:
    """The sections in the order in which a reader asks: what was lost, does it matter, why, what to change, and is it to be believed.

    ``pictures`` holds the HTML of the run's keepsakes (lost, neighbours, card), or, as ``absent``, why there are none.
    """
    pictures = pictures or {}

    def per_setting(say, arms: bool = False) -> str:
        parts = []
        for setting in settings:
            name = f'<p class="setting">{escape(setting.title)}</p>' if len(settings) > 1 else ""
            parts.append(name + listed(say(setting)) + (arms_html(run, setting, summary) if arms else ""))
        return "".join(parts)

    def drawn(*keys: str) -> str:
        return "".join(figure_html(figures[k], run.path) for k in keys)

    def measured(*keys: str) -> str:
        return drawn(*(k for k in keys if figures[k].panels))

    def pair(*keys: str) -> str:
        shown = [k for k in keys if figures[k].panels]
        return f'<div class="pair">{drawn(*shown)}</div>' if len(shown) > 1 else drawn(*shown)

    def lost(setting: Setting) -> list[str]:  # the page's head already says the first setting's headline
        own = [verdict.headline(setting, summary)] if setting is not settings[0] else []
        return own + verdict.what_was_lost(setting, summary)

    detail = pair("bands", "gradient") + measured("fourier")
    parts = [
        ("lost", "What was lost", per_setting(lost, arms=True) + measured("by_class") + pictures.get("lost", "") + measured("confusion")
         + pictures.get("absent", "")),
        ("matter", "Does it matter?", per_setting(lambda s: verdict.does_it_matter(run, s, summary)) + drawn("noise")
         + measured("corruptions") + relative_html(run, settings, summary) + pictures.get("neighbours", "") + measured("latency")),
        ("geometry", "Why? Directions", pair("cumulative_variance", "spectrum") + f'<div class="pair">{drawn("effective_rank", "cosine_rank")}</div>'
         + drawn("alignment") + measured("top_k")),
        *([("map", "Why? Neighbourhoods", figure_html(figures["map"], run.path, below=pictures.get("card", "")))] if figures["map"].panels else []),
        *([("detail", "Why? Fine detail", detail)] if detail else []),
        ("information", "Why? Information", drawn("information")),
        ("training", "Why? Training", drawn("training") + not_measured(figures)),
        *([("advice", "What to change", advice)] if advice else []),
        *([("claims", "Claims", claims)] if claims else []),
        ("table", "All numbers", table_html(table) + RESULTS_CSV if table.rows else "<p>No trial has finished yet.</p>"),
        ("provenance", "Provenance", provenance_html(run, summary)),
    ]
    return contents(parts) + "\n" + "\n".join(
        f'<section id="{key}" aria-labelledby="{key}-title"><h2 id="{key}-title">{title}</h2>{content}</section>'
        for key, title, content in parts)


def not_measured(figures: dict[str, Figure]) -> str:
    """The stresses that this study did not run, in one line."""
    names = [(figures[k].title, figures[k].absent) for k in ("bands", "corruptions", "fourier", "gradient", "top_k", "latency")
             if k in figures and not figures[k].panels]
    listed = "".join(f"<li>{escape(title)}: {escape(why[0].lower() + why[1:])}</li>" for title, why in names)
    return f'<details class="unmeasured"><summary>What this study did not measure ({len(names)})</summary><ul class="findings">{listed}</ul></details>' if names else ""


def footer(run: Run) -> str:
    return (f"Made by Distillscope {escape(run.provenance.get('distillscope') or '')} from {len(run.trials)} trials. "
            "This file is complete: it loads nothing.")
