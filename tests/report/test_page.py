"""The page of a study, and the figures for a paper and the guide: all is there, escaped, and shows what is said of it."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest

from builders.browser import Elements, data_of
from builders.synthetic_run import make_run
from distillscope.errors import UserError
from distillscope.files.writing import write_text
from distillscope.report.context.images import cards, lost_images, neighbours
from distillscope.report.context.study import STRESSES
from distillscope.report.draw.with_matplotlib import _clean, draw, save_as, write_figures
from distillscope.report.figures.keepsakes import Album, Kept
from distillscope.report.page import AUDIT_FIGURES, environment, script_hash
from distillscope.report.study_page import KEYS, ONE_COLUMN, TWO_COLUMNS, Findings, write_paper, write_report
from distillscope.report.tables import build_table, latex_text, to_csv, to_latex, to_markdown
from distillscope.results.models import settings_of
from distillscope.results.run import read_run
from distillscope.results.summary import Summary

HOSTILE = "<script>alert(1)</script>"
NAME, ESCAPED = '<b>"x"</b>', "&lt;b&gt;&#34;x&#34;&lt;/b&gt;"
DOCS = Path(__file__).parents[2] / "docs"
MEASURES = (DOCS / "measures.md").read_text(encoding="utf-8")
PICTURES = dict(map(reversed, re.findall(r"!\[([^\]]+)\]\(figures/([\w.]+)\)", MEASURES)))
DEAR = {"labels": 30, "similarity": 4, "spectrum": 3}
"""Pictures that take so many seconds to compute."""


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
    assert plots and all(a["role"] == "figure" and len(a["aria-label"]) > 20 for a in plots)


def test_static_figures_are_reproducible(reported, tmp_path, drawn):
    write_figures([Findings.of(read_run(reported)).figures["noise"]], tmp_path)
    for suffix in ("svg", "png"):
        assert (tmp_path / f"noise.{suffix}").read_bytes() == (reported / "figures" / f"noise.{suffix}").read_bytes()
    assert "<dc:date>" not in (reported / "figures" / "noise.svg").read_text()
    assert matplotlib.rcParams["svg.hashsalt"] is None  # our style stays ours


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
    macros = environment().get_template("study/sections.html").module
    for made in (macros.lost_images(lost_images(kept)), macros.nearest(neighbours(kept)), macros.card(cards(kept)[0])):
        assert ESCAPED in made
        assert "<b>" not in made and '"x"' not in made


def test_where_there_are_no_labels_the_lost_images_say_so():
    album = _album(True)
    assert "without labels" in environment().get_template("study/sections.html").module.lost_images(
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


@pytest.fixture(scope="module", params=[["effective_rank"], pytest.param(list(KEYS), marks=pytest.mark.minutes)],
                ids=["one drawn", "all drawn"])
def drawn_keys(request):
    return request.param


@pytest.fixture(scope="module")
def paper(drawn_keys, tmp_path_factory):
    """Every file of the paper by its name; those that are not among ``drawn_keys`` are empty."""
    def save_some(canvas, path, *formats):
        if path.name.partition("-")[2] in drawn_keys:
            return save_as(canvas, path, *formats)
        return [write_text(path.with_name(f"{path.name}.{suffix}"), "") for suffix in formats]

    run = make_run(tmp_path_factory.mktemp("paper"), students=("S", "L"), seeds=(42, 123), target="pca512")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distillscope.report.study_page.save_as", save_some)
        return {p.name: p for p in write_paper(run)}


def test_every_plot_is_there_for_one_and_for_two_columns(paper):
    assert set(paper) == {f"{width}-{key}.{suffix}" for width in ("one", "two") for key in KEYS
                          for suffix in ("pdf", "svg")} | {
        "table.tex", "figures.tex"}


def test_a_figure_is_as_wide_as_its_column(paper, drawn_keys):
    for key in drawn_keys:
        for name, inches in (("one", ONE_COLUMN), ("two", TWO_COLUMNS)):
            box = re.search(rb"/MediaBox \[ ?0 0 ([0-9.]+)", paper[f"{name}-{key}.pdf"].read_bytes())
            assert float(box[1]) == pytest.approx(72 * inches, abs=0.6)


def test_fonts_are_truetype(paper, drawn_keys):
    for name in (f"{width}-{key}.pdf" for key in drawn_keys for width in ("one", "two")):
        assert b"/Type3" not in paper[name].read_bytes() and b"/FontFile2" in paper[name].read_bytes(), name


def test_latex_names_every_figure_and_escapes(paper):
    text = paper["figures.tex"].read_text(encoding="utf-8")
    assert all(f"{{one-{key}}}" in text for key in KEYS) and text.count("\\begin{figure}") == len(KEYS)
    assert latex_text("50 %_σ & R²") == r"50 \%\_$\sigma$ \& R$^2$"


def test_hard_spaces_are_no_unknown_letters():
    assert _clean("811\u202fk\u00a0x\x07") == "811\u202fk\u00a0x�"


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError):
        write_paper(tmp_path)


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("draw", DOCS / "figures" / "draw.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_group_of_measures_has_a_picture(script):
    assert set(PICTURES) == {f"{name}.svg" for name in script.PICTURES} == {p.name for p in (DOCS / "figures").glob("*.svg")}
    groups = re.split(r"^## ", MEASURES, flags=re.MULTILINE)
    with_table = [g for g in groups if "| key |" in g]
    assert len(with_table) == len(PICTURES) and all("](figures/" in g for g in with_table)


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_small_and_whole_and_has_alternative_text(name):
    path = DOCS / "figures" / name
    assert path.stat().st_size < 60_000
    assert ElementTree.parse(path).getroot().tag.endswith("svg")
    assert len(PICTURES[name]) > 60


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.minutes) if n in DEAR else n
                                  for n in (p.removesuffix(".svg") for p in PICTURES)])
def test_a_picture_can_be_drawn_again_and_shows_what_is_said_of_it(script, name):
    panels = script.PICTURES[name]().panels
    series = {(i, s.label): s for i, p in enumerate(panels) for s in p.series}
    assert len(panels) == 2 and all(np.isfinite(s.y).all() for s in series.values())
    said = {
        "spectrum": lambda: (series[0, "raw rank"].y[0] < 13 < 20 < series[0, "corrected rank"].y[1]
                             and series[1, "effective rank"].y[-1] > 2.4 and series[1, "R²"].y[-1] < series[1, "R²"].y[0]),
        "alignment": lambda: (all(a >= b - 0.01 for label in ("its first 8 components", "regression on 8 pixels")
                                  for a, b in zip(
            series[0, label].y, series[0, "teacher, its own curve"].y, strict=True))
            and min(series[1, "its first 8 components"].y[:8]) > 0.999 > 0.02 > max(series[1, "its first 8 components"].y[8:])),
        "contrastive": lambda: (abs(series[1, "8 components"].y[5] - series[1, "with much noise"].y[5]) < 0.1
                                and abs(series[1, "8 components"].y[0] - series[1, "with much noise"].y[0]) > 0.4),
        "paper": lambda: series[0, "mixed"].y[0] < 2.5 < 3.2 < series[0, "sorted by class"].y[0],
        "similarity": lambda: (max(map(abs, series[0, "CKA, debiased"].y)) < 0.02 and series[0, "CKA"].y[0] > 0.3
                               and min(series[1, "turned"].y) > 0.999 and series[1, "8 components"].y[0] > 0.9),
        "retrieval": lambda: (series[1, "turned"].y[0] < 0.01 and min(series[1, "turned"].y[1:]) > 0.99
                              and all(s.y[-1] < s.y[0] for (i, _), s in series.items() if i == 0)),
        "labels": lambda: (series[0, "probe's accuracy retained"].y[3] > 0.98 and series[0, "rank retained"].y[3] < 0.6
                           and series[1, "paper's probe"].y[-1] < 0.15
                           and min(series[1, "probe's accuracy retained"].y) > 0.98),
        "ood": lambda: (series[0, "AUROC"].y[0] < 0.7 < 0.9 < min(series[0, "AUROC"].y[2:])
                        and series[0, "FPR95"].y[-1] < series[0, "FPR95"].y[0]),
    }
    assert said[name]()


def test_the_guide_has_every_figure_of_the_page():
    guide = (DOCS / "figures.md").read_text(encoding="utf-8").partition("## The page of an audit")[2]
    missing = [key for key in AUDIT_FIGURES if f"(`{key}`)" not in guide]
    assert not missing


def test_the_guide_has_every_figure_of_a_studys_page_and_of_a_comparisons(reported):
    guide = (DOCS / "figures.md").read_text(encoding="utf-8")
    page = (reported / "report.html").read_text(encoding="utf-8")
    drawn = {*re.findall(r'id="figure-(\w+)"', page), *STRESSES, "lost", "neighbours", "map", "confusion", "by_class",
             "pareto", "differences"} - {"pictures"}
    assert drawn >= {"noise", "training", "spectrum", "fourier"}
    assert not [key for key in drawn if f"(`{key}`)" not in guide]


def test_the_example_of_the_guide_runs(capsys):
    source = re.search(r"^```python\n(.*?)^```", MEASURES, re.MULTILINE | re.DOTALL)[1]
    exec(source, {})
    assert "effective_rank" in capsys.readouterr().out
