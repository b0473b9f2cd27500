"""Commands under attack: processes that are begun, hit and waited for, and a study of seconds, its runs compared bit by bit.

Processes are forked from one that has torch loaded, which saves seconds for each; the truth is a run that nothing hit.
"""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import json
import multiprocessing.context
import multiprocessing.util
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from filelock import FileLock

ENDS_WITHIN = 60.0
"""Seconds in which a command must have ended after a signal that it may handle."""
STUDY = """\
name: small
data: digits
teacher: {{name: torchscript, path: {teacher}, size: 16, label: T}}
students: [{{name: paper_cnn, label: S, width: 1, image_size: 16, hidden: target}}]
arms:
  - {{name: cosine, objective: cosine}}
  - {{name: noise, objective: cosine, view: {{name: noise, sigma: 1.0}}, view_target: same, seeds: [1]}}
seeds: [1, 2]
training: {{epochs: 2, batch_size: 32}}
validation: 40
limit: 160
limit_test: 60
noise: {{sigmas: [0.5], draws: 1}}
remedies: [bn, {{name: posthoc, target: whiten}}]
probes: {{paper: true, tuned: false, max_iter: 50}}
"""
DISTILL = ("--data", "digits", "--image-size", "16", "--batch-size", "32", "--epochs", "3", "--limit", "160", "--device", "cpu",
           "--set", "teacher.size=16", "--set", "student.hidden=target")
TIMES = {"seconds", "images_per_second", "command", "made by", "hardware", "started"}


def load_libraries() -> None:
    """What every command needs, loaded once in this process; one thread, since a forked child has no others."""
    import accelerate  # noqa: F401
    import datasets  # noqa: F401
    import sklearn.linear_model
    import sklearn.manifold  # noqa: F401
    import timm  # noqa: F401
    import torch

    import distillscope.cli
    import distillscope.cli.root
    import distillscope.report.study_page
    import distillscope.study.run
    import distillscope.study.student  # noqa: F401

    torch.set_num_threads(1)


def end_with_parent() -> None:
    """This process is killed when the one that forked it ends, however that ends (Linux)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def begin(function: Callable[[], object], log: Path) -> int:
    """``function`` in a forked process with a session of its own, as a fresh interpreter would run it; its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        end_with_parent()
        os.setsid()
        atexit._clear()  # what the parent wanted done at its own end
        atexit.register(multiprocessing.util._exit_function)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        opened = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(opened, 1), os.dup2(opened, 2), os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout, sys.stderr = (open(n, "w", encoding="utf-8", closefd=False) for n in (1, 2))  # noqa: SIM115
        try:
            function()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush(), sys.stderr.flush()
    finally:
        os._exit(code)


def command(*arguments: object, cache: Path, report: bool = False, spawn: bool = False) -> Callable[[], None]:
    """A function that is `distillscope ARGUMENTS` with that cache.

    Without ``report`` a run ends with its last trial. Unless ``spawn``, its workers are forked too: processes of their
    own all the same, which do not spend their first seconds on importing torch.
    """
    def call() -> None:
        import distillscope.cli
        import distillscope.report

        os.environ.update(DISTILLSCOPE_CACHE=str(cache), COLUMNS="200")
        sys.argv = ["distillscope", *map(str, arguments)]
        if not report:
            distillscope.report.study_page.write_report = lambda run: Path(run) / "report.html"
        if not spawn:
            contexts = multiprocessing.context._concrete_contexts
            contexts["spawn"] = contexts["fork"]
        distillscope.cli.main()

    return call


def wait(pid: int, seconds: float = 600.0) -> int | None:
    """The exit status (negative: the signal that ended it), or None where it has not ended in that time."""
    until = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            return None
        time.sleep(0.005)


def run(function: Callable[[], object], log: Path, seconds: float = 300.0) -> int | None:
    """Begin and wait; one that hangs is killed with all that it began, and gives None."""
    pid = begin(function, log)
    code = wait(pid, seconds)
    if code is None:
        kill_session(pid)
        wait(pid, 10)
    return code


def session(leader: int) -> list[int]:
    """Living processes of a session, its leader included."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] not in "ZX":
            found.append(int(folder.name))
    return found


def workers(leader: int) -> list[int]:
    """The processes that ``leader`` began, the one that has computed longest first."""
    found = []
    for pid in session(leader):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == leader:
            found.append((int(fields[11]), pid))
    return [pid for _, pid in sorted(found, reverse=True)]


def send(number: signal.Signals, pids: Sequence[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def kill_session(leader: int) -> None:
    send(signal.SIGKILL, session(leader))


def left_alive(leader: int, seconds: float = 20.0) -> list[int]:
    """Who of a session still lives after so long."""
    until = time.monotonic() + seconds
    while (alive := session(leader)) and time.monotonic() < until:
        time.sleep(0.05)
    return alive


def outcome(function: Callable[[], object], log: Path, codes: tuple[int, ...] = (0, 2), seconds: float = 300) -> str | None:
    """Run it: one of these codes, a line and no traceback; else what was otherwise."""
    before = log.stat().st_size if log.exists() else 0
    code = run(function, log, seconds)
    said = log.read_bytes()[before:].decode("utf-8", "replace") if log.exists() else ""
    last = (said.strip().splitlines() or ["nothing said"])[-1][:250]
    if "Traceback" in said or code not in codes or (code == 2 and "distillscope: " not in said):
        return f"ends with {code}{' and a traceback' * ('Traceback' in said)}: {last}"
    return None


def make_teacher(path: Path) -> Path:
    """A TorchScript file of seeded random weights: 16 px to 24 dimensions, in a millisecond."""
    import torch

    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        layers = [torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 16, 3, 2, 1), torch.nn.ReLU(),
                  torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(64, 24)]
        torch.jit.save(torch.jit.trace(torch.nn.Sequential(*layers).eval(), torch.zeros(1, 3, 16, 16)), str(path))
    return path


def study_file(work: Path) -> Path:
    path = work / "small.yaml"
    path.write_text(STUDY.format(teacher=make_teacher(work / "teacher.ts")), encoding="utf-8")
    return path


def arguments(what: str, work: Path, out: Path, jobs: int = 1) -> tuple:
    """The command line of a command under attack, without --resume."""
    if what == "run":
        return "run", study_file(work), "--out", out, "--jobs", jobs
    if what == "distill":
        return "distill", "--teacher", make_teacher(work / "teacher.ts"), "--out", out, *DISTILL
    return "report", out


def embedding(work: Path, out: Path, cache: Path) -> Callable[[], None]:
    """A function that embeds 600 digits into a cache, a shard for each batch of 16, joined at the end, and saves the rows."""
    def embed() -> None:
        import torch

        import distillscope.teachers.cache as cache_module
        from distillscope.config.parts import Teacher
        from distillscope.data.splits import load_split
        from distillscope.teachers.encoder import load_teacher

        torch.set_num_threads(1)
        settings = {"name": "torchscript", "path": str(make_teacher(work / "teacher.ts")), "size": 16}
        encoder = load_teacher(Teacher.model_validate(settings), "cpu", None)
        encoder.batch_size, cache_module.FLUSH_SECONDS = 16, 0.0
        rows = cache_module.embed(encoder, load_split("digits", {}, "train", 600), root=cache)
        out.mkdir(parents=True, exist_ok=True)
        np.save(out / "rows.npy", rows)

    def call() -> None:
        try:
            embed()
        except KeyboardInterrupt:  # as the command line does, from its first line on
            sys.exit(130)

    return call


def begun(what: str, work: Path, out: Path, cache: Path, *, jobs: int = 1, resume: bool = False,
          spawn: bool = False) -> Callable[[], None]:
    """A function that is the command under attack."""
    if what == "embed":
        return embedding(work, out, cache)
    more = ("--resume",) if resume and what in ("run", "distill") else ()
    return command(*arguments(what, work, out, jobs), *more, cache=cache, report=what == "report", spawn=spawn)


def truth(what: str, work: Path) -> Path:
    """The output of a command that nothing hit, made once: OUT, with ``seconds`` and its cache beside it."""
    folder = work / "truth" / what
    if (folder / "seconds").exists():
        return folder / "out"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):  # lanes that run side by side need the same
        if (folder / "seconds").exists():
            return folder / "out"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        began = time.monotonic()
        if what == "report":
            shutil.copytree(truth("run", work), folder / "out")
        code = run(begun(what, work, folder / "out", folder / "cache"), folder / "log")
        if code != 0:
            raise RuntimeError(f"the small {what} does not run here: {(folder / 'log').read_text()[-2000:]}")
        (folder / "seconds").write_text(str(time.monotonic() - began))
    return folder / "out"


def embeddings(work: Path) -> tuple[Path, Path]:
    """Two files for audits."""
    paths = work / "t.npy", work / "s.npy"
    draws = np.random.default_rng(0)
    for path, dim in zip(paths, (16, 8), strict=True):
        if not path.exists():
            np.save(path, draws.standard_normal((200, dim)).astype(np.float32))
    return paths


def audit_arguments(work: Path, *more: object) -> tuple:
    teacher, student = embeddings(work)
    return "audit", "--teacher", teacher, "--student", student, *more


def fingerprint(run: Path) -> dict[str, str]:
    """Every file of numbers of a run, student or folder of embeddings -> a digest; what measures time is left out."""
    found = {}
    for path in sorted(p for p in run.rglob("*") if p.is_file()):
        if path.suffix in (".safetensors", ".npy", ".parquet"):
            content = path.read_bytes()
        elif path.name == "results.csv" and path.parent != run:
            content = "\n".join(row for row in path.read_text().splitlines() if "seconds" not in row).encode()
        elif (path.suffix == ".json" and path.name != "provenance.json" and path.parent != run) or path.name == "student.json":
            content = json.dumps(_timeless(json.loads(path.read_text())), sort_keys=True).encode()
        elif path.name == "metrics.jsonl":
            content = json.dumps([_timeless(json.loads(row)) for row in path.read_text().splitlines()]).encode()
        else:
            continue
        found[path.relative_to(run).as_posix()] = hashlib.blake2b(content, digest_size=12).hexdigest()
    return found


def _timeless(value):
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k not in TIMES}
    return [_timeless(v) for v in value] if isinstance(value, list) else value


def differences(right: Path, other: Path) -> str | None:
    """Which numbers of two outputs differ, in words; None where all are bit-equal."""
    a, b = fingerprint(right), fingerprint(other)
    names = sorted(n for n in {*a, *b} if a.get(n) != b.get(n))
    return f"{len(names)} of {len(a)} files differ from a run never hit: {', '.join(names[:5])}" if names else None


def leftovers(*folders: Path) -> str | None:
    """Temporary files and checkpoints that nobody will ever read."""
    found = [p.as_posix() for f in folders for p in f.rglob("*") if ".tmp" in p.name or p.name == "checkpoint.pt"]
    return f"left behind: {', '.join(sorted(found)[:5])}" if found else None


def remove(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
