"""Headless Chromium over a finished page: what it drew, what it said on its console, and what a script put in found."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None,
                                    reason="needs Chromium to open the page (Debian: apt-get install chromium)")


def run_chromium(page: str, profile: Path, *more: str) -> subprocess.CompletedProcess:
    """``page`` is an address. No host is found, so that a request would fail loudly."""
    return subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
         "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
         f"--user-data-dir={profile}", "--virtual-time-budget=10000", *more, page],
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
