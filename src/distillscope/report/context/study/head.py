"""The head of the study's page: what it is, what must be known before any number is read, and its figures of merit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distillscope.report.findings import Findings
from distillscope.report.sentences import study as sentences
from distillscope.results.keys import OLD_FIT, OLD_FIT_SAYS
from distillscope.results.models import Setting
from distillscope.results.run import Run
from distillscope.results.summary import Summary

MOST_LISTED = 50
"""Values that are not finite, by name."""
NOTHING_YET = "No trial of this study has finished yet."


@dataclass(frozen=True)
class Notices:
    """What is missing, what is broken, and what the trials warned of."""

    complete: int
    missing: list[str]
    unstarted: int
    num_not_finite: int
    not_finite: list[str]
    problems: list[str]
    old_fit: str
    warnings: list[str]


def notices_of(run: Run) -> Notices:
    """What to say before any number is read."""
    bad = run.all_results[~np.isfinite(run.all_results["value"])]
    return Notices(
        len(run.trials), run.missing, run.unstarted, len(bad),
        [f"{r.arm} {r.student} seed {r.seed}, {r.condition}: {r.measure}" for r in bad.itertuples()][:MOST_LISTED],
        run.problems,
        OLD_FIT_SAYS if run.mapped_fit == OLD_FIT else "", [f"{t.folder}: {w}" for t in run.trials for w in t.warnings])


@dataclass(frozen=True)
class SettingMerits:
    """The figures of merit under one data set and teacher, with its name where there are several."""

    title: str
    merits: list[sentences.Merit]


def title_among(settings: list[Setting], setting: Setting) -> str:
    """The name of a setting where there are several to tell apart, else nothing."""
    return setting.title if len(settings) > 1 else ""


def headline(settings: list[Setting], summary: Summary) -> str:
    """What was lost in the first setting, in one sentence."""
    return sentences.headline(settings[0], summary) if settings else NOTHING_YET


def merits_of(found: Findings) -> list[SettingMerits]:
    """The tiles of every setting."""
    return [SettingMerits(title_among(found.settings, s), sentences.merits(found.run, s, found.summary))
            for s in found.settings]
