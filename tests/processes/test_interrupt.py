"""A study of several processes ends when it is interrupted, begins nothing more, and is held by one process at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import yaml
from typer.testing import CliRunner

from builders.tiny import scratch, tiny_values
from distillscope.cli import app
from distillscope.processes.interrupts import Terminated


@pytest.fixture
def running(tmp_path, monkeypatch):
    """(process, run directory) of a study of six long trials, two at once, in a session of its own as a terminal's job is."""
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(scratch() / "cache"))
    config, out = tmp_path / "tiny.yaml", tmp_path / "run"
    config.write_text(yaml.safe_dump(tiny_values(seeds=[1, 2, 3, 4, 5, 6], noise={"sigmas": []}, training={"epochs": 5000, "batch_size": 16})))
    process = subprocess.Popen([sys.executable, "-m", "distillscope.cli", "run", str(config), "--out", str(out), "--jobs", "2"],
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # a shell's background jobs ignore it
    until = time.monotonic() + 120
    while len(list(out.glob("trials/*/metrics.jsonl"))) < 2:
        assert process.poll() is None and time.monotonic() < until, process.stderr.read()
        time.sleep(0.2)
    yield process, config, out
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.stderr.close()


def ended(process):
    _, err = process.communicate(timeout=60)  # a trial takes minutes
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("distillscope: interrupted; what was finished is kept.") and "Traceback" not in err, err


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["all", "main"], ids=["as Ctrl-C does", "the process alone"])
def test_an_interrupted_study_ends_and_begins_no_other_trial(running, whom):
    process, _, out = running
    os.killpg(process.pid, signal.SIGINT) if whom == "all" else process.send_signal(signal.SIGINT)
    ended(process)
    begun = sorted(out.glob("trials/*"))
    assert len(begun) == 2 and all((t / "checkpoint.pt").exists() and not (t / "complete.json").exists() for t in begun)


@pytest.mark.slow
def test_a_run_that_is_going_on_is_not_joined_by_another(running):
    process, config, out = running
    second = subprocess.run([sys.executable, "-m", "distillscope.cli", "run", str(config), "--out", str(out), "--resume"],
                            capture_output=True, text=True, timeout=60)
    assert second.returncode == 2 and "a run that no process is at work on, got one that is going on" in second.stderr
    assert len(second.stderr.strip().splitlines()) == 1 and process.poll() is None


@pytest.mark.parametrize(("arguments", "where", "said"), [
    (["run", "quickstart"], "distillscope.config.load.load_preset", "what was finished is kept. Repeat the command with --resume to go on."),
    (["cache", "list"], "distillscope.teachers.inventory.list_entries", "repeat the command."),
])
@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (Terminated(signal.SIGTERM), 143)])
def test_an_interrupted_command_says_how_it_goes_on(monkeypatch, arguments, where, said, error, code):
    def stop(*args, **kwargs):
        raise error

    monkeypatch.setattr(where, stop)
    ended = CliRunner().invoke(app, arguments)
    assert ended.exit_code == code and ended.output.strip() == f"distillscope: interrupted; {said}"
