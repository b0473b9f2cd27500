"""Processes that work: what they do is told, a dead one is named, and none outlives the one that started it; interrupts.

A study of several processes ends when it is interrupted, begins nothing more, and is held by one process at a time.
Workers import this file: what they do not need is imported where it is used.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import pytest
import yaml

from distillscope.errors import UserError
from distillscope.processes import interrupts, workers
from distillscope.processes.interrupts import Terminated, as_asked, exit_code
from distillscope.processes.workers import died, run_in_workers

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX signals")
SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_workers
if __name__ == "__main__":
    try:
        test_workers.go(Path(sys.argv[1]), 2, a="long", b="long")
    except KeyboardInterrupt:
        sys.exit(130)
"""
_given: list[str] = []


def start(folder: str) -> None:
    _given.append(folder)


def work(report, name: str, how: str) -> None:
    """Leaves a file ``name`` when done; "long" ends in ten seconds, and writes "NAME.stopped" when it is interrupted."""
    folder = Path(_given[0])
    (folder / f"{name}.pid").write_text(str(os.getpid()))
    if how == "fail":
        raise UserError(name, "luck", "none", "Try again.")
    if how == "bug":
        raise ZeroDivisionError("no")
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "interrupted":
        raise KeyboardInterrupt
    try:
        for _ in range(1000 if how == "long" else 10):
            time.sleep(0.01)
            report(1)
    except KeyboardInterrupt:
        (folder / f"{name}.stopped").touch()
        raise
    (folder / name).touch()


def go(folder: Path, jobs: int, **tasks: str) -> int:
    counted = []
    run_in_workers([(name, (name, how)) for name, how in tasks.items()], jobs, start, (str(folder),), work, counted.append)
    return sum(counted)


def test_every_task_is_done_once_and_counted(tmp_path, capsys):
    assert go(tmp_path, 2, a="short", b="short", c="short") == 30
    assert {p.name for p in tmp_path.iterdir()} == {"a", "b", "c", "a.pid", "b.pid", "c.pid"}
    assert sorted(capsys.readouterr().err.splitlines()) == ["finished a", "finished b", "finished c"]


@pytest.mark.parametrize(("how", "error", "message"), [
    ("fail", UserError, "a: expected luck, got none"), ("bug", ZeroDivisionError, "no"),
    ("die", UserError,
     r"trial a: expected a process that lives to its end, got killed \(by the system.*--resume and fewer --jobs"),
])
def test_a_task_that_fails_lets_the_running_ones_end_and_begins_no_other(tmp_path, how, error, message):
    others = {f"t{n:02}": "short"
              for n in range(60)}  # seconds of work, so that a machine that is busy still sees the failure in time
    with pytest.raises(error, match=message):
        go(tmp_path, 2, a=how, **others)
    assert not (tmp_path / "t59.pid").exists() and not list(tmp_path.glob("*.stopped"))
    assert {p.stem for p in tmp_path.glob("t*.pid")} == {p.name for p in tmp_path.glob("t??")}, "what was begun is done"


def test_an_interrupt_anywhere_ends_them_all(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, 2, a="long", b="interrupted", c="short")
    assert not (tmp_path / "c.pid").exists() and not (tmp_path / "a").exists()
    assert (tmp_path / "a.stopped").exists() or not (tmp_path / "a.pid").exists()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_parent_and_write_what_they_have(tmp_path, how):
    script = tmp_path / "parent.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent)))
    parent = subprocess.Popen([sys.executable, str(script), str(tmp_path)], stderr=subprocess.PIPE, text=True,
                              preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    until = time.monotonic() + 60
    while len(list(tmp_path.glob("?.pid"))) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.2)
    pids = [int(p.read_text()) for p in tmp_path.glob("?.pid")]
    parent.send_signal(how)
    _, err = parent.communicate(timeout=30)
    until = time.monotonic() + 8
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    assert len(pids) == 2 and not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert len(list(tmp_path.glob("?.stopped"))) == 2 and not (tmp_path / "a").exists() and "Traceback" not in err


def test_what_is_said_of_a_dead_worker():
    assert "got ended by signal 11." in str(died("x", -11)) and "got exit code 3." in str(died("x", 3))
    assert str(died("", -9)).startswith("a process")


def command(words: list[str], errors: Path) -> None:
    """The command in a session of its own, as a job is; it and its workers are forked: else each would import torch again."""
    import torch

    from distillscope.cli import main
    from distillscope.training import loop

    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    torch.set_num_threads(1)  # OpenMP's threads do not outlive a fork
    loop.CHECKPOINT_SECONDS = 0.5  # with half a minute the test would wait for that long
    workers.get_context = lambda how: get_context("fork")
    sys.argv = ["distillscope", *words]
    with open(os.devnull, "w") as sys.stdout, open(errors, "w", buffering=1) as sys.stderr:
        main()


@pytest.fixture
def running(tmp_path, monkeypatch):
    """(process, config, run directory, its errors) of a study of six long trials, two at once."""
    import distillscope.study.run  # noqa: F401 - now: later the trials would train while this process loads it
    from builders.tiny import scratch, tiny_values

    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(scratch() / "cache"))
    config, out = tmp_path / "tiny.yaml", tmp_path / "run"
    long = tiny_values(seeds=[1, 2, 3, 4, 5, 6], noise={"sigmas": []}, training={"epochs": 5000, "batch_size": 16})
    config.write_text(yaml.safe_dump(long))
    errors = tmp_path / "errors"
    process = get_context("fork").Process(target=command, args=(["run", str(config), "--out", str(out), "--jobs", "2"], errors))
    process.start()
    until = time.monotonic() + 120
    while len(list(out.glob("trials/*/checkpoint.pt"))) < 2:  # both train, and have something to go on from
        assert process.is_alive() and time.monotonic() < until, errors.read_text()
        time.sleep(0.2)
    yield process, config, out, errors
    if process.is_alive():
        os.killpg(process.pid, signal.SIGKILL)
        process.join()


@pytest.mark.slow
def test_a_study_is_held_by_one_process_and_ends_when_interrupted(running):
    from distillscope.config.load import load_preset
    from distillscope.study.run import run_study

    process, config, out, errors = running
    with pytest.raises(UserError) as refused:
        run_study(load_preset(str(config)), out, resume=True)
    assert "still running" in refused.value.got and process.is_alive()

    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does; above, the first process alone gets it
    process.join(timeout=60)  # a trial takes minutes
    err = errors.read_text()
    assert process.exitcode == 130
    assert err.splitlines()[-1].startswith("distillscope: interrupted;") and "Traceback" not in err, err
    begun = sorted(out.glob("trials/*"))
    assert len(begun) == 2 and all((t / "checkpoint.pt").exists() and not (t / "complete.json").exists() for t in begun)


@pytest.mark.parametrize(("arguments", "where", "said"), [
    (["run", "quickstart"], "distillscope.config.load.load_preset",
     "what was finished is kept. Repeat the command with --resume to continue."),
    (["cache", "list"], "distillscope.teachers.inventory.list_entries", "repeat the command."),
])
@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (Terminated(signal.SIGTERM), 143)])
def test_an_interrupted_command_says_how_it_goes_on(monkeypatch, arguments, where, said, error, code):
    from typer.testing import CliRunner

    from distillscope.cli import app

    def stop(*args, **kwargs):
        raise error

    monkeypatch.setattr(where, stop)
    ended = CliRunner().invoke(app, arguments)
    assert ended.exit_code == code and ended.output.strip() == f"distillscope: interrupted; {said}"


@pytest.mark.parametrize(("asked", "code"), [([], 130), ([Terminated(signal.SIGTERM)], 143)])
def test_an_interrupt_that_a_library_raised_anew_ends_as_its_signal_does(asked, code, monkeypatch):
    monkeypatch.setattr(interrupts, "_asked", asked)
    assert exit_code(as_asked(KeyboardInterrupt())) == code
    assert exit_code(as_asked(Terminated(signal.SIGHUP))) == 129
