"""compare: the differences are those of SciPy, what must not be compared is not, and the page says what the values say."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats
from typer.testing import CliRunner

from builders.browser import data_of, undrawn
from builders.synthetic_run import make_run, with_predictions
from builders.tiny import labelled
from distillscope import cli
from distillscope.compare.overlay import joined_run, joined_settings
from distillscope.compare.read import unique_labels
from distillscope.compare.runs import compare_runs
from distillscope.report.compare_page import write_comparison
from distillscope.report.sentences.compare import READING, left_out_lines
from distillscope.report.terminals import seeds_line
from distillscope.results.run import read_run
from distillscope.results.summary import Summary

RANK, PROBE = "student.effective_rank", "paper.probe.student.accuracy"
SMALL = {"students": ("S", "M"), "dim": 24, "epochs": 2}


def altered(run, measure=None, by=0.0, **study):
    """The run with ``by`` (a number, or one for each seed) added to a measure of its students, and its study changed."""
    if measure:
        for path in run.glob("trials/*/results.csv"):
            frame = pd.read_csv(path)
            step = by[int(frame["seed"].iloc[0])] if isinstance(by, dict) else by
            frame.loc[frame["measure"] == measure, "value"] += step
            frame.to_csv(path, index=False)
    values = yaml.safe_load((run / "study.yaml").read_text())
    (run / "study.yaml").write_text(yaml.safe_dump({**values, **study}))
    return run


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two runs of the same seeds; the second has a higher rank, by another step for each seed, and other predictions."""
    folder = tmp_path_factory.mktemp("runs")
    short = with_predictions(make_run(folder / "short", **SMALL), 0.6)
    longer = with_predictions(make_run(folder / "longer", **SMALL), 0.7, seed=1)
    return short, altered(longer, RANK, {42: 1.0, 123: 1.3, 456: 1.1}, training={"epochs": 9})


@pytest.fixture(scope="module")
def both(two):
    """The two compared."""
    return compare_runs(two)


def one(found, student, quantity):
    return next(d for d in found.differences if d.match.first.student == student and d.quantity.key == quantity)


def per_seed(run, student, measure, condition="clean"):
    rows = read_run(run).results.query("student == @student and measure == @measure and condition == @condition")
    return rows.groupby("seed")["value"].mean().to_numpy(float)


def test_seeds_that_both_have_are_paired_as_scipy_does(two, both):
    d = one(both, "S", "effective_rank")
    first, second = (per_seed(run, "S", RANK) for run in two)
    oracle = stats.ttest_rel(second, first)
    assert (d.a, d.b) == pytest.approx((first.mean(), second.mean()))
    assert (d.low, d.high) == pytest.approx(tuple(oracle.confidence_interval()))
    assert d.p == pytest.approx(oracle.pvalue) and d.n == 3 and d.seeds == (42, 123, 456)


def test_only_the_shared_seeds_count_where_some_are_shared(two, tmp_path):
    other = altered(make_run(tmp_path / "other", seeds=(42, 123, 7), **SMALL), RANK, 2.0)
    d = one(compare_runs([two[0], other]), "M", "effective_rank")
    assert d.seeds == (42, 123) and d.value == pytest.approx(2.0)
    own = read_run(two[0]).results.query("student == 'M' and measure == @RANK and seed in (42, 123)")
    assert d.a == pytest.approx(own["value"].mean()) and len(own) == 2


def test_other_seeds_are_welchs(two, tmp_path):
    other = make_run(tmp_path / "other", seeds=(1, 2, 3, 4), **SMALL)
    d = one(compare_runs([two[0], other]), "S", "accuracy")
    oracle = stats.ttest_ind(per_seed(other, "S", PROBE), per_seed(two[0], "S", PROBE), equal_var=False)
    assert (d.low, d.high) == pytest.approx(tuple(oracle.confidence_interval()))
    assert d.p == pytest.approx(oracle.pvalue) and d.how == "Welch over seeds" and d.seeds == ()


def test_one_seed_each_has_a_difference_and_no_interval(tmp_path):
    a, b = make_run(tmp_path / "a", seeds=(42,), **SMALL), altered(make_run(tmp_path / "b", seeds=(42,), **SMALL), RANK, 0.5)
    found = compare_runs([a, b])
    d = one(found, "S", "effective_rank")
    assert d.value == pytest.approx(0.5) and math.isnan(d.low) and math.isnan(d.p) and d.n == 1
    assert d.to_dict()["low"] is None and "nan" not in json.dumps(found.to_dict()).lower().replace("finance", "")


def test_p_is_holms_over_every_tested_difference(both):
    found = both
    ps = sorted(d.p for d in found.differences if d.quantity.tested)
    expected, highest = {}, 0.0
    for i, p in enumerate(ps):
        highest = max(highest, min(1.0, (len(ps) - i) * p))
        expected[p] = max(expected.get(p, 0.0), highest)
    assert len(ps) == 8
    for d in found.differences:
        assert math.isnan(d.p_holm) if not d.quantity.tested else d.p_holm <= expected[d.p] + 1e-12
    assert min(d.p_holm for d in found.differences if d.quantity.tested) == pytest.approx(min(1.0, 8 * ps[0]))


def test_the_interval_over_items_is_that_of_paired_scores(two, both):
    d = one(both, "S", "accuracy")
    scores = []
    for run in two:
        frames = [pd.read_parquet(p / "predictions.parquet") for p in sorted(run.glob("trials/*--S--*"))]
        scores.append(np.mean([(f["paper|clean|"] == f["label"]).to_numpy(float) for f in frames], axis=0))
    apart = scores[1] - scores[0]
    half = 1.96 * apart.std(ddof=1) / math.sqrt(300)
    assert (d.items.n, d.items.seeds) == (300, 3)
    assert d.items.low == pytest.approx(apart.mean() - half, abs=0.25 * half)
    assert d.items.high == pytest.approx(apart.mean() + half, abs=0.25 * half)
    noisy = one(both, "S", "accuracy_noisy")
    assert noisy.condition == "noise=0.2" and noisy.items is not None


def one_size(folder, share, **more):
    return with_predictions(make_run(folder, students=("S",), dim=24, epochs=0, **more), share)


def test_a_difference_of_other_seeds_in_each_run_has_no_interval_over_the_one_they_share(tmp_path):
    runs = one_size(tmp_path / "a", 0.6, seeds=(1, 2, 3)), one_size(tmp_path / "b", 0.7, seeds=(3, 4, 5))
    found = compare_runs(runs)
    d = one(found, "S", "accuracy")
    assert (d.how, d.n, d.seeds) == ("Welch over seeds", 3, ())
    assert d.items is None and d.items_left_out == "the runs do not have the same seeds"
    assert f"probe, clean, over items: {d.items_left_out} (S (cosine))" in left_out_lines(found.differences)


def test_unpaired_seeds_that_both_runs_have_keep_their_interval_over_items(two, tmp_path):
    other = altered(shutil.copytree(two[1], tmp_path / "other"), streams="notebook")
    d = one(compare_runs([two[0], other]), "S", "accuracy")
    assert d.how == "Welch over seeds" and d.items.seeds == 3


def test_without_the_predictions_of_every_seed_there_is_no_interval_over_items(two, tmp_path):
    other = shutil.copytree(two[1], tmp_path / "other")
    (next(other.glob("trials/*--S--seed42")) / "predictions.parquet").unlink()
    d = one(compare_runs([two[0], other]), "S", "accuracy")
    assert (d.n, d.items) == (3, None)
    assert d.items_left_out == "not every seed of the difference has its predictions in both runs"


def test_runs_that_kept_no_predictions_are_not_told_so_line_by_line(tmp_path):
    runs = [make_run(tmp_path / name, seeds=(1, 2), **SMALL) for name in "ab"]
    assert not left_out_lines(compare_runs(runs).differences)


def test_the_page_says_when_the_interval_is_welchs():
    assert "where they share fewer, or these may not be paired, the interval is Welch's" in READING


@pytest.mark.parametrize(("change", "reason"),
                         [("ids", "the predictions are of other items"), ("label", "the predictions are of other items"),
                                                ("column", "the predictions lack this condition"),
                                                ("none", "no seed has its predictions in both runs")])
def test_predictions_of_other_items_give_no_interval(two, tmp_path, change, reason):
    other = shutil.copytree(two[1], tmp_path / "other")
    for path in other.glob("trials/*/predictions.parquet"):
        frame = pd.read_parquet(path)
        if change == "ids":
            frame["id"] = "x" + frame["id"]
        elif change == "label":
            frame.loc[0, "label"] = 5
        elif change == "column":
            frame = frame.drop(columns="paper|clean|")
        path.unlink()
        if change != "none":
            frame.to_parquet(path)
    d = one(compare_runs([two[0], other]), "S", "accuracy")
    assert d.items is None and d.items_left_out == reason


@pytest.mark.parametrize(("study", "unpaired", "left_out", "said"), [
    ({"limit": 100}, {"effective_rank", "accuracy"}, set(), "differ in data (limit: 100; limit: none)"),
    ({"noise": {"where": "input", "sigmas": [0.2]}}, set(), {"accuracy_noisy"}, "differ in noise"),
    ({"noise": {"where": "source", "seed": 5}}, {"accuracy_noisy"}, set(), "differ in draws of the noise"),
    ({"students": [{"name": "paper_cnn", "label": s, "image_size": 64} for s in "SM"]}, {"accuracy", "effective_rank"}, set(),
     "input size"),
    ({"teacher": [{"name": "clip-vit-b32", "weights": "other"}]}, {"accuracy"}, {"r2"}, "differ in teacher"),
    ({"streams": "notebook"}, {"accuracy"}, set(), "differ in streams"), ({"training": {"epochs": 30}}, set(), set(), "")])
def test_what_runs_do_not_share_has_its_consequence(two, tmp_path, study, unpaired, left_out, said):
    first = altered(shutil.copytree(two[0], tmp_path / "first"), noise={"where": "source", "seed": 0},
                    teacher=[{"name": "clip-vit-b32", "weights": "one"}])
    other = shutil.copytree(first, tmp_path / "other")
    found = compare_runs([first, altered(other, RANK, 0.1, **study)])
    for d in (d for d in found.differences if d.quantity.tested):
        assert d.known == (d.quantity.key not in left_out), d
        if d.known and unpaired:
            assert (d.how == "Welch over seeds") == (d.quantity.key in unpaired) or d.quantity.key not in unpaired
        elif d.known:
            assert d.how == "paired over seeds"
    assert any(said in w for w in found.warnings) if said else not found.warnings


def measured_on(run, n, folder):
    """A copy of the run whose values are of another number of test items."""
    other = shutil.copytree(run, folder)
    for path in other.glob("*/*/results.csv"):
        frame = pd.read_csv(path)
        frame["n"] = n
        frame.to_csv(path, index=False)
    return other


def test_ranks_of_other_numbers_of_items_are_left_out(two, tmp_path):
    found = compare_runs([two[0], measured_on(two[0], 500, tmp_path / "other")])
    assert one(found, "S", "effective_rank").left_out == "the number of test items differs"
    assert one(found, "S", "accuracy").how == "Welch over seeds"


@pytest.mark.parametrize("measure", ["alignment.teacher_r2", "mapped.teacher_r2"])
def test_r2_of_other_numbers_of_items_is_left_out(two, tmp_path, measure):
    first = shutil.copytree(two[0], tmp_path / "first")
    for path in first.glob("*/*/results.csv"):
        path.write_text(path.read_text().replace("alignment.teacher_r2", measure))
    assert one(compare_runs([first, shutil.copytree(first, tmp_path / "same")]), "S", "r2").measure == measure
    found = compare_runs([first, measured_on(first, 500, tmp_path / "other")])
    assert one(found, "S", "r2").left_out == "the number of test items differs"
    assert any("(ranks, R², recall) is left out" in w for w in found.warnings)


def test_other_numbers_of_train_images_are_said_with_what_probes_make_of_them(two, tmp_path):
    runs = [shutil.copytree(two[0], tmp_path / name) for name in ("few", "many")]
    for run, n in zip(runs, (1000, 4000), strict=True):
        for path in run.glob("trials/*/results.csv"):
            frame = pd.read_csv(path)
            rank = frame[frame["measure"] == RANK].assign(measure="train.effective_rank", n=n)
            pd.concat([frame, rank]).to_csv(path, index=False)
    found = compare_runs(runs)
    (said,) = [w for w in found.warnings if "differ in data" in w]
    assert "(train images: 4000; train images: 1000)" in said and "probes and neighbours are fitted to other images too" in said
    assert one(found, "S", "accuracy").how == "Welch over seeds"


def test_another_teacher_is_compared_on_what_is_not_about_it(two, tmp_path):
    other = make_run(tmp_path / "other", teachers=("dinov2",), **SMALL)
    found = compare_runs([two[0], other])
    assert one(found, "S", "accuracy").how == "Welch over seeds" and not one(found, "S", "r2").known
    assert one(found, "S", "r2").left_out == "the teacher differs"


def test_runs_of_which_only_the_seeds_differ_are_called_that(two, both, tmp_path):
    short, longer = two
    again = make_run(tmp_path / "again", seeds=(1, 2, 3), **SMALL)
    found = compare_runs([short, again])
    (said,) = [w for w in found.warnings if "only their seeds differ" in w]
    assert said.startswith("again and short have the same settings") and "luck of the seeds" in said
    assert not any("only their seeds" in w for w in compare_runs([longer, again]).warnings), "the epochs differ too"
    assert not any("only their seeds" in w for w in both.warnings)
    said = [w for w in compare_runs([longer, short, again]).warnings if "only their seeds" in w]
    assert not said, "each is compared with the first"


def test_the_terminal_says_what_n_counts(two, both, tmp_path):
    again = make_run(tmp_path / "again", seeds=(1, 2), **SMALL)
    assert "seeds that both runs have" in seeds_line(both) and "*" not in seeds_line(both)
    apart = seeds_line(compare_runs([two[0], again]))
    assert "that both runs have" not in apart
    assert "* not paired (Welch's t): n counts the seeds of the run that has fewer" in apart


def test_settings_that_differ_are_listed_and_seeds_are_not(both):
    assert both.differs == [("training.epochs", {"short": "5", "longer": "9"})]


def test_labels_are_unique(two, tmp_path):
    assert unique_labels([tmp_path / "a" / "run", tmp_path / "b" / "run"]) == ["a/run", "b/run"]
    copy = shutil.copytree(two[0], tmp_path / "short")
    found = compare_runs([two[0], copy])
    assert len(set(found.labels)) == 2 and "they hold the same trials" in " ".join(found.warnings)


@pytest.fixture
def fails(monkeypatch, capfd):
    def run(*args, match):
        monkeypatch.setattr(sys, "argv", ["distillscope", "compare", *map(str, args)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        lines = capfd.readouterr().err.strip().splitlines()
        assert stopped.value.code == 2 and len(lines) == 1, lines
        assert re.fullmatch(r"distillscope: .+: expected .+, got .+\. .+", lines[0]) and match in lines[0], lines[0]

    return run


def test_bad_input_is_one_line(two, tmp_path, fails):
    (tmp_path / "empty").mkdir()
    labelled().to_json(tmp_path / "audit.json")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    (tmp_path / "no.json").write_text("{}")
    fails(two[0], match="two runs or more, got 1")
    fails(two[0], tmp_path / "empty", match="neither in this folder")
    fails(two[0], tmp_path / "nothing", match="nothing there")
    fails(two[0], two[1], two[0] / ".", match="Name each run once")
    fails(two[0], tmp_path / "audit.json", match="Compare studies with studies")
    fails(tmp_path / "no.json", tmp_path / "audit.json", match="the values of an audit")
    fails(two[0], two[1], "--out", tmp_path / "full", match="one with other files")
    fails(two[0], make_run(tmp_path / "other", datasets=("svhn",), **SMALL), match="a measure in common with short")


def test_overlaid_runs_keep_the_colour_of_each_student(both, tmp_path):
    found = both
    run = joined_run(found.sides, found.pairs, tmp_path)
    (setting,) = joined_settings(run)
    assert [m.label for m in setting.students] == ["S (short)", "M (short)", "S (longer)", "M (longer)"]
    colours = {m.label: m.colour for m in setting.students}
    assert colours["S (short)"] == colours["S (longer)"] != colours["M (short)"]
    assert len({m.dash for m in setting.students}) == 2 and len(setting.teachers) == 1
    summary = Summary.of(run)
    for side, student in zip(found.sides, (setting.students[0], setting.students[2]), strict=True):
        assert summary.get(student, RANK).mean == pytest.approx(per_seed(side.run.path, "S", RANK).mean())


def test_a_teacher_with_other_numbers_is_drawn_apart(two, tmp_path):
    other = shutil.copytree(two[1], tmp_path / "other")
    for path in other.glob("references/*/results.csv"):
        frame = pd.read_csv(path)
        frame["value"] += 0.5
        frame.to_csv(path, index=False)
    found = compare_runs([two[0], other])
    (setting,) = joined_settings(joined_run(found.sides, found.pairs, tmp_path))
    assert [t.target for t in setting.teachers] == ["none", "none of other"]


@pytest.fixture(scope="module")
def page(two, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    with undrawn():
        return write_comparison(compare_runs(two), out, "distillscope compare short longer")


def test_the_page_holds_the_values_and_asks_for_nothing(both, page):
    found, data = both, data_of(page.read_text())
    assert data["comparison"] == json.loads((page.parent / "compare.json").read_text())
    assert data["comparison"] == json.loads(json.dumps(found.to_dict()))
    figure = next(f for f in data["figures"] if f["key"] == "differences")
    for panel, key, scale in zip(figure["panels"], ("effective_rank", "r2", "accuracy", "accuracy_noisy"), (1, 1, 100, 100),
                                 strict=True):
        drawn = {t["meta"]["highlight"]: t["y"][0] for t in panel["data"]}
        assert drawn == pytest.approx({s: scale * one(found, s, key).value for s in "SM"}, rel=1e-5, abs=1e-9)
    text = page.read_text()
    assert "default-src 'none'" in text and "distillscope compare short longer" in text
    assert {f["key"] for f in data["figures"]} > {"differences", "noise", "cumulative_variance", "alignment", "training"}
    assert (page.parent / "figures" / "differences.svg").is_file() and (page.parent / "figures" / "differences.png").is_file()
    assert "training.epochs" in text and "S (longer)" in (page.parent / "tables" / "table.md").read_text()


def test_names_on_the_page_are_text(tmp_path):
    bad = "<script>alert(1)</script>"
    a, b = (make_run(tmp_path / n / "<b>run", students=(bad,), dim=8, epochs=0, labels=False, seeds=(1, 2)) for n in "ab")
    page = write_comparison(compare_runs([a, b]), tmp_path / "out")
    head = page.read_text().partition('<script type="application/json"')[0]
    assert "<script>alert" not in head and "&lt;script&gt;alert" in head and "<b>run" not in head


def test_the_command_prints_a_table_or_json(two, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    done = CliRunner().invoke(cli.app, ["compare", *map(str, two), "--json"], catch_exceptions=False)
    assert json.loads(done.stdout)["baseline"] == "short" and not (tmp_path / "runs").exists()
    monkeypatch.setattr("distillscope.report.compare_page.write_comparison",
                        lambda found, folder, command: folder / "report.html")
    shown = CliRunner().invoke(cli.app, ["compare", *map(str, two)], catch_exceptions=False).stdout
    assert "A = short, B = longer" in shown and "effective rank" in shown and "over items" in shown
    assert "runs/compare-short-longer/report.html" in shown.replace("\n", "")
