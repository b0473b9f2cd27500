"""torch.export programs give what their network gives, and nothing in the file is unpickled, evaluated or run as Python."""

from __future__ import annotations

import json
import pickle
import zipfile

import numpy as np
import pytest
import torch

from builders import refused
from distillscope.errors import UserError
from distillscope.teachers.torch_files import _operation, exported

SIZE = 8
IMAGES = torch.randint(0, 256, (5, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
IDS = [f"i{i}" for i in range(5)]


class Network(torch.nn.Module):
    """Convolution, norm, attention, a block without gradients, a buffer that is not saved with the weights; two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.BatchNorm2d(8), torch.nn.GELU())
        self.block = torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.register_buffer("scale", torch.full((8,), 2.0), persistent=False)

    def forward(self, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            tokens = self.block(self.first(pixel_values).flatten(2).transpose(1, 2))
        halves = (tokens * self.scale).chunk(2, dim=-1)
        return {"embedding": torch.cat(halves, -1).mean(1), "colours": pixel_values.mean((2, 3))}


@pytest.fixture(scope="module")
def network() -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Network().eval()


@pytest.fixture(scope="module")
def program(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("programs") / "two.pt2"
    free = {"pixel_values": {0: torch.export.Dim("b")}}
    torch.export.save(torch.export.export(network, (), {"pixel_values": torch.rand(2, 3, SIZE, SIZE)}, dynamic_shapes=free),
                      path)
    return path


def test_a_program_embeds_like_its_network(network, program):
    encoder = exported(path=program, output="embedding").to(torch.device("cpu"))
    with torch.no_grad():
        wanted = network(encoder.preprocess(IMAGES))["embedding"].numpy()
    assert np.abs(encoder.encode(IMAGES, IDS) - wanted).max() < 1e-5
    assert "images at 8 px (the file's size)" in encoder.reading and "output 'embedding' (b, 8)" in encoder.reading
    assert encoder.num_parameters == sum(p.numel() for p in network.parameters())
    with refused(got="2 (embedding (4, 8), colours (4, 3))", advice="two.pt"):
        exported(path=program)
    with refused(where="two.pt2", got="'z'"):
        exported(path=program, output="z")


def test_a_fixed_batch_and_one_plain_output(tmp_path):
    class Mean(torch.nn.Module):
        def forward(self, x):
            return (x.float() / 255).mean((2, 3))

    given = torch.zeros(2, 3, SIZE, SIZE, dtype=torch.uint8)
    torch.export.save(torch.export.export(Mean(), (given,)), tmp_path / "mean.pt2")
    encoder = exported(path=tmp_path / "mean.pt2").to(torch.device("cpu"))
    assert np.allclose(encoder.encode(IMAGES, IDS), IMAGES.float().mean((2, 3)) / 255)
    assert "raw pixel values (uint8)" in encoder.reading


class Evil:
    """Unpickled, it makes a file."""

    def __init__(self, path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def changed(program, path, **members):
    """The program with members of its archive replaced, by the end of their names: a function of the parsed JSON, or bytes."""
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            change = next((c for end, c in members.items() if name.endswith(ENDS.get(end, end))), None)
            if callable(change):
                value = json.loads(data)
                change(value)
                data = json.dumps(value).encode()
            new.writestr(name, change if isinstance(change, bytes) else data)
    return path


ENDS = {"graph": "models/model.json", "weights": "model_weights_config.json", "sample": "sample_inputs/model.pt"}


def test_nothing_in_a_program_is_executed(program, tmp_path):
    evil = tmp_path / "executed"

    def pickled(config):
        next(iter(config["config"].values()))["use_pickle"] = True

    def shell(value):
        value["graph_module"]["graph"]["nodes"][0]["target"] = "torch.os.system"

    def python(value):
        """Code wherever torch.export.load evaluates what it finds."""
        code = f"open({str(evil)!r}, 'w')"
        value["guards_code"] = [code]
        for meta in value["graph_module"]["graph"]["tensor_values"].values():
            for size in meta["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = code

    pickle_bytes = pickle.dumps(Evil(evil))
    with refused(where="a.pt2", got="pickled"):
        exported(path=changed(program, tmp_path / "a.pt2", weights=pickled, weight_0=pickle_bytes), output="embedding")
    with refused(got="'torch.os.system'"):
        exported(path=changed(program, tmp_path / "b.pt2", graph=shell), output="embedding")
    exported(path=changed(program, tmp_path / "c.pt2", graph=python, sample=pickle_bytes), output="embedding")
    assert not evil.exists()


@pytest.mark.parametrize("target", [
    "torch.hub.load", "torch.os.system", "torch.ops.aten.from_file.default", "torch.ops.aten.__class__.default",
    "math.__loader__",
    "_operator.methodcaller", "_operator.attrgetter", "torch.ops.load_library", "builtins.eval", "#ext:x",
    "torch.ops.aten.add.__call__",
    "torch.ops.higher_order.triton_kernel_wrapper_mutation"])
def test_only_tensor_operations_are_known(target):
    assert _operation(target) is None


def test_damaged_and_foreign_programs(program, tmp_path):
    whole = program.read_bytes()
    (tmp_path / "cut.pt2").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.pt2").write_bytes(b"not a program")
    with zipfile.ZipFile(tmp_path / "code.pt2", "w") as archive:
        archive.writestr("m/data/aotinductor/model/x.so", b"machine code")

    def larger(config):
        next(iter(config["config"].values()))["tensor_meta"]["sizes"] = [{"as_int": 10**9}]

    changed(program, tmp_path / "large.pt2", weights=larger)
    for name, message in [("cut", "a file of another kind"), ("text", "a file of another kind"),
                          ("code", "machine code, which is never run"),
                          ("large", "expected a program that torch.export.save wrote")]:
        with pytest.raises(UserError, match=message) as caught:
            exported(path=tmp_path / f"{name}.pt2", output="embedding")
        assert "\n" not in str(caught.value)
