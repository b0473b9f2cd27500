"""A finished page in headless Chromium or as parsed HTML: what it drew and said, and what a script put in found."""

from __future__ import annotations

import html
import io
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from distillscope.files.writing import write_atomic
from distillscope.report.draw import with_matplotlib

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None,
                                    reason="needs Chromium to open the page (Debian: apt-get install chromium)")


def run_chromium(page: str, profile: Path, *more: str) -> subprocess.CompletedProcess:
    """``page`` is an address. No host is found, so that a request would fail loudly."""
    return subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
         "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
         f"--user-data-dir={profile}", "--virtual-time-budget=40000", *more, page],
        capture_output=True, text=True, timeout=180, check=True)


def browse(page: Path, tmp_path: Path, width: int, *more: str) -> subprocess.CompletedProcess:
    """The document after its scripts have run is its stdout, the console its stderr."""
    return run_chromium(page.as_uri(), tmp_path / "profile", f"--window-size={width},9000", *more, "--dump-dom")


def console(done: subprocess.CompletedProcess) -> list[str]:
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def ask(page: Path, tmp_path: Path, width: int, script: str, *more: str) -> dict:
    """What ``script``, a function's body that may await, returns once the page is drawn; the page's own policy is lifted."""
    asked = tmp_path / f"asked-{abs(hash((script, width, more)))}.html"
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
    asked.write_text(text.replace("</body>", f"""<script>(async () => {{
      while (document.documentElement.dataset.drawn !== "all") await new Promise((r) => setTimeout(r, 50));
      let seen;
      try {{ seen = await (async () => {{ {script} }})(); }} catch (error) {{ seen = {{ failed: String(error) }}; }}
      document.body.dataset.seen = JSON.stringify(seen);
    }})();</script></body>"""), encoding="utf-8")
    done = browse(asked, tmp_path, width, *more)
    found = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert found and not console(done), (console(done), done.stdout[-500:])
    seen = json.loads(html.unescape(found[1]))
    assert "failed" not in seen, seen
    return seen


def framed(page: Path, tmp_path: Path, *widths: int) -> list[dict]:
    """Size and drawing of the unchanged page in frames of these widths in pixels: a window is never narrower than 500."""
    watch = """<script>addEventListener("load", () => setTimeout(() => {
      document.body.dataset.seen = JSON.stringify(Array.from({ length: frames.length }, (_, i) => frames[i]).map((view) => ({
        width: view.innerWidth, wide: view.document.documentElement.scrollWidth,
        drawn: view.document.documentElement.dataset.drawn,
        plots: [...view.document.querySelectorAll(".plot.js-plotly-plot .main-svg:first-child")].map((e) => e.clientWidth),
        loaded: view.performance.getEntriesByType("resource").map((e) => e.name) })));
    }, 7000));</script>"""
    frames = "".join(f'<iframe src="{page.as_uri()}" style="width:{width}px;height:9000px;border:0"></iframe>'
                     for width in widths)
    frame = tmp_path / "frame.html"
    frame.write_text(f'<body style="margin:0">{frames}{watch}</body>')
    done = browse(frame, tmp_path, 1700, "--allow-file-access-from-files")
    assert not console(done), console(done)
    found = json.loads(html.unescape(re.search(r'data-seen="([^"]*)"', done.stdout)[1]))
    assert [seen["width"] for seen in found] == list(widths)
    for seen in found:
        assert seen["drawn"] == "all"
        assert seen["wide"] <= seen["width"], "a part of the page is wider than the screen"
        assert not [name for name in seen["loaded"] if not name.startswith("data:")], "the page asks for nothing"
    return found


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


@cache
def stand_in(suffix: str) -> bytes:
    """The smallest drawing of that format."""
    if suffix == ".svg":
        return b'<svg xmlns="http://www.w3.org/2000/svg" width="4" height="3"/>\n'
    kept = io.BytesIO()
    Image.new("RGB", (4, 3), "white").save(kept, "PNG")
    return kept.getvalue()


class _Blank:
    """What `draw` would return, where nothing looks at it."""

    def set_layout_engine(self, name: str) -> None:
        pass


def leave_undrawn(patch: pytest.MonkeyPatch, *, laid: bool = False) -> None:
    """No pixels and no paths; with ``laid``, figures are laid on a canvas all the same: one that cannot be drawn fails."""
    if not laid:
        patch.setattr(with_matplotlib, "draw", lambda figure: _Blank())
    patch.setattr(with_matplotlib, "save",
                  lambda canvas, path: write_atomic(path, lambda p: p.write_bytes(stand_in(path.suffix))))


@contextmanager
def undrawn(*, laid: bool = False) -> Iterator[None]:
    """For what is built once and read by many tests."""
    with pytest.MonkeyPatch.context() as patch:
        leave_undrawn(patch, laid=laid)
        yield
