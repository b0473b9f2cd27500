"""Results that cannot decide a claim, or that do not belong together, must not decide it."""

from __future__ import annotations

import dataclasses

import pytest

from builders.planted import PARAMETERS, STUDY, planted, planted_run
from distillscope.claims.results import Undecided, results_of
from distillscope.claims.verdict import decide_results, decided
from distillscope.errors import UserError
from distillscope.facts import ClaimFacts
from distillscope.registry import claims

ACCURACY = "paper.probe.student.accuracy"
NOISES = ("noise=0.05", "noise=0.1", "noise=0.2", "band=0-0.25/0.1", "band=0.75-1/0.1")


def everywhere(value: float) -> dict:
    return {("*", "*", ACCURACY, c): value for c in NOISES}


@pytest.mark.parametrize("name", ["inverse-scaling", "low-pass", "bottleneck"])
@pytest.mark.parametrize(("level", "why"), [(0.705, "less than 2"), (0.105, "leaves chance alone")])
def test_noise_that_does_nothing_or_leaves_nothing(name, level, why):
    teacher = {("pca64", "knn.chance", "clean"): 0.1}
    found = decided(name, planted(everywhere(level), teacher))
    assert found.verdict == "undecided" and why in found.reason


def test_a_teacher_that_noise_does_not_hurt_says_nothing_of_its_dimensions():
    found = decided("rank-robustness", planted(top_k={"all": 0.795, "16": 0.79, "64": 0.793}))
    assert found.verdict == "undecided" and "less than 2" in found.reason


def test_students_of_other_networks_are_no_sizes():
    names = {"S": "timm/resnet18", "M": "timm/vit_tiny_patch16_224", "L": "timm/resnet50"}
    study = {"students": [{"name": n, "label": k, "image_size": 32} for k, n in names.items()]}
    results = planted(study=study)
    assert results.sizes(results.baseline()) == ["S", "L"]


def test_of_students_of_equal_size_the_first_stands_for_it(monkeypatch):
    monkeypatch.setitem(PARAMETERS, "M", PARAMETERS["S"])
    results = planted()
    assert results.sizes(results.baseline()) == ["S", "L"]
    blurred = [{**s, "blur_pool": True} if s["label"] == "M" else s for s in STUDY["students"]]
    results = planted(study={"students": blurred})
    assert results.sizes(results.baseline()) == ["S", "L"]
    assert decided("collapse", results).id == "collapse"


def test_a_claim_whose_function_fails_leaves_the_others_alone(monkeypatch):
    def failing(results):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setitem(claims._parts, "failing", failing)
    monkeypatch.setitem(claims._facts, "failing", ClaimFacts(sentence="It fails.", seeds=5))
    with pytest.warns(RuntimeWarning, match="claim failing"):
        decision = decide_results(planted())
    assert decision["failing"].verdict == "undecided" and "ZeroDivisionError" in decision["failing"].reason
    assert decision.tested >= 5


def test_bands_of_two_places_are_not_compared_with_each_other():
    truth = {("*", "*", ACCURACY, "band=0-0.25/0.1"): 0.50, ("*", "*", ACCURACY, "band=0.75-1/0.1"): 0.65,
             ("*", "*", ACCURACY, "band=0-1/0.1@input"): 0.40, ("*", "*", ACCURACY, "band=1-7/0.1@input"): 0.70}
    found = decided("low-pass", planted(truth))
    assert "@input" not in found.endpoint and found.scope["bands"] == "band=0-0.25 and band=0.75-1"


def test_power_counts_the_parts_of_the_claim():
    found = decide_results(planted({("eight", "*", "student.effective_rank", "clean"): 30.0}))["collapse"]
    assert found.times == 3 and "/ 3 parts" in found.power


def test_several_contrastive_arms_are_tested_as_several():
    arms = [*STUDY["arms"], {"name": "ten", "objective": ["cosine", {"name": "crd", "weight": 0.5}]}]
    flat = {("four", "*", "student.effective_rank", "clean"): 16.0, ("ten", "*", "student.effective_rank", "clean"): 40.0}
    found = decided("expansion", planted(flat, study={"arms": arms}))
    assert found.scope["contrastive arm"] == "ten"
    assert {p["endpoint"] for p in found.parts} >= {f"rank of S under {loss} - 1.1 x plain"
                                                    for loss in ("cosine + 0.5 infonce", "cosine + 0.5 crd")}


def test_pairs_too_few_fall_back_on_welch():
    results = dataclasses.replace(planted(seeds=range(1, 21)), needed=10)
    arm = results.baseline()
    first, second = results.accuracy(arm, "S"), results.accuracy(arm, "L")
    assert results.difference("", first[first.index <= 11], second[second.index >= 11]).test == "Welch's t"
    with pytest.raises(Undecided, match="no paired seeds"):
        results.difference("", first[first.index <= 5], second[second.index > 5])


@pytest.mark.parametrize(("change", "where"), [
    ({"target": "none"}, "target"),
    ({"stresses": [{"name": "band_noise", "unit": "pixel"}]}, "stresses.band_noise"),
])
def test_studies_that_measured_otherwise_are_not_judged_together(change, where):
    first = planted_run(study={"stresses": [{"name": "band_noise", "unit": "normalised", "sigmas": [0.1]}]}, seeds=[1, 2, 3])
    with pytest.raises(UserError, match=where):
        results_of([first, planted_run(study=change, seeds=[4, 5, 6])])


def test_studies_of_other_images_under_the_same_name_are_not_judged_together():
    first, other = planted_run(seeds=[1, 2, 3]), planted_run(seeds=[4, 5, 6])
    first.references = [dataclasses.replace(r, fingerprint={"test images": "aa"}) for r in first.references]
    other.references = [dataclasses.replace(r, fingerprint={"test images": "bb"}) for r in other.references]
    with pytest.raises(UserError, match="test images"):
        results_of([first, other])
