"""Files of models that exporters write (ONNX, LiteRT, torch.export): the output that is taken, what is asked, no unpickling."""

from __future__ import annotations

import builtins
import json
import pickle
import zipfile

import numpy as np
import pytest
import torch

from builders import refused
from builders.made import save_lite
from distillscope.data.preprocess import Preprocess
from distillscope.errors import UserError
from distillscope.teachers.runtime_files import tflite
from distillscope.teachers.torch_files import _operation, exported

onnx_library = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from distillscope.teachers.runtime_files import onnx  # noqa: E402

F32, F16, U8, I8, I64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8, TensorProto.INT8, TensorProto.INT64
SIZE = 6
IMAGES = torch.randint(0, 256, (5, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
IDS = [f"i{i}" for i in range(5)]
POOL = ("GlobalAveragePool", "x", "pooled", {})
FLAT = ("Flatten", "pooled", "z", {})
Z = ("z", F32, ("b", 3))
LITE_SIZE = 8
LITE_IMAGES = torch.randint(0, 256, (5, 3, LITE_SIZE, LITE_SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

SIDE = 8
EIGHTS = torch.randint(0, 256, (5, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
ENDS = {"graph": "models/model.json", "weights": "model_weights_config.json", "sample": "sample_inputs/model.pt"}


def graph(path, nodes, outputs, inputs=(("x", F32, ("b", 3, SIZE, SIZE)),), **weights):
    """A file of ``nodes`` (operation, inputs, outputs, attributes), inputs and outputs (name, type, shape), and weights."""
    made = [helper.make_node(op, given.split(), given_out.split(), **attributes) for op, given, given_out, attributes in nodes]
    held = [numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items()]
    infos = [[helper.make_tensor_value_info(*v) for v in side] for side in (inputs, outputs)]
    model = helper.make_model(helper.make_graph(made, "g", *infos, held), opset_imports=[helper.make_opsetid("", 17)],
                              ir_version=8)
    onnx_library.save(model, path)
    return path


def embedded(path, **settings):
    encoder = onnx(path=path, **settings).to(torch.device("cpu"))
    return encoder, encoder.encode(IMAGES, IDS)


def seen(mean=None, std=None) -> np.ndarray:
    """The mean of each channel as a network with that normalisation sees it."""
    plain = Preprocess(SIZE) if mean is None else Preprocess(SIZE, mean, std)
    return plain(IMAGES).mean((2, 3)).numpy()


def test_uint8_inputs_get_the_pixels(tmp_path):
    path = graph(tmp_path / "u.onnx",
                 [("Cast", "x", "f", {"to": F32}), ("ReduceMean", "f", "z", {"axes": [2, 3], "keepdims": 0})], [Z],
                 [("x", U8, ("b", 3, SIZE, SIZE))])
    encoder, rows = embedded(path)
    assert np.allclose(rows, IMAGES.float().mean((2, 3)), rtol=1e-6)
    assert "raw pixel values (uint8), no mean and std" in encoder.reading and "(the file's size)" in encoder.reading
    with refused(where="u.onnx", got="some"):
        onnx(path=path, mean=(0.5, 0.5, 0.5))


@pytest.mark.parametrize("mean", [None, (0.5, 0.4, 0.3)])
def test_pooled_maps_are_flattened_and_what_is_assumed_is_said(tmp_path, mean):
    path = graph(tmp_path / "map.onnx", [POOL], [("pooled", F32, ("b", 3, 1, 1))])
    encoder, rows = embedded(path, mean=mean)
    assert np.allclose(rows, seen() if mean is None else seen(mean, Preprocess(1).std), atol=1e-6)
    assert ("mean (0.5, 0.4, 0.3) (as set), std (0.269, 0.261, 0.276) (assumed" if mean
            else "(assumed, CLIP's") in encoder.reading
    assert "embedding: output 'pooled' (b, 3)" in encoder.reading


@pytest.mark.parametrize("kind, dtype", [("float16", F16), ("double", TensorProto.DOUBLE)])
def test_the_files_own_precision(tmp_path, kind, dtype):
    path = graph(tmp_path / "p.onnx", [("ReduceMean", "x", "z", {"axes": [2, 3], "keepdims": 0})], [("z", dtype, ("b", 3))],
                 [("x", dtype, ("b", 3, SIZE, SIZE))])
    assert np.allclose(embedded(path)[1], seen(), atol=2e-3)


def clip(path, mask=F32):
    """Text and image towers in one file; `mixed` looks at both, and the mask touches the image by nothing."""
    nodes = [POOL, FLAT, ("ReduceSum", "mask", "m", {"keepdims": 0}), ("Mul", "m nothing", "m0", {}),
             ("Add", "z m0", "image_embeds", {}),
             ("Cast", "ids", "f", {"to": F32}), ("ReduceMean", "f", "text_embeds", {"axes": [1]}),
             ("Add", "image_embeds text_embeds", "mixed", {})]
    return graph(path, nodes, [("text_embeds", F32, ("t", 1)), ("mixed", F32, ("b", 3)), ("image_embeds", F32, ("b", 3))],
                 [("ids", I64, ("b", "length")), ("x", F32, ("b", 3, SIZE, SIZE)), ("mask", F32, ("b", 7))],
                 nothing=np.float32(0))


def test_other_inputs_are_filled_where_the_output_does_not_depend_on_them(tmp_path):
    path = clip(tmp_path / "clip.onnx")
    encoder, rows = embedded(path, output="image_embeds")
    assert np.allclose(rows, seen(), atol=1e-6)
    assert "input 'x' takes the images; ids, mask filled with zeros" in encoder.reading
    with refused(got="3", advice="clip.onnx:image_embeds"):
        onnx(path=path)
    for output in ("mixed", "text_embeds"):
        with pytest.raises(UserError, match=f"depends on 'x' alone, got '{output}', which changes with the other inputs .ids"):
            onnx(path=path, output=output)


def test_tokens_and_maps_are_pooled_only_as_asked(tmp_path):
    path = graph(tmp_path / "t.onnx", [("Reshape", "x shape", "flat", {}), ("Transpose", "flat", "z", {"perm": [0, 2, 1]})],
                 [("z", F32, ("b", SIZE**2, 3))], shape=np.array([0, 3, -1]))
    with refused(got="tokens (b, tokens, dim)", advice=("t.onnx:z@first", "t.onnx:z@mean")):
        onnx(path=path)
    encoder, rows = embedded(path, pool="mean")
    assert np.allclose(rows, seen(), atol=1e-6) and "mean of output 'z'" in encoder.reading
    assert np.allclose(embedded(path, pool="first")[1], Preprocess(SIZE)(IMAGES)[:, :, 0, 0], atol=1e-6)
    path = graph(tmp_path / "m.onnx", [("Relu", "x", "z", {})], [("z", F32, ("b", 3, SIZE, SIZE))])
    with refused(got="a feature map", advice="m.onnx:z@mean"):
        onnx(path=path)
    assert embedded(path, pool="mean")[1].shape == (5, 3)


def test_a_file_that_takes_one_image_whatever_it_says(tmp_path):
    """A batch of one, baked into a reshape by the exporter."""
    path = graph(tmp_path / "one.onnx", [POOL, ("Reshape", "pooled shape", "z", {})], [Z], shape=np.array([1, 3]))
    encoder, rows = embedded(path)
    assert np.allclose(rows, seen(), atol=1e-6) and "one image at a time" in encoder.reading


def test_channels_are_found_where_the_shape_does_not_tell(tmp_path):
    nodes = [("Transpose", "y", "x", {"perm": [0, 3, 1, 2]}), ("Conv", "x w", "c", {}),
             ("GlobalAveragePool", "c", "pooled", {}), FLAT]
    path = graph(tmp_path / "free.onnx", nodes, [Z], [("y", F32, ("b", "p", "q", "r"))],
                 w=np.eye(3, dtype=np.float32)[..., None, None])
    encoder, rows = embedded(path, size=SIZE)
    assert np.allclose(rows, seen(), atol=1e-6) and "channels last" in encoder.reading


def test_what_looks_wrong_about_an_embedding_is_said(tmp_path):
    batch = graph(tmp_path / "batch.onnx", [POOL, FLAT, ("ReduceMean", "z", "m", {"axes": [0]}), ("Sub", "z m", "s", {})],
                  [("s", F32, ("b", 3))])
    assert "depends on the other images of its batch" in onnx(path=batch).reading
    shares = graph(tmp_path / "s.onnx", [POOL, FLAT, ("Softmax", "z", "s", {})], [("s", F32, ("b", 3))])
    assert "class probabilities, not an embedding?" in onnx(path=shares).reading
    same = graph(tmp_path / "c.onnx", [POOL, FLAT, ("Mul", "z nothing", "s", {}), ("Add", "s one", "t", {})],
                 [("t", F32, ("b", 3))],
                 nothing=np.float32(0), one=np.float32(1))
    with refused(got="'t', the same for any"):
        onnx(path=same)


def test_inputs_and_outputs_that_cannot_be_taken(tmp_path):
    quantised = graph(tmp_path / "q.onnx", [POOL, FLAT, ("QuantizeLinear", "z scale zero", "q", {})], [("q", I8, ("b", 3))],
                      scale=np.float32(0.1), zero=np.int8(0))
    with refused(got="'q' tensor(int8)"):
        onnx(path=quantised)
    grey = graph(tmp_path / "g.onnx", [POOL], [("pooled", F32, None)], [("x", F32, ("b", 1, SIZE, SIZE))])
    with refused(expected="one input of colour images"):
        onnx(path=grey)
    text = graph(tmp_path / "t.onnx", [("Cast", "ids", "z", {"to": F32})], [("z", F32, None)], [("ids", I64, ("b", 7))])
    with refused(got="ids: tensor(int64)"):
        onnx(path=text)
    number = graph(tmp_path / "n.onnx", [("ReduceMean", "x", "z", {"axes": [1, 2, 3], "keepdims": 0})], [("z", F32, ("b",))])
    with refused(got="float32 (4,) for 4 images"):
        onnx(path=number)


@pytest.mark.slow
def test_a_file_of_torchs_own_exporter_with_its_weights_beside_it(tmp_path):
    pytest.importorskip("onnxscript")
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
                                  torch.nn.Flatten()).eval()
    path = tmp_path / "dynamo.onnx"
    torch.onnx.export(network, (torch.rand(2, 3, SIZE, SIZE),), path, dynamo=True, dynamic_shapes=({0: torch.export.Dim("b")},),
                      external_data=True, verbose=False)
    encoder, rows = embedded(path)
    with torch.no_grad():
        assert np.allclose(rows, network(encoder.preprocess(IMAGES)), atol=1e-5)


def test_float_inputs_are_normalised_and_whole_numbers_are_pixels(tmp_path):
    pytest.importorskip("ai_edge_litert")
    weights = save_lite(tmp_path / "f.tflite")
    encoder = tflite(path=tmp_path / "f.tflite", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)).to(torch.device("cpu"))
    wanted = (LITE_IMAGES.float() / 127.5 - 1).mean((2, 3)).numpy() @ weights.T
    assert np.allclose(encoder.encode(LITE_IMAGES, IDS), wanted, atol=1e-5)
    assert "images at 8 px (the file's size), channels last, mean (0.5, 0.5, 0.5)" in encoder.reading
    save_lite(tmp_path / "q.tflite", "INT8", 1 / 128, 0, quantised=0.05)  # pixels less 128, over 128
    encoder = tflite(path=tmp_path / "q.tflite").to(torch.device("cpu"))
    wanted = ((LITE_IMAGES.float() - 128) / 128).mean((2, 3)).numpy() @ weights.T
    assert np.abs(encoder.encode(LITE_IMAGES, IDS) - wanted).max() < 0.051  # one step of the output
    assert "raw pixel values (int8, taken to span -1 to 0.992), no mean and std" in encoder.reading


def test_files_that_are_none(tmp_path):
    pytest.importorskip("ai_edge_litert")
    (tmp_path / "a.tflite").write_bytes(b"\x1c\0\0\0TFL3" + b"\0" * 200)
    (tmp_path / "b.tflite").write_bytes(b"no model at all")
    for name in "ab":
        with refused(expected="a LiteRT (TensorFlow Lite) file") as caught:
            tflite(path=tmp_path / f"{name}.tflite")
        assert "\n" not in str(caught.value)


def test_the_way_out_without_the_package(tmp_path, monkeypatch):
    (tmp_path / "a.tflite").write_bytes(b"\x1c\0\0\0TFL3")
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("ai_edge_litert"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with refused(advice="'distillscope[tflite]'"):
        tflite(path=tmp_path / "a.tflite")


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
    torch.export.save(torch.export.export(network, (), {"pixel_values": torch.rand(2, 3, SIDE, SIDE)}, dynamic_shapes=free),
                      path)
    return path


def test_a_program_embeds_like_its_network(network, program):
    encoder = exported(path=program, output="embedding").to(torch.device("cpu"))
    with torch.no_grad():
        wanted = network(encoder.preprocess(EIGHTS))["embedding"].numpy()
    assert np.abs(encoder.encode(EIGHTS, IDS) - wanted).max() < 1e-5
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

    given = torch.zeros(2, 3, SIDE, SIDE, dtype=torch.uint8)
    torch.export.save(torch.export.export(Mean(), (given,)), tmp_path / "mean.pt2")
    encoder = exported(path=tmp_path / "mean.pt2").to(torch.device("cpu"))
    assert np.allclose(encoder.encode(EIGHTS, IDS), EIGHTS.float().mean((2, 3)) / 255)
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
