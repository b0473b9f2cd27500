"""`recommend`: planted truths are found, chance is not taken for one, and the study that it prints is one that runs."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.stats import ttest_rel

from builders.planted import ACCURACY, NOISY_TEACHER, STUDY, planted_run, study_with, write_run
from builders.planted import gaining_run as run
from builders.planted import truth_with as truth
from distillscope.advice.axes import FLOOR, PAPER, TUNED, axes_of
from distillscope.advice.next_study import chosen_on, fresh_seeds, next_study
from distillscope.advice.rank import Entry, Ranking, front, images_seen, leading, recommend, shows_two_views
from distillscope.claims.results import results_of
from distillscope.config.load import parse_study, study_from
from distillscope.facts import ObjectiveFacts
from distillscope.registry import objectives
from distillscope.report.context.verdicts import advised, recommended
from distillscope.report.draw.with_matplotlib import draw
from distillscope.report.draw.with_plotly import to_plotly
from distillscope.report.figures.pareto import pareto
from distillscope.report.page import section_html
from distillscope.report.recommendation import advice_tables, advise, arms_compared
from distillscope.report.sentences.recommendation import marked, notes, sentence
from distillscope.results.arms import arms_of
from distillscope.results.run import read_run
from distillscope.results.statistics import paired


def section(advice, figure=None) -> str:
    """"What to change" as the page has it."""
    return section_html("study", "advice",
                        **advised(advice, {"pareto": figure} if figure and figure.panels else {}, Path("nowhere")))


def only(found, purpose="balance"):
    """The one recommendation with its one ranking."""
    (results,) = results_of([found])
    one = recommend(results, purpose)
    (ranking,) = one.rankings
    return one, ranking


def test_the_planted_winner_of_each_purpose_is_named():
    gains = {"two": {"accuracy": 0.05}, "seven": {"robustness": 0.2}, "four": {"geometry": 8.0}, "six": {"retrieval": 0.2}}
    planted = run("one two four six seven", gains)
    for purpose, winner in {"accuracy": "two", "robustness": "seven", "geometry": "four", "retrieval": "six"}.items():
        one, ranking = only(planted, purpose)
        if purpose in ("geometry", "retrieval"):  # planted without spread, so that no test can tell
            assert ranking.entries[0].arm.name == winner
        else:
            assert ranking.leaders == (winner,) and f"train with “{winner}”" in sentence(ranking, one)


def test_differences_are_paired_over_seeds_and_the_interval_is_students_t():
    planted = run("one two", {"two": {"accuracy": 0.02}})
    _, ranking = only(planted, "accuracy")
    frame = planted.results[(planted.results["measure"] == ACCURACY) & (planted.results["condition"] == "clean")]
    wide = frame[frame["student"] == "S"].pivot(index="seed", columns="arm", values="value")
    oracle = ttest_rel(wide["two"], wide["one"]).confidence_interval(0.95)
    gain = ranking.named("two").gains["accuracy"]
    assert gain.interval() == pytest.approx((oracle.low, oracle.high)) and gain.n == 3
    assert ranking.named("two").score.mean == pytest.approx(100 * gain.mean)


def test_the_balance_is_the_mean_share_of_the_gap_that_is_closed():
    one, ranking = only(run("one seven", {"seven": {"robustness": 0.1, "accuracy": -0.01, "geometry": 4.0, "retrieval": 0.08}}))
    base = {k: ranking.named("one").values[k] for k in ("accuracy", "robustness", "retrieval", "geometry")}
    own = ranking.named("seven").values
    teacher = {"accuracy": 0.8, "robustness": 0.7, "retrieval": 1.0, "geometry": 50.0}
    ceiling = {**teacher, "robustness": 0.8}  # noise that takes nothing
    shares = [(own[k] - base[k]) / max(ceiling[k] - base[k], FLOOR * ceiling[k]) for k in base]
    assert ranking.named("seven").score.mean == pytest.approx(np.mean(shares))
    assert {a.name: a.teacher for a in one.axes} == pytest.approx(teacher)
    assert ranking.named("one").score.mean == 0


def test_a_gap_of_about_nothing_is_floored_and_more_is_never_worse():
    axis = next(a for a in axes_of(results_of([run()])[0])[0] if a.name == "accuracy")
    assert axis.gap(0.8) == axis.gap(0.79) == axis.gap(0.95) == pytest.approx(FLOOR * 0.8)
    scores = []
    for more in (-0.05, 0.0, 0.02, 0.2):  # the plain arm is as good as the teacher already
        planted = run("one two", {"one": {"accuracy": 0.09}, "two": {"accuracy": 0.09 + more}})
        scores.append(only(planted)[1].named("two").score.mean)
    assert np.isfinite(scores).all() and scores == sorted(scores) and abs(scores[1]) < 0.1


def test_what_cannot_be_told_apart_is_named_together():
    one, ranking = only(run("one two nine", {}))
    assert set(ranking.leaders) >= {"one"} and len(ranking.leaders) > 1
    text = sentence(ranking, one)
    assert "no significant difference" in text and "no arm is significantly better" in text and "train with" not in text
    one, ranking = only(run("one four seven", {"four": {"robustness": 0.2}, "seven": {"robustness": 0.2}}), "robustness")
    assert set(ranking.leaders) == {"four", "seven"} and "has the best score" in sentence(ranking, one)


@pytest.mark.parametrize(("arms", "seeds", "families"), [(3, 5, 300), (14, 10, 120)])
def test_an_arm_is_wrongly_excluded_in_one_family_of_twenty_at_most(arms, seeds, families):
    """Arms of one truth, seeds in common, spreads of their own: any exclusion is an error (more in docs/recommend.md)."""
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(families):
        luck, spread = rng.normal(size=seeds), np.exp(rng.normal(0, 0.5, arms))
        scores = {str(i): pd.Series(luck + spread[i] * rng.normal(size=seeds)) for i in range(arms)}
        names = sorted(scores, key=lambda n: -scores[n].mean())
        wrong += len(leading(names, scores)[0]) < arms
    assert wrong <= families * 0.05 + 2 * (families * 0.05 * 0.95) ** 0.5


def test_an_arm_that_some_other_beats_does_not_lead_though_the_best_swings():
    steady = {"wild": [9.0, -7, 8, -5, 6], "good": [2.0, 2.1, 1.9, 2.2, 2.0], "bad": [1.0, 1.1, 1.0, 1.1, 0.9]}
    scores = {n: pd.Series(v) for n, v in steady.items()}
    assert leading(["wild", "good", "bad"], scores)[0] == ("wild", "good")


def test_the_interval_of_a_picked_arm_holds_for_all_arms_at_once():
    """The best of eight equal arms: its own 95 % interval misses 0 too often, the one that is shown does not."""
    rng, alone, at_once, families = np.random.default_rng(1), 0, 0, 300
    for _ in range(families):
        best = max((paired(rng.normal(size=8)) for _ in range(8)), key=lambda c: c.mean)
        ranking = Ranking("S", "plain", (None,) * 9)
        for covered, (low, high) in ((0, best.interval()), (1, ranking.simultaneous(Entry(None, 8, {}, {}, {}, best)))):
            alone, at_once = (alone, at_once + (low < 0 < high)) if covered else (alone + (low < 0 < high), at_once)
    assert alone / families < 0.9 and at_once / families > 0.93


def test_what_was_picked_is_said_in_sentence_page_terminal_and_json(tmp_path):
    planted = run("one two seven six", {"two": {"accuracy": 0.08}})
    advice = advise([planted], "accuracy")
    (ranking,) = advice.found[0].rankings
    text = sentence(ranking, advice.found[0])
    assert "for all 3 arms at once" in text and "before selection: optimistic" in text
    page = section(advice)
    assert "for all ranked arms at once" in page and "before selection" in page and "optimistic, since it was picked" in page
    assert all("before selection" in str(t.caption) and "for all 3 arms at once" in str(t.caption)
               for t in advice_tables(advice))
    ranked = {e["arm"]: e["score"] for e in json.loads(advice.to_json())["settings"][0]["students"][0]["ranked"]}
    score = ranked["two"]
    assert score["simultaneous"]["arms"] == 3 and score["simultaneous"]["low"] < score["low"]
    assert "simultaneous" not in ranked["one"]
    assert "before selection" in json.loads(advice.to_json())["settings"][0]["intervals"]


def test_equal_numbers_of_every_seed_tell_nothing():
    assert leading(["a", "b"], {"a": pd.Series([2.0, 2.0]), "b": pd.Series([1.0, 1.0])})[::2] == (("a", "b"), None)
    assert leading(["a", "b"], {"a": pd.Series([2.0]), "b": pd.Series([1.0])})[::2] == (("a", "b"), None)


def test_a_plain_arm_that_beats_all_is_kept():
    one, ranking = only(run("one two", {"two": {"accuracy": -0.1, "robustness": -0.1}}), "accuracy")
    assert ranking.leaders == ("one",) and "keep “one”" in sentence(ranking, one)


def test_only_equal_compute_without_labels_is_ranked():
    one, ranking = only(run("one two three eight", {"three": {"accuracy": 0.08}, "eight": {"accuracy": 0.08}}), "accuracy")
    assert {e.arm.name for e in ranking.entries} == {"one", "two"}
    assert {e.arm.name: e.apart for e in ranking.apart} == {
        "three": "is trained with labels, a control", "eight": "sees each image 20 times, the plain arm 5 times"}
    assert "apart: is trained with labels, a control" in [line.score for line in arms_compared(ranking, one).lines]


@pytest.mark.parametrize(("more", "ranked"), [(1.05, True), (2.0, False)])
def test_another_network_is_ranked_where_it_costs_the_same(more, ranked):
    arms = [STUDY["arms"][0], {"name": "wide", "objective": "cosine", "student": {"width": 2}}]
    ops = {("*", "*", "capacity.multiply_adds", "clean"): 1e6, ("wide", "*", "capacity.multiply_adds", "clean"): 1e6 * more}
    study = {"students": STUDY["students"][:1], "remedies": [], "arms": arms}
    _, ranking = only(planted_run({**truth(), **ops}, NOISY_TEACHER, seeds=range(1, 4), study=study), "accuracy")
    names = [e.arm.name for e in ranking.entries]
    assert ("wide" in names) is ranked
    assert ranked or "2.0 times the multiply-adds" in next(e for e in ranking.apart if e.arm.name == "wide").apart


def test_two_views_are_twice_the_images():
    assert {n for n in objectives if shows_two_views(n)} == {"consistency", "infonce_views"}
    arms = arms_of(study_with(arms=[{"name": "a", "objective": ["cosine", "infonce_views"], "view": "crop_flip",
                                     "training": {"epochs": 3}}]))
    assert images_seen(arms["a"]) == 6


def test_an_objective_of_your_own_over_two_views_is_twice_the_images_too(monkeypatch):
    def pulled_together(student, teacher, other):
        return student.sum()

    monkeypatch.setitem(objectives._parts, "pulled_together", pulled_together)
    monkeypatch.setitem(objectives._facts, "pulled_together", ObjectiveFacts())
    arms = arms_of(study_with(arms=[{"name": n, "objective": n, "view": "crop_flip", "training": {"epochs": 3}}
                                    for n in ("pulled_together", "gone")]))
    assert [images_seen(a) for a in arms.values()] == [6, 3], "one that is not installed counts once"


def with_rows(found, source, measure, shift):
    """The run with another measure: that of ``source`` with ``shift`` by arm added."""
    rows = found.results[found.results["measure"].isin([source, source.replace("student", "teacher")])].copy()
    rows["value"] += [shift.get(arm, 0.0) for arm in rows["arm"]]
    rows["measure"] = [measure.replace("student", "teacher") if s == "teacher" else measure for s in rows["student"]]
    found.results = pd.concat([found.results, rows], ignore_index=True)
    return found


def test_the_tuned_probe_ranks_where_it_was_fitted():
    planted = run("one two four", {"two": {"accuracy": 0.08}})
    one, ranking = only(planted, "accuracy")
    assert one.accuracy == PAPER and ranking.leaders == ("two",)
    one, ranking = only(with_rows(planted, ACCURACY, TUNED, {"two": -0.08, "four": 0.05}), "accuracy")
    assert one.accuracy == TUNED and ranking.leaders == ("four",)
    assert "tuned probe" in notes(one)[0] and "even spectrum" not in notes(one)[0]


def test_the_papers_probe_says_what_it_favours_with_the_neighbours_beside_it(tmp_path):
    planted = run("one two", {"two": {"accuracy": 0.08}})
    planted.results = planted.results[~planted.results["measure"].str.startswith("knn.")]
    assert "even spectrum" in notes(only(planted)[0])[0] and "kNN" not in notes(only(planted)[0])[0]
    advice = advise([with_rows(planted, ACCURACY, "knn.student.accuracy", {"two": -0.07})], "accuracy")
    (note, _) = notes(advice.found[0])
    assert re.search(r"set probes.tuned: true.*S, “two” \+[01]\.", note)
    assert note in json.loads(advice.to_json())["settings"][0]["notes"]
    assert "set probes.tuned: true" in section(advice)
    ranked = {e["arm"]: e for e in json.loads(advice.to_json())["settings"][0]["students"][0]["ranked"]}
    assert ranked["two"]["knn"]["mean"] == pytest.approx(1.0, abs=0.5)


def test_a_share_of_the_gap_is_said_only_where_there_is_a_gap():
    gains = {"seven": {"robustness": 0.15, "accuracy": -0.03}}
    one, ranking = only(run("one seven", gains))
    assert not ranking.caught_up and "% of the gap to the teacher" in sentence(ranking, one)
    cost = "but loses clean accuracy (−"
    assert cost in sentence(ranking, one) and cost in recommended(advise([run("one seven", gains)]))
    for own in ({"accuracy": 0.05}, {"robustness": 0.2}):  # near the teacher; above it, though not its clean accuracy
        planted = run("one seven", {"one": own, "seven": {k: v + 0.1 for k, v in {"robustness": 0.0, **own}.items()}})
        one, ranking = only(planted)
        text = sentence(ranking, one) + recommended(advise([planted]))
        assert ranking.caught_up == tuple(own) and "gap" not in text and "balance score of +" in text


def test_one_or_two_other_arms_are_named_and_what_was_not_run_is_said(tmp_path):
    one, ranking = only(run("one two", {"two": {"accuracy": -0.1}}), "accuracy")
    assert "“two” is shown to be worse" in sentence(ranking, one)
    one, ranking = only(run("one two four", {"two": {"accuracy": -0.1}, "four": {"accuracy": -0.1}}), "accuracy")
    assert re.search("“two” and “four” are|“four” and “two” are", sentence(ranking, one))
    planted = run("one two seven six", {"seven": {"accuracy": 0.1}},
                  study={"students": STUDY["students"][:2], "remedies": [{"name": "bn"}]})
    planted.results = planted.results[~((planted.results["student"] == "M") & planted.results["arm"].isin(["two", "two+bn",
                                                                                                           "six+bn"]))]
    (results,) = results_of([planted])
    small, medium = recommend(results, "accuracy").rankings
    assert not small.not_run and medium.not_run == ("two", "six+bn")
    assert sentence(medium, recommend(results, "accuracy")).endswith("Not run on M: two, six+bn.")
    assert "Not run on M: two, six+bn." in section(advise([planted]))


def test_the_star_says_what_it_is():
    _, ranking = only(run("one two", {"two": {"accuracy": 0.08}}), "accuracy")
    assert "every other ranked arm is shown to be worse" in marked(ranking)
    alike = only(run("one two nine", {}))[1]
    assert "paired differences, not on how far apart the means are" in marked(alike)
    assert marked(only(run("one"))[1]) == ""


def test_latency_that_was_not_measured_is_said_and_the_next_study_has_it(tmp_path):
    planted = run("one two", {"two": {"accuracy": 0.08}}, study={"stresses": []})
    advice = advise([planted])
    assert "add the stress latency" in notes(advice.found[0])[-1] and "add the stress latency" in section(advice)
    assert advice.following["stresses"] == [{"name": "latency"}] and study_from(advice.following).stresses
    timed = advise([with_rows(planted, "capacity.parameters", "capacity.latency_ms", {})])
    assert not any("latency" in n for n in notes(timed.found[0]))
    assert any("ms per image" in str(c.header) for t in advice_tables(timed) for c in t.columns)
    assert advise([run("one two", study={"stresses": ["gradient", "latency"]})]).following["stresses"] == [{"name": "gradient"},
                                                                                                           {"name": "latency"}]


def test_an_arm_of_other_seeds_is_listed_apart():
    planted = run("one two nine", {})
    frame = planted.results
    planted.results = frame[~((frame["arm"] == "nine") & (frame["seed"] > 1))]
    _, ranking = only(planted)
    assert {e.arm.name: e.apart
            for e in ranking.apart} == {"nine": "shares 1 seed with the plain arm, and an interval needs two"}


@pytest.mark.parametrize(("changes", "purpose", "reason"), [
    ({"seeds": [1]}, "balance", "one seed only"),
    ({"arms": "one"}, "balance", r"only one arm \('one'\) was run"),
    ({"arms": "one eight"}, "balance", "no arm can be compared with the plain one"),
    ({"arms": "seven"}, "balance", "no arm without a view or a remedy"),
])
def test_what_cannot_be_ranked_says_why(changes, purpose, reason):
    one, ranking = only(run(**changes), purpose)
    assert re.search(reason, ranking.reason)
    assert "cannot be ranked" in sentence(ranking, one)


def test_without_a_teacher_row_one_purpose_still_ranks():
    planted = run("one two", {"two": {"accuracy": 0.05}})
    planted.results = planted.results[planted.results["student"] != "teacher"]
    assert "no gap to it is known" in only(planted)[1].reason
    assert only(planted, "accuracy")[1].leaders == ("two",)


def test_unlabelled_data_is_ranked_by_retrieval_and_geometry():
    planted = run("one four", {"four": {"geometry": 8.0}})
    planted.results = planted.results[~planted.results["measure"].str.contains("accuracy")]
    one, ranking = only(planted)
    assert [a.name for a in one.axes] == ["retrieval", "geometry"] and "no labels" in one.missing["accuracy"]
    assert ranking.entries[0].arm.name == "four" and not ranking.fronts
    assert "no labels" in only(planted, "robustness")[1].reason


def test_the_front():
    rng = np.random.default_rng(0)
    points = {str(i): tuple(p) for i, p in enumerate(rng.normal(size=(40, 2)))}
    kept = front(points)
    for name, p in points.items():
        beaten = any(np.all(np.array(q) >= p) and q != p for q in points.values())
        assert (name in kept) is not beaten
    assert [points[n][0] for n in kept] == sorted(points[n][0] for n in kept)


def test_the_figure_marks_the_front_and_both_drawings_agree():
    (results,) = results_of([run("one two seven", {"seven": {"robustness": 0.2, "accuracy": -0.02}})])
    figure = pareto([recommend(results)])
    assert len(figure.panels) == 2 and "on the front" in figure.findings[0]
    canvas, drawn = draw(figure), to_plotly(figure)
    for axes, panel, data in zip(canvas.axes, figure.panels, drawn, strict=True):
        for s in panel.series:
            assert any(np.allclose(line.get_xydata(), np.column_stack([s.x, s.y])) for line in axes.get_lines()
                       if len(line.get_xdata()) == len(s.x))
            assert any(t["x"] == pytest.approx(s.x, rel=1e-6) for t in data["data"])
        shown = {s.label for s in panel.series}
        assert {"front", "one", "two", "seven"} == shown - {"teacher"}
        beyond = panel.note.startswith("The teacher is beyond the drawing")
        assert ("teacher" in shown) != beyond, "in the drawing, or named below it"
    ends = next(s for s in figure.panels[0].series if s.label == "seven")
    assert ends.x_low[0] < ends.x[0] < ends.x_high[0] and ends.low[0] < ends.y[0] < ends.high[0]


def test_the_next_study_is_one_that_the_program_takes():
    found = run("one two four seven", {"four+bn": {"robustness": 0.3}, "four": {"robustness": 0.1}},
                study={"remedies": [{"name": "bn", "sigma": 0.1}],
                       "published": [{"student": "S", "measure": "x", "value": 1.0}]})
    (results,) = results_of([found])
    values = next_study([recommend(results, "robustness")], [parse_study({**found.written, "seeds": [1, 2, 3]}).dump()])
    study = study_from(values)
    assert [a.name for a in study.arms] == ["one", "four"]
    assert not set(study.seeds) & {1, 2, 3} and 5 <= len(study.seeds) <= 10
    assert list(values)[:2] == ["name", "description"] and not study.published
    assert [r.settings for r in study.remedies] == [{"sigma": 0.1}]
    assert yaml.safe_load(yaml.safe_dump(values)) == values


def test_the_next_study_of_two_runs_spells_out_what_the_second_left_to_its_defaults():
    first = run("one two", study={"training": {"epochs": 5, "average": 0.99}})
    second = run("one two", {"two": {"accuracy": 0.08}}, study={"training": {"epochs": 5, "batch_size": 32}})
    second.results = second.results[second.results["arm"] != "one"]
    (results,) = results_of([first, second])
    values = next_study([recommend(results, "accuracy")], [first.study.dump(), second.study.dump()])
    arms = {a["name"]: a for a in values["arms"]}
    assert arms["two"]["training"]["batch_size"] == 32 and "training" not in arms["one"]
    assert [study_from(values).training_of(a).average for a in study_from(values).arms] == [0.99, None]


def test_fresh_seeds_are_fresh():
    assert fresh_seeds([{"seeds": [3, 4], "arms": [{"name": "a", "seeds": [9]}]}], 2) == [10, 11]


def test_what_the_choice_rests_on_is_said():
    assert "optimistic" in chosen_on([], {}) and "optimistic" not in chosen_on([], {"screen": 500})
    advice = advise([run("one two", study={"screen": 500})])
    assert advice.screen_commands() == [] and "the test split was not loaded" in advice.chosen_on
    assert "screen" not in advice.following


def test_the_pages_section_escapes_and_names_the_arm(tmp_path):
    gains = {"seven": {"robustness": 0.2}, "two": {"accuracy": 0.01}}
    read = read_run(write_run(run("one two seven", gains), tmp_path / "run"))
    advice = advise([read])
    text = section(advice, pareto(advice.found))
    assert "<strong>“seven”</strong>" in text and 'id="next-study"' in text
    assert "DIR-screen" in text and str(tmp_path) not in text
    assert "accuracy under noise" in text and "no significant gain" in text and "S, “seven”: clean accuracy" in text
    assert "Train with “seven”, which closes" in recommended(advice)
    read.all_results["arm"] = read.all_results["arm"].replace("seven", "<b>7")
    *arms, last = read.study.arms
    read = replace(read, study=read.study.model_copy(update={"arms": (*arms, last.model_copy(update={"name": "<b>7"}))}))
    text = section(advise([read]))
    assert "<b>" not in text and "&lt;b&gt;7" in text


def test_a_run_of_one_arm_gets_one_honest_sentence(tmp_path):
    advice = advise([run("one")])
    text = section(advice, pareto(advice.found))
    assert "cannot be ranked" in text and "<figure" not in text and advice.yaml == ""
