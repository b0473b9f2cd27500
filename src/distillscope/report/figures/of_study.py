"""All figures of a run, in the order in which the page shows them."""

from __future__ import annotations

from distillscope.report.figures import geometry, outcome, stressed
from distillscope.report.figures import keepsakes as kept
from distillscope.report.figures.figure import Figure
from distillscope.results.models import Setting
from distillscope.results.run import Run
from distillscope.results.summary import Summary

FIGURES = [outcome.robustness, geometry.cumulative_variance, geometry.spectrum, geometry.rank_and_size, geometry.cosine_and_rank,
           geometry.alignment, outcome.information, outcome.training, *stressed.STRESSES]
OF_KEEPSAKES = [kept.by_class, kept.confusion, kept.maps]


def prepare_figures(run: Run, settings: list[Setting], summary: Summary) -> list[Figure]:
    """One `Figure` per function of FIGURES and OF_KEEPSAKES; one that lacks its measures says so in ``absent``."""
    albums = kept.kept_of(run, settings)
    return [prepare(run, settings, summary) for prepare in FIGURES] + [draw(albums) for draw in OF_KEEPSAKES]
