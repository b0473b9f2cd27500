"""A finished page in headless Chromium or as parsed HTML: what it drew and said, and what a script put in found."""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
import select
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from distillscope.files.writing import write_atomic
from distillscope.report.draw import with_matplotlib

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """One headless Chromium for every page of a test process, spoken to over the pipe of its DevTools protocol.

    No host is found, so that a request would fail loudly.
    """

    def __init__(self, profile: Path) -> None:
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        # It reads its descriptor 3 and writes 4; from above ten neither is taken before it is copied there.
        high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (theirs_in, theirs_out)]
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
                   "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
                   f"--user-data-dir={profile}", "--remote-debugging-pipe"]
        nowhere = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)]
        self.process = os.posix_spawn(CHROMIUM, command, os.environ, file_actions=[
            *((os.POSIX_SPAWN_DUP2, end, number) for end, number in zip(high, (3, 4), strict=True)), *nowhere])
        for end in (theirs_in, theirs_out, *high):
            os.close(end)
        self.asked, self.told, self.rest = ours_out, ours_in, b""
        self.number = 0
        self.events: list[dict] = []

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict:
        """What the protocol answers; what it tells meanwhile is kept in ``events``."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters, **({"sessionId": session} if session else {})}
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.asked, data):]
        while (heard := self._hear()).get("id") != self.number:
            self.events.append(heard)
        assert "error" not in heard, (method, heard)
        return heard["result"]

    def _hear(self) -> dict:
        parts = [self.rest]
        while b"\0" not in parts[-1]:
            assert select.select([self.told], [], [], 120)[0], "Chromium says nothing"
            parts.append(os.read(self.told, 1 << 20))
            assert parts[-1], "Chromium has ended"
        message, _, self.rest = b"".join(parts).partition(b"\0")
        return json.loads(message)

    @contextmanager
    def opened(self, address: str, width: int, *, dark: bool = False, scripts: bool = True) -> Iterator[Tab]:
        """``address`` in a tab of its own, ``width`` pixels wide; a message on its console or a request to a host fails."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        tab = Tab(self, self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])
        for domain in ("Page", "Runtime", "Log", "Network"):
            tab.call(f"{domain}.enable")
        tab.call("Emulation.setDeviceMetricsOverride", width=width, height=9000, deviceScaleFactor=1, mobile=False)
        tab.call("Emulation.setEmulatedMedia",
                 features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        tab.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.events.clear()
        tab.call("Page.navigate", url=address)
        tab.wait("document.readyState === 'complete'" + " && location.href !== 'about:blank'")
        yield tab
        told = [event for event in self.events if event.get("sessionId") == tab.session]
        self.call("Target.closeTarget", targetId=target)
        said = [e["params"] for e in told if e["method"] in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown",
                                                             "Log.entryAdded")]
        assert not said, said
        asked = [e["params"]["request"]["url"] for e in told if e["method"] == "Network.requestWillBeSent"]
        assert asked and all(url.startswith((address, "data:", "blob:")) for url in asked), asked

    def close(self) -> None:
        self.call("Browser.close")
        os.close(self.asked)
        os.close(self.told)
        os.waitpid(self.process, 0)


@dataclass(frozen=True)
class Tab:
    """A page that is open."""

    browser: Browser
    session: str

    def call(self, method: str, **parameters: Any) -> dict:
        return self.browser.call(method, self.session, **parameters)

    def ask(self, script: str) -> Any:
        """What ``script``, a function's body that may await, returns once the page is drawn."""
        self.wait("document.documentElement.dataset.drawn === 'all'")
        return self.value(f"(async () => {{ {script} }})()")

    def wait(self, condition: str) -> None:
        until = time.monotonic() + 120
        while not self.value(condition):
            assert time.monotonic() < until, condition
            time.sleep(0.05)

    def value(self, expression: str) -> Any:
        done = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def sizes(self) -> dict:
        """Width of the window and of each plot in pixels; a part that is wider than the window fails."""
        seen = self.ask("""return { width: innerWidth, wide: document.documentElement.scrollWidth,
          plots: [...document.querySelectorAll(".plot.js-plotly-plot .main-svg:first-child")].map((e) => e.clientWidth) };""")
        assert seen["wide"] <= seen["width"], "a part of the page is wider than the screen"
        return seen


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
