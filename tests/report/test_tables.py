"""The main table in its three formats."""

from __future__ import annotations

import pandas as pd
import pytest

from distillscope.report.tables import build_table, to_csv, to_latex, to_markdown
from distillscope.results.models import settings_of
from distillscope.results.run import read_run
from distillscope.results.summary import Summary


def table_of(path):
    run = read_run(path)
    return build_table(run, settings_of(run), Summary.of(run))


def test_rows_are_teachers_then_students_by_arm(reported):
    assert [r.model.label for r in table_of(reported).rows] == [
        "teacher (pca512)", "teacher (raw)", "S", "M", "L", "S (augmented)", "M (augmented)", "L (augmented)"]


def test_csv_holds_the_results_at_full_precision(reported):
    table = pd.read_csv(reported / "tables" / "table.csv")
    results = pd.read_csv(reported / "results.csv")
    rank = results.query("student == 'L' and arm == 'augmented' and measure == 'student.effective_rank'")["value"]
    row = table.query("student == 'L' and arm == 'augmented'").iloc[0]
    assert row["effective_rank"] == pytest.approx(rank.mean(), rel=1e-14)
    assert row["effective_rank_std"] == pytest.approx(rank.std(), rel=1e-12)
    assert row["effective_rank_seeds"] == 3
    assert row["effective_rank_low"] < row["effective_rank"] < row["effective_rank_high"]


def test_published_values_stand_beside_the_measured_ones(reported):
    text = (reported / "tables" / "table.md").read_text()
    assert "(paper 15.91)" in text and "(paper 43.76 ± 6.10)" in text
    assert text.count("(paper") == 2  # the first arm's rows alone
    assert "paper 15.91" in (reported / "report.html").read_text()


def test_the_spread_is_the_one_that_the_study_names(make, tmp_path):
    sample, population = (table_of(make(tmp_path / kind, spread=kind)) for kind in ("sample", "population"))
    column = [c.key for c in sample.columns].index("effective_rank")
    cell = sample.rows[1].cells[column]
    assert f"± {cell.statistic.std:.2f}" in to_markdown(sample)
    assert f"± {cell.statistic.std_population:.2f}" in to_markdown(population)
    assert "population standard deviation" in to_markdown(population)
    assert "rank_of_mean_spectrum" in to_csv(population) and "rank_of_mean_spectrum" not in to_csv(sample)


def test_names_cannot_break_the_formats(make, tmp_path):
    table = table_of(make(tmp_path / "run", students=("a|b", "50%_$x$ & <i>")))
    markdown, latex = to_markdown(table), to_latex(table)
    assert "a\\|b" in markdown and "<i>" not in markdown
    assert r"50\%\_\$x\$ \& \textless{}i\textgreater{}" in latex
    pipes = {line.replace("\\|", "").count("|") for line in markdown.splitlines() if line.startswith("|")}
    assert len(pipes) == 1


def test_noise_is_named_in_both_units(reported):
    assert "25.5/255 in pixels" in (reported / "tables" / "table.md").read_text()


def test_the_papers_dims_stand_beside_those_of_the_mean_spectrum(tmp_path):
    from builders.synthetic_run import make_run
    from distillscope.config.load import load_preset

    published = [p for p in load_preset("paper").dump()["published"] if "dims_90" in p["measure"]]
    assert {p["measure"] for p in published if p["student"] != "teacher"} == {"student.dims_90_of_mean_spectrum"}
    run = read_run(make_run(tmp_path / "run", spread="population", published=published))
    rows = build_table(run, settings_of(run), Summary.of(run))
    at = [c.key for c in rows.columns].index("dims_90_of_mean_spectrum")
    beside = {r.model.student: r.cells[at] for r in rows.rows}
    assert beside["S"].published == 19 and beside["S"].statistic.mean == int(beside["S"].statistic.mean)
