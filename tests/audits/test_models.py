"""Models in files embed images like the network that they were made from, once, and say what is wrong with them; bounds."""

from __future__ import annotations

import builtins
import copy
import math
import operator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from builders import refused
from builders.tiny import TEACHER, teacher_weights
from distillscope.audits.models import embed_model
from distillscope.audits.requirements import check_requirements
from distillscope.audits.run import is_model
from distillscope.audits.shown import file_preprocess
from distillscope.data.preprocess import Preprocess
from distillscope.data.source import Source
from distillscope.data.splits import load_split
from distillscope.errors import UserError
from distillscope.measure.audit import audit
from distillscope.measure.results import Audit, Value
from distillscope.students.load import build_student, save_student
from distillscope.teachers.encoder import Encoder
from distillscope.teachers.inventory import list_entries
from distillscope.teachers.model_files import hash_files
from distillscope.teachers.runtime_files import external_data, onnx
from distillscope.teachers.torch_files import torchscript

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit")  # no longer developed, still in use
SIZE, DIM = 16, 5
PREPROCESS = Preprocess(SIZE, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))


@pytest.fixture(scope="module")
def images() -> Source:
    return load_split("digits", {}, "test", 33)


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = torch.nn.Sequential(torch.nn.Conv2d(3, DIM, 4, stride=4), torch.nn.BatchNorm2d(DIM), torch.nn.ReLU(),
                                     torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        module[1].running_mean.normal_()
    return module.eval()


@torch.inference_mode()
def expected(network: torch.nn.Module, images: Source) -> np.ndarray:
    return network(PREPROCESS(images.read(range(len(images))))).numpy()


def save_onnx(path, network, shape=("n", 3, SIZE, SIZE), outputs=1, **settings):
    """The network, written node by node, so that no exporter is needed."""
    library = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    conv, norm = network[0], network[1]
    names = {"w": conv.weight, "b": conv.bias, "scale": norm.weight, "shift": norm.bias, "mean": norm.running_mean,
             "var": norm.running_var}
    weights = [numpy_helper.from_array(t.detach().numpy(), n) for n, t in names.items()]
    channels_last = shape[3] == 3
    nodes = [helper.make_node("Transpose", ["x"], ["x1"], perm=[0, 3, 1, 2])] if channels_last else []
    nodes += [helper.make_node("Conv", ["x1" if channels_last else "x", "w", "b"], ["c"], strides=[4, 4]),
              helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "var"], ["n"], epsilon=norm.eps),
              helper.make_node("Relu", ["n"], ["r"]), helper.make_node("GlobalAveragePool", ["r"], ["p"]),
              helper.make_node("Flatten", ["p"], ["z"])]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    made = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("z", "r")[:outputs]]
    model = helper.make_model(helper.make_graph(nodes, "g", [given], made, weights),
                              opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    library.save(model, path, **settings)
    return path


def save_script(path, network, way):
    scripted = torch.jit.trace(network, torch.zeros(1, 3, SIZE, SIZE)) if way == "trace" else torch.jit.script(network)
    (torch.jit.freeze(scripted) if way == "freeze" else scripted).save(str(path))
    return path


@pytest.mark.parametrize("way", ["script", "trace", "freeze"])
@pytest.mark.parametrize("name", ["model.pt", "model.ts"])
def test_torchscript_embeds_like_its_network(tmp_path, network, images, way, name):
    spec = str(save_script(tmp_path / name, network, way))
    assert is_model(spec)
    found = embed_model(spec, images, preprocess=PREPROCESS, device="cpu")
    assert np.abs(found.rows - expected(network, images)).max() < 1e-5
    assert list(found.ids) == images.ids.tolist() and (found.labels == images.labels).all() and found.name == name


@pytest.mark.parametrize("shape", [("n", 3, SIZE, SIZE), ("n", 3, "h", "w"), (4, 3, SIZE, SIZE), ("n", SIZE, SIZE, 3)])
def test_onnx_embeds_like_its_network(tmp_path, network, images, shape):
    """Batch and size free or fixed, channels first or last."""
    spec = str(save_onnx(tmp_path / "model.onnx", network, shape))
    found = embed_model(spec, images, preprocess=PREPROCESS, device="cpu")
    assert np.abs(found.rows - expected(network, images)).max() < 1e-5 and found.rows.shape == (33, DIM)


def test_a_named_output_and_the_size_that_a_file_fixes(tmp_path, network, images, capsys):
    path = save_onnx(tmp_path / "two.onnx", network, outputs=2)
    with refused(got=("2 (z", "r"), advice="two.onnx:z"):
        embed_model(str(path), images, device="cpu")
    assert is_model(f"{path}:z")
    assert embed_model(f"{path}:z", images, device="cpu").rows.shape == (33, DIM)
    said = " ".join(capsys.readouterr().err.split())
    assert "onnx/two.onnx: images at 16 px (the file's size), channels first, mean (0.481, 0.458, 0.408)" in said
    assert said.count("embedding: output 'z' (b, 5)") == 1
    with refused(where="two.onnx", got="'y'"):
        onnx(path=path, output="y")
    with refused(got="a feature map, float32 (4, 5, 4, 4)", advice="two.onnx:r@mean"):
        onnx(path=path, output="r")
    with refused(expected="16", got="32"):
        onnx(path=path, output="z", size=32)


def test_models_in_files_go_through_the_cache_by_their_contents(tmp_path, network, images, monkeypatch):
    spec = str(save_onnx(tmp_path / "model.onnx", network))
    first = embed_model(spec, images, preprocess=PREPROCESS, device="cpu").rows
    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "encode", lambda *_: pytest.fail("embedded again"))
        assert (embed_model(spec, images, preprocess=PREPROCESS, device="cpu").rows == first).all()
    other = copy.deepcopy(network)
    other[0].weight.data.mul_(2)
    save_onnx(tmp_path / "model.onnx", other)
    assert np.abs(embed_model(spec, images, preprocess=PREPROCESS, device="cpu").rows - first).max() > 0.01
    assert len(list_entries()) == 2


def test_weights_beside_an_onnx_file_are_part_of_its_name(tmp_path, network):
    location = "weights" * 20 + ".bin"  # long enough for a length of two bytes
    path = save_onnx(tmp_path / "a.onnx", network, save_as_external_data=True, location=location, size_threshold=0)
    assert external_data(path) == [tmp_path / location]
    before = onnx(path=path).weights_hash
    data = bytearray((tmp_path / location).read_bytes())
    data[0] ^= 1
    (tmp_path / location).write_bytes(data)
    assert onnx(path=path).weights_hash != before
    assert hash_files([path]) != hash_files([path, tmp_path / location])


def test_a_teachers_name_and_a_students_folder(tmp_path, images):
    weights = f"timm/{TEACHER}"
    assert is_model(weights) and is_model("efficientnet_lite0") and is_model("open_clip/ViT-B-32:openai")
    assert not any(map(is_model, ["embeddings", "timm", "onnx", "a.npy", str(tmp_path), str(teacher_weights())]))
    student = build_student("paper_cnn", {"width": 1}, 8, Preprocess(SIZE), "S", torch.device("cpu"))
    save_student(student, tmp_path / "student")
    found = embed_model(str(tmp_path / "student"), images, device="cpu")
    assert is_model(str(tmp_path / "student")) and found.rows.shape == (33, 8) and found.name == "student"
    assert (found.rows == student.embed(images)).all()
    (tmp_path / "student" / "embeddings_test").mkdir()  # a trial has its embeddings beside its weights
    assert is_model(str(tmp_path / "student")) and not is_model(str(tmp_path / "student"), with_images=False)


def test_model_files_that_are_none(tmp_path, network):
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    (tmp_path / "bad.ts").write_bytes(b"not a model")
    (tmp_path / "empty.onnx").touch()
    for make, name, message in [
        (onnx, "bad.onnx", "an ONNX model, got InvalidProtobuf"),
        (torchscript, "bad.ts", "a TorchScript archive, got RuntimeError"),
        (onnx, "empty.onnx", "a model file, got an empty file"),
        (onnx, "none.onnx", "a model file, got none there"),
    ]:
        with pytest.raises(UserError, match=message) as caught:
            make(path=tmp_path / name)
        assert "\n" not in str(caught.value)
    whole = save_onnx(tmp_path / "cut.onnx", network).read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    with refused(expected="an ONNX model"):
        onnx(path=tmp_path / "cut.onnx")
    tall = save_onnx(tmp_path / "tall.onnx", network, shape=("n", 3, SIZE, 8))
    with refused(got="an input of ['n', 3, 16, 8]"):
        onnx(path=tall)


def test_networks_that_give_no_embeddings(tmp_path, network):
    save_script(tmp_path / "map.ts", network[:3], "script")
    with refused(got="a feature map, float32 (4, 5, 4, 4)"):
        torchscript(path=tmp_path / "map.ts", size=SIZE)
    save_script(tmp_path / "flat.ts", torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * SIZE**2, 2)), "script")
    with refused(expected=("3", "224"), advice="--image-size"):
        torchscript(path=tmp_path / "flat.ts")


def test_onnx_fixes_its_precision_and_needs_its_package(tmp_path, network, images, monkeypatch):
    spec = str(save_onnx(tmp_path / "a.onnx", network))
    with refused(expected="--precision", got="bfloat16"):
        embed_model(spec, images, device="cpu", precision="bfloat16")
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("onnxruntime"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with refused(got="not installed", advice="'distillscope[onnx]'"):
        onnx(path=tmp_path / "a.onnx")


def test_torchscript_with_several_outputs_and_what_works_found_by_trying(tmp_path, images):
    class Several(torch.nn.Module):
        def forward(self, x):
            return {"map": x, "embedding": x.mean((2, 3))}

    class Last(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.conv2d(x.permute(0, 3, 1, 2), torch.ones(4, 3, 1, 1)).mean((2, 3))

    path = tmp_path / "dict.pt"
    torch.jit.trace(Several(), torch.zeros(1, 3, SIZE, SIZE), strict=False).save(str(path))
    with refused(got="2", advice="dict.pt:embedding"):
        embed_model(str(path), images, preprocess=PREPROCESS, device="cpu")
    found = embed_model(f"{path}:embedding", images, preprocess={"size": SIZE}, device="cpu").rows
    assert np.abs(found - Preprocess(SIZE)(images.read(range(33))).mean((2, 3)).numpy()).max() < 1e-6
    with refused(where="dict.pt", got="'x'"):
        embed_model(f"{path}:x", images, device="cpu")
    torch.jit.trace(Last(), torch.zeros(1, SIZE, SIZE, 3)).save(str(tmp_path / "last.ts"))
    assert "channels last" in torchscript(path=tmp_path / "last.ts", size=SIZE).reading


def test_a_pickled_module_is_refused_in_one_line(tmp_path, network, images):
    torch.save(network, tmp_path / "whole.pt")
    for read in (lambda p: torchscript(path=p), lambda p: embed_model(str(p), images)):
        with refused(got="pickled module", advice="torch.jit.save"):
            read(tmp_path / "whole.pt")


def test_a_mean_without_a_size(tmp_path, network, images, capsys):
    """The file fixes its size, so it need not be said again."""
    spec = str(save_onnx(tmp_path / "m.onnx", network))
    found = embed_model(spec, images, preprocess=file_preprocess(None, "0.5,0.4,0.3", "0.2,0.2,0.2"), device="cpu")
    assert np.abs(found.rows - expected(network, images)).max() < 1e-5
    assert "mean (0.5, 0.4, 0.3), std (0.2, 0.2, 0.2) (as set)" in " ".join(capsys.readouterr().err.split())
    assert found.reading.said().endswith("mean (0.5, 0.4, 0.3), std (0.2, 0.2, 0.2) (as set); embedding: output 'z' (b, 5).")


def made(value=0.91, low=0.90, high=0.92, key="probe.retention"):
    return Audit({key: Value(value, low, high, 1000, "What it is.", "share"),
                  "student.dims_90": Value(16, 15.0, 17.0, 1000, "Components.", "dims"),
                  "contrastive.saturated": Value(0, None, None, 1000, "A flag.", "flag")},
                 left_out={"knn.retention": "it needs labels, and none were given"})


@pytest.mark.parametrize(("requirement", "line"), [
    ("probe.retention>=0.95", "probe.retention = 0.91 [0.90, 0.92] misses >= 0.95"),
    (" probe.retention  >  0.91 ", "probe.retention = 0.91 [0.90, 0.92] misses > 0.91"),
    ("probe.retention<0.5", "probe.retention = 0.91 [0.90, 0.92] misses < 0.5"),
    ("probe.retention<=9e-1", "probe.retention = 0.91 [0.90, 0.92] misses <= 9e-1"),
    ("low(probe.retention)>=0.905", "low(probe.retention) = 0.90 misses >= 0.905 (value 0.91 [0.90, 0.92])"),
    ("high( probe.retention )<.9", "high(probe.retention) = 0.92 misses < .9 (value 0.91 [0.90, 0.92])"),
    ("student.dims_90==17", "student.dims_90 = 16 [15, 17] misses == 17"),
    ("contrastive.saturated==1", "contrastive.saturated = 0 misses == 1"),
])
def test_a_miss_is_one_line(requirement, line):
    assert check_requirements(made(), [requirement]) == [line]


def test_what_is_met_says_nothing_and_the_order_is_kept():
    met = ["probe.retention>=0.91", "probe.retention<=0.91", "probe.retention==0.91", "low(probe.retention)>=0.9",
           "student.dims_90<17"]
    assert check_requirements(made(), met) == [] == check_requirements(made(), [])
    lines = check_requirements(made(), ["student.dims_90>20", *met, "probe.retention>0.99"])
    assert [line.split(" ")[0] for line in lines] == ["student.dims_90", "probe.retention"]


@pytest.mark.parametrize(("requirement", "message"), [
    ("probe.retention", "expected KEY, one of >= <= > < ==, and a number, got 'probe.retention'"),
    ("probe.retention=0.9", "expected KEY, one of"),
    ("probe.retention=>0.9", "expected KEY, one of"),
    ("probe.retention>=", "expected KEY, one of"),
    (">=0.9", "expected KEY, one of"),
    ("", "expected KEY, one of"),
    ("mid(probe.retention)>=0.9", "expected KEY, one of"),
    ("low(probe.retention>=0.9", "expected KEY, one of"),
    ("probe.retention>=95%", "expected a finite number after the operator, got '95%'"),
    ("probe.retention>=nan", "expected a finite number after the operator, got 'nan'"),
    ("probe.retention>=inf", "expected a finite number"),
    ("probe.retentoin>=0.9", "got 'probe.retentoin', which is none. Did you mean probe.retention"),
    ("dims_90>=3", "got 'dims_90', which is none. Did you mean student.dims_90"),
    ("x>=0.9", "got 'x', which is none. --json lists"),
    ("knn.retention>=0.9", "got 'knn.retention', which was left out because it needs labels, and none were given"),
    ("low(knn.retention)>=0.9", "which was left out because it needs labels"),
    ("alignment.teacher_r2>=0.9", "got 'alignment.teacher_r2', whose group was not chosen"),
    ("teacher.effective_rank>=9", "got 'teacher.effective_rank', whose group was not chosen"),
    ("low(contrastive.saturated)>=0", r"inside low\(\), got 'contrastive.saturated', which has none here"),
])
def test_what_cannot_be_checked_is_an_error(requirement, message):
    with pytest.raises(UserError, match=message) as error:
        check_requirements(made(), [requirement])
    assert "\n" not in str(error.value) and str(error.value).startswith("--require")


def test_every_requirement_is_read_before_any_is_checked():
    with refused(where="--require 'broken'", got="'broken'"):
        check_requirements(made(), ["probe.retention>=0.95", "broken"])


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.sampled_from([">=", "<=", ">", "<", "=="]))
def test_any_numbers_are_compared_as_python_compares_them_and_the_line_agrees(value, bound, op):
    compare = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt, "==": operator.eq}[op]
    lines = check_requirements(made(value, None, None), [f"probe.retention{op}{bound!r}"])
    assert len(lines) == (not compare(value, bound))
    if lines:
        shown = float(lines[0].split(" = ")[1].split(" ")[0])
        assert not compare(shown, bound), "the digits that are shown must miss the bound too"
        assert math.isclose(shown, value, rel_tol=1e-3, abs_tol=0)


def test_on_a_real_audit():
    teacher = np.random.default_rng(0).normal(size=(60, 6))
    found = audit(teacher, teacher, groups={"spectrum", "alignment", "probe"}, intervals=False)
    assert check_requirements(found, ["alignment.mean_cosine>=0.999", "teacher.undersampled==0"]) == []
    with refused(got="needs labels"):
        check_requirements(found, ["probe.retention>=0.9"])
    with refused(advice="audit with intervals"):
        check_requirements(found, ["low(alignment.mean_cosine)>=0.9"])
