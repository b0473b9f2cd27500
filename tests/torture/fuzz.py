"""Damaged and hostile inputs through every reader: a result, or one line; no traceback, no hang, nothing run or written.

The readers and their shares; the process in which many cases run under watch (time, memory, what is written, run and raised);
and damage, drawn from a seeded generator, to bytes, plain values and names.
"""

from __future__ import annotations

import copy
import json
import os
import random
import resource
import select
import shutil
import signal
import struct
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torture import Options, Record
from torture.commands import end_with_parent

Make = Callable[[random.Random, int, Path], tuple[str, Callable[[], str | None]]]
CPU_SECONDS, CLOCK_SECONDS = 6, 60
"""A case that computes, or takes by the clock, longer than this hangs."""
MEMORY = 3 * 2**30
"""Bytes that a case may map beyond what its process has."""
LINE = 2500
"""Letters of the longest line that is taken for one."""
RUNS = {"os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "subprocess.Popen", "pty.spawn",
        "socket.connect",
        "os.startfile", "webbrowser.open"}
CHANGES = {"os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown",
           "shutil.rmtree",
           "shutil.move"}
PASSED_OVER = ("/dev/null", "/proc/self/", "/dev/shm/")
SIZES = (0, 1, 255, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**53, 2**62, 2**63 - 1, 2**64 - 1)
HOSTILE_NAMES = (
    "", " ", ".", "..", "../../x", "/etc/passwd", "a/b", "a\\b", "~", "con", "x" * 300, "a\0b", "a\nb", "\r\nx: y", "\x1b[31m",
    "\u202eabc",
    "小", "é", "e\u0301", "=1+1", "+1", "-1", "@SUM(A1)", "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "]]>",
    "--><", "|", "`id`",
    "$(id)", "%s%n", "{x}", "{{x}}", "${x}", "\\input{x}", "$x$", "*", "?", "NaN", "null", "true", "None", "0", "007", "1e5",
    "__proto__",
)
HOSTILE_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 1.5, -0.0, 2**31, 2**63, 2**64, 10**30, 10**400, 1e308, 1e-320, float("nan"), float("inf"),
    -float("inf"), "", "x",
    b"\xff".decode("latin-1"), [], {}, [[]], [None], [1, "x"], {"": 1}, {"a": {"b": []}}, [[[[[[]]]]]], "x" * 10_000,
    list(range(1000)), *HOSTILE_NAMES[2:12],
)


@dataclass(frozen=True)
class Reader:
    """One reader under attack. ``make``(rng, number, folder) gives a case: its title, and a function that reads it."""

    share: float
    what: str
    make: Make


def readers(work: Path) -> dict[str, Reader]:
    """Every reader with its share of the inputs."""
    from torture import embedding_inputs, image_inputs, model_inputs, study_inputs

    return {f"fuzz-{name}": reader for module in (embedding_inputs, study_inputs, model_inputs, image_inputs)
            for name, reader in module.readers(work).items()}


def words(work: Path) -> dict[str, str]:
    """What each reader is, in words: it takes a run to say."""
    return {part: reader.what for part, reader in readers(work).items()}


def attack(options: Options, record: Record) -> None:
    found = readers(options.work)
    total, said = sum(r.share for r in found.values()), set()
    for part, reader in found.items():
        count = max(1, round(options.inputs * reader.share / total))
        numbers = [n for n in range(count) if options.wants(part, n) and f"{part}/{n}" not in record.outcomes]
        if options.only and not numbers and options.only.startswith(f"{part}/"):
            numbers = [int(options.only.rpartition("/")[2])]

        def make(number: int, folder: Path, part=part, reader=reader) -> tuple[str, Callable]:
            return reader.make(random.Random(f"{options.seed} {part} {number}"), number, folder)

        def tell(number: int, title: str, kind: str, fault: str | None, part=part) -> None:
            record.add(part, number, title, f"{kind}: {fault}" if fault else None, kind)
            if (fault and fault[:60] not in said) or options.only:
                said.add((fault or "")[:60])
                print(f"{'FAULT' if fault else 'held '} {part}/{number} {title}: {kind} {(fault or '')[:200]}", flush=True)

        folder = options.work / "fuzz" / part
        supervise(numbers, make, folder, tell, lambda: options.over)
        shutil.rmtree(folder, ignore_errors=True)
        here = [o for o in record.outcomes.values() if o["part"] == part]
        kinds = [o["kind"] for o in here]
        print(f"{part}: {sum(not o['fault'] for o in here)} of {len(here)} hold; "
              + ", ".join(f"{k} {kinds.count(k)}" for k in sorted(set(kinds))), flush=True)


class Hang(BaseException):
    pass


@dataclass
class Watch:
    """What a case does to the system, seen by Python's audit events. ``bait`` may not even be read."""

    inside: Path
    bait: Path | None = None
    on: bool = False
    seen: str | None = None

    def __call__(self, event: str, arguments: tuple) -> None:
        if not self.on or self.seen:
            return
        if event == "open":
            path, mode, flags = arguments
            writes = any(c in mode for c in "wax+") if isinstance(mode, str) else bool((flags or 0) & (os.O_WRONLY | os.O_RDWR
                                                                                                       | os.O_CREAT))
            if isinstance(path, int):
                return
            if writes and self._outside(path):
                self.seen = f"opens {os.fsdecode(path)} to write"
            elif self.bait and os.path.realpath(os.fsdecode(path)) == str(self.bait):
                self.seen = f"reads {self.bait.name}, which only the input names"
        elif event in RUNS:
            self.seen = f"calls {event}{str(arguments)[:80]}"
        elif event in CHANGES and any(isinstance(a, (str, bytes, os.PathLike)) and self._outside(a) for a in arguments[:2]):
            self.seen = f"calls {event}{str(arguments)[:120]}"

    def _outside(self, path: object) -> bool:
        full = os.path.realpath(os.path.join(os.getcwd(), os.fsdecode(path)))
        return not full.startswith((str(self.inside), *PASSED_OVER))


def attempt(function: Callable[[], str | None], watch: Watch) -> tuple[str, str | None]:
    """(kind, fault): "read" and "refused" are no faults; ``function`` returns what is silently wrong, or None."""
    from distillscope.errors import UserError
    from distillscope.files.writing import said_of

    watch.seen, watch.on = None, True
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS), signal.setitimer(signal.ITIMER_REAL, CLOCK_SECONDS)
    try:
        try:
            wrong = function()
            kind, fault = ("wrong", wrong) if wrong else ("read", None)
        except UserError as error:
            line = str(error)
            long = "\n" in line or len(line) > LINE
            kind, fault = "refused", None
            if long:
                kind, fault = "no line", f"an error of {len(line)} letters, {len(line.splitlines())} lines: {line[:100]}"
        except Hang:
            kind, fault = "hang", f"more than {CPU_SECONDS} s of computing"
        except BaseException as error:
            line = isinstance(error, OSError) and said_of(error)  # the command line says these so
            kind, fault = ("refused", None) if line else ("traceback",
                                                          f"{type(error).__name__} at {_place(error)}: {str(error)[:160]}")
    except Hang:
        kind, fault = "hang", f"more than {CPU_SECONDS} s of computing"
    signal.setitimer(signal.ITIMER_PROF, 0), signal.setitimer(signal.ITIMER_REAL, 0)
    watch.on = False
    return ("outside", watch.seen) if watch.seen else (kind, fault)


def _place(error: BaseException) -> str:
    """Where in the program a traceback passed last."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "/distillscope/" in f.filename] or frames
    return f"{own[-1].filename.rpartition('distillscope/')[2]}:{own[-1].lineno}"


def prepare(folder: Path, log: Path) -> Watch:
    """This process, from now on: quiet, limited and watched. ``folder`` is all that its cases may write to."""
    opened = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(opened, 1), os.dup2(opened, 2)
    (folder / "empty").mkdir(parents=True, exist_ok=True)
    os.chdir(folder / "empty")
    sys.dont_write_bytecode = True
    warnings.simplefilter("ignore")
    os.environ.update(TMPDIR=str(folder), MPLCONFIGDIR=str(folder / "mpl"), HF_HOME=str(folder / "hf"),
                      HF_DATASETS_CACHE=str(folder / "hf"),
                      HF_HUB_OFFLINE="1", DISTILLSCOPE_CACHE=str(folder / "cache"))
    import tempfile

    import datasets

    tempfile.tempdir, datasets.config.HF_DATASETS_CACHE = str(folder), folder / "hf"

    def alarm(*_: object) -> None:
        raise Hang

    signal.signal(signal.SIGPROF, alarm), signal.signal(signal.SIGALRM, alarm)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    watch = Watch(folder.resolve(), (folder.parent / "bait.txt").resolve())
    sys.addaudithook(watch)
    return watch


def supervise(numbers: list[int], make: Callable[[int, Path], tuple[str, Callable[[], str | None]]], folder: Path,
              tell: Callable[[int, str, str, str | None], None], over: Callable[[], bool]) -> None:
    """``make``(number, folder) gives (title, function) of a case; ``tell``(number, title, kind, fault) hears what came of it.

    The cases run in a forked process; one that dies or hangs in it is a fault of its own, and the next process goes on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder.parent / "bait.txt").write_text("7\n")
    left = list(numbers)
    while left and not over():
        ours, theirs = os.pipe()
        if not (pid := os.fork()):
            os.close(ours)
            code = 1
            try:
                end_with_parent()
                _all(left, make, folder, theirs, over)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        os.close(theirs)
        at, said = _listen(ours, pid, left, tell)
        status = os.waitpid(pid, 0)[1]
        os.close(ours)
        if at is not None:
            killed = os.WIFSIGNALED(status) and os.WTERMSIG(status)
            kind = "hang" if killed == signal.SIGKILL else "died"
            tell(at, said, kind, "hangs where no signal reaches it, or was killed" if kind == "hang"
                 else f"the process died, status {status}")
            left = [n for n in left if n != at]
        elif left and not over():
            raise RuntimeError(f"the process of the cases ended with {status}: see {folder.parent / 'fuzz.log'}")


def _all(numbers: list[int], make: Callable, folder: Path, pipe: int, over: Callable[[], bool]) -> None:
    watch = prepare(folder, folder.parent / "fuzz.log")
    for number in numbers:
        if over():
            break
        here = folder / "case"
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir()
        title, function = make(number, here)
        os.write(pipe, (json.dumps([number, title[:160]]) + "\n").encode())
        kind, fault = attempt(function, watch)
        os.write(pipe, (json.dumps([number, title[:160], kind, fault]) + "\n").encode())


def _listen(pipe: int, pid: int, left: list[int], tell: Callable) -> tuple[int | None, str]:
    """What the process says, until it ends; the case that it was at when it died, if it was at one."""
    at, said, rest, last = None, "", b"", time.monotonic()
    while True:
        if select.select([pipe], [], [], 1)[0]:
            more, last = os.read(pipe, 65536), time.monotonic()
            if not more:
                return at, said
            *lines, rest = (rest + more).split(b"\n")
            for line in lines:
                number, said, *outcome = json.loads(line)
                at = None if outcome else number
                if outcome:
                    tell(number, said, *outcome)
                    left.remove(number)
        elif time.monotonic() - last > 2 * CLOCK_SECONDS:
            os.kill(pid, signal.SIGKILL)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """``data`` with bits flipped, cut, sizes in its head made absurd, a part repeated or left out, or something before it."""
    changed, head = bytearray(data or b"\0"), min(len(data) or 1, 500)
    kind = rng.randrange(8)
    if kind == 0:
        for _ in range(rng.randint(1, 6)):
            changed[rng.randrange(head) if rng.random() < 0.7 else rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del changed[rng.randrange(len(changed)):]
    elif kind == 2:
        at = rng.randrange(head)
        packed = struct.pack(rng.choice("<>") + "Q", rng.choice(SIZES))
        changed[at : at + rng.choice((2, 4, 8))] = packed[: rng.choice((2, 4, 8))]
    elif kind == 3:
        for _ in range(rng.randint(1, 6)):
            changed[rng.randrange(max(0, len(changed) - 500), len(changed))] = rng.randrange(256)
    elif kind == 4:
        first, last = sorted(rng.randrange(len(changed)) for _ in range(2))
        changed[first:last] = b"" if rng.random() < 0.5 else changed[first:last] * 2
    elif kind == 5:  # numbers written as text: shapes, offsets, values
        digits = [i for i in range(head) if chr(changed[i]).isdigit()]
        for i in rng.sample(digits, min(len(digits), rng.randint(1, 4))):
            changed[i] = ord(rng.choice("0123456789-e,. "))
    elif kind == 6:
        changed[0:0] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 9)))
    else:  # text: marks of structure in other places
        for _ in range(rng.randint(1, 5)):
            at = rng.randrange(len(changed) + 1)
            changed[at:at] = bytes(rng.choice(b"{}[]:,-&*!|>'\"%@`#;\t\n\r \x00\xff") for _ in range(rng.randint(1, 3)))
    return bytes(changed)


def paths(value: Any, at: tuple = ()) -> list[tuple]:
    """Every place in nested dicts and lists."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in pairs for place in ((*at, key), *paths(inner, (*at, key)))]


def distorted(value: Any, rng: random.Random, hostile: tuple = HOSTILE_VALUES) -> tuple[Any, str]:
    """A copy of nested plain values, one or two places replaced, removed, renamed or doubled, and what was done in words."""
    changed, said = copy.deepcopy(value), []
    for _ in range(1 + (rng.random() < 0.3)):
        places = paths(changed)
        if not places:
            break
        *steps, last = rng.choice(places)
        owner = changed
        for step in steps:
            owner = owner[step]
        kind, where = rng.randrange(8), ".".join(map(str, (*steps, last)))
        if kind == 0:
            del owner[last]
            said.append(f"without {where}")
        elif kind == 1 and isinstance(owner, dict):
            name = rng.choice(HOSTILE_NAMES)
            owner[name] = owner.pop(last)
            said.append(f"{where} called {name[:20]!r}")
        elif kind == 2:
            owner[last] = [owner[last]] if rng.random() < 0.5 else {"name": owner[last]}
            said.append(f"{where} wrapped")
        elif kind == 3 and isinstance(owner, list):
            owner.append(copy.deepcopy(owner[last]))
            said.append(f"{where} twice")
        elif kind == 4 and isinstance(owner[last], str):
            owner[last] = rng.choice(HOSTILE_NAMES)
            said.append(f"{where} = {owner[last][:20]!r}")
        else:
            owner[last] = rng.choice(hostile)
            said.append(f"{where} = {repr(owner[last])[:30]}")
    return changed, ", ".join(said) or "as it is"


def nested_json(rng: random.Random) -> str:
    """JSON that is no mapping of ours: deep, huge, or of another kind."""
    return rng.choice(("[" * 100_000, '{"a":' * 50_000, "[" * 900 + "]" * 900, "[]", "5", "null", '"x"', "", "{", "NaN",
                       "[NaN]", '{"a": 1e999}',
                       '{"a": ' + "9" * 5000 + "}", '{"a": 1, "a": 2}', "\ufeff{}", "{}", "\0", "[[1]]", "true", '{"": {}}',
                       "// x", "'x'"))
