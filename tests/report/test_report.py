"""write_report as a whole: every file is there, none of the awkward runs stops it; what stresses cost beside the teacher."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from builders import refused
from distillscope.errors import UserError
from distillscope.report.context.study import beside_teacher, corruption_table, of_suite
from distillscope.report.study_page import write_report
from distillscope.report.tables import terminal_table
from distillscope.results.models import settings_of
from distillscope.results.robustness import against_teacher, mean_corruption_error
from distillscope.results.run import read_run
from distillscope.results.summary import Summary

FIGURES = ["noise", "cumulative_variance", "effective_rank", "cosine_rank", "alignment", "information", "training"]


@pytest.fixture
def make(make):
    """Runs of few and small trials, but for what a test asks for."""
    small = {"students": ("S", "L"), "seeds": (42, 123), "dim": 24, "epochs": 2}
    return lambda path, **more: make(path, **{**small, **more})


def shown(run: Path) -> str:
    from rich.console import Console

    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(terminal_table(run))
    return console.export_text()


def test_everything_is_written(reported):
    names = ["results.csv", "summary.json", "report.html", "tables/table.md", "tables/table.tex", "tables/table.csv",
             *(f"figures/{key}.{suffix}" for key in FIGURES for suffix in ("svg", "png"))]
    for name in names:
        assert (reported / name).stat().st_size > 100, name
    assert (reported / "report.html").stat().st_size < 8e6


def test_results_are_the_trials_results_to_the_last_digit(reported):
    whole = pd.read_csv(reported / "results.csv", dtype=str, keep_default_na=False)
    parts = pd.concat([pd.read_csv(p, dtype=str, keep_default_na=False) for p in
                       sorted(reported.glob("references/*/results.csv")) + sorted(reported.glob("trials/*/results.csv"))])
    assert len(whole) == len(parts)
    assert whole["value"].map(float).tolist() == parts["value"].map(float).tolist()
    assert whole["seed"].tolist() == parts["seed"].tolist()


def test_reporting_twice_gives_the_same_files(make, tmp_path):
    run = make(tmp_path / "run")
    write_report(run)
    first = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    write_report(run)
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == first


AWKWARD = {
    "partial": ({"incomplete": [("cosine", "S", 42), ("cosine", "L", 123)]}, "2 of 4 trials are complete"),
    "one seed": ({"seeds": (42,)}, "n = 1 seed, no interval"),
    "no labels": ({"labels": False}, "No accuracy: this run has no labels"),
    "no provenance": ({"provenance": False}, "</html>"),
    "crossed": ({"datasets": ("cifar10", "cifar100"), "teachers": ("clip", "dinov2"), "students": ("S",)}, "</html>"),
    "one student": ({"students": ("only",)}, "</html>"),
    "no log": ({"epochs": 0}, "</html>"),
    "teacher alone": ({"incomplete": [("cosine", s, n) for s in "SL" for n in (42, 123)]}, "</html>"),
    "at the input": ({"where": "model input"}, "</html>"),
}
"""What `make` is asked for, and what the page then holds."""


@pytest.mark.parametrize("case", AWKWARD)
def test_awkward_runs_are_reported(make, tmp_path, case, laid):
    how, said = AWKWARD[case]
    run = make(tmp_path / "run", **how)
    assert said in write_report(run).read_text(encoding="utf-8") and shown(run)
    summary = json.loads((run / "summary.json").read_text())
    if case == "partial":
        assert summary["missing"] == [f"cifar10--clip-vit-b32--cosine--{name}" for name in ("S--seed42", "L--seed123")]
        assert pd.read_csv(run / "results.csv").query("student == 'S'")["seed"].tolist().count(42) == 0
    if case == "one seed":
        assert all(q["low"] is None and q["std"] is None for q in summary["quantities"])
    assert (run / "figures" / "noise.svg").exists() == (case != "no labels")


def test_a_run_in_which_nothing_has_finished(make, tmp_path):
    run = make(tmp_path / "run")
    shutil.rmtree(run / "trials")
    shutil.rmtree(run / "references")
    page = write_report(run).read_text(encoding="utf-8")
    assert "No trial of this study has finished yet." in page
    assert len(pd.read_csv(run / "results.csv")) == 0


def test_a_damaged_trial_is_named_and_the_rest_is_shown(make, tmp_path):
    run = make(tmp_path / "run")
    damaged = next(iter(sorted((run / "trials").iterdir())))
    (damaged / "results.csv").write_text("measure,value\nx,1\n")
    page = write_report(run).read_text(encoding="utf-8")
    assert f"trials/{damaged.name}: says that it is complete, but cannot be read" in page
    assert json.loads((run / "summary.json").read_text())["complete"] == 3


def test_a_value_that_is_not_finite_is_left_out_and_counted(make, tmp_path):
    run = make(tmp_path / "run", students=("S",))
    path = next(iter(sorted((run / "trials").glob("*seed42")))) / "results.csv"
    frame = pd.read_csv(path)
    frame.loc[frame["measure"] == "student.effective_rank", "value"] = float("nan")
    frame.to_csv(path, index=False)
    page = write_report(run).read_text(encoding="utf-8")
    quantities = json.loads((run / "summary.json").read_text())["quantities"]
    rank = next(q for q in quantities if q["measure"] == "student.effective_rank")
    assert rank["n_seeds"] == 1 and rank["seeds"] == [123]
    assert "1 values are not finite" in page


@pytest.mark.parametrize(("name", "content", "said"), [("study.yaml", "- a list", "expected a mapping, got list"),
                                                       ("study.yaml", "a: [", "study.yaml line 1, column 5: expected YAML")])
def test_a_broken_record_is_one_line(make, tmp_path, name, content, said):
    run = make(tmp_path / "run")
    (run / name).write_text(content)
    with pytest.raises(UserError, match=said):
        write_report(run)


def test_a_broken_provenance_costs_no_report(make, tmp_path):
    run = make(tmp_path / "run")
    (run / "provenance.json").write_text("{")
    assert "provenance.json" in write_report(run).read_text(encoding="utf-8")


def test_a_folder_that_is_no_run(tmp_path):
    with refused(expected="study.yaml"):
        write_report(tmp_path)


SUITE = {"corruption=none": (0.9, 0.7), "corruption=fog/1": (0.8, 0.6), "corruption=fog/5": (0.5, 0.4),
         "corruption=snow/1": (0.7, 0.3)}
NOISE = {("accuracy", "noise_probe=0"): 0.7, ("clean_fit_accuracy", "noise_probe=0.2"): 0.3,
         ("accuracy", "noise_probe=0.2"): 0.5}


def stressed(folder, make, **more):
    """A run with corruptions and a noise probe of known accuracies; a seed's own luck is a hundredth of its rank."""
    run = make(folder, **{"students": ("S",), "seeds": (42, 123, 456), "epochs": 1, **more})
    for path in [*run.glob("references/*/results.csv"), *run.glob("trials/*/results.csv")]:
        frame = pd.read_csv(path)
        head = frame.iloc[0].to_dict()
        teacher = head["student"] == "teacher"
        side, luck = ("teacher", 0.0) if teacher else ("student", 0.01 * [42, 123, 456].index(head["seed"]))
        rows = [{**head, "condition": c, "measure": f"paper.probe.{side}.accuracy", "value": v[not teacher] + luck, "n": 500}
                for c, v in SUITE.items()]
        rows += [{**head, "condition": c, "measure": f"noise_probe.paper.{side}.{what}", "value": v + luck, "n": 500}
                 for (what, c), v in NOISE.items()]
        pd.concat([frame, pd.DataFrame(rows)]).to_csv(path, index=False)
    return run


def parts(folder):
    run = read_run(folder)
    return run, settings_of(run), Summary.of(run)


def test_the_numbers_are_those_of_the_measures(tmp_path, make):
    run, (setting,), _ = parts(stressed(tmp_path / "run", make))
    found = of_suite(setting.students[0], corruption_table(run, "paper.probe"))
    assert found["accuracy"].mean == pytest.approx((0.6 + 0.4 + 0.3) / 3 + 0.01) and found["accuracy"].n_seeds == 3
    assert found["accuracy"].n == 500
    teacher = [[0.8, 0.5], [0.7]]
    errors = [sum((1 - s).sum() / (1 - t).sum() for s, t in ((pd.Series([0.6, 0.4]) + k, pd.Series([0.8, 0.5])),
                                                             (pd.Series([0.3]) + k, pd.Series([0.7])))) / 2
              for k in (0.0, 0.01, 0.02)]
    assert found["error"].mean == pytest.approx(sum(errors) / 3)
    assert errors[0] == pytest.approx((mean_corruption_error([[0.6, 0.4]],
                                                             teacher[:1]) + mean_corruption_error([[0.3]], teacher[1:])) / 2)
    table = against_teacher(run.results)
    own = table[table["condition"].str.contains("/")].groupby("seed")["relative_retention"].mean()
    assert found["relative_retention"].mean == pytest.approx(own.mean())


def test_the_page_has_both_tables(tmp_path, make):
    page = write_report(stressed(tmp_path / "run", make, arms=("cosine", "<b>bold"))).read_text()
    assert "&lt;b&gt;bold" in page and "<b>bold" not in page.partition('<script type="application/json"')[0]
    assert "Common corruptions beside the teacher" in page
    assert "Means over 3 corruptions and severities, on 500 test images" in page
    start = page.index("What noise moves")
    section = re.sub(r"<small>.*?</small>|<[^>]+>", " ", page[start:start + 4000])
    assert re.search(r"teacher\s+0\.2\s+70\.0\s+30\.0\s+20\.0\s+20\.0\s+1", section)
    assert re.search(r"S\s+0\.2\s+71\.0\s+31\.0\s+20\.0\s+20\.0\s+3", section)


def test_a_run_without_them_has_neither(tmp_path, make):
    assert not beside_teacher(*parts(make(tmp_path / "run", students=("S",), dim=24, epochs=1)))
    assert not beside_teacher(*parts(make(tmp_path / "bare", students=("S",), labels=False, dim=24, epochs=1)))
