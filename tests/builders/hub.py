"""A Hub on this machine's loopback, as far as students need one: repositories with commits and branches, LFS, refusals."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

import yaml

MAY_WRITE, MAY_READ = "hf_writes", "hf_reads"


class Repo:
    """One repository: ``commits`` (sha -> {path: bytes}), ``branches`` (name -> sha)."""

    def __init__(self, private: bool = False) -> None:
        self.private, self.commits, self.branches = private, {}, {}
        self.commit({}, "main")

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Add these files to what the branch holds."""
        held = {**self.commits.get(self.branches.get(branch, ""), {}), **files}
        sha = hashlib.sha1(repr((len(self.commits), branch, sorted(held))).encode()).hexdigest()
        self.commits[sha], self.branches[branch] = held, sha
        return sha

    def files(self, revision: str = "main") -> dict[str, bytes] | None:
        """What a branch or a commit holds; None where there is none of that name."""
        return self.commits.get(self.branches.get(revision, revision))


class Hub:
    """The server's state. ``refuse``: (status, message) for every request whose path it matches; ``cut``: paths that are sent
    short; ``requests``: what was asked, as "METHOD path"; ``summaries``: of its commits."""

    endpoint: str

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """As new: no repositories, nothing refused."""
        self.repos: dict[str, Repo] = {}
        self.lfs: dict[str, bytes] = {}
        self.refuse: dict[str, tuple[int, str]] = {}
        self.cut: set[str] = set()
        self.requests: list[str] = []
        self.summaries: list[str] = []


@contextmanager
def running_hub():
    """A `Hub` that answers at its ``endpoint`` until the end."""
    hub = Hub()

    class Answers(_Answers):
        pass

    Answers.hub = hub
    class Server(ThreadingHTTPServer):
        request_queue_size = 64  # a full queue drops connections, and the client waits longer with each of its retries

    server = Server(("127.0.0.1", 0), Answers)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Answers(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer()

    do_GET = do_POST = do_PUT = do_HEAD

    def _answer(self):
        self.path = unquote(urlparse(self.path).path)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                self.body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        self.hub.requests.append(f"{self.command} {self.path}")
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.may_write, self.may_read = token == MAY_WRITE, token in (MAY_WRITE, MAY_READ)
        for pattern, (status, message) in self.hub.refuse.items():
            if re.search(pattern, f"{self.command} {self.path}"):
                return self._json({"error": message}, status, {"X-Error-Message": message})
        for pattern, answer in ROUTES.items():
            if found := re.fullmatch(pattern, f"{self.command} {self.path}"):
                return answer(self, *found.groups())
        return self._json({"error": "no such route"}, 404)

    def _send(self, content: bytes, status: int = 200, headers: dict[str, str] | None = None, size: int | None = None):
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content) if size is None else size))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        self.close_connection = size is not None

    def _json(self, value, status: int = 200, headers: dict[str, str] | None = None):
        self._send(json.dumps(value).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def _repo(self, name: str) -> Repo | None:
        """The repository, or None after the answer that it cannot be seen; a write without the right is answered too."""
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and not self.may_read):
            self._json({"error": "Repository not found"}, 404 if self.may_read else 401, {"X-Error-Code": "RepoNotFound"})
        elif self.command != "HEAD" and self.command != "GET" and not self.may_write:
            self._json({"error": "no write access"}, 403 if self.may_read else 401, {"X-Error-Message": "no write access"})
        else:
            return repo
        return None

    def whoami(self):
        self._json({"name": "ann", "type": "user"} if self.may_read else {"error": "Invalid username or password."},
                   200 if self.may_read else 401)

    def create(self):
        asked = json.loads(self.body)
        name = f"{asked.get('organization') or 'ann'}/{asked['name']}"
        if not self.may_write:
            message = "You don't have the rights to create a model under this namespace"
            return self._json({"error": message}, 403 if self.may_read else 401, {"X-Error-Message": message})
        if name in self.hub.repos:
            return self._json({"error": "You already created this model repo", "url": f"{self.hub.endpoint}/{name}"}, 409)
        self.hub.repos[name] = Repo(bool(asked.get("private") or asked.get("visibility") == "private"))
        return self._json({"url": f"{self.hub.endpoint}/{name}"})

    def branch(self, name: str, branch: str):
        repo = self._repo(name)
        if repo is None:
            return None
        if branch in repo.branches:
            return self._json({"error": "Reference already exists"}, 409)
        repo.branches[branch] = repo.branches["main"]
        return self._json({})

    def validate(self):
        head = json.loads(self.body)["content"].split("---\n")[1]
        wrong = [] if isinstance(yaml.safe_load(head), dict) else [{"message": "no mapping"}]
        self._json({"errors": wrong, "warnings": []}, 400 if wrong else 200)

    def info(self, name: str, revision: str = "main"):
        if repo := self._repo(name):
            held = repo.files(revision)
            if held is None:
                return self._json({"error": "Invalid rev id"}, 404, {"X-Error-Code": "RevisionNotFound"})
            sha = repo.branches.get(revision, revision)
            self._json({"_id": "0", "id": name, "sha": sha, "private": repo.private,
                        "siblings": [{"rfilename": path} for path in held]})
        return None

    def tree(self, name: str, revision: str):
        if repo := self._repo(name):
            self._json([{"type": "file", "path": path, "size": len(content), "oid": _oid(content)}
                        for path, content in (repo.files(revision) or {}).items()])

    def resolve(self, name: str, revision: str, path: str):
        repo = self._repo(name)
        if repo is None:
            return None
        content = (repo.files(revision) or {}).get(path)
        if content is None:
            return self._json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
        sent = content[: len(content) // 2] if path in self.hub.cut else content
        return self._send(sent, 200, {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": repo.branches.get(revision, revision)},
                          len(content) if sent is not content else None)

    def preupload(self, name: str, revision: str):
        if repo := self._repo(name):
            held = repo.files(revision)
            if held is None:
                return self._json({"error": "Invalid rev id"}, 404, {"X-Error-Code": "RevisionNotFound"})
            files = [{"path": f["path"], "shouldIgnore": False,
                      "uploadMode": "lfs" if f["path"].endswith((".safetensors", ".onnx")) else "regular"}
                     for f in json.loads(self.body)["files"]]
            self._json({"files": files})
        return None

    def batch(self, name: str):
        if self._repo(name):
            objects = json.loads(self.body)["objects"]
            self._json({"transfer": "basic", "objects": [
                {**o, "actions": {"upload": {"href": f"{self.hub.endpoint}/lfs/{o['oid']}", "header": {}}}} for o in objects]})

    def put(self, oid: str):
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.hub.lfs[oid] = self.body
        self._send(b"")

    def commit(self, name: str, revision: str):
        if repo := self._repo(name):
            lines = [json.loads(line) for line in self.body.splitlines()]
            self.hub.summaries.append(lines[0]["value"]["summary"])
            files = {line["value"]["path"]: base64.b64decode(line["value"]["content"]) if line["key"] == "file"
                     else self.hub.lfs[line["value"]["oid"]] for line in lines[1:]}
            sha = repo.commit(files, revision)
            self._json({"success": True, "commitOid": sha, "commitUrl": f"{self.hub.endpoint}/{name}/commit/{sha}"})


NAME = r"([\w.-]+/[\w.-]+)"
ROUTES = {
    r"GET /api/whoami-v2": _Answers.whoami,
    r"POST /api/repos/create": _Answers.create,
    r"POST /api/validate-yaml": _Answers.validate,
    rf"GET /api/models/{NAME}": _Answers.info,
    rf"GET /api/models/{NAME}/revision/(.+)": _Answers.info,
    rf"GET /api/models/{NAME}/tree/(.+)": _Answers.tree,
    rf"POST /api/models/{NAME}/branch/(.+)": _Answers.branch,
    rf"POST /api/models/{NAME}/preupload/(.+)": _Answers.preupload,
    rf"POST /api/models/{NAME}/commit/(.+)": _Answers.commit,
    rf"POST /{NAME}\.git/info/lfs/objects/batch": _Answers.batch,
    r"PUT /lfs/(\w+)": _Answers.put,
    rf"(?:GET|HEAD) /{NAME}/resolve/([^/]+)/(.+)": _Answers.resolve,
}
"""METHOD and path -> what answers."""


def _oid(content: bytes) -> str:
    """The name of a blob, as git gives it."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
