"""Arms that ran unequal numbers of seeds: one may beat another over the seeds that both ran, and a third arm disagree."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from builders.planted import ACCURACY, gaining_run
from distillscope.advice.next_study import finalists
from distillscope.advice.rank import leaders_of, leading, recommend
from distillscope.claims.results import results_of
from distillscope.report.context.verdicts import advised, recommended
from distillscope.report.page import section_html
from distillscope.report.recommendation import advise
from distillscope.report.sentences.recommendation import marked, sentence


def with_gains(seeds_of_two: int, six: float = 0.0, one_of_late: float = -0.02):
    """Arm one is plain; two gains 3 points on its first seeds; four 5 on the first five, and ``one_of_late`` on the others."""
    run, rng = gaining_run("one two four six", seeds=range(1, 11)), np.random.default_rng(0)
    frame = run.results
    for seed in range(1, 11):
        luck = 0.70 + 0.002 * rng.normal()
        gains = {"one": 0.0, "two": 0.03, "four": 0.05 if seed <= 5 else one_of_late, "six": six}
        for arm, gain in gains.items():
            there = (frame["arm"] == arm) & (frame["seed"] == seed) & (frame["measure"] == ACCURACY)
            frame.loc[there & (frame["condition"] == "clean"), "value"] = luck + gain + (arm != "one") * 0.001 * rng.normal()
    run.results = frame[~((frame["arm"] == "two") & (frame["seed"] > seeds_of_two))]
    return run


def ranked(run):
    (results,) = results_of([run])
    found = recommend(results, "accuracy")
    return found, found.rankings[0]


def test_an_arm_leads_alone_only_where_it_beats_each_other_arm_itself():
    found, ranking = ranked(with_gains(5))
    assert ranking.beaten_by == {"two": ("four",), "four": (), "six": ("two",), "one": ("two",)}
    assert set(ranking.leaders) == {"four", "six", "one"}
    text = sentence(ranking, found)
    assert "train with" not in text and "other arms is shown to be worse" not in text


def test_an_arm_that_leads_and_is_shown_to_be_worse_than_another_is_said_to_be_with_what_beats_that_one():
    found, ranking = ranked(with_gains(5))
    assert set(ranking.disputes) == {("two", "six"), ("two", "one")} and not ranking.improved
    text = sentence(ranking, found)
    assert "no arm can be named of “four”, " in text and "no significant difference" not in text
    assert "“two” is shown to be better than" in text and "but worse than “four”" in text
    assert "no arm is significantly better" not in text and marked(ranking).startswith("* is undecided: the arms ran different")


def test_the_page_and_json_name_no_arm_where_what_pairs_show_does_not_agree():
    advice = advise([with_gains(5)], "accuracy")
    page = section_html("study", "advice", **advised(advice, {}, Path("nowhere")))
    assert "undecided" in page and "the arms ran different seeds" in page
    assert recommended(advice).startswith("No arm can be named of “four”")
    (student,) = json.loads(advice.to_json())["settings"][0]["students"]
    assert {"better": "two", "worse": "one"} in student["disputes"]


def test_the_next_study_holds_the_arm_that_disputes_who_leads():
    _, ranking = ranked(with_gains(5))
    assert ranking.leaders[0] == "four" and finalists(ranking) == ("one", "four", "six", "two")


def test_an_arm_that_beats_each_other_arm_over_the_seeds_that_both_ran_is_named():
    found, ranking = ranked(with_gains(5, one_of_late=0.05))
    assert ranking.leaders == ("four",) and not ranking.disputes
    assert "train with “four”" in sentence(ranking, found) and "each of the 3 other arms is shown to be worse" in sentence(
        ranking, found)


def test_the_best_of_the_leading_arms_is_not_called_the_best_where_one_that_is_beaten_reads_better():
    run = with_gains(5, six=0.02, one_of_late=0.0)
    frame = run.results
    there = (frame["arm"] == "six") & (frame["measure"] == ACCURACY) & (frame["condition"] == "clean")
    frame.loc[there, "value"] += np.where(frame.loc[there, "seed"] % 2, 0.05, -0.05)  # so unsteady that nothing shows
    found, ranking = ranked(run)
    assert ranking.entries[0].arm.name == "two" and ranking.leaders == ("four", "six") and not ranking.disputes
    assert "“four” has the best score of these: it gains" in sentence(ranking, found)


def test_arms_that_beat_one_another_in_a_circle_all_lead():
    circle = {"a": ("c",), "b": ("a",), "c": ("b",), "d": ("a",)}
    assert leaders_of(list(circle), circle) == ("a", "b", "c", "d")


def test_of_several_arms_that_no_other_beats_none_need_beat_the_rest():
    by = {"a": (), "b": (), "plain": ("a",), "c": ("plain",)}
    assert leaders_of(list(by), by) == ("a", "b")


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_with_the_same_seeds_for_all_arms_those_lead_that_no_other_beats(seeds):
    rng = np.random.default_rng(seeds)
    for _ in range(60):
        luck, means, spread = rng.normal(size=seeds), rng.normal(0, 1.5, 6), np.exp(rng.normal(0, 1, 6))
        scores = {str(i): pd.Series(luck + means[i] + spread[i] * rng.normal(size=seeds)) for i in range(6)}
        leaders, beaten_by, _ = leading(sorted(scores, key=lambda n: -scores[n].mean()), scores)
        assert set(leaders) == {name for name, by in beaten_by.items() if not by}
