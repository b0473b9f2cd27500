"""What an audit gives reason to try. It compares one pair, so nothing here was shown to help."""

from __future__ import annotations

from distillscope.measure.results import Audit
from distillscope.report.sentences.audit import SOME, WHOLE, losses
from distillscope.report.sentences.numbers import percent

COMMON = 0.5  # share of the energy in one common mean from which a high cosine says little
HOW = "run a study with an arm for each, then distillscope recommend."
UNPROVEN = f"An audit compares one pair, so none of this was shown to help: {HOW}"


def advice(found: Audit) -> list[str]:
    """What to try, each with the number that speaks for it; one sentence where nothing does."""
    known = {loss.what: loss.retained for loss in losses(found)}
    tries = [*_matrix(found), *_mean(found)]
    if known and min(known.values()) < SOME:
        least = min(known, key=lambda what: known[what])
        tries.append("Add a term that tells items apart or spreads them (infonce, similarity_kl, vicreg_variance with "
                     f"vicreg_covariance), since {percent(known[least], 0)} of {least} is retained.")
    if tries:
        return [*tries, UNPROVEN]
    return ["Nothing that was measured calls for a change." if known and min(known.values()) >= WHOLE else
            f"Nothing stands out. An audit compares one pair, so it cannot show what would help: {HOW}"]


def _matrix(found: Audit) -> list[str]:
    raw, mapped = (found.values.get(f"retrieval.{name}") for name in ("recall_at_1", "mapped_recall_at_1"))
    if not raw or not mapped or raw.high is None or mapped.low is None or mapped.low <= raw.high:
        return []
    return [("To search in the teacher's index, put one fitted matrix behind the student: recall at 1 goes from "
            f"{percent(raw.value)} to {percent(mapped.value)} without training.")]


def _mean(found: Audit) -> list[str]:
    share = found.values.get("teacher.mean_energy")
    if not share or share.value < COMMON:
        return []
    return [("Train towards centred or standardised targets, or with centred_cosine: one common mean is "
            f"{percent(share.value, 0)} of the teacher's energy, so a high cosine is easy to reach.")]
