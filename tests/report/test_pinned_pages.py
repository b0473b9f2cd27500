"""The three pages are what they were: content, order, labels and roles, line by line.

A change that is meant is recorded anew, and read in the diff of the outlines, with

    PYTHONPATH=src:tests python tests/report/test_pinned_pages.py [NAME ...]

which prints what changed, and writes it. ``--pages FOLDER`` writes the pages themselves, with their drawings, to look at.
"""

from __future__ import annotations

import csv
import difflib
import functools
import io
import lzma
import re
import sys
import tempfile
from pathlib import Path

import pytest

from builders.browser import outline
from builders.pinned_pages import FIXTURES, PAGES, written
from builders.synthetic_run import make_run
from distillscope.progress import Terminal
from distillscope.report.claims import claims_of, claims_table, markdown
from distillscope.report.study_page import write_results
from distillscope.report.tables import build_table, terminal_table, to_csv, to_latex, to_markdown
from distillscope.results.models import settings_of
from distillscope.results.run import read_run
from distillscope.results.summary import Summary
from distillscope.visible import HIDDEN, NUMBER

RECORDED = FIXTURES / "outlines.txt.xz"
SHOWN = 60
"""Lines of a difference that are printed."""


@functools.cache
def recorded() -> dict[str, str]:
    """Every outline, by the page's name."""
    text = lzma.decompress(RECORDED.read_bytes()).decode() if RECORDED.is_file() else ""
    return {name: outlined for part in text.split("\f") if part for name, _, outlined in [part.partition("\n")]}


def difference(name: str, now: str) -> list[str]:
    """The lines that differ, each with the two above it."""
    before = recorded().get(name, "")
    return list(difflib.unified_diff(before.splitlines(), now.splitlines(), "recorded", "now", lineterm="", n=2))


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_what_it_was(name, tmp_path):
    lines = difference(name, outline(written(name, tmp_path / name)))
    more = f"\n... and {len(lines) - SHOWN} lines more" if len(lines) > SHOWN else ""
    assert not lines, f"the page '{name}' changed:\n" + "\n".join(lines[:SHOWN]) + more


def record(names: list[str]) -> None:
    known = recorded()
    for name in names or PAGES:
        with tempfile.TemporaryDirectory() as folder:
            now = outline(written(name, Path(folder) / name))
        print("\n".join([f"{name}, {len(now.splitlines())} lines:", *difference(name, now)]))
        known[name] = now
    text = "".join(f"\f{name}\n{known[name]}" for name in PAGES)
    RECORDED.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--pages"]:
        for page in PAGES:
            written(page, Path(sys.argv[2]) / page, draw=True)
    else:
        record(sys.argv[1:])


NASTY = "=1+1|<img src=x onerror=alert(1)>\n# `x` \\input{/etc/passwd} \x1b]0;pwn\x07\x9b31m\u202e"
STATIC = Path(__file__).parents[2] / "src" / "distillscope" / "report" / "static"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return read_run(make_run(tmp_path_factory.mktemp("hostile") / "run", students=(f"S{NASTY}", f"@{NASTY}"),
                             arms=(f"+a{NASTY}", f"-b{NASTY}"),
                             datasets=(NASTY,), teachers=(f"t{NASTY}",), seeds=(1, 2), draws=1, epochs=1, dim=8))


def table(run):
    return build_table(run, settings_of(run), Summary.of(run))


def test_no_cell_of_an_exported_table_is_a_formula(run):
    cells = [c for row in csv.reader(io.StringIO(to_csv(table(run)))) for c in row]
    assert not [c for c in cells if c[:1] in ("=", "+", "-", "@", "\t") and not NUMBER.fullmatch(c)]
    assert any(c.startswith("'@") for c in cells)


def test_no_cell_of_the_joined_results_is_a_formula(run):
    with open(write_results(run), newline="", encoding="utf-8") as file:
        cells = [c for row in csv.reader(file) for c in row]
    assert not [c for c in cells if c[:1] in ("=", "+", "-", "@", "\t") and not NUMBER.fullmatch(c)]
    assert {f"'+a{NASTY}", f"'-b{NASTY}", f"'@{NASTY}"} <= set(cells)


def test_markdown_keeps_its_tables_and_holds_no_html(run):
    for text in (to_markdown(table(run)), markdown(claims_of(run))):
        assert "<img" not in text and not HIDDEN.search(text)
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in rows}) == 1
        assert not [line for line in text.splitlines() if re.match(r"# `|# \\`", line)]


def test_latex_holds_no_command_and_no_line_of_a_name(run):
    text = to_latex(table(run))
    assert "\\input" not in text and not HIDDEN.search(text)
    assert all(line.startswith(("%", "\\")) or line.endswith("\\\\") or not line for line in text.splitlines())


def test_no_escape_sequence_reaches_the_terminal(run):
    out = io.StringIO()
    terminal = Terminal(file=out, force_terminal=False, width=200)
    terminal.print(terminal_table(run.path))
    for decision in claims_of(run).decisions:
        terminal.print(claims_table(decision))
    assert not HIDDEN.search(out.getvalue()) and "pwn" in out.getvalue()


def test_the_program_may_still_colour(run):
    out = io.StringIO()
    Terminal(file=out, force_terminal=True, color_system="standard").print("[red]a[/red]\x1b[32m")
    assert out.getvalue().count("\x1b[31m") == 1 and "\x1b[32m" not in out.getvalue()


@pytest.mark.parametrize("script", sorted(p.name for p in STATIC.glob("*.js")))
def test_no_script_of_the_page_makes_html_of_text(script):
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser",
                          (STATIC / script).read_text())
