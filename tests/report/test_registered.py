"""A new section is a function and a template, a new figure a function; pages are made by templates and by nothing else."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from jinja2 import UndefinedError

from distillscope.report.figures.figure import Figure
from distillscope.report.page import STUDY, STUDY_FIGURES, Figures, Sections, environment, render

TOY = """{% from "_parts.html" import findings %}
{{ findings(said) }}<p>of {{ name }}</p>
"""


@pytest.fixture
def toys(tmp_path):
    """A page of two sections, one of which has nothing to show; the template of the other stands in a folder of its own."""
    (tmp_path / "toy.html").write_text(TOY)
    sections = Sections("study", "distillscope.report.context")

    @sections.register("toy", "A toy", order=2, question="Why?", folder=tmp_path)
    def toy(name: str) -> dict[str, object]:
        return {"said": ["<one>", "two"], "name": name}

    @sections.register("nothing", "Nothing to show", order=1)
    def nothing() -> None:
        return None

    return sections


def test_a_section_is_a_function_and_a_template(toys):
    (shown,) = toys.shown(SimpleNamespace(name="S & M", other=1))
    assert list(toys) == ["nothing", "toy"] and shown.name == "toy"
    assert "<li>&lt;one&gt;</li><li>two</li>" in shown.html and "<p>of S &amp; M</p>" in shown.html
    assert '<section id="toy" aria-labelledby="toy-title"><h2 id="toy-title">Why? A toy</h2>' in environment().get_template(
        "_frame.html").module.section(shown)


def test_a_value_that_the_template_lacks_raises(toys, tmp_path):
    (tmp_path / "toy.html").write_text("{{ unheard }}")
    with pytest.raises(UndefinedError, match="unheard"):
        toys.shown(SimpleNamespace(name="S"))


def test_the_studys_page_takes_a_section_up_where_it_says():
    @STUDY.register("toy", "A toy", order=25)
    def toy() -> None:
        return None

    try:
        names = list(STUDY)
        assert names[names.index("matter") : names.index("geometry") + 1] == ["matter", "toy", "geometry"]
        with pytest.raises(ValueError, match="'toy' of the page 'study' is registered twice"):
            STUDY.register("toy", "Again", order=26)(toy)
    finally:
        STUDY.remove("toy")
    assert "toy" not in list(STUDY)


def test_a_figure_is_made_from_what_its_signature_names():
    figures = Figures("toy", "distillscope.report.figures")

    @figures.register("second", order=2)
    def second(name: str) -> Figure:
        return Figure("second", name, "")

    @figures.register("first", order=1)
    def first(settings: list[str]) -> Figure | None:
        return Figure("first", settings[0], "") if settings else None

    assert [f.title for f in figures.drawn(SimpleNamespace(name="two", settings=["one"])).values()] == ["one", "two"]
    assert list(figures.drawn(SimpleNamespace(name="two", settings=[]))) == ["second"]
    assert list(figures.drawn(SimpleNamespace(name="two"), only=["second"])) == ["second"]


def test_every_figure_is_registered_under_its_own_key(reported):
    from distillscope.report.study_page import Findings
    from distillscope.results.run import read_run

    found = Findings.of(read_run(reported))
    assert all(key == figure.key for key, figure in found.figures.items())
    assert list(found.figures) == [k for k in STUDY_FIGURES if k in found.figures]


REPORT = Path(__file__).parents[2] / "src" / "distillscope" / "report"
TEMPLATES = sorted(p.relative_to(REPORT / "templates").as_posix() for p in (REPORT / "templates").rglob("*") if p.is_file())
PLOTLYS_OWN = {"draw/with_plotly.py"}
"""Plotly writes its labels in a little markup of its own, which is no part of the page."""


def html_in(source: str) -> list[str]:
    """The strings of a module that hold a tag, docstrings aside."""
    tree = ast.parse(source)
    documented = {id(node.body[0].value) for node in ast.walk(tree)
                  if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and node.body
                  and isinstance(node.body[0], ast.Expr)}
    documented |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
            and id(node) not in documented and re.search(r"<[a-z/!]", node.value)]


@pytest.mark.parametrize("module", sorted(p.relative_to(REPORT).as_posix() for p in REPORT.rglob("*.py")))
def test_no_module_holds_html(module):
    if module in PLOTLYS_OWN:
        pytest.skip("markup of Plotly's own")
    assert not html_in((REPORT / module).read_text(encoding="utf-8"))


def test_html_in_a_string_is_found():
    assert html_in("def f():\n    'A docstring may say <b>.'\n    return f'<b>{f}</b>'") == ["<b>", "</b>"]


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_compiles_and_lets_nothing_through(name):
    environment().get_template(name)
    unsafe = (r"\|\s*safe|autoescape|Markup|<script(?! type=\"application/json\" id=\"distillscope-data\")[^>]+>"
              r"|\son\w+=")
    assert not re.search(unsafe, (REPORT / "templates" / name).read_text(encoding="utf-8"))


def test_a_name_that_nobody_gave_raises(tmp_path):
    (tmp_path / "toy.html").write_text("{{ missing }}")
    with pytest.raises(UndefinedError, match="missing"):
        render("toy.html", tmp_path)


def test_what_is_put_in_is_text(tmp_path):
    (tmp_path / "toy.html").write_text('<p title="{{ name }}">{{ name }}</p>')
    assert render("toy.html", tmp_path, name='<b>"&') == '<p title="&lt;b&gt;&#34;&amp;">&lt;b&gt;&#34;&amp;</p>'


@pytest.mark.skipif(sys.version_info < (3, 11), reason="needs tomllib")
def test_the_package_holds_every_template_and_static_file():
    import tomllib

    package = REPORT.parent
    setuptools = tomllib.loads((package.parents[1] / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = setuptools["package-data"]["distillscope"]
    packed = {p for pattern in patterns for p in package.glob(pattern)}
    assert {p for part in ("templates", "static") for p in (REPORT / part).rglob("*") if p.is_file()} <= packed
