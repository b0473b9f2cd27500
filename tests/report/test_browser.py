"""The page in a browser: every figure is drawn, what moves it answers; and the page of a running study, served here alone."""

from __future__ import annotations

import base64
import csv
import http.client
import io
import json
import threading

import pandas as pd
import pytest
from typer.testing import CliRunner

from builders.browser import data_of, undrawn
from builders.synthetic_run import keep_pictures, make_run
from distillscope.errors import UserError
from distillscope.report import serve as module
from distillscope.report.serve import make_server
from distillscope.report.study_page import write_report

CLICK = """
  let saved = null, name = null;
  URL.createObjectURL = (blob) => { saved = blob.text(); return "blob:x"; };
  HTMLAnchorElement.prototype.click = function () { name = this.download; };
  const download = async (selector) => { document.querySelector(selector).click(); return [name, await saved]; };
  const settled = () => new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(r))));
  const until = async (holds) => { while (!holds()) await new Promise((r) => setTimeout(r, 20)); };
"""
DRAWN = """
      const of = (key) => [...document.querySelectorAll(`#figure-${key} .plot`)].map((p) => p.data.map((t) =>
        ({ label: t.meta.label, kind: t.meta.kind, x: t.x, y: t.y, z: t.z })));
      const buttons = [...new Set([...document.querySelectorAll(".modebar-btn")].map((b) => b.dataset.title))];
      return { buttons, noise: of("noise"), rank: of("effective_rank"), confusion: of("confusion"),
        all: await download("#all-results"),
        csv: await download('#figure-noise [data-do="csv"]'), lost: await download('#figure-lost [data-do="csv"]') };"""
"""What the figures hold and what their downloads give."""
PRINTED = """
      const plot = document.querySelector("#figure-noise .plot"), style = getComputedStyle(document.documentElement);
      const look = () => ({ ground: getComputedStyle(document.documentElement).backgroundColor, ink: plot.layout.font.color,
        line: plot.data.find((t) => t.meta.kind === "line").line.color, y: plot.data.map((t) => t.y),
        width: plot.layout.width });
      const screen = look();
      dispatchEvent(new Event("beforeprint")); await until(() => plot.layout.width !== screen.width);
      const paper = look();
      dispatchEvent(new Event("afterprint")); await until(() => plot.layout.width === screen.width);
      return { screen, paper, after: look() };"""
"""How a figure looks on the screen, on paper and afterwards."""
MOVED = """
      const noise = document.querySelector("#figure-noise .plot"), first = document.querySelector("#figure-map .plot");
      const axis = () => [noise.layout.xaxis.title.text, ...noise.layout.xaxis.ticktext];
      const before = axis(), card = document.querySelector("#figure-map .said");
      await until(() => card.textContent);
      const start = card.textContent, tsne = first.data[0].x.slice(0, 3);
      const units = document.querySelectorAll('#figure-noise [data-do="unit"]');
      units[1].click(); await settled();
      const after = axis(), pressed = [...units].map((b) => b.getAttribute("aria-pressed"));
      document.querySelectorAll('#figure-map [data-do="view"]')[1].click(); await settled();
      const slider = document.querySelector("#figure-map input");
      slider.value = 7; slider.dispatchEvent(new Event("input"));
      document.querySelector('#figure-cumulative_variance [data-do="log"]').click();
      const chip = document.querySelector('.chip[data-highlight="L"]');
      chip.focus(); chip.click(); await settled();
      const faded = noise.data.filter((t) => t.opacity < 0.2 && t.meta.kind === "line").map((t) => t.meta.highlight);
      const dim = [...document.querySelectorAll("[data-model]")].filter((e) => e.style.opacity === "0.3")
        .map((e) => e.dataset.model);
      chip.click(); await settled();
      return { before, after, pressed, start, said: card.textContent, tsne, pca: first.data[0].x.slice(0, 3), faded,
        dim: [...new Set(dim)],
        rings: [...document.querySelectorAll(".ring")].filter((r) => !r.hidden).length,
        focused: document.activeElement === chip,
        scale: document.querySelector("#figure-cumulative_variance .plot").layout.xaxis.type,
        cleared: noise.data.every((t) => t.opacity !== 0.15),
        merits: [...document.querySelectorAll(".merit")].map((m) => m.textContent) };"""
"""What every control changes."""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A study of two arms with pictures, and latency, which the head shows."""
    run = keep_pictures(make_run(tmp_path_factory.mktemp("browser") / "r", arms=("cosine", "augmented"), seeds=(42, 123),
                                 target="pca512", where="source"))
    for path in sorted(run.glob("*/*/results.csv")):
        rows = pd.read_csv(path)
        who = "teacher" if path.parent.parent.name == "references" else "student"
        timed = rows.iloc[[0]].assign(condition="clean", measure="capacity.latency_ms", value={"teacher": 9.76}.get(who, 1.26),
                                      unit="ms")
        pd.concat([rows, timed]).to_csv(path, index=False)
    with undrawn():
        return write_report(run)


@pytest.fixture(scope="module")
def answers(page, browser):
    """What the three scripts find in the page, and the page on paper, loaded once."""
    with browser.opened(page.as_uri(), 1200) as tab:
        found = {name: tab.ask(CLICK + script) for name, script in (("drawn", DRAWN), ("printed", PRINTED), ("moved", MOVED))}
        return {**found, "pdf": base64.b64decode(tab.call("Page.printToPDF")["data"])}


@pytest.mark.slow
def test_it_is_drawn_without_an_error_a_request_or_a_part_too_wide(page, browser):
    figures = data_of(page.read_text(encoding="utf-8"))["figures"]
    with browser.opened(page.as_uri(), 375) as tab:
        seen = tab.sizes()
    assert seen["width"] == 375 and len(seen["plots"]) == sum(len(f["panels"]) for f in figures)
    assert all(100 < w <= seen["width"] for w in seen["plots"])


@pytest.mark.slow
def test_what_is_drawn_is_what_results_csv_says(page, answers):
    seen = answers["drawn"]
    results = pd.read_csv(page.parent / "results.csv")
    clean = results[(results.measure == "paper.probe.student.accuracy") & (results.arm == "cosine")]
    lines = {t["label"]: t for t in seen["noise"][0] if t["kind"] == "line"}
    ranks = {t["label"]: t["y"][0] for panel in seen["rank"] for t in panel if t["kind"] == "points"}
    for student in "SML":
        by = clean[clean.student == student].groupby(["condition", "seed"]).value.mean().groupby("condition").mean()
        assert lines[student]["y"] == pytest.approx([by["clean"], *(by[f"noise={s}"] for s in (0.02, 0.05, 0.1, 0.2))],
                                                    rel=1e-6)
        own = results[(results.measure == "student.effective_rank") & (results.arm == "cosine") & (results.student == student)]
        assert ranks[student] == pytest.approx(own.value.mean(), rel=1e-6)
    assert seen["confusion"][1][0]["z"][0] == pytest.approx([12 / 20, 8 / 20, 0,
                                                             0])  # of 20 items a class, 30 of the first 80 wrong
    name, text = seen["all"]
    again = pd.read_csv(io.StringIO(text))
    assert set(seen["buttons"]) <= {"Zoom", "Pan", "Zoom in", "Zoom out", "Reset axes"}  # none that sends a chart anywhere
    assert name == "results.csv" and list(again) == list(results)
    assert again.value.tolist() == pytest.approx(results.value.tolist())
    assert seen["csv"][0] == "noise.csv" and seen["csv"][1].startswith("panel,model,kind,x,y,low,high,seeds\n")
    assert "S,line,0.02," in seen["csv"][1]
    lost = list(csv.DictReader(io.StringIO(seen["lost"][1])))
    assert {row["true"] for row in lost} <= {f"<class {i}>"
                                             for i in range(4)} and all(row["true"] != row["taken_for"] for row in lost)


@pytest.mark.slow
def test_highlight_units_scale_views_and_the_map_answer(answers):
    seen = answers["moved"]
    assert seen["before"] != seen["after"] and seen["pressed"] == ["false", "true", "false"]
    assert seen["start"] != seen["said"] and "cifar10/test/" in seen["said"] and "true class <class" in seen["said"]
    assert seen["rings"] >= 4 and seen["tsne"] != seen["pca"]
    assert set(seen["faded"]) == {"teacher", "S", "M"} and "L" not in seen["dim"] and "S" in seen["dim"] and seen["cleared"]
    assert seen["focused"] and seen["scale"] == "linear"
    assert any("Size and latency" in m and "1.3 ms" in m.replace("\u00a0", " ") for m in seen["merits"])


@pytest.mark.slow
def test_of_many_arms_the_first_is_drawn_alone_and_another_beside_it(tmp_path, browser):
    many = write_report(make_run(tmp_path / "r", students=("S", "M"), arms=("plain", "<b>two", "three", "four"), seeds=(1, 2),
                                 dim=24, epochs=1))
    with browser.opened(many.as_uri(), 1200) as tab:
        seen = tab.ask(CLICK + """
      const labels = (key) => [...document.querySelectorAll(`#figure-${key} .plot`)].map((p) =>
        [...new Set(p.data.filter((t) => t.visible !== false).map((t) => t.meta.label))]);
      const select = document.getElementById("arms"), bars = document.querySelector("#figure-information .plot");
      const look = () => ({ noise: labels("noise")[0], ticks: bars.layout.xaxis.ticktext,
        bars: bars.data.filter((t) => t.visible !== false).map((t) => t.x[0]) });
      const alone = look();
      select.selectedIndex = 1; select.dispatchEvent(new Event("change")); await settled();
      const two = look();
      select.value = ""; select.dispatchEvent(new Event("change")); await settled();
      return { alone, two, all: look(), options: [...select.options].map((o) => o.text),
        chips: document.querySelectorAll(".chip").length };""")
    assert seen["alone"]["noise"] == ["teacher", "S", "M"] and seen["chips"] == 3
    assert seen["two"]["noise"] == ["teacher", "S", "M", "S (<b>two)", "M (<b>two)"] and len(seen["all"]["noise"]) == 9
    assert seen["alone"]["bars"] == [0, 1] and seen["two"]["bars"] == [0, 1, 2, 3] and len(seen["all"]["ticks"]) == 8
    assert seen["options"] == ["plain alone", "plain and <b>two", "plain and three", "plain and four", "all 4 arms"]


@pytest.mark.slow
def test_dark_and_print_change_the_drawing_not_the_numbers(page, answers, browser):
    light = answers["printed"]
    with browser.opened(page.as_uri(), 1200, dark=True) as tab:
        dark = tab.ask(CLICK + PRINTED)
    assert light["screen"]["ground"] == "rgb(255, 255, 255)" and dark["screen"]["ground"] == "rgb(20, 23, 27)"
    assert light["screen"]["ink"] != dark["screen"]["ink"] and light["screen"]["y"] == dark["screen"]["y"] == dark["paper"]["y"]
    assert dark["paper"]["ink"] == light["screen"]["ink"], "paper is white"
    assert light["paper"]["width"] < light["screen"]["width"] == light["after"]["width"]


@pytest.mark.slow
def test_it_prints(answers):
    assert answers["pdf"][:5] == b"%PDF-" and len(answers["pdf"]) > 100_000


@pytest.mark.slow
def test_without_scripts_drawings_stand_in(reported, browser):
    with browser.opened((reported / "report.html").as_uri(), 1200, scripts=False) as tab:
        images = tab.value("[...document.images].map((i) => [i.naturalWidth, i.clientWidth, i.alt.length])")
    assert len(images) >= 8 and all(natural > 300 and 300 < shown <= 1200 and alt > 20 for natural, shown, alt in images)


@pytest.fixture
def running(tmp_path):
    """A server over a run in which no trial has finished yet; its trials' marks are laid aside."""
    run = make_run(tmp_path / "r", students=("S", "L"), seeds=(1, 2))
    aside = {p: p.read_bytes() for p in sorted(run.glob("trials/*/complete.json"))}
    for path in aside:
        path.unlink()
    (run / "report.html").unlink(missing_ok=True)
    server = make_server(run, 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server, aside
    server.shutdown()
    server.server_close()


def request(server, path, method="GET", host=None):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request(method, path, headers={} if host is None else {"Host": host})
    response = connection.getresponse()
    return response.status, response.read(), response


def test_it_waits_for_the_first_trial_then_shows_each(running):
    server, aside = running
    server.watch.look()
    assert json.loads(request(server, "/state")[1])["version"] == 0
    assert b"No trial has finished" in request(server, "/report.html")[1]
    first, *others = aside
    first.write_bytes(aside[first])
    server.watch.look()
    state = json.loads(request(server, "/state")[1])
    assert (state["version"], state["finished"], state["trials"], state["message"]) == (1, 1, 4, "")
    page = request(server, "/report.html?v=1")[1]
    assert page == (server.watch.run / "report.html").read_bytes() and b"effective" in page
    server.watch.look()
    assert server.watch.state.version == 1  # nothing new, nothing built
    for path in others:
        path.write_bytes(aside[path])
    server.watch.look()
    assert server.watch.state.version == 2 and server.watch.state.finished == 4


def test_a_report_that_fails_keeps_the_last_page(running, monkeypatch):
    server, aside = running
    first, second, *_ = aside
    first.write_bytes(aside[first])
    server.watch.look()
    page = server.watch.page

    def fails(run):
        raise ValueError("half <b>written")

    monkeypatch.setattr(module, "write_report", fails)
    second.write_bytes(aside[second])
    server.watch.look()
    assert server.watch.page == page and "ValueError: half <b>written" in server.watch.state.message


def test_only_this_machine_may_ask_and_only_for_the_page(running):
    server, _ = running
    assert server.server_address[0] == "127.0.0.1"
    for host in ("evil.example", f"evil.example:{server.server_port}", "127.0.0.1:1", ""):
        assert request(server, "/", host=host)[0] == 403
    assert request(server, "/", host=f"localhost:{server.server_port}")[0] == 200
    for path in ("/study.yaml", "/../study.yaml", "/%2e%2e/study.yaml", "//etc/passwd", "/trials/", "/report.html/"):
        assert request(server, path)[0] == 404
    assert request(server, "/", "POST")[0] == 501 and request(server, "/", "HEAD")[1] == b""
    policy = request(server, "/")[2].headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe-inline'; connect" in policy and "script-src 'sha256-" in policy


def test_bad_input_is_one_line(running, tmp_path):
    server, _ = running
    with pytest.raises(UserError, match="--port"):
        make_server(server.watch.run, server.server_port)
    with pytest.raises(UserError):
        make_server(tmp_path / "nowhere")


def test_port_alone_says_what_it_is_for(running):
    from distillscope.cli import app

    result = CliRunner().invoke(app, ["report", str(running[0].watch.run), "--port", "8123"])
    assert result.exit_code != 0 and "--serve" in (result.output + str(result.exception))


@pytest.mark.slow
def test_a_browser_shows_the_page_in_the_frame(running, browser):
    server, aside = running
    for path, content in aside.items():
        path.write_bytes(content)
    server.watch.look()
    with browser.opened(server.url, 1200) as tab:
        tab.wait("document.body.innerText.includes('The run is finished.')")
        assert "4 of 4 trials finished" in tab.value("document.body.innerText")


def test_a_client_that_leaves_before_its_answer_is_no_traceback(running, capfd, monkeypatch):
    server, _ = running
    monkeypatch.setattr(module._Handler, "_send", lambda *args: (_ for _ in ()).throw(BrokenPipeError(32, "Broken pipe")))
    with pytest.raises(http.client.RemoteDisconnected):
        request(server, "/")
    monkeypatch.undo()
    assert request(server, "/state")[0] == 200
    assert capfd.readouterr().err == ""
