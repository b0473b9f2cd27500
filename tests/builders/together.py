"""A group of processes within one: what they do together is tested in a moment."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch


class Together:
    """torch.distributed of threads, of which one runs at a time: each goes on when all have come to the same call."""

    def __init__(self, world: int) -> None:
        self.world, self.turn, self.all_here, self.given = world, threading.Lock(), threading.Barrier(world), {}
        self.own = threading.local()

    def run(self, part):
        """``part(rank)`` of every rank."""
        def ranked(rank: int):
            self.own.rank = rank
            with self.turn:
                return part(rank)

        with ThreadPoolExecutor(self.world) as pool:
            return list(pool.map(ranked, range(self.world)))

    def exchange(self, value: torch.Tensor) -> list[torch.Tensor]:
        return self.exchanged(value.detach().clone())

    def exchanged(self, value: Any) -> list[Any]:
        self.given[self.own.rank] = value
        self.turn.release()
        self.all_here.wait(timeout=60)
        seen = [self.given[rank] for rank in range(self.world)]
        self.all_here.wait(timeout=60)
        self.turn.acquire()
        return seen

    def get_world_size(self) -> int:
        return self.world

    def all_gather(self, parts: list[torch.Tensor], own: torch.Tensor) -> None:
        for part, given in zip(parts, self.exchange(own), strict=True):
            part.copy_(given)

    def all_reduce(self, value: torch.Tensor) -> None:
        value.detach().copy_(sum(self.exchange(value)))

    def is_initialized(self) -> bool:
        return hasattr(self.own, "rank")

    def get_rank(self) -> int:
        return self.own.rank

    def broadcast_object_list(self, said: list, src: int) -> None:
        said[:] = self.exchanged(said)[src]

    def all_gather_object(self, all_found: list, found: Any) -> None:
        all_found[:] = self.exchanged(found)

    def patched(self, monkeypatch) -> Together:
        """Instead of torch's own functions."""
        for name in ("get_world_size", "all_gather", "all_reduce", "all_gather_object", "is_initialized", "get_rank",
                     "broadcast_object_list"):
            monkeypatch.setattr(torch.distributed, name, getattr(self, name))
        return self
