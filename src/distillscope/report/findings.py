"""What a run holds, read once: what its figures, its page and its other files are made from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from distillscope.report.claims import Claims, claims_of
from distillscope.report.context.figure import ShownFigure, shown_figures
from distillscope.report.figures.figure import Figure
from distillscope.report.figures.keepsakes import Kept, kept_of
from distillscope.report.recommendation import Advice, advise
from distillscope.report.registered import STUDY_FIGURES
from distillscope.report.tables import Table, build_table
from distillscope.results.models import Setting, settings_of
from distillscope.results.run import Run
from distillscope.results.summary import Summary


@dataclass(frozen=True)
class Findings:
    """A run with its settings and its summary; the rest is made when it is first asked for, and once.

    Figures and sections name in their signature which of these attributes they are made from.
    """

    run: Run
    settings: list[Setting]
    summary: Summary

    @classmethod
    def of(cls, run: Run) -> Findings:
        """What ``run`` holds."""
        return cls(run, settings_of(run), Summary.of(run))

    @cached_property
    def albums(self) -> list[Kept]:
        """The keepsakes of each setting that has any."""
        return kept_of(self.run, self.settings)

    @cached_property
    def table(self) -> Table:
        """The main table."""
        return build_table(self.run, self.settings, self.summary)

    @cached_property
    def claims(self) -> Claims:
        """What was decided, from this run and from the others that its claims.json names."""
        return claims_of(self.run)

    @cached_property
    def advice(self) -> Advice:
        """Which arm to train with, and what to run next."""
        return advise([self.run])

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """Every figure by its key, in the page's order; one that lacks its measures says so in ``absent``."""
        return STUDY_FIGURES.drawn(self)

    def drawn(self, *keys: str) -> list[ShownFigure]:
        """These figures as templates take them, with their still drawings where these are written already."""
        return shown_figures((self.figures[k] for k in keys), self.folder)

    def measured(self, *keys: str) -> list[ShownFigure]:
        """`drawn`, without those that have nothing to show."""
        return self.drawn(*(k for k in keys if self.figures[k].panels))

    @property
    def folder(self) -> Path:
        """Where the run is."""
        return self.run.path
