"""A run that was killed goes on to the numbers of one that never was."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from threadpoolctl import threadpool_limits

from builders.tiny import scratch, tiny_values
from distillscope.config.load import study_from
from distillscope.study.run import run_study

CHILD = """
import sys, time, yaml
import distillscope.distill.loop as loop
import distillscope.distill.loop as checkpoint
from distillscope.config.load import study_from
from distillscope.study.run import run_study

loop.CHECKPOINT_SECONDS = 0.0
before = loop.save_checkpoint
def save(path, state):  # the parent waits for these lines, and kills in the pause after one
    before(path, state)
    print("step", state["step"], flush=True)
    time.sleep(0.5)
loop.save_checkpoint = save
try:
    run_study(study_from(yaml.safe_load(open(sys.argv[1]))), sys.argv[2], resume=True, jobs=1, report=False)
except KeyboardInterrupt:
    sys.exit(130)
"""


ARM = {"name": "augmented", "view": "crop_flip", "objective": [{"name": "cosine"}, {"name": "infonce_views", "weight": 0.1}]}


@pytest.fixture
def study():
    return study_from(tiny_values(arms=[ARM], seeds=[1], noise={"sigmas": []}))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sums are added in the same order here as in the process that is killed."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch, threadpool_limits(1):
        patch.setenv("OMP_NUM_THREADS", "1")
        torch.set_num_threads(1)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def shared_cache(monkeypatch):
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(scratch() / "cache"))


def finish(study, run: Path) -> Path:
    run_study(study, run, resume=run.exists(), jobs=1, report=False)
    return run


def stop_at(study, run: Path, step: int, how: signal.Signals) -> None:
    """Runs the study in a process of its own, which is sent that signal after its checkpoint of that step."""
    config = run.with_suffix(".yaml")
    config.write_text(yaml.safe_dump(study.dump()))
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(config), str(run)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT,
                                         signal.SIG_DFL))  # a shell in the background hands on that it is ignored
    for line in process.stdout:
        if line.strip() == f"step {step}":
            process.send_signal(how)
            break
    process.communicate(timeout=60)
    assert process.returncode != 0


def trial(run: Path) -> Path:
    return next((run / "trials").iterdir())


def metrics(run: Path) -> list[dict]:
    records = [json.loads(line) for line in (trial(run) / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in r.items() if k not in ("seconds", "images_per_second")} for r in records]


def results(run: Path) -> list[str]:
    return [row for row in (trial(run) / "results.csv").read_text().splitlines() if "train.seconds" not in row]


@pytest.mark.slow
@pytest.mark.parametrize("then", ["", pytest.param("interrupted", marks=pytest.mark.minutes)])
def test_killed_it_ends_with_the_same_bits(study, tmp_path, capsys, then):
    """Interrupts are tested in one process by test_interrupted.py; at length, one follows here too."""
    never = finish(study, tmp_path / "never")
    killed, damaged = tmp_path / "killed", tmp_path / "damaged"
    stop_at(study, killed, 3, signal.SIGKILL)  # in the middle of the first epoch
    assert torch.load(trial(killed) / "checkpoint.pt", weights_only=True)["step"] == 3
    shutil.copytree(killed, damaged)
    if then == "interrupted":
        stop_at(study, killed, 7, signal.SIGINT)  # and of the second
    assert not (trial(killed) / "complete.json").exists()
    finish(study, killed)
    assert (trial(killed) / "weights.safetensors").read_bytes() == (trial(never) / "weights.safetensors").read_bytes()
    assert metrics(killed) == metrics(never)
    assert results(killed) == results(never)
    assert not (trial(killed) / "checkpoint.pt").exists()

    # A checkpoint that was cut short is said, and the trial begins anew.
    checkpoint = trial(damaged) / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    capsys.readouterr()
    finish(study, damaged)
    assert "not a readable checkpoint" in capsys.readouterr().err
    assert (trial(damaged) / "weights.safetensors").read_bytes() == (trial(never) / "weights.safetensors").read_bytes()
