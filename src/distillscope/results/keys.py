"""What is known of every measured quantity, once: title, decimals, scale, unit, which way is better; and keys that readers
treat alike.

Tables, terminals, the pages, `compare`, `recommend` and audits read it here. A new measure is its function and one line of
`KEYS`; with ``column`` it has a column in a study's table and a line in comparisons. What has no line is shown by its name, in
its own unit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from distillscope.measure.results import without_side

NBSP = "\u00a0"


@dataclass(frozen=True)
class Key:
    """Facts about one quantity.

    ``digits`` are decimals where there is room, ``few`` where there is little (terminals, sentences; default the same).
    A stored value times ``scale`` is shown: 100 turns a share into per cent, and a difference into ``unit`` (points).
    ``heading`` is the title in a study's table, ``short`` the one where there is little room. ``better`` says which
    way is good, where one is. ``counted``: shown as 1.41 M. ``constant``: has no spread to speak of. ``column``: see above.
    """

    title: str
    digits: int = 3
    few: int | None = None
    scale: float = 1.0
    unit: str = ""
    better: Literal["higher", "lower", ""] = ""
    heading: str = ""
    short: str = ""
    hint: str = ""
    counted: bool = False
    constant: bool = False
    column: bool = False

    @property
    def is_percent(self) -> bool:
        return self.scale == 100

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


def _share(title: str, short: str = "", hint: str = "", better: Literal["higher", "lower", ""] = "higher") -> Key:
    """What is shown as per cent, and its differences as points."""
    return Key(title, 2, 1, 100, "points", better, short=short, hint=hint)


_AS_PAPER = "batches of 64, as in the paper"
_OF_MEAN = "the same of the singular values averaged over seeds, as the paper computes it"

KEYS: dict[str, Key] = {
    # directions
    "effective_rank": Key("effective rank", 2, 1, better="higher", short="eff. rank",
                          hint="exp of the entropy of p = s²/Σs², centred; mean over seeds"),
    "effective_rank_of_mean_spectrum": Key("rank of mean spectrum", 2, better="higher", hint=_OF_MEAN),
    "effective_rank_corrected": Key("rank, corrected for n", 1, better="higher", heading="corrected for N",
                                    hint="effective rank with its small-sample bias removed: 2 log R(N) - mean log R(N/2)"),
    "effective_rank_by_s": Key("effective rank by s", 2, 1, better="higher"),
    "rankme": Key("RankMe", 2, 1, better="higher"),
    "dims_90": Key(f"dims for 90{NBSP}%", 1, 0, better="higher", heading="dims 90 %", short="dims 90 %",
                   hint="components that hold 90 % of the variance"),
    "dims_90_of_mean_spectrum": Key("dims 90 % of mean spectrum", 0, better="higher", hint=_OF_MEAN),
    "dims_95": Key(f"dims for 95{NBSP}%", 1, 0, better="higher"),
    "dims_99": Key(f"dims for 99{NBSP}%", 1, 0, better="higher"),
    "twonn_dimension": Key("TwoNN dimension", 1, better="higher"),
    "mean_energy": _share("mean energy", better="lower"),
    "duplicates": _share("duplicates", better=""),
    "uniformity": Key("uniformity", 3, better="lower"),
    "paper.uniformity": Key("uniformity", 3, better="lower", hint="batches of 64, self-pairs included, as in the paper"),
    # alignment with the teacher
    "alignment.mean_cosine": Key("mean cosine", 3, 2, better="higher", short="cosine", hint="with the teacher"),
    "alignment.teacher_r2": Key("R² of the teacher", 3, better="higher"),
    "mapped.teacher_r2": Key("R² of the teacher", 3, better="higher"),
    "alignment.student_variance_top20": _share("in the teacher's top 20", better=""),
    "alignment.teacher_variance_top20": _share("teacher's own top 20", better=""),
    "alignment.teacher_variance_captured": _share("captured by its top 20"),
    "mapped.effective_rank": Key("rank, mapped", 2, 1, unit="dims", better="higher"),
    # telling items apart, search, similarity
    "contrastive.infonce": Key("InfoNCE", 3, 2, unit="nats", better="lower", heading="InfoNCE, nats"),
    "contrastive.ceiling": Key("ceiling", 3, unit="nats", heading="its ceiling", hint="what chance gives", constant=True),
    "contrastive.teacher_infonce": Key("teacher's InfoNCE", 3, unit="nats"),
    "contrastive.infonce_best_temperature": Key("InfoNCE, best temp.", 3, unit="nats", better="lower"),
    "contrastive.retained_share": _share("retained share"),
    "paper.infonce": Key("InfoNCE", 3, 2, unit="nats", better="lower", heading="InfoNCE, nats", hint=_AS_PAPER),
    "paper.infonce_ceiling": Key("InfoNCE ceiling", 3, unit="nats", heading="its ceiling", hint="what chance gives",
                                  constant=True),
    **{f"retrieval.recall_at_{k}": _share(f"recall at {k}") for k in (1, 5, 10)},
    **{f"retrieval.mapped_recall_at_{k}": _share(f"mapped recall at {k}", f"recall at {k}, mapped") for k in (1, 5, 10)},
    **{f"mapped.recall_at_{k}": _share(f"recall at {k}, mapped") for k in (1, 5, 10)},
    "retrieval.neighbour_overlap_10": _share("index overlap"),
    "mapped.neighbour_overlap_10": _share("index overlap, mapped"),
    "similarity.linear_cka": Key("CKA", 3, better="higher"),
    "similarity.linear_cka_debiased": Key("CKA, debiased", 3, better="higher"),
    "similarity.rsa_spearman": Key("RSA", 3, better="higher"),
    "similarity.mutual_knn_10": _share("shared neighbours"),
    # labels: the study's own probe, the tuned one, neighbours; the last two lines are of any of them
    "paper.probe.accuracy": _share("probe accuracy", "the paper's probe", "linear probe (C = 1, unit norm)"),
    "probe.accuracy": _share("accuracy", "probe", "linear probe (tuned)"),
    "knn.accuracy": _share("accuracy", "neighbours", "nearest neighbours"),
    "accuracy": _share("accuracy"),
    "retention": _share("retention"),
    "mcnemar_p": Key("McNemar p", 3),
    "probe.c": Key("C", 3),
    # size and cost
    "capacity.parameters": Key("parameters", 0, short="params", counted=True, constant=True),
    "capacity.multiply_adds": Key("multiply-adds", 0, better="lower", counted=True, constant=True),
    "capacity.latency_ms": Key("ms an image", 1, better="lower"),
}
"""Key without the part that names a side -> its facts. A key that is not here has those of its last part, if there are any."""


def facts_of(measure: str) -> Key:
    """What is known of a measure, whichever side it is of.

    >>> facts_of("student.effective_rank").title, facts_of("probe.student.accuracy").hint, facts_of("zero_shot.accuracy").scale
    ('effective rank', 'linear probe (tuned)', 100)
    >>> facts_of("similarity.linear_cka_null").title, facts_of("stable_rank").title
    ('CKA, shuffled', 'stable rank')
    """
    name = without_side(measure)
    if name.endswith("_null"):
        own = facts_of(name.removesuffix("_null"))
        return replace(own, title=f"{own.title}, shuffled", short="", heading="", column=False)
    last = name.rpartition(".")[2]
    return KEYS.get(name) or KEYS.get(last) or Key(last.replace("_", " "))


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
