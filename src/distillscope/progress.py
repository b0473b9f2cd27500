"""Progress bars with time left; plain lines where nobody watches a terminal."""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table

from distillscope.visible import visible


class Terminal(Console):
    """A console on which no name from data acts: what would move the cursor or turn text around is written out."""

    def render(self, *args: Any, **settings: Any) -> Iterator[Segment]:
        for segment in super().render(*args, **settings):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


class WholeWords(Table):
    """A table that is fitted into the terminal by breaking lines between words; a word is cut only where nothing else fits.

    Rich by itself takes the room from all columns alike, and cuts "teacher" where a sentence beside it could be wrapped.
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        sizes = [[Measurement.get(console, options, cell) for cell in (column.header, *column.cells)]
                 for column in self.columns]
        most = [max(size.maximum for size in column) for column in sizes]
        least = [whole if column.no_wrap else max(size.minimum for size in cells)
                 for cells, whole, column in zip(sizes, most, self.columns, strict=True)]
        room = options.max_width - self.frame_width
        if sum(most) > room:
            for column, width in zip(self.columns, shared_widths(least, most, room), strict=True):
                column.width = width
        return super().__rich_console__(console, options)

    @property
    def frame_width(self) -> int:
        """What borders and padding take of a line."""
        count, (_, right, _, left) = len(self.columns), self.padding
        return count * (left + right) + (count - 1 + 2 * self.show_edge if self.box else 0)


def shared_widths(least: Sequence[int], most: Sequence[int], room: int) -> list[int]:
    """Widths of columns that want ``most`` and whose longest words take ``least``, so that they fill at most ``room``.

    >>> shared_widths([3, 5], [4, 90], 30), shared_widths([20, 5], [40, 9], 15)
    ([4, 26], [10, 5])
    """
    floor, want = (least, most) if sum(least) <= room else ([1] * len(least), least)
    level = 1
    while sum(min(w, max(f, level + 1)) for f, w in zip(floor, want, strict=True)) <= room and level < max(want):
        level += 1
    return [min(w, max(f, level)) for f, w in zip(floor, want, strict=True)]


console = Terminal(stderr=True)
_LINE_SECONDS = 30.0
_FIRST_SECONDS = 2.0
_SPEED_LINES = 4  # speed is that since so many lines ago: what was done before a run was resumed is soon forgotten
_within = 0  # tasks that tell of themselves in lines
_live: Progress | None = None
_listener: Callable[[str], object] | None = None


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


@contextmanager
def late_task(label: str, total: int | None, unit: str, seconds: float = 2.0) -> Iterator[Callable[[int], None]]:
    """The same for what may be done at once: nothing is shown before ``seconds`` are over, then also where nothing advances."""
    began, waiting, shown, lock = time.monotonic(), 0, None, threading.Lock()
    with ExitStack() as stack:
        def advance(count: int = 1) -> None:
            nonlocal waiting, shown
            with lock:  # threads may tell of their own work
                waiting += count
                if shown is None and time.monotonic() - began >= seconds:
                    shown = stack.enter_context(task(label, total, unit))
                if shown is not None:
                    shown(waiting)
                    waiting = 0

        timer = threading.Timer(seconds, advance, (0,))
        timer.daemon = True
        timer.start()
        try:
            yield advance
        finally:
            timer.cancel()
            with lock:
                began = math.inf  # what the timer has begun shows nothing any more


def _lines(label: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    """A line after two seconds, then each after twice as long, up to half a minute; a task within another has only these."""
    global _within
    start = last = time.monotonic()
    done, wait = 0, _LINE_SECONDS if _within else min(_FIRST_SECONDS, _LINE_SECONDS)
    marks = deque([(start, 0)], maxlen=_SPEED_LINES)

    def advance(count: int = 1) -> None:
        nonlocal done, last, wait
        done += count
        now = time.monotonic()
        if now - last >= wait:
            last, wait = now, min(2 * wait, _LINE_SECONDS)
            rate = (done - marks[0][1]) / (now - marks[0][0])
            marks.append((now, done))
            speed = f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"
            left = f", {(total - done) / rate:.0f} s left" if total and rate else ""
            print(visible(f"{label}: {done}/{total or '?'} {unit}, {speed} a second{left}"), file=sys.stderr, flush=True)

    _within += 1
    try:
        yield advance
    finally:
        _within -= 1
    if last > start:  # where some lines told of it, one tells its end
        print(visible(f"{label}: {done} {unit} in {time.monotonic() - start:.0f} s"), file=sys.stderr, flush=True)


def listen(listener: Callable[[str], object] | None) -> None:
    """From now on what is said here goes to ``listener``, which takes it to the user's terminal; None: it is printed again."""
    global _listener
    _listener = listener


def is_heard_elsewhere() -> bool:
    """Whether this process speaks through another one."""
    return _listener is not None


def say(text: str) -> None:
    """One line for the user, on stderr, beside any bars; of several processes only the first says it."""
    if _listener is not None:
        _listener(text)
    elif speaks():
        console.print(text, markup=False, highlight=False, soft_wrap=True)


def tell(text: str, err: bool = False) -> None:
    """One line of a command's answer, on stdout (on stderr with ``err``), in which names are only shown."""
    print(visible(text), file=sys.stderr if err else sys.stdout)
