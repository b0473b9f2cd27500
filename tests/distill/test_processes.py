"""Two processes (gloo, on the CPU) give the loss and the gradient of one with the whole batch, negatives included."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from distillscope.registry import objectives

CHILD = """
import os, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
import torch
from test_loop import DIM, source, student, targets
from distillscope.config import Arm, Training
from distillscope.data.views import View
from distillscope.distill.loop import TrainingSet, distill
from distillscope.distill.streams import KeyedStreams
from distillscope.distill.terms import Terms
from distillscope.distill.whole import Whole
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
    terms = Terms(arm, DIM, DIM, 3, whole=Whole(rank, world))
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
for i, layer in enumerate(one.module):  # batch norm sees half a batch in each process
    if isinstance(layer, torch.nn.BatchNorm2d):
        one.module[i] = torch.nn.Identity()
rows = targets()
arm = Arm(name="x", view={"name": "crop_flip"}, projector={"name": "mlp"}, objective=(
    {"name": "cosine", "projected": False}, {"name": "infonce_learned", "queue": 24}, {"name": "cross_entropy"},
    {"name": "infonce_views", "weight": 0.1}, {"name": "crd", "memory": 8, "weight": 0.1}))
distill(one, TrainingSet(source(), lambda e: rows, lambda e: View("crop_flip", {"padding": 1}, 0, e)), arm,
        Training(epochs=2, batch_size=20, drop_last=False, optimizer="sgd", learning_rate=0.02), KeyedStreams(0, "S"), folder)
torch.save([p.detach() for p in one.module.parameters()], folder / f"parameters{rank}.pt")
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
    here = str(Path(__file__).parent)
    subprocess.run([*command, str(tmp_path / "one"), here], check=True, env=plain, timeout=120)
    both = {**plain, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "ACCELERATE_USE_CPU": "true"}
    pair = [subprocess.Popen([*command, str(tmp_path / "two"), here], env={**both, "RANK": str(r), "LOCAL_RANK": str(r)})
            for r in range(2)]
    assert [p.wait(timeout=120) for p in pair] == [0, 0]
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
