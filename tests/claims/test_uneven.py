"""Verdicts where arms ran unequal numbers of seeds, and where classes hold unequal numbers of images."""

from __future__ import annotations

import pytest

from builders.planted import planted, planted_run
from distillscope.claims.results import results_of
from distillscope.claims.verdict import decided
from distillscope.results.keys import RANK

ACCURACY = "paper.probe.student.accuracy"
NOISES = ("noise=0.05", "noise=0.1", "noise=0.2", "band=0-0.25/0.1", "band=0.75-1/0.1")


@pytest.mark.parametrize("name", ["inverse-scaling", "low-pass", "bottleneck"])
def test_noise_that_leaves_the_guess_of_the_largest_class_decides_nothing(name):
    """Six images of ten are of one class, and under noise every model says that class: 60 %, far above one tenth."""
    teacher = {("pca64", "knn.chance", "clean"): 0.1, ("pca64", "knn.largest_class", "clean"): 0.6}
    larger = {("*", student, ACCURACY, "clean"): clean for student, clean in (("S", 0.8), ("M", 0.83), ("L", 0.86))}
    found = decided(name, planted({**{("*", "*", ACCURACY, c): 0.605 for c in NOISES}, **larger}, teacher))
    assert found.verdict == "undecided" and "leaves only chance accuracy (60 %)" in found.reason


def of_five_seeds(name: str, **rank: float) -> str:
    """The sentence on a run whose plain arm ran ten seeds, the last five 24 dimensions higher, and each other arm five."""
    run = planted_run({("five", "*", ACCURACY, "clean"): 0.72, **{(arm, "*", RANK, "clean"): v for arm, v in rank.items()}})
    rows = run.results
    rows.loc[(rows.arm == "one") & (rows.measure == RANK) & (rows.seed > 5), "value"] += 24
    run.results = rows[(rows.arm == "one") | (rows.student == "teacher") | ~(rows.seed > 5)]
    return decided(name, results_of([run])[0]).sentence


def test_the_words_of_a_verdict_are_of_the_seeds_that_were_tested():
    """They were over ten seeds on one side and five on the other: "the rank rises: 24.1 under mse, 28.0 under cosine"."""
    assert "24.1 under mse, 16.1 under cosine" in of_five_seeds("objective", two=24.0)
    assert "expands the rank from 16.1 to 24.0" in of_five_seeds("expansion", five=24.0)
