"""What the program must know of a part before it calls it, by kind: which facts exist, of what type, with what default.

A part says them where it is registered, as ``@objectives.register("log_cosh", family="regression")``; any other name is an
error there and then (`registry.Registry.register`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Family = Literal["cosine", "regression", "contrastive", "relational", "spread", "supervised", "consistency", "other"]


class Facts(BaseModel):
    """What any part may say.

    ``further=("target", targets)``: the function takes ``**settings``, which are those of the part that its own setting
    ``target`` names in that other registry, and are checked as that part's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    further: tuple[str, Any] | None = None


class ObjectiveFacts(Facts):
    """``family``: what the loss is, to the claims that compare families and to `recommend`. "other" takes part in neither side.

    Plain text, since readers that import no torch read it from the file (`registry.Registry.declared`).
    """

    family: Family = "other"


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


class StressFacts(Facts):
    """``own_target``: run on the teacher under the study's own target alone, for its cost."""

    own_target: bool = False


class RemedyFacts(Facts):
    """``fits_probes``: embeddings move to other coordinates, so probes are fitted anew; else the untouched student's hold."""

    fits_probes: bool = False
