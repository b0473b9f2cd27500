"""Progress bars with time left; plain lines where nobody watches a terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.segment import Segment

from distillscope.visible import visible


class Terminal(Console):
    """A console on which no name from data acts: what would move the cursor or turn text around is written out."""

    def render(self, *args: Any, **settings: Any) -> Iterator[Segment]:
        for segment in super().render(*args, **settings):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


console = Terminal(stderr=True)
_LINE_SECONDS = 30.0
_live: Progress | None = None


def speaks() -> bool:
    """Whether this process is the one that talks to the user: of several that a launcher started, the first."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


@contextmanager
def task(label: str, total: int | None, unit: str = "images") -> Iterator[Callable[[int], None]]:
    """Gives ``advance(count)``. Tasks may be nested; bars then stand below one another."""
    global _live
    if not speaks():
        yield lambda count: None
        return
    if not console.is_terminal:
        yield from _lines(label, total, unit)
        return
    outermost = _live is None
    progress = _live or Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=console, transient=False)
    if outermost:
        _live = progress
        progress.start()
    bar = progress.add_task(label, total=total, unit=unit)
    try:
        yield lambda count: progress.advance(bar, count)
    finally:
        if outermost:
            progress.stop()
            _live = None
        else:
            progress.remove_task(bar)


def _lines(label: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    start = last = time.monotonic()
    done = 0

    def advance(count: int = 1) -> None:
        nonlocal done, last
        done += count
        now = time.monotonic()
        if now - last >= _LINE_SECONDS:
            last = now
            rate = done / (now - start)
            left = f", {(total - done) / rate:.0f} s left" if total and rate else ""
            print(visible(f"{label}: {done}/{total or '?'} {unit}, {rate:.0f} a second{left}"), file=sys.stderr, flush=True)

    yield advance


def say(text: str) -> None:
    """One line for the user, on stderr, beside any bars; of several processes only the first says it."""
    if speaks():
        console.print(text, markup=False, highlight=False, soft_wrap=True)


def tell(text: str, err: bool = False) -> None:
    """One line of a command's answer, on stdout (on stderr with ``err``), in which names are only shown."""
    print(visible(text), file=sys.stderr if err else sys.stdout)
