"""The processes that a launcher (torchrun, accelerate launch) started for one command, as one group.

All run the same program. What they do together is said here: what the first alone finds and all are told (`agreed`), the parts
of a list of batches (`share`), what each does by itself once the first has done it (`in_turn`). Without a launcher a process is
a group of one, and nothing here does anything.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence, Sized
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

from distillscope.errors import UserError

T = TypeVar("T")
PATIENCE = timedelta(days=7)
"""How long a process waits for the others, which may embed a million images meanwhile; one that dies is noticed at once."""
_alone = 0


def launched() -> int:
    """How many processes the launcher started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join(device: str = "auto") -> None:
    """Find the other processes of the launcher, if it started any; on GPUs they also talk to one another from memory to memory.

    From here on one that ends is noticed by the others at once, whatever they are waiting for.
    """
    if launched() == 1 or _is_joined():
        return
    absent = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if absent:
        raise UserError("WORLD_SIZE", f"{', '.join(absent)} beside it in the environment, as a launcher sets them",
                        os.environ["WORLD_SIZE"], "Use torchrun or accelerate launch, or unset WORLD_SIZE.")
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() and device != "cpu" else None
    also = f",{found.type}:{distributed.get_default_backend_for_device(found)}" if found else ""
    with _ended_by_signals():
        distributed.init_process_group(f"cpu:gloo{also}", timeout=PATIENCE)


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """The wait for processes that never come is no Python, in which a handler could run."""
    before = signal.getsignal(signal.SIGTERM)
    ours = before is not None and threading.current_thread() is threading.main_thread()
    if ours:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, before)


def check_joined(found: int) -> None:
    """Whether as many processes train as one as the launcher started: else each would train a whole copy."""
    if found != launched():
        raise UserError("distill", f"the {launched()} processes of the launcher as one group", f"{found}",
                        "Start them with torchrun --nproc-per-node 2 -m distillscope.cli distill ..., or start one alone.")


def world() -> int:
    """How many processes work together: 1 without a launcher."""
    return distributed.get_world_size() if _is_joined() and not _alone else 1


def rank() -> int:
    """Which of them this one is, from 0 on."""
    return distributed.get_rank() if _is_joined() and not _alone else 0


def _is_joined() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def wait() -> None:
    """Go on when all have come here."""
    if world() > 1:
        distributed.all_reduce(torch.zeros(1))


def agreed(find: Callable[[], T]) -> T:
    """What ``find`` gives the first process, for all; what it raises there, all raise. The others do not call it.

    >>> agreed(lambda: 3)
    3
    """
    if world() == 1:
        return find()
    said: list[Any] = [None]
    error: Exception | None = None
    if rank() == 0:
        try:
            said = [(find(), None)]
        except Exception as raised:
            error, said = raised, [(None, raised if isinstance(raised, (UserError, OSError)) else _Elsewhere(2))]
    distributed.broadcast_object_list(said, src=0)
    found, told = said[0]
    if told is not None:
        raise told if error is None else error
    return found


class _Elsewhere(SystemExit):
    """Ends a process of which another one says why."""


def every(found: T) -> list[T]:
    """What each process found, in their order.

    >>> every(3)
    [3]
    """
    if world() == 1:
        return [found]
    all_found: list[Any] = [None] * world()
    distributed.all_gather_object(all_found, found)
    return all_found


def share(batches: list[T]) -> list[T]:
    """This process's part of the batches: every second where there are two.

    >>> share([1, 2, 3])
    [1, 2, 3]
    """
    return batches[rank() :: world()]


def whole(batches: Sequence[Sized]) -> list[int]:
    """For each batch of the first process's `share`, how many items all processes have done with it: for a line of progress.

    >>> whole([[1, 2], [3]])
    [2, 1]
    """
    return [sum(map(len, batches[i : i + world()])) for i in range(0, len(batches), world())]


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """Within it this process is a group of one."""
    global _alone
    _alone += 1
    try:
        yield
    finally:
        _alone -= 1


def in_turn(work: Callable[[], T]) -> T:
    """``work`` in the first process, then in the others, which find what it wrote; each by itself (`apart`).

    >>> in_turn(lambda: 3)
    3
    """
    found: list[T] = []

    def alone() -> None:
        with apart():
            found.append(work())

    agreed(alone)
    if not found:
        alone()
    return found[0]


@contextlib.contextmanager
def parted(command: str) -> Iterator[None]:
    """Within it, that another process is gone is one line, not an error of whatever this one was waiting in."""
    try:
        yield
    except RuntimeError as error:
        gone = isinstance(error, distributed.DistError) or "gloo" in str(error)
        if not (gone and launched() > 1):
            raise
        raise UserError(command, f"{launched()} processes that live to the end", "one that has ended",
                        "See what ended it (memory?) and repeat the command; what was finished is kept.") from None


def speaks_last() -> bool:
    """Whether no other process of the group has said yet why they all end; asked once, by whoever would say it."""
    if launched() == 1 or not _is_joined():
        return os.environ.get("RANK", "0") == "0"
    try:
        return distributed.distributed_c10d._get_default_store().add("distillscope said why", 1) == 1
    except (RuntimeError, ValueError):  # whoever kept the count is gone
        return True
