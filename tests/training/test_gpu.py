"""On a CUDA device: where things are put, precisions, batch norms of several processes; ``pytest -m gpu``.

``python test_gpu.py RANK FILE``, for the last of them, is one of two processes on one device; it leaves in FILE what its part
of a batch norm gave.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from builders.training import DIM, free_port, source, targets
from distillscope.config.study import Arm, Training
from distillscope.data.preprocess import Preprocess
from distillscope.devices import choose_device
from distillscope.students.load import StudentEncoder, build_student, load_student, save_student
from distillscope.teachers import cache
from distillscope.teachers.encoder import Encoder
from distillscope.training import loop
from distillscope.training.gathered_batch import shared_batch_norms
from distillscope.training.loop import TrainingSet, distill
from distillscope.training.streams import KeyedStreams

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.fixture(autouse=True)
def full_float32(monkeypatch):
    """Convolutions in TF32, the default, round to 10 bits: what is compared with a CPU here must not."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def student(device: str, precision: str = "float32") -> StudentEncoder:
    return KeyedStreams(0, "S").build(
        lambda: build_student("paper_cnn", {}, DIM, Preprocess(8), "S", torch.device(device), precision))


def train(folder: Path, device: str, precision: str = "float32", **settings) -> tuple[list[float], StudentEncoder]:
    one, rows = student(device, precision), targets()
    given = {"epochs": 2, "batch_size": 16, "optimizer": "sgd", "learning_rate": 0.05, **settings}
    history = distill(one, TrainingSet(source(), lambda epoch: rows), Arm(name="x", objective=("cosine", "infonce")),
                      Training(**given), KeyedStreams(0, "S"), folder)
    return [record["loss"] for record in history], one


def test_auto_is_the_gpu_and_a_student_trained_there_is_that_of_a_cpu_and_loads_there(tmp_path):
    assert choose_device("auto").type == "cuda"
    wanted, _ = train(tmp_path / "cpu", "cpu")
    found, one = train(tmp_path / "gpu", "cuda")
    assert found == pytest.approx(wanted, rel=1e-3)
    assert {p.device.type for p in one.module.parameters()} == {"cuda"}
    save_student(one, tmp_path / "saved")
    images = source().read(range(8))
    there, here = (load_student(tmp_path / "saved", device).encode(images) for device in ("cuda", "cpu"))
    assert np.allclose(there, here, rtol=1e-3, atol=1e-4)


def test_a_teacher_embeds_there_what_it_embeds_on_a_cpu(tmp_path):
    rows = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Flatten(),
                                      torch.nn.Linear(288, 6))
        encoder = Encoder("t", network, 6, Preprocess(8), "w").to(torch.device(device))
        rows.append(cache.embed(encoder, source(), root=tmp_path / device))
    assert np.allclose(*rows, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_trains_and_goes_on_after_a_kill_to_the_same_numbers(tmp_path, monkeypatch, precision):
    """The loss scale of float16 is in the checkpoint: from its first value, it would skip steps again."""
    wanted, one = train(tmp_path / "never", "cuda", precision)
    assert all(np.isfinite(wanted)) and wanted[1] < wanted[0]
    assert {p.dtype for p in one.module.parameters()} == {torch.float32}
    float32, _ = train(tmp_path / "float32", "cuda")
    assert wanted == pytest.approx(float32, rel=0.05)
    save = loop.save_checkpoint

    def killed(path, state):
        save(path, state)
        if state["step"] == 3:
            raise SystemExit

    monkeypatch.setattr(loop, "save_checkpoint", killed)
    with pytest.raises(SystemExit):
        train(tmp_path / "killed", "cuda", precision)
    monkeypatch.setattr(loop, "save_checkpoint", save)
    found, _ = train(tmp_path / "killed", "cuda", precision)
    assert found == pytest.approx(wanted, rel=1e-3)


def test_a_batch_in_parts_needs_less_memory_there(tmp_path):
    peaks, rows = [], targets()
    for parts in (1, 4):
        torch.cuda.reset_peak_memory_stats()
        one = build_student("paper_cnn", {"width": 8}, DIM, Preprocess(64), "S", torch.device("cuda"))
        settings = Training(epochs=1, batch_size=48, optimizer="sgd", accumulate=parts)
        distill(one, TrainingSet(source(), lambda epoch: rows), Arm(name="cosine"), settings, KeyedStreams(0, "S"),
                tmp_path / str(parts))
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[1] < 0.6 * peaks[0]


def given() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs, slope = (torch.randn(7, 5, 3, 4, generator=generator) for _ in range(2))
    return 3 + 2 * inputs, slope


def test_batch_norms_of_two_processes_on_it_are_the_layer_on_the_whole_batch(tmp_path):
    """torch's SyncBatchNorm, within layers that keep their class; parts of 4 and 3 images."""
    layer = torch.nn.BatchNorm2d(5)
    inputs, slope = given()
    inputs.requires_grad_()
    wanted = layer(inputs)
    (wanted * slope).sum().backward()
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),
              "PYTHONPATH": os.pathsep.join(sys.path)}
    pair = [subprocess.Popen([sys.executable, __file__, str(rank), str(tmp_path / f"{rank}.pt")],
                             env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(2)]
    assert [p.wait(timeout=240) for p in pair] == [0, 0]
    for rank in range(2):
        found, gradient, mean, variance = torch.load(tmp_path / f"{rank}.pt")
        assert torch.allclose(found, wanted[rank::2], atol=1e-5)
        assert torch.allclose(gradient, inputs.grad[rank::2], atol=1e-5)
        assert torch.allclose(mean, layer.running_mean, atol=1e-6) and torch.allclose(variance, layer.running_var, atol=1e-5)


def part(rank: int, file: Path) -> None:
    torch.distributed.init_process_group("gloo")  # NCCL wants a device for each process
    layer = torch.nn.BatchNorm2d(5).cuda()
    kind, whole, slope = type(copy.deepcopy(layer)), *given()
    own = whole[rank::2].cuda().requires_grad_()
    with shared_batch_norms(layer):
        found = layer(own)
        (found * slope[rank::2].cuda()).sum().backward()
    assert type(layer) is kind
    torch.save([t.detach().cpu() for t in (found, own.grad, layer.running_mean, layer.running_var)], file)


if __name__ == "__main__":
    part(int(sys.argv[1]), Path(sys.argv[2]))
