"""The page and its tables: values are the results' values, names are text, nothing in it can run or load."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest

from builders.browser import Elements, data_of
from distillscope.report.context.images import cards, lost_images, neighbours
from distillscope.report.draw.with_matplotlib import draw, write_figures
from distillscope.report.figures.keepsakes import Album, Kept
from distillscope.report.findings import Findings
from distillscope.report.render import environment, script_hash
from distillscope.report.study_page import write_report
from distillscope.report.tables import build_table, to_csv, to_latex, to_markdown
from distillscope.results.models import settings_of
from distillscope.results.run import read_run
from distillscope.results.summary import Summary

HOSTILE = "<script>alert(1)</script>"


def test_the_pages_values_are_those_of_results_csv(reported):
    page = data_of((reported / "report.html").read_text())["results"]
    results = pd.read_csv(reported / "results.csv", dtype=str, keep_default_na=False)
    assert list(page) == list(results.columns)
    shown = {name: [column["levels"][i] for i in column["at"]] for name, column in page.items()}
    assert shown["value"] == results["value"].map(float).tolist()
    assert shown["measure"] == results["measure"].tolist()
    assert ["" if s is None else str(s) for s in shown["seed"]] == results["seed"].tolist()


def test_the_noise_figure_draws_the_means_of_results_csv(reported):
    figure = next(f for f in data_of((reported / "report.html").read_text())["figures"] if f["key"] == "noise")
    results = pd.read_csv(reported / "results.csv").query("measure == 'paper.probe.student.accuracy' and arm == 'cosine'")
    traces = {t["meta"]["label"]: t for t in figure["panels"][0]["data"] if t["meta"]["kind"] == "line"}
    for student in "SML":
        by_seed = results[results["student"] == student].groupby(["condition", "seed"])["value"].mean()
        means = [by_seed[c].mean() for c in ("clean", "noise=0.02", "noise=0.05", "noise=0.1", "noise=0.2")]
        assert traces[student]["y"] == pytest.approx(means, rel=1e-6)  # the page keeps seven digits of what it draws
        assert traces[student]["x"] == [0, 0.02, 0.05, 0.1, 0.2]


def test_static_and_interactive_figures_show_the_same_numbers(reported):
    for figure in (f for f in Findings.of(read_run(reported)).figures.values() if f.panels):
        canvas = draw(figure)
        for axes, panel in zip(canvas.axes, figure.panels, strict=False):
            lines = [line.get_xydata() for line in axes.get_lines()]
            for s in panel.series:
                points = np.column_stack([s.x, s.y])
                if s.kind == "bars":
                    assert any(np.allclose(p.get_height(), s.y[0]) for p in axes.patches), (figure.key, s.label)
                else:
                    assert any(line.shape == points.shape and np.allclose(line, points)
                               for line in lines), (figure.key, s.label)


def test_plotly_accepts_every_figure(reported):
    import plotly.graph_objects as go

    for figure in data_of((reported / "report.html").read_text())["figures"]:
        for panel in figure["panels"]:
            go.Figure({"data": panel["data"], "layout": panel["layout"]})


def test_the_alignment_figure_has_the_teachers_curve_and_the_null(reported):
    figure = next(f for f in data_of((reported / "report.html").read_text())["figures"] if f["key"] == "alignment")
    labels = [t["meta"]["label"] for t in figure["panels"][0]["data"]]
    assert "teacher, its own curve" in labels and "null, k/d" in labels


def test_both_units_of_sigma_are_on_the_axis(reported):
    figure = next(f for f in data_of((reported / "report.html").read_text())["figures"] if f["key"] == "noise")
    assert "25.5<br>0.373" in figure["panels"][0]["layout"]["xaxis"]["ticktext"]


def test_nothing_loads_and_only_our_scripts_run(reported):
    page = (reported / "report.html").read_text()
    parsed = Elements(page)
    policy = next(a["content"] for t, a in parsed.found if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    scripts = [text for a, text in parsed.scripts if a.get("type") != "application/json"]
    assert len(scripts) == 2 and all(script_hash(s) in policy for s in scripts)
    for tag, attributes in parsed.found:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form"), tag
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, attributes[name][:60])


def test_hostile_names_are_text(make, tmp_path):
    run = make(tmp_path / "run", seeds=(42, 123), students=(HOSTILE, "$a_b$ \"q\" 'p' & more"),
               datasets=("<img src=x onerror=alert(2)>",),
               arms=("</script><b onclick=alert(3)>",), teachers=("--><svg/onload=alert(4)>",))
    page = write_report(run).read_text(encoding="utf-8")
    draw(Findings.of(read_run(run)).figures["effective_rank"]).savefig(io.BytesIO(), format="svg")  # a "$" begins no formula
    head = page[: page.index('<script type="application/json"')]
    assert HOSTILE not in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in head
    parsed = Elements(page)
    assert len(parsed.scripts) == 3 and not any(t == "b" and "onclick" in a for t, a in parsed.found)
    assert not any(a.get("src") == "x" or "onload" in a or "onerror" in a for _, a in parsed.found)
    assert HOSTILE in data_of(page)["results"]["student"]["levels"]
    assert "<script>" not in json.dumps([t.get("name") for f in data_of(page)["figures"] for p in f["panels"]
                                         for t in p["data"]])


def test_every_figure_has_alternative_text(reported):
    plots = [a for t, a in Elements((reported / "report.html").read_text()).found if a.get("class") == "plot"]
    assert plots and all(a["role"] == "img" and len(a["aria-label"]) > 20 for a in plots)


def test_static_figures_are_reproducible(reported, tmp_path, drawn):
    write_figures([Findings.of(read_run(reported)).figures["noise"]], tmp_path)
    for suffix in ("svg", "png"):
        assert (tmp_path / f"noise.{suffix}").read_bytes() == (reported / "figures" / f"noise.{suffix}").read_bytes()
    assert "<dc:date>" not in (reported / "figures" / "noise.svg").read_text()
    assert matplotlib.rcParams["svg.hashsalt"] is None  # our style stays ours


NAME, ESCAPED = '<b>"x"</b>', "&lt;b&gt;&#34;x&#34;&lt;/b&gt;"


def _album(teacher: bool) -> Album:
    model = SimpleNamespace(label=NAME, highlight=NAME, colour=("#000", "#fff"), marker="circle", dash="solid",
                            is_teacher=teacher)
    said = {"seeds": [1], "classes": [NAME, "cat"], "sprite": {"columns": 2, "rows": 1}, "queries": [0], "neighbours": [[1]],
            "tiles": {"ids": [NAME, "b"], "labels": [0, 1], "predicted": [1, 0]},
            "map": {"shared": {"ids": [NAME], "labels": [0]}}}
    if not teacher:
        said["lost"] = {"tiles": [0, 1], "count": 2, "teacher_right": 2, "won": 0}
    return Album(model, Path("nowhere"), said, SimpleNamespace())


def test_names_from_data_are_escaped_in_every_picture():
    kept = [Kept(SimpleNamespace(title=NAME), _album(True), (_album(False),), (NAME,))]
    macros = environment().get_template("study/_images.html").module
    for made in (macros.lost(lost_images(kept)), macros.neighbours(neighbours(kept)), macros.card(cards(kept)[0])):
        assert ESCAPED in made
        assert "<b>" not in made and '"x"' not in made


def test_where_there_are_no_labels_the_lost_images_say_so():
    album = _album(True)
    assert "without labels" in environment().get_template("study/_images.html").module.lost(
        lost_images([Kept(SimpleNamespace(title=NAME), album, ())]))


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
