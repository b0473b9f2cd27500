"""Real processes, as a launcher starts them: what they train and embed, how they are stopped, and how they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from builders.tiny import TEACHER, scratch, teacher_weights
from builders.training import free_port
from distillscope.inputs.embeddings import read_embeddings

alone_only = not torch.distributed.is_available()
pytestmark = [pytest.mark.minutes, pytest.mark.skipif(alone_only, reason="torch without distributed")]

DISTILL = ["distill", "--teacher", f"timm/{TEACHER}:{teacher_weights()}", "--data", "digits", "--limit", "300",
           "--device", "cpu", "--recipe", "paper",
           "--batch-size", "32", "--image-size", "16", "--set", "training.optimizer=sgd", "--lr", "0.05"]


def start(world: int, *words: str, cache: Path | None = None) -> list[subprocess.Popen]:
    """The command in ``world`` processes."""
    shared = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),
              "DISTILLSCOPE_CACHE": str(cache or scratch() / "launched")}
    launched = [{"RANK": str(r), "LOCAL_RANK": str(r), "WORLD_SIZE": str(world)} if world > 1 else {} for r in range(world)]
    return [subprocess.Popen([sys.executable, "-m", "distillscope.cli", *words], env={**shared, **own}, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True) for own in launched]


def ended(processes: list[subprocess.Popen]) -> list[tuple[int, str]]:
    """(exit code, what was said) of each."""
    said = ["".join(p.communicate(timeout=240)) for p in processes]
    return [(p.returncode, text) for p, text in zip(processes, said, strict=True)]


def curve(folder: Path) -> list[float]:
    """Mean loss of each epoch, from 0.2 down to 0.003: float32 rounding grows to 2e-6 on the way."""
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def when(path: Path, processes: list[subprocess.Popen]) -> None:
    """Waits until the file is there."""
    began = time.monotonic()
    while not path.exists():
        assert time.monotonic() - began < 200 and any(p.poll() is None for p in processes), [p.poll() for p in processes]
        time.sleep(0.02)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "student"
    assert ended(start(1, *DISTILL, "--epochs", "3", "--out", str(folder)))[0][0] == 0
    return folder


def test_two_processes_embed_and_train_what_one_does_and_one_of_them_speaks(alone, tmp_path):
    found = ended(start(2, *DISTILL, "--epochs", "3", "--out", str(tmp_path / "student"), cache=tmp_path / "cache"))
    assert [code for code, _ in found] == [0, 0]
    assert found[0][1].count("recipe paper") == found[0][1].count("use it:") == 1 and found[1][1] == ""
    assert curve(tmp_path / "student") == pytest.approx(curve(alone), abs=1e-5)
    assert not list((tmp_path / "student").glob(".*tmp*")) and not (tmp_path / "student" / "checkpoint.pt").exists()


def test_two_processes_embed_what_one_does_with_a_student_too(alone, tmp_path):
    for model in (["--teacher", f"timm/{TEACHER}:{teacher_weights()}"], ["--student", str(alone)]):
        words, rows = ["embed", *model, "--data", "digits", "--split", "test", "--limit", "100", "--device", "cpu", "--out"], []
        for world in (1, 2):
            out = tmp_path / f"{model[0]}{world}"
            found = ended(start(world, *words, str(out), cache=tmp_path / f"cache{world}"))
            assert [code for code, _ in found] == [0] * world and found[0][1].startswith("100 x")
            rows.append(read_embeddings(out).rows[:])
        assert np.allclose(*rows, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_interrupted_it_goes_on_with_another_number_of_processes(alone, tmp_path, before, after):
    """One of them alone gets the signal; all stop after the same step."""
    words = [*DISTILL, "--epochs", "3", "--out", str(tmp_path / "student")]
    processes = start(before, *words)
    when(tmp_path / "student" / "metrics.jsonl", processes)
    processes[-1].send_signal(signal.SIGINT)
    found = ended(processes)
    assert {code for code, _ in found} == {130}
    assert sum(text.count("interrupted") for _, text in found) == 1
    assert len(curve(tmp_path / "student")) < 3
    assert [code for code, _ in ended(start(after, *words, "--resume"))] == [0] * after
    assert curve(tmp_path / "student") == pytest.approx(curve(alone), abs=1e-5)


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_other_with_one_line(tmp_path, killed):
    processes = start(2, *DISTILL, "--epochs", "500", "--out", str(tmp_path / "student"))
    when(tmp_path / "student" / "metrics.jsonl", processes)
    processes[killed].kill()
    began = time.monotonic()
    code, said = ended(processes)[1 - killed]
    assert code == 2 and time.monotonic() - began < 20
    last = said.splitlines()[-1]
    assert last.startswith("distillscope: distill: expected 2 processes that live to the end, got one that has ended")
    assert "Traceback" not in said
