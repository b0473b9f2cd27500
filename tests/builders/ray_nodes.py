"""Ray nodes on this machine, each of processes of its own and with a loopback address of its own, which can be killed whole."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

HEAD = "127.0.0.1"
LOOPBACK = ("from ray._private import services\n"
            f"services.resolve_ip_for_localhost = services.node_ip_address_from_perspective = lambda *_: '{HEAD}'\n")
"""Ray replaces the loopback address, where it is told to use it, by one that other machines see. Here it must not."""
START = f"{LOOPBACK}from ray.scripts.scripts import main\nmain()"
SWITCHES = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
"""Ray's own, set before it is imported: nodes and drivers answer nobody else."""


def keep_to_loopback() -> None:
    """Of a process that is to give work to such nodes, before it connects."""
    exec(LOOPBACK, {})


class Nodes:
    """A head with so many cores, to which others come and from which they go; ``address`` is what --address takes."""

    def __init__(self, cpus: int = 1) -> None:
        from builders.training import free_port  # with torch, which a node is spared

        os.environ.update(SWITCHES)
        self.folder, port = Path(tempfile.mkdtemp(prefix="ray-")), free_port()
        self.address, self.begun = f"{HEAD}:{port}", 0
        self.nodes: list[subprocess.Popen] = []
        self.head = self._start(cpus, "--head", f"--port={port}", f"--temp-dir={self.folder}", "--include-dashboard=false")
        self.wait()

    def add(self, cpus: int = 1, before: Sequence[str] = (), **environment: str) -> subprocess.Popen:
        """Another node; ``before`` are words of a command that runs the one that starts it."""
        return self._start(cpus, f"--address={self.address}", before=before, **environment)

    def _start(self, cpus: int, *words: str, before: Sequence[str] = (), **environment: str) -> subprocess.Popen:
        self.begun += 1
        command = [*before, sys.executable, "-c", START, "start", *words, f"--node-ip-address=127.0.0.{self.begun}",
                   f"--num-cpus={cpus}", "--num-gpus=0", f"--object-store-memory={80 * 2**20}", "--disable-usage-stats",
                   "--block"]
        with open(self.folder / "said", "a") as said:
            node = subprocess.Popen(command, stdout=said, stderr=said, stdin=subprocess.DEVNULL, start_new_session=True,
                                    env={**os.environ, **environment})
        self.nodes.append(node)
        return node

    def wait(self, seconds: float = 120) -> None:
        """Until all nodes that were begun have joined."""
        until = time.monotonic() + seconds
        while (said := (self.folder / "said").read_text(errors="replace")).count("Ray runtime started") < self.begun:
            assert time.monotonic() < until and all(node.poll() is None for node in self.nodes), said[-2000:]
            time.sleep(0.1)

    def kill(self, node: subprocess.Popen, wholly: bool = True) -> None:
        """SIGKILL to all of the node's processes at one moment; or to all but those that do its tasks, which must end alone."""
        for pid in [node.pid, *descendants(node.pid)]:
            if wholly or not does_tasks(pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        node.wait()
        self.nodes.remove(node)

    def close(self) -> None:
        for node in reversed(self.nodes[:]):
            self.kill(node)
        shutil.rmtree(self.folder, ignore_errors=True)


def descendants(parent: int) -> list[int]:
    """Processes that this one began, and those that they began."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found, new = [], [parent]
    while new:
        new = [pid for pid, above in parents.items() if above in new]
        found += new
    return found


def does_tasks(pid: int) -> bool:
    """Whether it is a place; Ray names the processes of actors by their class and what they do."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::Place")
    return False
