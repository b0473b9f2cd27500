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
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

HEAD = "127.0.0.1"
LOOPBACK = ("from ray._private import services\n"
            "services.resolve_ip_for_localhost = lambda host: host\n"
            f"services.node_ip_address_from_perspective = lambda *_: '{HEAD}'\n")
"""Ray replaces the loopback address, where it is told to use it, by one that other machines see. Here it must not."""
START = f"{LOOPBACK}from ray.scripts.scripts import main\nmain()"
SWITCHES = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_enable_worker_prestart": "0", "RAY_prestart_worker_first_driver": "0", "RAY_memory_monitor_refresh_ms": "0"}
"""Ray's own, set before it is imported: nodes and drivers answer nobody else, begin no process before it is needed, and end
none where others have taken the machine's memory."""


def keep_to_loopback() -> None:
    """Of a process that is to give work to such nodes, before it connects."""
    exec(LOOPBACK, {})


@dataclass
class Node:
    """What `ray start` began, and what it says."""

    address: str
    begin: Callable[[], subprocess.Popen]
    said: Path

    def __post_init__(self) -> None:
        self.process, self.tries = self.begin(), 1

    @property
    def has_joined(self) -> bool:
        return "Ray runtime started" in self.said.read_text(errors="replace")

    def check(self) -> None:
        """On a busy machine Ray gives up after half a minute: then it is begun again."""
        if self.process.poll() is not None:
            assert self.tries < 4, self.said.read_text(errors="replace")[-2000:]
            self.process, self.tries = self.begin(), self.tries + 1

    def kill(self, wholly: bool = True) -> None:
        """SIGKILL to all of its processes at one moment; or to all but those that do its tasks, which must end alone."""
        for pid in [self.process.pid, *descendants(self.process.pid)]:
            if wholly or not does_tasks(pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.process.wait()


class Nodes:
    """A head with so many cores, to which others come and from which they go; ``address`` is what --address takes."""

    def __init__(self, cpus: int = 1) -> None:
        from builders.training import free_port  # with torch, which a node is spared

        os.environ.update(SWITCHES)
        self.folder, port = Path(tempfile.mkdtemp(prefix="ray-")), free_port()
        self.address, self.begun = f"{HEAD}:{port}", 0
        self.nodes: list[Node] = []
        self.head = self._start(cpus, "--head", f"--port={port}", f"--temp-dir={self.folder}", "--include-dashboard=false",
                                "--no-monitor")
        self.wait()

    def add(self, cpus: int = 1, before: Sequence[str] = (), **environment: str) -> Node:
        """Another node; ``before`` are words of a command that runs the one that starts it."""
        return self._start(cpus, f"--address={self.address}", before=before, **environment)

    def _start(self, cpus: int, *words: str, before: Sequence[str] = (), **environment: str) -> Node:
        self.begun += 1
        address, said = f"127.0.0.{self.begun}", self.folder / f"said-{self.begun}"
        command = [*before, sys.executable, "-c", START, "start", *words, f"--node-ip-address={address}", f"--num-cpus={cpus}",
                   "--num-gpus=0", f"--object-store-memory={80 * 2**20}", "--disable-usage-stats",
                   "--include-log-monitor=false", "--block"]

        def begin() -> subprocess.Popen:
            with open(said, "w") as file:
                return subprocess.Popen(command, stdout=file, stderr=file, stdin=subprocess.DEVNULL, start_new_session=True,
                                        env={**os.environ, **environment})

        self.nodes.append(Node(address, begin, said))
        return self.nodes[-1]

    def wait(self, seconds: float = 200) -> None:
        """Until all nodes that were begun have joined."""
        until = time.monotonic() + seconds
        while absent := [node for node in self.nodes if not node.has_joined]:
            assert time.monotonic() < until, absent
            absent[0].check()
            time.sleep(0.1)

    def kill(self, node: Node, wholly: bool = True) -> None:
        """See `Node.kill`; it is one of the nodes no more."""
        node.kill(wholly)
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


def does_tasks(pid: int, kind: str = "Place") -> bool:
    """Whether it is a place; Ray names the processes of actors by their class and what they do."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(f"ray::{kind}".encode())
    return False
