"""What an audit gives reason to try. It compares one pair, so nothing here was shown to help."""

from __future__ import annotations

from distillscope.measure.results import Audit
from distillscope.report.sentences.audit import SOME, WHOLE, losses
from distillscope.report.sentences.numbers import percent

COMMON = 0.5  # share of the energy in one common mean from which a high cosine says little
HOW = "An audit compares one pair, so none of this was shown to help: run a study with an arm for each, then distillscope recommend."


def advice(found: Audit) -> list[str]:
    """What to try, each with the number that speaks for it; one sentence where nothing does."""
    known = {loss.what: loss.retained for loss in losses(found)}
    tries = [*_matrix(found), *_mean(found)]
    if known and min(known.values()) < SOME:
        tries.append("Add a term that tells items apart or spreads them (infonce, similarity_kl, vicreg_variance with vicreg_covariance), "
                     f"since {percent(min(known.values()), 0)} of {min(known, key=known.get)} is retained.")
    if tries:
        return [*tries, HOW]
    return ["Nothing that was measured calls for a change." if known and min(known.values()) >= WHOLE else
            f"Nothing stands out. {HOW.replace('none of this was shown to help', 'it cannot show what would help')}"]


def _matrix(found: Audit) -> list[str]:
    raw, mapped = (found.values.get(f"retrieval.{name}") for name in ("recall_at_1", "mapped_recall_at_1"))
    if not raw or not mapped or None in (raw.high, mapped.low) or mapped.low <= raw.high:
        return []
    return ["To search in the teacher's index, put one fitted matrix behind the student: recall at 1 goes from "
            f"{percent(raw.value)} to {percent(mapped.value)} without training."]


def _mean(found: Audit) -> list[str]:
    share = found.values.get("teacher.mean_energy")
    if not share or share.value < COMMON:
        return []
    return ["Train towards centred or standardised targets, or with centred_cosine: one common mean is "
            f"{percent(share.value, 0)} of the teacher's energy, so a high cosine is easy to reach."]
