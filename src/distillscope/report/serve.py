"""The page of a run that is still going on: rebuilt as trials finish, shown on this machine only."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from markupsafe import Markup

from distillscope.errors import UserError
from distillscope.files.folders import is_archive
from distillscope.progress import say
from distillscope.report.page import render, script_hash, static
from distillscope.report.study_page import write_report
from distillscope.results.run import read_run
from distillscope.results.run_files import trials_of

HOST = "127.0.0.1"
FIRST_PORT, PORTS = 8000, 20
SECONDS = 2.0
"""How often the run's folder is looked at, and the browser asks."""


@dataclass(frozen=True)
class State:
    """What the browser asks for. ``version`` counts the pages that were built, 0 before the first."""

    finished: int
    trials: int
    version: int = 0
    changed: str = ""
    message: str = ""


class Watch:
    """A run's folder and the latest page of it; `look` rebuilds the page where more has finished since."""

    def __init__(self, run_dir: Path) -> None:
        self.run = Path(run_dir)
        if is_archive(self.run):
            raise UserError(f"--serve {run_dir}", "a run that can continue", "an archive, which cannot", "Leave --serve out.")
        self.num_trials = len(trials_of(read_run(self.run).study))
        self.page = render("serve.html", waiting=True).encode()
        self.seen: frozenset[tuple[str, int]] = frozenset()
        self.state = State(0, self.num_trials)

    def look(self) -> None:
        """One look. A report that fails leaves the last page, and its reason in the state; the next trial tries again."""
        found = frozenset((str(p), p.stat().st_mtime_ns) for part in ("trials", "references")
                          for p in self.run.glob(f"{part}/*/complete.json"))
        count = sum(Path(p).parent.parent.name == "trials" for p, _ in found)
        if found == self.seen or not count:
            return
        self.seen, message, version = found, "", self.state.version
        try:
            self.page = write_report(self.run).read_bytes()
            version += 1
        except Exception as error:  # what is half written now is whole at the next look; the server must outlive it
            reason = next(iter(str(error).splitlines()), "")
            message = f"The report could not be built: {type(error).__name__}: {reason}"
        self.state = State(count, self.num_trials, version, time.strftime("%H:%M:%S"), message)


class Server(ThreadingHTTPServer):
    """Three paths and nothing of the file system: "/" (a frame that asks for news), "/report.html" and "/state"."""

    daemon_threads = True

    def __init__(self, watch: Watch, port: int) -> None:
        super().__init__((HOST, port), _Handler)
        self.watch = watch

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that leaves before its answer is none; anything else is one line, and the server goes on."""
        error = sys.exc_info()[1]
        if not isinstance(error, (ConnectionError, TimeoutError)):
            say(f"{self.url}: a request failed ({type(error).__name__}: {error})")

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version, sys_version = "distillscope", ""

    def do_GET(self) -> None:
        if self.headers.get("Host", "") not in {f"{name}:{self.server.server_port}" for name in (HOST, "localhost")}:
            self._send(403, "text/plain", b"This page is for this machine only.\n")  # another site's name that points here
            return
        path, watch = self.path.partition("?")[0], self.server.watch
        if path == "/":
            script = static("serve.js")
            page = render("serve.html", waiting=False, script=Markup(script))
            self._send(200, "text/html", page.encode(),
                       f"default-src 'none'; script-src {script_hash(script)}; style-src 'unsafe-inline'; connect-src 'self'; "
                       "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
        elif path == "/report.html":
            self._send(200, "text/html", watch.page, "frame-ancestors 'self'")
        elif path == "/state":
            self._send(200, "application/json", json.dumps(asdict(watch.state)).encode())
        else:
            self._send(404, "text/plain", b"Not here.\n")

    do_HEAD = do_GET

    def _send(self, status: int, kind: str, body: bytes, policy: str = "default-src 'none'") -> None:
        self.send_response(status)
        headers = {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(body)), "Cache-Control": "no-store",
                   "Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:  # the terminal belongs to the user
        pass


def make_server(run_dir: Path, port: int | None = None) -> Server:
    """A server on ``port``, by default the first free one from 8000 on; it does not serve yet.

    A folder that is no run, or a port that is taken, is a UserError.
    """
    watch = Watch(run_dir)
    for candidate in [port] if port is not None else [*range(FIRST_PORT, FIRST_PORT + PORTS), 0]:
        try:
            return Server(watch, candidate)
        except OSError as error:
            reason = error.strerror
    raise UserError(f"--port {port}", "a port that is free", reason or "an error", "Choose another, or leave --port out.")


def serve(run_dir: Path, port: int | None = None, say: Callable[[str], None] = print) -> None:
    """Watch ``run_dir`` and serve its page on 127.0.0.1 until interrupted (Ctrl-C)."""
    server = make_server(run_dir, port)
    stop = threading.Event()

    def watching() -> None:
        while not stop.is_set():
            server.watch.look()
            stop.wait(SECONDS)

    watcher = threading.Thread(target=watching, daemon=True)
    watcher.start()
    say(f"watching {run_dir}: {server.url} (this machine only; Ctrl-C to stop)")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        stop.set()
        server.server_close()
