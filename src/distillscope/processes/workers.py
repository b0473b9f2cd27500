"""Work in processes of their own, each with a pipe to the one that gave it out: down it comes work, up it goes progress.

A worker whose parent dies, killed or not, reads the end of its pipe: it writes its checkpoint and ends. One that dies is
known by its end of the pipe, with the work that it had; the others finish theirs.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from typing import Any

from distillscope import progress
from distillscope.errors import UserError
from distillscope.processes.interrupts import SIGNALS

GRACE_SECONDS = 20.0
"""How long a worker without a parent may take to write its checkpoint."""


def is_worker() -> bool:
    """Whether another process gave this one its work, and says and verifies once what concerns all of its workers."""
    return parent_process() is not None or progress.is_heard_elsewhere()


@dataclass
class _Worker:
    process: Any
    pipe: connection.Connection
    task: Any = None
    ready: bool = False
    over: bool = False


def run_in_workers(tasks: Sequence[tuple[str, tuple]], jobs: int, start: Callable[..., None], given: tuple,
                   work: Callable[..., None], advance: Callable[[int], None] = lambda count: None) -> None:
    """``work(report, *arguments)`` for each (name, arguments), ``jobs`` at a time, after one ``start(*given)`` in each process.

    ``report`` takes counts, for ``advance``, and may raise KeyboardInterrupt. A task that fails lets the running ones end
    before its error is raised; an interrupt, here or there, ends them all with what they write when interrupted.
    """
    waiting, workers, failure = list(tasks), [], None
    context = get_context("spawn")
    try:
        for _ in range(min(jobs, len(tasks))):
            workers.append(_begin(context, start, given, work))
        while any(not w.over for w in workers):
            for worker in (w for w in workers if not w.over and w.task is None):
                _hand_out(worker, None if failure or not waiting else waiting.pop(0))
            told = connection.wait([w.pipe for w in workers if not w.over], timeout=0.5)
            for worker in (w for w in workers if not w.over and (w.pipe in told or not w.process.is_alive())):
                error = _hear(worker, advance)
                if isinstance(error, KeyboardInterrupt):
                    raise error
                failure = failure or error
    except BaseException:
        for worker in workers:
            with contextlib.suppress(OSError):
                worker.pipe.send("stop")
            if not worker.ready and not worker.over and not worker.pipe.poll():
                worker.process.kill()  # it still imports, which takes long on a busy machine, and has nothing to write
        raise
    finally:
        for worker in workers:
            worker.process.join()
            worker.pipe.close()
    if failure:
        raise failure


def _begin(context: Any, start: Callable, given: tuple, work: Callable) -> _Worker:
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, start, given, work), daemon=False)
    with _signals_wait():
        process.start()
    there.close()
    return _Worker(process, here)


@contextlib.contextmanager
def _signals_wait() -> Iterator[None]:
    """A process started inside takes no signal before it has its handlers: Ctrl-C while it imports would print a traceback."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _hand_out(worker: _Worker, task: tuple[str, tuple] | None) -> None:
    worker.task = task or ("", ())
    with contextlib.suppress(OSError):  # it is dead, which its pipe says next
        worker.pipe.send(task)


def _hear(worker: _Worker, advance: Callable[[int], None]) -> BaseException | None:
    """Take one message; the error that it tells of."""
    try:
        if not worker.process.is_alive() and not worker.pipe.poll():
            raise EOFError  # its own children may hold its end of the pipe a little longer
        kind, value = worker.pipe.recv()
    except (EOFError, OSError):
        worker.over = True
        worker.process.join()
        name, code = (worker.task or ("",))[0], worker.process.exitcode
        return died(name, code) if name or code else None
    worker.ready = True
    if kind == "ready":
        return None
    if kind == "count":
        advance(value)
        return None
    name, worker.task = worker.task[0], None
    if kind == "done":
        progress.say(f"finished {name}")
        return None
    return pickle.loads(value)


def died(name: str, code: int | None) -> UserError:
    """What to say of a worker that was killed."""
    killed = code == -getattr(signal, "SIGKILL", 9)
    ended = f"ended by signal {-code}" if code and code < 0 else f"exit code {code}"
    how = "killed (by the system, if memory ran out)" if killed else ended
    return UserError(f"trial {name}" if name else "a process that was to run trials", "a process that lives to its end", how,
                     "Repeat with --resume and fewer --jobs; what was finished is kept.")


_state: dict[str, Any] = {"busy": False, "told": False}


def _serve(pipe: connection.Connection, start: Callable, given: tuple, work: Callable) -> None:
    """The worker's own side."""
    for number in SIGNALS:
        signal.signal(number, _interrupt)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    tasks = _Inbox(pipe)
    lock = threading.Lock()

    def send(kind: str, value: Any) -> None:
        with lock, contextlib.suppress(OSError):  # whoever is gone needs no answer
            pipe.send((kind, value))

    send("ready", None)
    started = False
    while (task := tasks.next()) is not None:
        _state["busy"] = True
        try:
            if not started:
                start(*given)
                started = True
            work(lambda count: send("count", count), *task[1])
        except BaseException as error:
            send("failed", pickled(error))
            if isinstance(error, KeyboardInterrupt):
                break
        else:
            send("done", None)
        _state["busy"] = False
    pipe.close()
    os._exit(0)  # nothing is left to write, and threads of libraries may hang


class _Inbox:
    """Reads the pipe in a thread of its own, so that "stop", or the parent's end, is heard in the middle of work."""

    def __init__(self, pipe: connection.Connection) -> None:
        self.pipe, self.arrived, self.parent = pipe, threading.Semaphore(0), os.getppid()
        self.tasks: list[Any] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                while not self.pipe.poll(0.5):  # who inherited the other end may hold it open
                    if os.getppid() != self.parent:
                        raise EOFError
                task = self.pipe.recv()
            except (EOFError, OSError):
                task = "orphan"
            if task in ("stop", "orphan"):
                interrupt_main()
                if task == "orphan":
                    threading.Event().wait(GRACE_SECONDS)
                    os._exit(1)
            self.tasks.append(None if task == "stop" else task)
            self.arrived.release()

    def next(self) -> Any:
        while not self.arrived.acquire(timeout=0.5):  # a signal's handler runs in between on any system
            pass
        return self.tasks.pop(0)


def interrupt_main() -> None:
    """As Ctrl-C would: it ends what the main thread waits for, too."""
    main = threading.main_thread().ident
    if main is not None and hasattr(signal, "pthread_kill"):
        signal.pthread_kill(main, signal.SIGINT)
    else:
        signal.raise_signal(signal.SIGINT)


def _interrupt(number: int, frame: Any) -> None:
    """Raised once: a group's signal and the parent's word tell the same thing."""
    if not _state["busy"]:
        os._exit(0)
    if not _state["told"]:
        _state["told"] = True
        raise KeyboardInterrupt


def pickled(error: BaseException) -> bytes:
    """The error with its traceback as a note; of one that cannot be pickled, only the text."""
    text = "".join(traceback.format_exception(error))
    try:
        if not isinstance(error, (UserError, KeyboardInterrupt)) and hasattr(error, "add_note"):
            error.add_note(f"In a worker:\n{text}")
        data = pickle.dumps(error)
        pickle.loads(data)
        return data
    except Exception:
        return pickle.dumps(RuntimeError(text))
