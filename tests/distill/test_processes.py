"""Two processes (gloo, on the CPU) give the loss and the gradient of one with the whole batch, negatives included."""

from __future__ import annotations

import copy
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from timm.layers import BatchNormAct2d

from distillscope.distill.shared_batch_norm import shared_batch_norms
from distillscope.errors import UserError
from distillscope.registry import objectives

CHILD = """
import os, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
import torch
from builders.training import DIM, source, student, targets
from distillscope.config.study import Arm, Training
from distillscope.data.views import View
from distillscope.distill.loop import TrainingSet, distill
from distillscope.distill.streams import KeyedStreams
from distillscope.distill.loss import Terms
from distillscope.distill.gathered_batch import BatchGather
from distillscope.progress import say
from distillscope.registry import objectives

rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
folder = Path(sys.argv[1])
folder.mkdir(exist_ok=True)
if world > 1:
    torch.distributed.init_process_group("gloo")
queues = {"infonce": {"queue": 5}, "infonce_learned": {"queue": 5}, "crd": {"memory": 5}, "similarity_kl": {"queue": 5}}
found = {}
for name in objectives:  # one objective at a time, behind a linear student and a projector; batches of 7, so parts of 4 and 3
    arm = Arm(name="x", view={"name": "crop_flip"}, projector={"name": "linear"}, objective={"name": name, **queues.get(name, {})})
    terms = Terms(arm, DIM, DIM, 3, gather=BatchGather(rank, world))
    generator = torch.Generator().manual_seed(0)
    network = torch.nn.Linear(DIM, DIM, bias=False)
    network.weight.data = torch.randn(DIM, DIM, generator=generator)
    for step in range(3):  # the queue fills
        rows = {k: torch.randn(7, DIM, generator=generator) for k in ("student", "teacher", "other")}
        rows["labels"] = torch.arange(7) % 3
        own = {k: v[rank::world] for k, v in rows.items()}
        given = {**own, "student": network(own["student"]), "other": network(own["other"])}
        terms.zero_grad(), network.zero_grad()
        loss = terms(given, (torch.arange(7) + 5 * step)[rank::world], 7)
        loss.backward()
        terms.share_gradients()
        if world > 1:  # what data-parallel training does to the student's
            torch.distributed.all_reduce(network.weight.grad)
            network.weight.grad /= world
        terms.remember()
        found[f"{name} {step}"] = [loss.detach(), network.weight.grad.clone(),
                                   *(p.grad.clone() for p in terms.parameters() if p.grad is not None)]
torch.save(found, folder / f"gradients{rank}.pt")

one = student()
rows = targets()
arm = Arm(name="x", view={"name": "crop_flip"}, projector={"name": "mlp"}, objective=(
    {"name": "cosine", "projected": False}, {"name": "infonce_learned", "queue": 24}, {"name": "cross_entropy"},
    {"name": "infonce_views", "weight": 0.1}, {"name": "crd", "memory": 8, "weight": 0.1}))
distill(one, TrainingSet(source(), lambda e: rows, lambda e: View("crop_flip", {"padding": 1}, 0, e)), arm,
        Training(epochs=2, batch_size=20, drop_last=False, optimizer="sgd", learning_rate=0.02), KeyedStreams(0, "S"), folder)
assert all(type(m).__name__ != "SharedBatchNorm2d" for m in one.module.modules())
say(f"said by one of {world}")
torch.save([p.detach() for p in one.module.state_dict().values()], folder / f"parameters{rank}.pt")
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_two_processes_give_the_loss_and_gradients_of_one(tmp_path):
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    command, plain = [sys.executable, str(script)], {**os.environ, "OMP_NUM_THREADS": "1"}
    here = str(Path(__file__).parents[1])
    subprocess.run([*command, str(tmp_path / "one"), here], check=True, env=plain, timeout=120)
    both = {**plain, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "ACCELERATE_USE_CPU": "true"}
    pair = [subprocess.Popen([*command, str(tmp_path / "two"), here], env={**both, "RANK": str(r), "LOCAL_RANK": str(r)},
                             stderr=subprocess.PIPE, text=True) for r in range(2)]
    said = [p.communicate(timeout=120)[1] for p in pair]
    assert [p.returncode for p in pair] == [0, 0], said
    assert ["said by one of 2" in text for text in said] == [True, False]
    alone, *parts = (torch.load(tmp_path / d / f"gradients{r}.pt") for d, r in (("one", 0), ("two", 0), ("two", 1)))
    assert {key.split()[0] for key in alone} == set(objectives)
    for key, wanted in alone.items():
        for part in parts:
            assert len(part[key]) == len(wanted) >= 3, key
            for a, b in zip(part[key], wanted, strict=True):  # sums in another order: float32 rounding
                assert torch.allclose(a, b, rtol=1e-4, atol=1e-5 * max(1.0, float(b.abs().max()))), key
    alone, *parts = (torch.load(tmp_path / d / f"parameters{r}.pt") for d, r in (("one", 0), ("two", 0), ("two", 1)))
    assert all(torch.equal(a, b) for a, b in zip(*parts, strict=True))
    for a, b in zip(alone, parts[0], strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-5)
    losses = [[json.loads(line)["loss"] for line in (tmp_path / d / "metrics.jsonl").read_text().splitlines()]
              for d in ("one", "two")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_a_launcher_whose_processes_do_not_train_together_is_refused(tmp_path, monkeypatch):
    """Else each would train a whole copy into one folder."""
    from accelerate import PartialState

    from builders.training import train

    PartialState()  # alone, since it was made before the launcher's variables were set
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="distill: expected the 2 processes of the launcher as one group, got 1.*torchrun"):
        train(tmp_path)


class Alone:
    """torch.distributed of one process."""

    @staticmethod
    def get_world_size() -> int:
        return 1

    @staticmethod
    def all_gather(parts, own) -> None:
        parts[0].copy_(own)

    @staticmethod
    def all_reduce(value) -> None:
        pass


@pytest.mark.parametrize("kind, shape, settings", [
    (torch.nn.BatchNorm2d, (7, 5, 3, 4), {}), (torch.nn.BatchNorm1d, (7, 5), {"affine": False}),
    (BatchNormAct2d, (7, 5, 3, 4), {}), (torch.nn.BatchNorm2d, (7, 5, 3, 4), {"momentum": None}),
    (torch.nn.BatchNorm1d, (7, 5), {"track_running_stats": False})])
def test_a_shared_batch_norm_is_the_layer_that_it_stands_for(monkeypatch, kind, shape, settings):
    """Outputs, gradients and running statistics, far from zero too, activation included; afterwards it is what it was."""
    monkeypatch.setattr("distillscope.distill.shared_batch_norm.distributed", Alone)
    generator = torch.Generator().manual_seed(0)
    plain = kind(shape[1], **settings)
    for parameter in plain.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    shared = copy.deepcopy(plain)
    for _ in range(3):
        given, slope = 100 + 3 * torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
        first, second = (given.clone().requires_grad_() for _ in range(2))
        plain.zero_grad(), shared.zero_grad()
        (plain(first * 1) * slope).sum().backward()
        with shared_batch_norms(shared):
            (shared(second * 1) * slope).sum().backward()
        assert torch.allclose(first.grad, second.grad, rtol=1e-4, atol=1e-5)
        for a, b in zip(plain.parameters(), shared.parameters(), strict=True):
            assert torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-4)
        for a, b in zip(plain.buffers(), shared.buffers(), strict=True):
            assert torch.allclose(a.double(), b.double(), rtol=1e-5)
    assert type(shared) is kind
