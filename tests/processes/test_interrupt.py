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
from distillscope.config.load import load_preset
from distillscope.errors import UserError
from distillscope.processes.interrupts import Terminated
from distillscope.study.run import run_study

IMPATIENT = """
from distillscope.distill import loop
loop.CHECKPOINT_SECONDS = 0.5  # also where a worker imports this file: with half a minute the test would wait for that long
if __name__ == "__main__":
    from distillscope.cli import main
    main()
"""


@pytest.fixture
def running(tmp_path, monkeypatch):
    """(process, config, run directory) of a study of six long trials, two at once, in a session of its own as a job is."""
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(scratch() / "cache"))
    config, out = tmp_path / "tiny.yaml", tmp_path / "run"
    long = tiny_values(seeds=[1, 2, 3, 4, 5, 6], noise={"sigmas": []}, training={"epochs": 5000, "batch_size": 16})
    config.write_text(yaml.safe_dump(long))
    script = tmp_path / "impatient.py"
    script.write_text(IMPATIENT)
    process = subprocess.Popen(
        [sys.executable, str(script), "run", str(config), "--out", str(out), "--jobs", "2"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # a shell's background jobs ignore it
    until = time.monotonic() + 120
    while len(list(out.glob("trials/*/checkpoint.pt"))) < 2:  # both train, and have something to go on from
        assert process.poll() is None and time.monotonic() < until, process.stderr.read()
        time.sleep(0.2)
    yield process, config, out
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.stderr.close()


@pytest.mark.slow
def test_a_study_is_held_by_one_process_and_ends_when_interrupted(running):
    process, config, out = running
    with pytest.raises(UserError) as refused:
        run_study(load_preset(str(config)), out, resume=True)
    assert "going on" in refused.value.got and process.poll() is None

    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does; test_workers.py sends it to the first process alone
    _, err = process.communicate(timeout=60)  # a trial takes minutes
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("distillscope: interrupted;") and "Traceback" not in err, err
    begun = sorted(out.glob("trials/*"))
    assert len(begun) == 2 and all((t / "checkpoint.pt").exists() and not (t / "complete.json").exists() for t in begun)


@pytest.mark.parametrize(("arguments", "where", "said"), [
    (["run", "quickstart"], "distillscope.config.load.load_preset",
     "what was finished is kept. Repeat the command with --resume to go on."),
    (["cache", "list"], "distillscope.teachers.inventory.list_entries", "repeat the command."),
])
@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (Terminated(signal.SIGTERM), 143)])
def test_an_interrupted_command_says_how_it_goes_on(monkeypatch, arguments, where, said, error, code):
    def stop(*args, **kwargs):
        raise error

    monkeypatch.setattr(where, stop)
    ended = CliRunner().invoke(app, arguments)
    assert ended.exit_code == code and ended.output.strip() == f"distillscope: interrupted; {said}"
