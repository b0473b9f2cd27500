"""A run that was killed goes on to the numbers of one that never was."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from threadpoolctl import threadpool_limits

from builders import refused
from builders.tiny import scratch, tiny_values
from builders.training import source, student, targets
from distillscope.config.load import study_from
from distillscope.config.study import Arm, Training
from distillscope.study.run import run_study
from distillscope.training import loop
from distillscope.training.health import Health
from distillscope.training.loop import TrainingSet, distill
from distillscope.training.streams import KeyedStreams

CHILD = """
import sys, time, yaml
import distillscope.training.loop as loop
import distillscope.training.loop as checkpoint
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


@pytest.mark.minutes
@pytest.mark.parametrize("then", ["", "interrupted"])
def test_killed_it_ends_with_the_same_bits(study, tmp_path, capsys, then):
    """In a process of its own; interrupts within this one, and checkpoints that cannot be read, are tested below."""
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

    # A checkpoint that was cut short is said, and the trial begins again.
    checkpoint = trial(damaged) / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    capsys.readouterr()
    finish(study, damaged)
    assert "not a readable checkpoint" in capsys.readouterr().err
    assert (trial(damaged) / "weights.safetensors").read_bytes() == (trial(never) / "weights.safetensors").read_bytes()


UNTIMED = ("seconds", "images_per_second")


def train(folder, health=True, **options):
    """Two epochs of three steps, with their health: weights, and lines without what measures time."""
    rows, one = targets(), student()
    checked = Health(source().take([0, 1, 2, 3, 4, 5]), rows[:6], source().take([6, 7, 8]), "train") if health else None
    advance = options.pop("advance", lambda count: None)
    distill(one, TrainingSet(source(), lambda epoch: rows), Arm(name="cosine"), Training(epochs=2, batch_size=16, **options),
            KeyedStreams(0, "S"),
            folder, checked, advance=advance)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [p.detach().clone() for p in one.module.state_dict().values()], [{k: v for k, v in r.items() if k not in UNTIMED}
                                                                            for r in lines]


@pytest.fixture(scope="module")
def never(tmp_path_factory):
    return train(tmp_path_factory.mktemp("never"))


def same(found, wanted):
    return all(torch.equal(a, b) for a, b in zip(found[0], wanted[0], strict=True)) and found[1] == wanted[1]


def strikes(monkeypatch, owner, name, at, before=False):
    """Ctrl-C in the call number ``at`` of a function: a signal to this process, as the system sends it."""
    real, calls = getattr(owner, name), []

    def struck(*args, **kwargs):
        calls.append(1)
        if len(calls) == at and before:
            signal.raise_signal(signal.SIGINT)
        value = real(*args, **kwargs)
        if len(calls) == at and not before:
            signal.raise_signal(signal.SIGINT)
        return value

    monkeypatch.setattr(owner, name, struck)


@pytest.fixture(autouse=True)
def ctrl_c():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("at", [1, 2, 3, 5, 6])
@pytest.mark.parametrize("where", ["the update", "the loss", "the record's line", "the health"])
def test_wherever_it_strikes_nothing_changes(tmp_path, monkeypatch, never, where, at):
    with monkeypatch.context() as patch:
        if where == "the update":
            strikes(patch, torch.optim.Adam, "step", at)
        elif where == "the loss":
            strikes(patch, loop.Terms, "forward", at, before=True)
        elif where == "the record's line":
            strikes(patch, loop, "write_text", min(at, 2))
        else:
            strikes(patch, Health, "check", min(at, 2))
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path)
    assert same(train(tmp_path), never)


def test_raised_between_an_epochs_last_step_and_its_record(tmp_path, monkeypatch, never):
    def stop(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Health, "check", stop)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists() and torch.load(tmp_path / "checkpoint.pt")["step"] == 3
    assert same(train(tmp_path), never)


def test_a_second_one_ends_it_at_once_and_the_checkpoint_before_is_kept(tmp_path, monkeypatch, never):
    def twice(self):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        steps = []
        patch.setattr(loop.Terms, "remember", lambda self: steps.append(1) or (twice(self) if len(steps) == 5 else None))
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path)
    assert torch.load(tmp_path / "checkpoint.pt")["step"] == 3
    assert same(train(tmp_path), never)


@pytest.mark.parametrize("content", [[], 3, {"step": 1}, {"rng": "x"}])
def test_a_checkpoint_that_is_none_is_said_and_training_begins_anew(tmp_path, never, content, capsys):
    torch.save(content, tmp_path / "checkpoint.pt")
    assert same(train(tmp_path), never)
    assert "not a readable checkpoint" in capsys.readouterr().err


def test_a_checkpoint_of_another_student_is_one_line(tmp_path):
    train(tmp_path)
    state = torch.load(tmp_path / "checkpoint.pt")
    state["module"] = {k: v[:1] if v.ndim else v for k, v in state["module"].items()}
    torch.save(state, tmp_path / "checkpoint.pt")
    with refused(got="another one"):
        train(tmp_path)


def test_a_folder_deleted_meanwhile_is_not_made_again(tmp_path):
    import shutil

    with refused(got="deleted"):
        train(tmp_path / "run", advance=lambda count: shutil.rmtree(tmp_path / "run", ignore_errors=True))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("at", [None, 1, 4])
def test_what_is_counted_adds_up_to_what_was_promised(tmp_path, monkeypatch, drop_last, at):
    counted = []
    options = {"drop_last": drop_last, "health": False}
    few = source().take(np.arange(40))
    monkeypatch.setitem(globals(), "source", lambda: few)
    if at:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            strikes(patch, torch.optim.Adam, "step", at)
            train(tmp_path, **options)
    train(tmp_path, advance=counted.append, **options)
    assert sum(counted) == Training(epochs=2, batch_size=16, drop_last=drop_last).num_seen(40)
