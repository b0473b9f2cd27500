"""Names from data, made harmless for where they are shown (a terminal, Markdown, a spreadsheet), or put in a sentence."""

from __future__ import annotations

import re
from collections.abc import Iterable

HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
"""What moves a terminal's cursor, starts its escape sequences or turns the direction of text; tab and newline do none of it."""
NUMBER = re.compile(r"[+-]?(\d[\d,]*(\.\d*)?|\.\d+)([eE][+-]?\d+)?%?|[+-]?(inf|nan)")
MARKS = str.maketrans({"\\": "\\\\", "<": "&lt;", ">": "&gt;", "`": "\\`", "|": "\\|"})


def visible(text: str) -> str:
    """``text`` with each control character, each mark of direction and each lone surrogate written out as an escape.

    >>> visible("red \\x1b[31m alert")
    'red \\\\x1b[31m alert'
    """
    return HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), str(text))


def markdown_text(text: str) -> str:
    """``text`` as it reads, in one line of Markdown or one cell of a table: no HTML, code, link, heading or list comes of it.

    >>> markdown_text("a|b <img>\\n# c"), markdown_text("- x"), markdown_text("[x](http://y)")
    ('a\\\\|b &lt;img&gt; # c', '\\\\- x', '[x]\\\\(http://y)')
    """
    line = visible(" ".join(str(text).split())).translate(MARKS)
    line = re.sub(r"\]([(\[:])", r"]\\\1", line)  # a link, or what one refers to
    return re.sub(r"^([#+=~*-])", r"\\\1", line)


def markdown_code(text: str) -> str:
    """``text`` as code in one line of Markdown, between as many backticks as it needs; a pipe ends no cell of a table.

    >>> markdown_code("a `b`|c")
    '``a `b`\\\\|c``'
    """
    line = visible(" ".join(str(text).split())).replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def sheet_cell(text: str) -> str:
    """``text`` as a cell that no spreadsheet runs as a formula: an apostrophe goes before =, +, -, @, a tab or a line's end.

    Numbers stay as they are.

    >>> sheet_cell("=1+1"), sheet_cell("+noise"), sheet_cell("-0.5"), sheet_cell("cosine")
    ("'=1+1", "'+noise", '-0.5', 'cosine')
    """
    text = str(text)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r", "\n") and not NUMBER.fullmatch(text) else text


def joined(names: Iterable[str]) -> str:
    """Names as they stand in a sentence.

    >>> joined(["S", "M", "L"])
    'S, M and L'
    """
    names = list(names)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""
