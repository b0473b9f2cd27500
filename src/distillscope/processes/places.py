"""Places: the processes of a Ray cluster that do tasks, and who does which.

A place is an actor of Ray: a process on some node, with the cores and GPUs of one task, that is prepared once and then does one
task after another. As many are asked for as there are tasks, and Ray makes them where and when there is room, also on nodes
that join later. The task of a process or node that dies is begun again in another place, from what it wrote in the folders that
the nodes share.
"""

from __future__ import annotations

import contextlib
import pickle
import time
from dataclasses import dataclass, field
from typing import Any

from distillscope import progress
from distillscope.errors import UserError
from distillscope.processes.workers import GRACE_SECONDS

MOST_DEATHS = 5
"""How often in a row the process or node of one task may die before the task gets any further."""
MOST_PLACES = 500
"""Processes asked for at once."""
ROOM_SECONDS = 600.0
"""How long a cluster may take to have a node on which a task has room: one that grows on demand begins with none."""


def nodes_with_room(ray: Any, cores: int, gpus: float) -> list[dict[str, Any]]:
    """The nodes on which such a task has room when nothing else runs there."""
    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= cores
            and node["Resources"].get("GPU", 0) >= gpus]


def place_class(ray: Any) -> Any:
    """The class of a place. It is sent as it stands here, so that a node without this package can say so."""

    class Place:
        def do(self, what: str, *given: Any) -> tuple[Any, Any]:
            """((the node's address, what came of it), None), or (None, the error): pickled, or of a node that lacks the package
            in words."""
            import ray

            own = ray.get_runtime_context().get_node_id()
            address = next((n["NodeManagerAddress"] for n in ray.nodes() if n["NodeID"] == own), own)
            try:
                from distillscope.processes import node
            except ImportError as error:
                return None, (address, f"{type(error).__name__}: {error}")
            try:
                return (address, getattr(node, what)(*given)), None
            except BaseException as error:
                return None, node.failed(address, error)

    return ray.remote(max_restarts=0)(Place)


def error_of(said: Any) -> BaseException:
    """What a place answered instead of a result."""
    if isinstance(said, bytes):
        return pickle.loads(said)
    node, why = said
    return UserError(f"node {node}, distillscope", "the package, as where the command was given", why,
                     "Install the same version on every node.")


class Teller:
    """An actor on the command's own node: what the places do and say, until the command asks for it."""

    def __init__(self) -> None:
        self.done: dict[str, int] = {}
        self.said: list[str] = []
        self.stopped = False

    def tell(self, attempt: str, done: int, said: list[str]) -> bool:
        """How much an attempt at a task has done, and what it says; whether it is to stop."""
        self.done[attempt] = done
        self.said += said
        return self.stopped

    def told(self) -> tuple[dict[str, int], list[str]]:
        """Attempt -> what it has done in all, and what was said, since this was asked last."""
        told = self.done, self.said
        self.done, self.said = {}, []
        return told

    def stop(self) -> None:
        self.stopped = True


@dataclass
class Task:
    """A piece of work and how it stands: what it has ``done``, and how often in a row what was at it has died."""

    name: str
    arguments: bytes
    done: int = 0
    furthest: int = -1
    deaths: int = 0
    result: Any = None


@dataclass
class _Place:
    actor: Any
    task: Task | None = None
    attempt: str = ""
    node: str = ""


@dataclass
class Pool:
    """Places, asked for and there, and the tasks that wait; ``given`` is what each place is prepared with."""

    ray: Any
    what: str
    tasks: list[Task]
    most: int
    cores: int
    gpus: float
    given: tuple
    waits_for_nodes: bool
    failure: BaseException | None = None
    nodes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ray = self.ray
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False)
        for_ever = {"max_restarts": -1, "max_task_retries": -1}  # where memory runs short, Ray may end this process first
        self.teller = ray.remote(num_cpus=0, **for_ever)(Teller).options(scheduling_strategy=here).remote()
        self.kind = place_class(ray).options(num_cpus=self.cores, num_gpus=self.gpus)
        self.waiting = list(self.tasks)
        self.at: dict[Any, _Place] = {}
        self.attempts, self.unprepared, self.since, self.told = 0, 0, time.monotonic(), False
        self.heard: set[str] = set()

    @property
    def done(self) -> int:
        """Of all tasks."""
        return sum(task.done for task in self.tasks)

    def is_at_work(self) -> bool:
        at_work = any(place.task for place in self.at.values())
        return at_work or (bool(self.waiting) and self.failure is None)

    def turn(self) -> None:
        """Ask for places while more tasks wait than places are asked for, and take what is answered within half a second."""
        running = sum(place.task is not None for place in self.at.values())
        while self.failure is None and len(self.at) < min(self.most, running + len(self.waiting)):
            self._ask()
            if self.unprepared:  # no storm of processes where they die as they begin
                break
        ready, _ = self.ray.wait(list(self.at), timeout=0.5)
        for answer in ready:
            self._take(answer, self.at.pop(answer))
        done, said = self.ray.get(self.teller.told.remote())
        for place in self.at.values():
            if place.task is not None and done.get(place.attempt):
                place.task.done = done[place.attempt]
        self._say(said)
        if not any(place.node for place in self.at.values()) and self.waiting:
            self._see_room()

    def _ask(self) -> None:
        place = _Place(self.kind.remote())
        self.at[place.actor.do.remote("prepare", *self.given, self.teller)] = place

    def _take(self, answer: Any, place: _Place) -> None:
        try:
            found, error = self.ray.get(answer)
        except self.ray.exceptions.RayError as died:
            self._died(place, died)
            return
        failure = None if error is None else error_of(error)
        if isinstance(failure, KeyboardInterrupt):  # its node is being taken away
            self._died(place, failure)
            return
        if failure is not None:
            self.failure = self.failure or failure
        elif place.task is None:
            place.node, self.nodes[place.node] = found
            self.unprepared = 0
        else:
            place.task.result, place.task.done, said = found[1]
            self._say([*said, f"finished {place.task.name}"])
        place.task = None
        if failure is None and self.waiting and self.failure is None:
            self._begin(place)
        else:
            self._end(place)

    def _begin(self, place: _Place) -> None:
        self.attempts += 1
        place.task, place.attempt = self.waiting.pop(0), f"{self.attempts}"
        self.at[place.actor.do.remote("work", place.attempt, place.task.arguments)] = place

    def _died(self, place: _Place, why: BaseException) -> None:
        """Its task waits again, before all others; that one dies again and again ends the work."""
        self._end(place)  # the network to it may be down alone
        task, kind = place.task, type(why).__name__
        if task is None:
            self.unprepared += 1
            if self.unprepared >= MOST_DEATHS and not any(other.node for other in self.at.values()):
                self.failure = UserError("--engine ray", "processes that live",
                                         f"{self.unprepared} that died as they began ({kind})",
                                         "See Ray's logs on the nodes (memory?), then repeat the command with --resume.")
            return
        task.deaths = 1 if task.done > task.furthest else task.deaths + 1
        task.furthest = max(task.furthest, task.done)
        if task.deaths >= MOST_DEATHS:
            self.failure = self.failure or UserError(
                f"{self.what} {task.name}, node {place.node}", "a process that lives to its end",
                f"{task.deaths} that died at the same place ({kind})",
                "Repeat with --resume, and more memory for each process (--task-cpus); what was finished is kept.")
            return
        self.waiting.insert(0, task)
        progress.say(f"{self.what} {task.name}: its process on node {place.node} died; it goes on in another place")

    def _end(self, place: _Place) -> None:
        with contextlib.suppress(self.ray.exceptions.RayError, ValueError):
            self.ray.kill(place.actor)

    def _say(self, said: list[str]) -> None:
        """Each line once: places say alike what they all assume."""
        for text in said:
            if text not in self.heard:
                self.heard.add(text)
                progress.say(text)

    def _see_room(self) -> None:
        """That no node is large enough is said at once, and ends the work where none can come, or none has come."""
        if nodes_with_room(self.ray, self.cores, self.gpus):
            self.since, self.told = time.monotonic(), False
            return
        wanted = f"{self.cores} core{'s' * (self.cores > 1)}" + (f" and {self.gpus:g} GPUs" if self.gpus else "")
        alive = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        most = " and ".join(f"{max((n.get(kind, 0) for n in alive), default=0):g} {name}"
                            for kind, name in (("CPU", "cores"), ("GPU", "GPUs")))
        if self.waits_for_nodes and not self.told:
            self.told = True
            progress.say(f"waiting for a node with {wanted}; now the largest of {len(alive)} has {most}")
        elif not self.waits_for_nodes or time.monotonic() - self.since > ROOM_SECONDS:
            raise UserError("--engine ray", f"a node with {wanted} for each process", f"at most {most} on one of {len(alive)}",
                            "Set --task-cpus and --task-gpus, or add nodes.")

    def stop(self) -> None:
        """Tell the places to stop, and wait while they write their checkpoints."""
        ray = self.ray
        at_work = [answer for answer, place in self.at.items() if place.task is not None]
        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(self.teller.stop.remote(), timeout=GRACE_SECONDS)
            if at_work:
                ray.wait(at_work, num_returns=len(at_work), timeout=GRACE_SECONDS)

    def close(self) -> None:
        for place in self.at.values():
            self._end(place)
        self.at.clear()
