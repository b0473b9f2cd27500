"""What is known of every measured quantity, once: title, decimals, scale, unit, which way is better; and keys that readers
treat alike.

Tables, terminals, the pages, `compare`, `recommend` and audits read it here. A measure says it where it is registered
(`distillscope.facts.Shown`); `KEYS` has what no measure gives: sizes and costs, the map into the teacher's space, accuracies by
their classifier. What has no title is shown by its name, in its own unit.
"""

from __future__ import annotations

from distillscope.facts import Shown
from distillscope.measure.results import without_side
from distillscope.registry import measures

NBSP = "\u00a0"


def _percent(title: str, short: str = "", hint: str = "") -> Shown:
    return Shown(title=title, percent=True, better="higher", short=short, hint=hint)


_OF_MEAN = "the same of the singular values averaged over seeds, as the paper computes it"

KEYS: dict[str, Shown] = {
    "effective_rank_of_mean_spectrum": Shown(title="rank of mean spectrum", digits=2, better="higher", hint=_OF_MEAN),
    "dims_90_of_mean_spectrum": Shown(title="dims 90 % of mean spectrum", digits=0, better="higher", hint=_OF_MEAN),
    # the student in the teacher's space
    "mapped.effective_rank": Shown(title="rank, mapped", digits=2, few=1, difference="dims", better="higher"),
    "mapped.teacher_r2": Shown(title="R² of the teacher", better="higher"),
    **{f"mapped.recall_at_{k}": _percent(f"recall at {k}, mapped") for k in (1, 5, 10)},
    "mapped.neighbour_overlap_10": _percent("index overlap, mapped"),
    "contrastive.infonce_chosen_temperature": Shown(title="InfoNCE, temp. of validation", difference="nats", better="lower"),
    # labels: the study's own probe, the tuned one, neighbours; the next three lines are of any of them
    "paper.probe.accuracy": _percent("probe accuracy", "the paper's probe", "linear probe (C = 1, unit norm)"),
    "probe.accuracy": _percent("accuracy", "probe", "linear probe (tuned)"),
    "knn.accuracy": _percent("accuracy", "neighbours", "nearest neighbours"),
    "accuracy": _percent("accuracy"),
    "retention": _percent("retention"),
    "negative_flips": Shown(title="negative flips", percent=True, better="lower"),
    "noise_flips": Shown(title="flips by noise", percent=True, better="lower"),
    "worst_class_flips": Shown(title="worst class, flips", percent=True, better="lower"),
    "worst_class_noise_flips": Shown(title="worst class, flips by noise", percent=True, better="lower"),
    "positive_flips": Shown(title="positive flips", percent=True, better="higher"),
    "mcnemar_p": Shown(title="McNemar p"),
    "probe.c": Shown(title="C"),
    # size and cost
    "capacity.parameters": Shown(title="parameters", digits=0, short="params", counted=True, constant=True),
    "capacity.multiply_adds": Shown(title="multiply-adds", digits=0, better="lower", counted=True, constant=True),
    "capacity.latency_ms": Shown(title="ms per image", digits=1, better="lower"),
}
"""Key without the part that names a side -> how it is shown, where no measure of that name says so."""


def facts_of(measure: str) -> Shown:
    """How a measure is shown, whichever side it is of; one that says nothing, as what has its last part for a name.

    >>> facts_of("student.effective_rank").title, facts_of("probe.student.accuracy").hint, facts_of("zero_shot.accuracy").scale
    ('effective rank', 'linear probe (tuned)', 100)
    >>> facts_of("similarity.linear_cka_null").title, facts_of("stable_rank").title, facts_of("probe.ece").title
    ('CKA, shuffled', 'stable rank', 'calibration error')
    """
    name = without_side(measure)
    if name.endswith("_null"):
        own = facts_of(name.removesuffix("_null"))
        return own.model_copy(update={"title": f"{own.title}, shuffled", "short": "", "heading": "", "column": False})
    head, _, last = name.rpartition(".")
    for key in (name, f"{head}.student.{last}", last):
        found = KEYS.get(key) or (measures.facts(key) if key in measures else None)
        if found and found.title:
            return found
    return Shown(title=last.replace("_", " "))


def teacher_key(measure: str) -> str:
    """The key under which the teacher's rows hold the same quantity.

    >>> teacher_key("paper.probe.student.accuracy")
    'paper.probe.teacher.accuracy'
    """
    return ".".join("teacher" if part == "student" else part for part in measure.split("."))


RANK = "student.effective_rank"
COSINE = "alignment.mean_cosine"
PARAMETERS = "capacity.parameters"
LATENCY = "capacity.latency_ms"
ACCURACIES = ("paper.probe.student.accuracy", "probe.student.accuracy", "knn.student.accuracy")
"""The accuracy that reports show and claims use: the first of these that was measured (claims speak of the paper's probe)."""
INFONCE = (("paper.infonce", "paper.infonce_ceiling"), ("contrastive.infonce", "contrastive.ceiling"))
"""A loss with its ceiling; the first that was measured is shown."""
UNIFORMITY = ("paper.uniformity", "student.uniformity")
TRAIN_RANK = "train.effective_rank"
"""The rank on train images. Runs before 2026-11-26 wrote it as `student.effective_rank` on another split (`results.run`)."""
OF_TRAIN = (TRAIN_RANK,)
"""Measures of train images; every other one is of the split that the study tests on."""
MAPPED = "mapped."
"""Head of what is measured after the ridge map into the teacher's space."""
FIT, OLD_FIT = "cross-fitted on test images", "fitted on train images"
"""How that map is fitted: kept in complete.json. Trials before 2026-11-26 do not say, and were fitted on train images."""
OLD_FIT_SAYS = ("The map of mapped.* was fitted on train images, as it was until 2026-11-26: a student that has memorised them "
                "reads as one that lost information. Arms trained longer or on fewer images read worse than they are; run them "
                "again to know.")
