"""Blocks of work over the threads that BLAS would take, each block with one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController


@functools.cache
def thread_pools() -> ThreadpoolController:
    """The loaded libraries that have threads: to look for them takes as long as to fit a small probe."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def over_blocks(work: Callable[..., Any], blocks: Iterable[tuple[Any, ...]]) -> None:
    """``work(*block)`` for each of ``blocks``, which write to places of their own.

    BLAS shares one large product between cores and leaves what is done with it to one; a block a core shares both, and what is
    computed does not depend on how many there are.
    """
    todo = list(blocks)
    if len(todo) > 1 and (threads := min(len(todo), _blas_threads())) > 1:
        with thread_pools().limit(limits=1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
            try:
                for done in [pool.submit(work, *block) for block in todo]:
                    done.result()
            except BaseException:  # Ctrl-C, or a fault of one: the others are not begun
                pool.shutdown(cancel_futures=True)
                raise
    else:
        for block in todo:
            work(*block)


def _blas_threads() -> int:
    """As many as BLAS is allowed; one where it does not say, and shares its products itself."""
    return max((pool["num_threads"] for pool in thread_pools().info() if pool["user_api"] == "blas"), default=1)
