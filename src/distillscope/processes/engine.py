"""Where work runs: this machine, or a Ray cluster; what was asked for, checked without asking any cluster."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import util

from distillscope.errors import UserError, unknown_name

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Engine:
    """Where trials, or files of embeddings, are made: "local", on this machine, or "ray", by the processes of a Ray cluster.

    ``address`` is that of the cluster; without it Ray takes the one that RAY_ADDRESS names, else it starts one of this machine
    alone for as long as the command runs. Each process of it gets ``cpus`` cores (None: one, or one for each decoding worker)
    and ``gpus`` GPUs, which may be a part of one (None: one where the command itself runs on a GPU, else none).

    >>> str(Engine()), str(Engine("ray", "auto", gpus=0.5))
    ('this machine', 'Ray at auto, 1 core and 0.5 GPUs each')
    """

    name: str = "local"
    address: str | None = None
    cpus: int | None = None
    gpus: float | None = None

    @property
    def on_cluster(self) -> bool:
        return self.name == "ray"

    def check(self, device: str = "auto") -> None:
        """Refuse what cannot be."""
        if self.name not in ENGINES:
            raise unknown_name("--engine", "engine", self.name, ENGINES)
        if not self.on_cluster:
            for option, value in (("--address", self.address), ("--task-cpus", self.cpus), ("--task-gpus", self.gpus)):
                if value is not None:
                    raise UserError(option, "--engine ray beside it", "the local engine",
                                    f"Add --engine ray, or leave {option} out.")
            return
        if util.find_spec("ray") is None:
            raise UserError("--engine ray", "the package ray", "not installed", "pip install 'distillscope[ray]'.")
        if (self.address or "").startswith("ray://"):
            raise UserError("--address", "a cluster that this machine is a node of: auto, or HOST:PORT", f"'{self.address}'",
                            "Give the command on a node, or to the cluster by `ray job submit` (docs/scale.md).")
        if self.cpus is not None and self.cpus < 1:
            raise UserError("--task-cpus", "a whole number of at least 1", str(self.cpus), "Leave it out for one.")
        if self.gpus is not None and not (0 <= self.gpus < 1 or self.gpus == int(self.gpus) > 0):
            raise UserError("--task-gpus", "a part of one GPU, as 0.5, or a whole number", f"{self.gpus:g}", "Set 1, or 0.")
        if device.startswith("cuda:"):
            raise UserError("--device", "cuda with --engine ray, which says which GPU", device, "Set --device cuda.")
        if (device == "cuda" and self.gpus == 0) or (device not in ("auto", "cuda") and self.gpus):
            wanted = "cuda" if self.gpus else "another than cuda"
            raise UserError("--device", f"{wanted} with --task-gpus {self.gpus:g}", device, "Change one of them.")

    def cores(self, workers: int = 0) -> int:
        """Of each process, which decodes in as many ``workers``."""
        return self.cpus or max(1, workers)

    def gpus_on(self, device: str) -> float:
        """Of each process, where the command itself runs on that kind of device."""
        return (1.0 if device == "cuda" else 0.0) if self.gpus is None else self.gpus

    def device_on(self, device: str) -> str:
        """That of each process: a GPU where it is given one."""
        return "cuda" if self.gpus_on(device) else "cpu" if device == "cuda" else device

    @property
    def cluster(self) -> str | None:
        """The cluster's address; None where one is to be started."""
        return self.address or os.environ.get("RAY_ADDRESS") or None

    def __str__(self) -> str:
        if not self.on_cluster:
            return "this machine"
        cores = f"{self.cpus or 1} core{'s' * ((self.cpus or 1) > 1)}"
        gpus = f" and {self.gpus:g} GPU{'s' * (self.gpus != 1)}" if self.gpus else ""
        return f"Ray at {self.cluster or 'this machine'}, {cores}{gpus} each"


LOCAL = Engine()
