"""A written page as a browser's parser finds it: its elements, its scripts, its data, and all of it as lines to compare."""

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


VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
VERBATIM = {"pre", "textarea"}


class _Outline(HTMLParser):
    """Lines, one an element or a text, indented by depth."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.open: list[str] = []
        self.told: dict[str, int] = {}
        self.inside_svg: int | None = None  # its depth
        self.styled = set(re.findall(r"\.([A-Za-z][\w-]*)", "".join(re.findall(r"<style>(.*?)</style>", page, re.DOTALL))))
        self.feed(page)

    def _say(self, text: str) -> None:
        self.lines.append("  " * len(self.open) + text)

    def handle_starttag(self, tag, attributes):
        held = dict(attributes)
        if self.inside_svg is not None:
            self.lines[-1] += f" {tag}" if tag not in VOID else ""
        elif tag == "svg":
            self.inside_svg = len(self.open)
            name = held.get("aria-label") or ("hidden" if held.get("aria-hidden") else "")
            self._say(f"svg {held.get('class', '')} {name} of")
        elif tag in ("script", "style"):
            self.told[tag] = self.told.get(tag, 0) + 1
            self._say(f"{tag} {self.told[tag]} {held.get('type', '')} {held.get('id', '')}".rstrip())
        else:
            self._say(" ".join([tag,
                                *(told for name, value in sorted(held.items()) if (told := self._attribute(name, value)))]))
        if tag not in VOID:
            self.open.append(tag)

    handle_startendtag = handle_starttag

    def _attribute(self, name: str, value: str | None) -> str:
        if name == "class":
            kept = [c for c in (value or "").split() if c in self.styled]
            return f"class={'.'.join(kept)}" if kept else ""
        if value and value.startswith("data:"):
            value = value.partition(";")[0]
        return name if value is None else f"{name}={_settled(value)!r}"

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        while self.open and self.open.pop() != tag:  # an element that the page does not close is one that its parent closed
            pass
        if self.inside_svg is not None and len(self.open) <= self.inside_svg:
            self.inside_svg = None

    def handle_data(self, text):
        if (self.open and self.open[-1] in ("script", "style")) or self.inside_svg is not None:
            return
        for line in text.strip("\n").split("\n") if VERBATIM & set(self.open) else [" ".join(text.split(" ")).strip()]:
            if line.strip():
                self._say(f"| {_settled(line if VERBATIM & set(self.open) else ' '.join(line.split()))}")


def _settled(text: str) -> str:
    """``text`` without what varies: hashes, and digits that only a double holds (kept to five)."""
    text = re.sub(r"'sha256-[^']*'", "HASH", text)
    return re.sub(r"-?\d+\.\d{7,}(e-?\d+)?", lambda m: f"{float(m[0]):.5g}", text)


def outline(page: str) -> str:
    """A page as text of which a diff can be read: elements in order, what names and labels them, and their words.

    Kept are all attributes (of classes those that the page's style sheet knows), texts with their spaces folded and numbers as
    printed. Scripts and styles are told by kind and place alone, drawings by their accessible name and their parts, and hashes
    not at all. Behind the elements stand the figures that the script draws, with the traces of each panel.
    """
    lines = _Outline(page).lines
    for figure in data_of(page)["figures"]:
        lines.append(f"figure {figure['key']}: {', '.join(str(len(panel['data'])) for panel in figure['panels'])}")
    return "\n".join(line.rstrip() for line in lines) + "\n"
