"""A tiny study that runs every control, from training to the verdicts: the claims find what studies write."""

from __future__ import annotations

import pytest

from builders.tiny import scratch, tiny_study
from distillscope.report.claims import decide_claims
from distillscope.results.models import settings_of
from distillscope.results.run import read_run
from distillscope.results.summary import Summary, summarise
from distillscope.study.run import run_study

ARMS = [
    {"name": "a"},
    {"name": "b", "objective": "mse", "students": ["S"]},
    {"name": "c", "objective": "cross_entropy", "students": ["S"]},
    {"name": "d", "objective": ["cosine", {"name": "infonce", "weight": 1.0}], "students": ["S"]},
    {"name": "e", "objective": "mse", "target": {"name": "whiten", "dim": 24}, "students": ["S"]},
    {"name": "f", "view": {"name": "noise", "sigma": 0.3}, "view_target": "clean", "students": ["S"]},
]


@pytest.fixture(scope="module", params=[2, pytest.param(5, marks=pytest.mark.minutes)], ids=["two seeds", "five"])
def run(request):
    study = tiny_study(
        students=[{"name": "paper_cnn", "label": s, "width": w, "image_size": 16} for s, w in (("S", 1), ("L", 2))],
        arms=ARMS, seeds=list(range(1, request.param + 1)), target={"name": "pca", "dim": 32},
        noise={"sigmas": [0.1, 0.5], "draws": 1},
        stresses=[{"name": "band_noise", "bands": [[0, 0.5], [0.5, 1]], "sigmas": [0.1], "items": 0},
                  {"name": "top_k", "ks": [4, 16], "sigmas": [0.5]},
                  {"name": "gradient", "items": 16}],
        remedies=["bn"], training={"epochs": 2, "batch_size": 32},
        **({"limit": 100, "limit_test": 40} if request.param == 2 else {}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTILLSCOPE_CACHE", str(scratch() / "cache"))
        return run_study(study, scratch() / f"claims{request.param}", jobs=1, report=False)


def test_every_control_reaches_its_claim(run):
    """What is left undecided is so for its seeds, its images or its spread: never for a name that was not found."""
    (decision,) = decide_claims([run.path]).decisions
    reasons = {v.id: v.reason for v in decision.verdicts if v.p is None}
    if len(run.study.seeds) == 2:
        lacking = ("seeds, and this claim needs", "needs 1,024 test images", "says nothing of robustness",
                   "nothing to win back",
                   "no more dimensions than the limit")
        assert not {name: reason for name, reason in reasons.items() if not any(known in reason for known in lacking)}
        return
    assert "needs 10" in reasons.pop("inverse-scaling")
    assert "needs 1,024 test images" in reasons.pop("information")
    for known in ("says nothing of robustness", "nothing to win back", "no more dimensions than the limit"):
        reasons = {name: reason for name, reason in reasons.items() if known not in reason}
    assert not reasons
    assert decision.tested >= 4
    collapse = decision["collapse"]
    assert collapse.n == 5 and any("R^2" in s.endpoint for s in collapse.secondary)
    robust, filters = decision["rank-robustness"], decision["low-pass"]  # where noise does something to so small a study
    assert robust.p is None or robust.scope["k"].startswith(("4 ", "16 "))
    assert filters.p is None or any("gradient" in s.endpoint for s in filters.secondary)


def test_the_projection_control_runs_on_the_studys_own_target_alone(run):
    results = run.results
    rows = results[results["measure"].str.startswith("top_k.")]
    assert set(rows["student"]) == {"teacher"} and set(rows["target"]) == {"pca32"}
    assert set(rows["condition"]) >= {"top_k=4", "top_k=4/0.5", "top_k=all/0.5", "top_k=whitened/0.5"}


def test_train_ranks_stand_beside_and_never_among_the_test_rows(run):
    everything = run.all_results
    train = everything[everything["measure"] == "train.effective_rank"]
    assert len(train) == len(run.study.seeds) * (len(ARMS) + 1) and (train["n"] == run.study.limit - 40).all()
    assert set(train["split"]) == {"train"}
    results, num_tested = run.results, run.study.limit_test
    rows = results[results["measure"] == "student.effective_rank"]
    assert set(results["split"]) == set(rows["split"]) == {"test"} and (rows["n"] == num_tested).all()
    shown = read_run(run.path)
    assert shown.split == "test"
    quantities = summarise(shown.all_results)
    of_train = quantities.query("measure == 'train.effective_rank' and split == 'train'")
    assert of_train["n_seeds"].eq(len(run.study.seeds)).sum() == len(ARMS) + 1
    summary, model = Summary.of(shown), settings_of(shown)[0].students[0]
    assert summary.get(model, "student.effective_rank").n == num_tested  # the tables show the test images
    assert set(summary.per_seed(model, "student.effective_rank").values()) <= set(rows["value"])


def test_r2_is_logged_at_every_epoch(run):
    log = read_run(run.path).training
    assert log["teacher_r2"].notna().all() and log.groupby(["arm", "student", "seed"]).size().eq(2).all()  # epochs
