"""A written page as a browser's parser finds it: its elements, its scripts, its data."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser


class Elements(HTMLParser):
    """Every element with its attributes, and the text of each script, as a browser's parser would find them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.scripts: list[tuple[dict, str]] = []
        self.inside = False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        self.inside = tag == "script"
        if self.inside:
            self.scripts.append((dict(attributes), ""))

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, text):
        if self.inside:
            attributes, known = self.scripts[-1]
            self.scripts[-1] = (attributes, known + text)


def data_of(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="distillscope-data">(.*?)</script>', page, re.DOTALL)[1])
