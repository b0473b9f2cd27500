"""Figures for a paper: right sizes, embedded TrueType fonts, LaTeX that says what it holds."""

from __future__ import annotations

import re

import pytest

from builders.synthetic_run import make_run
from distillscope.errors import UserError
from distillscope.report.draw.with_matplotlib import _clean
from distillscope.report.paper import KEYS, ONE_COLUMN, TWO_COLUMNS, write_paper
from distillscope.report.tables import latex_text


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("paper"), students=("S", "L"), seeds=(42, 123), target="pca512")
    return {p.name: p for p in write_paper(run)}


def test_every_plot_is_there_for_one_and_for_two_columns(paper):
    assert set(paper) == {f"{width}-{key}.{suffix}" for width in ("one", "two") for key in KEYS
                          for suffix in ("pdf", "svg")} | {
        "table.tex", "figures.tex"}


@pytest.mark.parametrize("key", KEYS)
def test_a_figure_is_as_wide_as_its_column(paper, key):
    for name, inches in (("one", ONE_COLUMN), ("two", TWO_COLUMNS)):
        box = re.search(rb"/MediaBox \[ ?0 0 ([0-9.]+)", paper[f"{name}-{key}.pdf"].read_bytes())
        assert float(box[1]) == pytest.approx(72 * inches, abs=0.6)


def test_fonts_are_truetype(paper):
    for name, path in paper.items():
        if name.endswith(".pdf"):
            assert b"/Type3" not in path.read_bytes() and b"/FontFile2" in path.read_bytes(), name


def test_latex_names_every_figure_and_escapes(paper):
    text = paper["figures.tex"].read_text(encoding="utf-8")
    assert all(f"{{one-{key}}}" in text for key in KEYS) and text.count("\\begin{figure}") == len(KEYS)
    assert latex_text("50 %_σ & R²") == r"50 \%\_$\sigma$ \& R$^2$"


def test_hard_spaces_are_no_unknown_letters():
    assert _clean("811\u202fk\u00a0x\x07") == "811\u202fk\u00a0x�"


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError):
        write_paper(tmp_path)
