"""Blocks of work over the threads that BLAS would take, each block with one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any


class _Threads(threading.local):
    allowed: int | None = None


_threads = _Threads()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """BLAS takes one thread inside, and `over_blocks` as many as BLAS was allowed.

    BLAS shares one large product between cores, leaves what is done with it to one, and its threads wait for one another in a
    loop: with two, an audit of 1,000 x 64 cost four times the processor time on a busy machine. A block of work a core shares
    everything, and what is computed does not depend on how many there are.
    """
    if _threads.allowed is not None:
        yield
        return
    from threadpoolctl import ThreadpoolController

    pools = ThreadpoolController()
    # one where no BLAS says how many: it shares its products itself
    _threads.allowed = max((pool["num_threads"] for pool in pools.info() if pool["user_api"] == "blas"), default=1)
    try:
        with pools.limit(limits=1, user_api="blas"):
            yield
    finally:
        _threads.allowed = None


def over_blocks(work: Callable[..., Any], blocks: Iterable[tuple[Any, ...]]) -> None:
    """``work(*block)`` for each of ``blocks``, which write to places of their own."""
    todo = list(blocks)
    if len(todo) < 2:
        for block in todo:
            work(*block)
        return
    with one_blas_thread():
        if _threads.allowed == 1:
            for block in todo:
                work(*block)
            return
        with ThreadPoolExecutor(min(len(todo), _threads.allowed or 1), initializer=_alone) as pool:
            try:
                for done in [pool.submit(work, *block) for block in todo]:
                    done.result()
            except BaseException:  # Ctrl-C, or a fault of one: the others are not begun
                pool.shutdown(cancel_futures=True)
                raise


def _alone() -> None:
    """Blocks within a block are done by its own thread."""
    _threads.allowed = 1
