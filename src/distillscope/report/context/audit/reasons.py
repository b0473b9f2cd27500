"""Why: labels, directions, what of the teacher is in the student, search, and telling items apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distillscope.report.context.figure import ShownFigure
from distillscope.report.registered import AUDIT

Shown = Callable[..., list[ShownFigure]]


@AUDIT.register("labels", "Labels", order=30)
def labels(drawn: Shown) -> dict[str, Any]:
    """Accuracies of both sides."""
    return {"shown": drawn("accuracy")}


@AUDIT.register("directions", "Directions", order=40)
def directions(drawn: Shown) -> dict[str, Any]:
    """How many directions each side fills."""
    return {"shown": drawn("spectrum", "rank_by_n")}


@AUDIT.register("alignment", "What of the teacher is in it", order=50)
def alignment(drawn: Shown) -> dict[str, Any]:
    """Whose directions they are, and which of the teacher's can be predicted."""
    return {"shown": drawn("alignment", "component_r2")}


@AUDIT.register("search", "Search and similarity", order=60)
def search(drawn: Shown) -> dict[str, Any]:
    """Recall in a search index, and similarities up to a rotation."""
    return {"shown": drawn("retrieval", "similarity")}


@AUDIT.register("items", "Telling items apart", order=70)
def items(drawn: Shown) -> dict[str, Any]:
    """How many nats the embeddings hold of which item is which."""
    return {"shown": drawn("contrastive")}
