"""Why? Directions, neighbourhoods, fine detail, information, training; and what the study did not measure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distillscope.report.context.figure import ShownFigure
from distillscope.report.context.study.images import Card, cards
from distillscope.report.figures.figure import Figure
from distillscope.report.figures.keepsakes import Kept
from distillscope.report.registered import STUDY

Shown = Callable[..., list[ShownFigure]]
WHY = "Why?"
STRESSES = ("bands", "corruptions", "fourier", "gradient", "top_k", "latency")
"""Figures of what a study measures only if it is asked to."""


@STUDY.register("geometry", "Directions", order=30, question=WHY)
def geometry(drawn: Shown, measured: Shown) -> dict[str, Any]:
    """How many directions the embeddings fill, and whose."""
    return {"spectra": measured("cumulative_variance", "spectrum"), "ranks": drawn("effective_rank", "cosine_rank"),
            "alignment": drawn("alignment"), "top_k": measured("top_k")}


@STUDY.register("map", "Neighbourhoods", order=40, question=WHY)
def neighbourhoods(measured: Shown, albums: list[Kept]) -> dict[str, Any] | None:
    """The same images in two dimensions, and a card for the one under the pointer."""
    shown = measured("map")
    found: list[Card] = cards(albums) if albums else []
    return {"map": shown[0], "cards": found} if shown else None


@STUDY.register("detail", "Fine detail", order=50, question=WHY)
def detail(measured: Shown) -> dict[str, Any] | None:
    """Which frequencies a model listens to."""
    pair, fourier = measured("bands", "gradient"), measured("fourier")
    return {"pair": pair, "fourier": fourier} if pair or fourier else None


@STUDY.register("information", "Information", order=60, question=WHY)
def information(drawn: Shown) -> dict[str, Any]:
    """How well one image can be distinguished from the others."""
    return {"shown": drawn("information")}


@STUDY.register("training", "Training", order=70, question=WHY)
def training(drawn: Shown, figures: dict[str, Figure]) -> dict[str, Any]:
    """The course of training, and the stresses that this study did not run."""
    return {"shown": drawn("training"),
            "unmeasured": [figures[k] for k in STRESSES if k in figures and not figures[k].panels]}
