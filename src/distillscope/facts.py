"""What the program must know of a part before it calls it, by kind: which facts exist, of what type, with what default.

A part says them where it is registered, as ``@objectives.register("log_cosh", family="regression")``; any other name is an
error there and then (`registry.Registry.register`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

Group = Literal["spectrum", "alignment", "contrastive", "paper", "similarity", "retrieval", "swap", "codes", "probe", "few",
                "knn", "zero_shot", "ood"]
Interval = Literal["items", "dependent", "batches", "jackknife", "draws", "together"]
Family = Literal["cosine", "regression", "contrastive", "relational", "spread", "supervised", "soft_labels", "consistency",
                 "other"]


class Facts(BaseModel):
    """What any part may say.

    ``further=("target", targets)``: the function takes ``**settings``, which are those of the part that its own setting
    ``target`` names in that other registry, and are checked as that part's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    further: tuple[str, Any] | None = None


class Shown(BaseModel):
    """How a measured quantity is shown, in tables, on pages, in terminals and comparisons; without a title, by its name.

    ``digits`` are decimals where there is room, ``few`` where there is little (terminals, sentences; default the same).
    ``heading`` is the title in a study's table, ``short`` the one where there is little room, ``hint`` what a tooltip adds.
    ``better`` says which way is good, where one is. ``percent``: a share that is shown as per cent, and its differences as
    points; ``difference`` is the unit of other differences. ``counted``: shown as 1.41 M. ``constant``: has no spread to speak
    of. ``column``: has a column in a study's table and a line in comparisons.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    title: str = ""
    digits: int = 3
    few: int | None = None
    percent: bool = False
    difference: str = ""
    better: Literal["higher", "lower", ""] = ""
    heading: str = ""
    short: str = ""
    hint: str = ""
    counted: bool = False
    constant: bool = False
    column: bool = False

    @model_validator(mode="before")
    @classmethod
    def _as_percent(cls, said: dict[str, Any]) -> dict[str, Any]:
        return {"digits": 2, "few": 1, "difference": "points", **said} if said.get("percent") else said

    @property
    def scale(self) -> float:
        """What a stored value is multiplied by where it is shown."""
        return 100 if self.percent else 1.0

    @property
    def in_table(self) -> str:
        """The title at the head of a column."""
        return self.heading or self.title

    @property
    def in_short(self) -> str:
        """The title where there is little room."""
        return self.short or self.title

    @property
    def num_few(self) -> int:
        """Decimals where there is little room."""
        return self.digits if self.few is None else self.few


class MeasureFacts(Shown, Facts):
    """Unit, group, how a measure's interval over items is made, and how its values are shown (`Shown`).

    ``items``: every parameter holds one score per item, and rows are resampled (bootstrap, paired).
    ``dependent``: the only parameter holds right or wrong per item, and items are one another's neighbours: Wilson's interval
    at the number of independent items that the jackknife's error amounts to.
    ``batches``: the only parameter holds one score per batch, and batches do not share items: a t interval over them.
    ``jackknife``: groups of items are left out, and the measure is computed again from what remains.
    ``draws``: the only parameter is an array of draws under a null; the value is their mean, the interval their spread.
    ``together``: the only parameter holds value, low and high (k, 3) of each of several parts, whose intervals hold at once;
    what the measure makes of the values, of the lower ends and of the upper ends are the value and its interval.
    ``ratio``: a share of another share, which may be above 1.
    ``smooth`` is the measure before it was rounded up to a whole number, as the ends of its jackknife interval then are.
    ``n`` names the pool's attribute that holds the number of items behind the value. Measures of the group "spectrum" are taken
    on each side, and their keys begin with it.
    """

    unit: str
    group: Group
    interval: Interval | None = None
    n: str = "count"
    ratio: bool = False
    smooth: Callable[..., float] | None = None


class CurveFacts(Facts):
    """Unit of y, and group: as for a measure."""

    unit: str
    group: Group


class ObjectiveFacts(Facts):
    """``family``: what the loss is, to the claims that compare families and to `recommend`. "other" takes part in neither side.

    Plain text, since readers that import no torch read it from the file (`registry.Registry.declared`).
    """

    family: Family = "other"


class ClaimFacts(Facts):
    """``sentence`` is the claim in words; ``seeds`` how many a verdict on it needs: its function gets no fewer."""

    sentence: str
    seeds: int


class TargetFacts(Facts):
    """``check(dimensions, number of train images, **settings)`` raises what cannot be fitted, before anything is embedded."""

    check: Callable[..., object] | None = None


class ViewFacts(Facts):
    """``whole_batch``: the view sees all images of a batch at once, with a generator for each: for what is slow image by image.

    ``revision(settings)`` counts up where a view has come to draw otherwise, so that embeddings stored before are not taken for
    its own; None where they are.
    """

    whole_batch: bool = False
    revision: Callable[[Mapping[str, Any]], int | None] | None = None


class StudentFacts(Facts):
    """``own_input(settings)``: what the network was made to see (image_size, mean, std), for one student of whom nothing else
    is said; none of them for a network that takes any.
    """

    own_input: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None


class StressFacts(Facts):
    """``own_target``: run on the teacher under the study's own target alone, for its cost."""

    own_target: bool = False


class RemedyFacts(Facts):
    """``fits_probes``: embeddings move to other coordinates, so probes are fitted again; else the untouched student's hold."""

    fits_probes: bool = False
