"""All figures of an audit, in the order in which its page shows them: the same `Figure` that a study's are."""

from __future__ import annotations

from collections.abc import Callable

from distillscope.measure.results import Audit
from distillscope.report.figures import audit_geometry, audit_items
from distillscope.report.figures.figure import Figure

FIGURES: list[Callable[[Audit], Figure]] = [
    audit_geometry.spectrum, audit_geometry.rank_by_n, audit_geometry.alignment, audit_geometry.component_r2,
    audit_items.contrastive, audit_items.retrieval, audit_items.similarity, audit_items.accuracy]


def prepare_audit_figures(found: Audit) -> list[Figure]:
    """One `Figure` per function of FIGURES; one that lacks its measures says so in ``absent``."""
    return [prepare(found) for prepare in FIGURES]
