"""Figures for a paper and for the guide: every one is there, and shows what is said of it."""

from __future__ import annotations

import importlib.util
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from builders.synthetic_run import make_run
from distillscope.errors import UserError
from distillscope.files.writing import write_text
from distillscope.report.context.study import STRESSES
from distillscope.report.draw.with_matplotlib import _clean, save_as
from distillscope.report.paper import KEYS, ONE_COLUMN, TWO_COLUMNS, write_paper
from distillscope.report.registered import AUDIT_FIGURES
from distillscope.report.tables import latex_text


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
        patch.setattr("distillscope.report.paper.save_as", save_some)
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


DOCS = Path(__file__).parents[2] / "docs"
MEASURES = (DOCS / "measures.md").read_text(encoding="utf-8")
PICTURES = dict(map(reversed, re.findall(r"!\[([^\]]+)\]\(figures/([\w.]+)\)", MEASURES)))


DEAR = {"labels": 30, "similarity": 4, "spectrum": 3}
"""Pictures that take so many seconds to compute."""


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
