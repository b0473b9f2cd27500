"""A plan counts what a run would do, and does nothing."""

from __future__ import annotations

import pytest

from builders.tiny import finished_run, scratch, tiny_study
from distillscope.study.plan import plan_study

ARMS = [{"name": "cosine"}, {"name": "augmented", "view": "crop_flip", "seeds": [1]}]


def test_a_plan_on_an_empty_cache_counts_every_image_and_view_once(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(tmp_path / "cache"))
    plan = plan_study(tiny_study(arms=ARMS), tmp_path / "run", "cpu", jobs=1)
    assert (plan.trials, plan.finished) == (3, 0)
    assert (plan.teacher_forwards, plan.teacher_cached) == (200 + 60 + 60 + 2 * 160, 0)
    assert plan.student_train == 3 * 2 * 160
    assert plan.student_eval == 3 * (2 * 60 + 200)
    assert plan.seconds > 0
    assert not (tmp_path / "run").exists()
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_a_plan_of_a_finished_run_has_nothing_to_do(monkeypatch):
    run = finished_run()
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(scratch() / "cache"))
    plan = plan_study(tiny_study(arms=ARMS), run, "cpu", jobs=1, resume=True)
    assert (plan.trials, plan.finished, plan.teacher_forwards, plan.student_train) == (3, 3, 0, 0)
    assert plan.teacher_cached == 640
    assert dict(plan.rows())["trials"] == "3 (3 finished already)"


@pytest.mark.parametrize("seconds, text", [(30, "30 s"), (600, "10 min")])
def test_times_read_well(seconds, text):
    from distillscope.study.plan import Plan

    assert dict(Plan(tiny_study(), 1, 0, 0, 0, 0, 0, seconds, 0, 0).rows())["estimated time"] == text


def test_a_plan_times_each_arms_own_batch_and_network(tmp_path, monkeypatch):
    timed = []
    monkeypatch.setattr("distillscope.study.plan._student_seconds",
                        lambda spec, dim, source, device, batch, jobs: timed.append((batch, spec.settings)) or (0.0, 0.0))
    arms = [{"name": "cosine"}, {"name": "small", "training": {"epochs": 1, "batch_size": 8}},
            {"name": "blur", "student": {"blur_pool": True}}]
    plan_study(tiny_study(arms=arms), tmp_path / "run", "cpu", jobs=1)
    assert [batch for batch, _ in timed] == [32, 8, 32] and [s.get("blur_pool", False)
                                                             for _, s in timed] == [False, False, True]
