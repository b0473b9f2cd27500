"""What was lost, whether it matters, and what to change."""

from __future__ import annotations

from typing import Any

from distillscope.measure.results import Audit
from distillscope.report.registered import AUDIT
from distillscope.report.sentences.audit import bands, does_it_matter, losses
from distillscope.report.sentences.audit_advice import advice


@AUDIT.register("lost", "What was lost", order=10)
def lost(found: Audit) -> dict[str, Any]:
    """A sentence for each way to lose, and what the verdict's words stand for."""
    return {"losses": [loss.sentence for loss in losses(found)], "bands": bands()}


@AUDIT.register("matter", "Does it matter?", order=20)
def matter(found: Audit) -> dict[str, Any]:
    """What it costs a classifier and a search index."""
    return {"costs": does_it_matter(found)}


@AUDIT.register("advice", "What to change", order=80)
def what_to_change(found: Audit) -> dict[str, Any]:
    """What to try, and what speaks for it."""
    return {"tries": advice(found)}
