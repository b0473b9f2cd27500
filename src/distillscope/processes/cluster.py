"""Work in processes of a Ray cluster: what `workers.run_in_workers` does on this machine, on many.

Nodes share the folders that are written to. All ends with the command, and nothing is reported to Ray's makers.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distillscope import progress
from distillscope.errors import UserError
from distillscope.processes.engine import Engine
from distillscope.processes.interrupts import SIGNALS, as_asked
from distillscope.processes.node import versions
from distillscope.processes.places import MOST_PLACES, Pool, Task, error_of, nodes_with_room, place_class

LOOK_SECONDS = 60.0
"""How long a node may take to say what it has."""


@dataclass
class Cluster:
    """A cluster that this process is connected to. ``nodes``: address -> hardware of those that did something."""

    ray: Any
    engine: Engine
    cores: int
    gpus: float
    seen: dict[Path, str]
    nodes: dict[str, str] = field(default_factory=dict)

    def run(self, what: str, tasks: Sequence[tuple[str, tuple]], start: Callable[..., None], given: tuple,
            work: Callable[..., Any], most: int | None = None, advance: Callable[[int], None] = lambda count: None,
            ) -> dict[str, Any]:
        """``work(count, *arguments)`` for each (name, arguments), after one ``start(*given)`` in each process; name -> result.

        ``most`` at once, None: as many as the cluster has room for. ``what`` a task is, in words. A task that fails lets the
        running ones end before its error is raised; an interrupt ends them all with what they write when interrupted.
        """
        dumps = self.ray.cloudpickle.dumps
        pool = Pool(self.ray, what, [Task(name, dumps(arguments)) for name, arguments in tasks], most or MOST_PLACES,
                    self.cores, self.gpus, (versions(), self.seen, os.getcwd(), dumps((start, given, work))),
                    waits_for_nodes=bool(self.engine.cluster))
        told = 0
        try:
            while pool.is_at_work():
                pool.turn()
                advance(pool.done - told)
                told = pool.done
        except self.ray.exceptions.RayError as error:
            raise UserError("--engine ray", "a cluster that stays", f"one that is gone ({type(error).__name__})",
                            "Repeat the command with --resume; what was finished is kept.") from None
        except BaseException:
            pool.stop()
            raise
        finally:
            pool.close()
            self.nodes.update(pool.nodes)
        if pool.failure is not None:
            raise pool.failure
        return {task.name: task.result for task in pool.tasks}


@contextlib.contextmanager
def connected(engine: Engine, cores: int, gpus: float, shared: Sequence[Path]) -> Iterator[Cluster]:
    """The cluster, each node looked over; left again at the end. ``shared`` are the folders that all nodes must see."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if engine.cluster is None:  # one of this machine alone keeps to its loopback address
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray

    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    dashboard = _connect(ray, engine, cores)
    for number, handler in handlers.items():  # Ray takes SIGTERM for itself
        with contextlib.suppress(ValueError, TypeError):
            signal.signal(number, handler)
    tokens = {folder.absolute() / f".seen-{secrets.token_hex(8)}": secrets.token_hex(16) for folder in shared}
    try:
        if dashboard:
            progress.say(f"Ray's dashboard: http://{dashboard}")
        for path, content in tokens.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
        cluster = Cluster(ray, engine, cores, gpus, tokens)
        _look_over(cluster)
        yield cluster
    except KeyboardInterrupt as error:
        raise as_asked(error) from None
    finally:
        ray.shutdown()
        for path in tokens:
            path.unlink(missing_ok=True)


def _connect(ray: Any, engine: Engine, cores: int) -> str:
    """The address of the dashboard, "" where there is none."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(cores))
    passed = {k: v for k, v in os.environ.items() if k.startswith(("DISTILLSCOPE_", "HF_")) and "TOKEN" not in k}
    own: dict[str, Any] = {} if engine.cluster else {
        "num_cpus": os.cpu_count() or 1, "include_dashboard": False}
    try:
        _reach(engine.cluster or "")
        context = ray.init(address=engine.cluster or "local", logging_level="ERROR", log_to_driver=False,
                           runtime_env={"env_vars": {**passed, **threads}}, **own)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise UserError(f"--address {engine.cluster or 'left out'}", "a Ray cluster that answers",
                        (str(error).strip().splitlines() or [type(error).__name__])[0][:150],
                        "Start one (ray start --head), or leave --address out for one of this machine; of one that asks for a "
                        "token, set RAY_AUTH_MODE=token.") from None
    return getattr(context, "dashboard_url", None) or ""


def _reach(address: str) -> None:
    """Whether anything listens at HOST:PORT, which Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        with socket.create_connection((host.strip("[]"), int(port)), LOOK_SECONDS):
            pass


def _look_over(cluster: Cluster) -> None:
    """Every node on which a task has room is asked whether it can do the same as this one, before any work."""
    ray, asked = cluster.ray, {}
    for node in nodes_with_room(ray, cluster.cores, cluster.gpus):
        there = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        place = place_class(ray).options(num_cpus=0, scheduling_strategy=there).remote()
        asked[place.do.remote("look", versions(), cluster.seen)] = node["NodeManagerAddress"], place
    ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=LOOK_SECONDS) if asked else ([], [])
    for answer in ready:
        try:
            _, error = ray.get(answer)
        except ray.exceptions.RayError as died:
            progress.say(f"node {asked[answer][0]} did not say what it has ({type(died).__name__})")
            continue
        if error is not None:
            raise error_of(error)
    for answer in late:
        progress.say(f"node {asked[answer][0]} has not answered for {LOOK_SECONDS:.0f} s")
    for _, place in asked.values():
        ray.kill(place)
