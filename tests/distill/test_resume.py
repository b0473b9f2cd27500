"""A run that was killed goes on to the numbers of one that never was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from builders.tiny import scratch, tiny_values

CHILD = """
import sys, time, yaml
import distillscope.distill.loop as loop
import distillscope.distill.checkpoint as checkpoint
from distillscope.config.load import study_from
from distillscope.study.run import run_study

loop.CHECKPOINT_SECONDS = 0.0
slow = float(sys.argv[3])
before = loop.save_checkpoint
def save(path, state):  # the parent waits for these lines, and kills in the pause after one
    before(path, state)
    print("step", state["step"], flush=True)
    time.sleep(slow)
loop.save_checkpoint = save
try:
    run_study(study_from(yaml.safe_load(open(sys.argv[1]))), sys.argv[2], resume=True, jobs=1, report=False)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Starts the study in a process of its own."""
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(scratch() / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    config = tmp_path / "tiny.yaml"
    arms = [
        {
            "name": "augmented",
            "view": "crop_flip",
            "objective": [{"name": "cosine"}, {"name": "infonce_views", "weight": 0.1}],
        }
    ]
    config.write_text(yaml.safe_dump(tiny_values(arms=arms, seeds=[1], noise={"sigmas": []})))

    def run(out: Path, pause: float = 0.0) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-c", CHILD, str(config), str(out), str(pause)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell in the background hands on that it is ignored
        )

    return run


def finish(process: subprocess.Popen) -> None:
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err


def stop_at(process: subprocess.Popen, step: int, how: signal.Signals) -> None:
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
def test_killed_or_interrupted_twice_it_ends_with_the_same_bits(start, tmp_path):
    never, killed = tmp_path / "never", tmp_path / "killed"
    finish(start(never))
    stop_at(start(killed, 0.5), 3, signal.SIGKILL)  # in the middle of the first epoch
    assert torch.load(trial(killed) / "checkpoint.pt", weights_only=True)["step"] == 3
    stop_at(start(killed, 0.5), 7, signal.SIGINT)  # and of the second
    assert not (trial(killed) / "complete.json").exists()
    finish(start(killed))
    assert (trial(killed) / "weights.safetensors").read_bytes() == (trial(never) / "weights.safetensors").read_bytes()
    assert metrics(killed) == metrics(never)
    assert results(killed) == results(never)
    assert not (trial(killed) / "checkpoint.pt").exists()


@pytest.mark.slow
def test_a_damaged_checkpoint_is_said_and_the_trial_begins_anew(start, tmp_path):
    never, damaged = tmp_path / "never", tmp_path / "damaged"
    finish(start(never))
    stop_at(start(damaged, 0.5), 3, signal.SIGKILL)
    checkpoint = trial(damaged) / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    process = start(damaged)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "not a readable checkpoint" in err
    assert (trial(damaged) / "weights.safetensors").read_bytes() == (trial(never) / "weights.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_two_processes_take_halves_of_each_batch(tmp_path):
    """Without batch norm, which sees half a batch in each process, two processes give what one gives."""
    script = tmp_path / "child.py"
    script.write_text(f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from builders import training
from pathlib import Path
from distillscope.config.study import Arm, Training
from distillscope.distill.loop import TrainingSet, distill
from distillscope.distill.streams import KeyedStreams
rank = os.environ.get("RANK", "0")
folder = Path(sys.argv[1]); folder.mkdir(exist_ok=True)
import torch
one = training.student()
for i, layer in enumerate(one.module):
    if isinstance(layer, torch.nn.BatchNorm2d):
        one.module[i] = torch.nn.Identity()
rows = training.targets()
history = distill(one, TrainingSet(training.source(), lambda e: rows), Arm(name="cosine"),
                  Training(epochs=2, batch_size=16, optimizer="sgd", learning_rate=0.1), KeyedStreams(0, "S"), folder)
torch.save([p.detach() for p in one.module.parameters()], folder / f"parameters{{rank}}.pt")
""")
    plain = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, str(script), str(tmp_path / "one")], check=True, env=plain, timeout=120)
    port = 20_000 + os.getpid() % 20_000
    both = [
        subprocess.Popen(
            [sys.executable, str(script), str(tmp_path / "two")],
            env={
                **plain,
                "RANK": str(r),
                "LOCAL_RANK": str(r),
                "WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "ACCELERATE_USE_CPU": "true",
            },
        )
        for r in range(2)
    ]
    began = time.monotonic()
    assert [p.wait(timeout=120 - (time.monotonic() - began)) for p in both] == [0, 0]
    alone = torch.load(tmp_path / "one" / "parameters0.pt")
    first, second = (torch.load(tmp_path / "two" / f"parameters{r}.pt") for r in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    for a, b in zip(alone, first, strict=True):  # gradients are averaged in another order: float32 rounding
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / n / "metrics.jsonl").read_text().splitlines()]
        for n in ("one", "two")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert len((tmp_path / "two" / "metrics.jsonl").read_text().splitlines()) == 2
