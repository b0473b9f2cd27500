"""Keys of results.csv that every reader must treat alike."""

from __future__ import annotations

RANK = "student.effective_rank"
TRAIN_RANK = "train.effective_rank"
"""The same on train images. Runs before 2026-11-26 wrote it as `student.effective_rank` on another split (report.read)."""
OF_TRAIN = (TRAIN_RANK,)
"""Measures of train images; every other one is of the split that the study tests on."""
MAPPED = "mapped."
"""Head of what is measured after the ridge map into the teacher's space."""
FIT, OLD_FIT = "cross-fitted on test images", "fitted on train images"
"""How that map is fitted: kept in complete.json. Trials before 2026-11-26 do not say, and were fitted on train images."""
OLD_FIT_SAYS = ("The map of mapped.* was fitted on train images, as it was until 2026-11-26: a student that has memorised them reads as one "
                "that lost information. Arms trained longer or on fewer images read worse than they are; run them again to know.")
