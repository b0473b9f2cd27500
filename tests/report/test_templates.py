"""Pages are made by templates and by nothing else: every one compiles, escapes, and is in the package."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from distillscope.report.render import environment, render

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
