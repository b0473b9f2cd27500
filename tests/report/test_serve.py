"""The page of a running study, served on this machine only."""

from __future__ import annotations

import http.client
import json
import threading

import pytest
from typer.testing import CliRunner

from builders.browser import console, needs_chromium, run_chromium
from builders.synthetic_run import make_run
from distillscope.errors import UserError
from distillscope.report import serve as module
from distillscope.report.serve import make_server


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


def ask(server, path, method="GET", host=None):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request(method, path, headers={} if host is None else {"Host": host})
    response = connection.getresponse()
    return response.status, response.read(), response


def test_it_waits_for_the_first_trial_then_shows_each(running):
    server, aside = running
    server.watch.look()
    assert json.loads(ask(server, "/state")[1])["version"] == 0 and b"No trial has finished" in ask(server, "/report.html")[1]
    first, *others = aside
    first.write_bytes(aside[first])
    server.watch.look()
    state = json.loads(ask(server, "/state")[1])
    assert (state["version"], state["finished"], state["trials"], state["message"]) == (1, 1, 4, "")
    page = ask(server, "/report.html?v=1")[1]
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
        assert ask(server, "/", host=host)[0] == 403
    assert ask(server, "/", host=f"localhost:{server.server_port}")[0] == 200
    for path in ("/study.yaml", "/../study.yaml", "/%2e%2e/study.yaml", "//etc/passwd", "/trials/", "/report.html/"):
        assert ask(server, path)[0] == 404
    assert ask(server, "/", "POST")[0] == 501 and ask(server, "/", "HEAD")[1] == b""
    policy = ask(server, "/")[2].headers["Content-Security-Policy"]
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
@needs_chromium
def test_a_browser_shows_the_page_in_the_frame(running, tmp_path):
    server, aside = running
    for path, content in aside.items():
        path.write_bytes(content)
    server.watch.look()
    shown = run_chromium(server.url, tmp_path / "profile", "--dump-dom")
    assert not console(shown)
    assert "4 of 4 trials finished" in shown.stdout and "The run is finished." in shown.stdout


def test_a_client_that_leaves_before_its_answer_is_no_traceback(running, capfd, monkeypatch):
    server, _ = running
    monkeypatch.setattr(module._Handler, "_send", lambda *args: (_ for _ in ()).throw(BrokenPipeError(32, "Broken pipe")))
    with pytest.raises(http.client.RemoteDisconnected):
        ask(server, "/")
    monkeypatch.undo()
    assert ask(server, "/state")[0] == 200
    assert capfd.readouterr().err == ""
