"""The figures of a study with several runs in them."""

from __future__ import annotations

from distillscope.report.figures import geometry, outcome
from distillscope.report.figures.figure import Figure
from distillscope.results.models import Setting
from distillscope.results.run import Run
from distillscope.results.summary import Summary

FIGURES = (outcome.robustness, geometry.cumulative_variance, geometry.rank_and_size, geometry.cosine_and_rank,
           geometry.alignment, outcome.information, outcome.training)


def overlaid(run: Run, settings: list[Setting], summary: Summary) -> list[Figure]:
    """The figures of a joined run (`compare.overlay`), with every run in them."""
    return [prepare(run, settings, summary) for prepare in FIGURES]
