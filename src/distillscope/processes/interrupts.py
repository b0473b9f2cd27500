"""Ctrl-C and the signals that ask a process to end (SIGTERM, SIGHUP) raise KeyboardInterrupt where nothing is half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from typing import Any

NAMES = tuple(name for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name))
SIGNALS = tuple(getattr(signal, name) for name in NAMES)


class Terminated(KeyboardInterrupt):
    """The process was asked to end by the signal ``number``, not by Ctrl-C."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__(number)
        self.number = number


def exit_code(error: KeyboardInterrupt) -> int:
    """As a shell counts: 128 and the signal's number; 130 for Ctrl-C.

    >>> exit_code(KeyboardInterrupt()), exit_code(Terminated(15))
    (130, 143)
    """
    return 128 + getattr(error, "number", signal.SIGINT)


def catch_termination() -> None:
    """Let SIGTERM and SIGHUP, where they would just end the process, raise `Terminated`, as Ctrl-C raises KeyboardInterrupt."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if number != signal.SIGINT and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _raise)


_asked: list[Terminated] = []


def _raise(number: int, frame: Any) -> None:
    _asked.append(Terminated(number))
    raise _asked[-1]


def as_asked(error: KeyboardInterrupt) -> KeyboardInterrupt:
    """What the last signal raised, where a library took it and raised a plain KeyboardInterrupt in its place."""
    return _asked[-1] if _asked and not isinstance(error, Terminated) else error


class HeldBack:
    """While entered, a first signal waits until `check` is called (or the end); a second one is raised at once (``forced``).

    Between the update of the weights and the count of the step there is no state that could be written down and gone on
    with: an interrupt there is held back for the rest of the step.

    >>> with HeldBack() as interrupts:
    ...     interrupts.check()
    """

    def __enter__(self) -> HeldBack:
        self.before: dict[int, Any] = {}
        self.number: int | None = None
        self.forced = False
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                handler = signal.getsignal(number)
                if callable(handler):  # neither ignored nor left to the system
                    self.before[number] = handler
                    signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: Any) -> None:
        if self.number is not None:
            self.forced = True
            self.before[number](number, frame)
        self.number = number

    def check(self) -> None:
        """Raise what a signal asked for meanwhile."""
        number, self.number = self.number, None
        if number is not None:
            self.before[number](number, None)

    def during(self, items: Iterable[Any]) -> Iterator[Any]:
        """The items; that reading them fails after a signal is the signal's doing: decoding processes end by it too."""
        try:
            yield from items
        except Exception:
            self.check()
            raise

    def __exit__(self, kind: type | None, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        if kind is None:
            self.check()
