"""The three pages are what they were: content, order, labels and roles, line by line.

A change that is meant is recorded anew, and read in the diff of the outlines, with

    PYTHONPATH=src:tests python tests/report/test_pinned_pages.py [NAME ...]

which prints what changed, and writes it. ``--pages FOLDER`` writes the pages themselves, with their drawings, to look at.
"""

from __future__ import annotations

import difflib
import functools
import lzma
import sys
import tempfile
from pathlib import Path

import pytest

from builders.browser import outline
from builders.pinned_pages import FIXTURES, PAGES, written

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
