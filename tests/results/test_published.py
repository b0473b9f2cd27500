"""The tables of results/ are those of the data beside them: each number of each cell, to the digits that the page prints."""

from __future__ import annotations

import math
import re

import pytest

from builders.published import RESULTS, TABLES

NUMBER = re.compile(r"(?<![\w.])-?(?:\d[\d,]*)?\.?\d+")
NOT_KEPT = {"2026-11-26-torture": "what each attack gave was not kept",
            "2026-11-27-walk": "One seed, one run"}
"""Pages without the data of their tables, with the words by which they say so."""


def tables(page):
    """The Markdown tables of a page, each a list of rows of cells, without head and rule."""
    found = re.findall(r"(?:^\|.*\n)+", (RESULTS / f"{page}.md").read_text(encoding="utf-8"), re.MULTILINE)
    return [[[c.strip() for c in row.strip().strip("|").split("|")] for row in table.splitlines()[2:]] for table in found]


def numbers(cell):
    """(value, half a unit of its last digit) of each number in a cell."""
    printed = [n.replace(",", "") for n in NUMBER.findall(cell.replace("−", "-"))]
    return [(float(n), 0.5 * 10.0 ** -len(n.partition(".")[2])) for n in printed]


WORDS = {"open": r"not told|undecided"}


def wrong(cell, expected):
    """What a cell prints and what its data say, where they differ."""
    words, values = [v for v in expected if isinstance(v, str)], [v for v in expected if not isinstance(v, str)]
    printed = numbers(cell)
    same = len(printed) == len(values) and all(
        abs(p - v) <= half * (1 + 1e-6) for (p, half), v in zip(printed, values, strict=True)
    )
    return not same or not all(re.search(WORDS.get(w, w), cell) for w in words)


def test_every_page_is_rebuilt_or_says_why_not():
    assert {p.stem for p in RESULTS.glob("*.md")} == {*TABLES, *NOT_KEPT}
    for page, words in NOT_KEPT.items():
        assert words in (RESULTS / f"{page}.md").read_text()


@pytest.mark.parametrize("page", TABLES)
def test_the_tables_of_the_page_are_those_of_its_data(page):
    printed, expected = tables(page), list(TABLES[page]())
    assert len(printed) == len(expected)
    differ = []
    for table, rows in zip(printed, expected, strict=True):
        assert len(table) == len(rows)
        for cells, values in zip(table, rows, strict=True):
            assert values is None or len(values) == len(cells) - 1, cells
            differ += [f"{cells[0]}: {cell!r} for {value}" for cell, value in zip(cells[1:], values or (), strict=False)
                       if value is not None and wrong(cell, value)]
    assert not differ, "\n" + "\n".join(differ)


def test_no_number_of_a_cell_is_passed_over():
    assert [v for v, _ in numbers("−1.003 ± 0.010, 1,005 of .584 [-53, 8.2 %]")] == [-1.003, 0.010, 1005, 0.584, -53, 8.2]
    assert wrong("10.6 [1, 2]", [10.54, 1, 2]) and not wrong("10.5 [1, 2]", [10.54, 1, 2]) and wrong("10.5", [10.5, 1])
    assert math.isclose(numbers("0.010")[0][1], 0.0005)
