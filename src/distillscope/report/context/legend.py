"""The legend of a page as its template takes it (templates/_legend.html)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distillscope.results.models import MOST_ARMS, Model, Setting


@dataclass(frozen=True)
class Legend:
    """Models that can be highlighted, and the arms to choose from where they are many (else none)."""

    models: list[Model]
    arms: list[str]


def legend_of(settings: Sequence[Setting], pick: bool = True) -> Legend:
    """One legend for the whole page; where arms are many (and ``pick``), a choice of arms too."""
    arms = list(dict.fromkeys(m.arm for s in settings for m in s.students))
    many = pick and len(arms) > MOST_ARMS
    models: dict[str, Model] = {}
    for setting in settings:
        for model in setting.main if many else setting.models:
            models.setdefault(model.label, model)
    return Legend(list(models.values()), arms if many else [])
