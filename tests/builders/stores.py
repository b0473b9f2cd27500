"""Stores on this machine for tests: an S3 server, and an HTTP server that fails when it is told to."""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock

import pytest

KEYS = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true"}


@functools.cache
def s3_server() -> str:
    """The address of moto's S3 server, which keeps what is put into it as long as the process lives."""
    pytest.importorskip("s3fs", reason="the extra s3 is not installed")
    moto = pytest.importorskip("moto.server", reason="moto[server], an S3 server for tests, is not installed")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    with mock.patch("werkzeug.serving.WSGIRequestHandler.log"):
        server.start()
    return "http://{}:{}".format(*server.get_host_and_port())


class Failing(SimpleHTTPRequestHandler):
    """Files of a folder. ``fails``: path -> answers of 503 that are left; ``refuses``: paths that want a login; ``cut``: paths
    of which half is sent."""

    fails: Counter[str]
    refuses: set[str]
    cut: set[str]

    def do_GET(self) -> None:
        if self.path in self.refuses:
            self.send_error(403)
        elif self.fails[self.path] > 0:
            self.fails[self.path] -= 1
            self.send_error(503)
        elif self.path in self.cut:
            content = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
        else:
            super().do_GET()

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def http_server(folder: Path) -> Iterator[tuple[str, type[Failing]]]:
    """The address of a server of ``folder``, and its handler, whose class attributes say what fails."""
    class Handler(Failing):
        fails, refuses, cut = Counter(), set(), set()

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", Handler
    finally:
        server.shutdown()
        server.server_close()
