"""int8: which way is taken and which layers stay in float, on measures that are planned; how weights are rounded and tuned."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
import yaml

from builders import refused
from distillscope.data.preprocess import Preprocess
from distillscope.data.splits import load_split
from distillscope.errors import UserError
from distillscope.students.export import fine_tune
from distillscope.students.export.fine_tune import Rounding, Tuning, fine_tuned
from distillscope.students.export.images import pixels_of
from distillscope.students.export.network import PixelNetwork
from distillscope.students.export.quantise import BoundMissed, Point, Quantiser, choose
from distillscope.students.export.verify import network_rows
from distillscope.students.load import build_own


class Planned(Quantiser):
    """Five layers of known harm: what a point would measure, without a network."""

    harm = {"a": 0.02, "b": 0.01, "c": 0.0, "d": 0.001, "e": 0.001}

    def __init__(self, large="e"):
        self.layers = {n: f"block.{n}" for n in self.harm}
        self.weights = {n: 1000 if n == large else 10 for n in self.harm}
        self.float_bytes = 4 * sum(self.weights.values()) + 100

    def point(self, method, weight_bits, in_float=()):
        lost = sum(v for n, v in self.harm.items() if n not in in_float)
        lost += 0 if (method, weight_bits) == ("Entropy", 8) else 0.1
        size = 100 + sum(w * (4 if n in in_float else 1) for n, w in self.weights.items())
        return Point(method, weight_bits, tuple(in_float), 1 - lost, 1 - 2 * lost, size)


def test_layers_that_hurt_are_left_in_float_and_no_more():
    chosen, tried = choose(Planned(), 0.985, "s")
    assert (chosen.method, chosen.weight_bits, chosen.in_float) == ("Entropy", 8, ("a",)), tried
    assert choose(Planned(), 0.995, "s")[0].in_float == ("a", "b")
    assert choose(Planned(), 0.9, "s")[0].in_float == ()


def test_a_bound_that_no_small_file_keeps_gives_the_frontier():
    with pytest.raises(BoundMissed) as caught:
        choose(Planned(), 0.9995, "s")
    assert "--min-cosine 0.999," in str(caught.value)
    rows = caught.value.frontier
    assert [r["bytes"] for r in rows] == sorted(r["bytes"] for r in rows)
    assert [r["mean_cosine"] for r in rows] == sorted(r["mean_cosine"] for r in rows)
    assert rows[0]["in_float"] == [] and "block.a" in rows[-1]["in_float"]


def test_a_file_that_is_hardly_smaller_is_refused():
    small = Planned()
    small.float_bytes, small.weights = 140, dict.fromkeys(small.harm, 2)
    with refused(expected="3 times", got="no weights", advice="fixed part"):
        choose(small, 0.9, "s")


def test_weights_that_were_rounded_before_give_the_same_file():
    """The first way is rounded by ONNX Runtime whole, each later one from what it left; compared with one rounded whole."""
    rng = np.random.default_rng(0)
    graph = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 18]>
        g (float[n, 3, 8, 8] images) => (float[n, 5] embeddings)
        <float[8, 3, 3, 3] a, float[8] b, float[8, 1, 3, 3] c, float[8] d, float[5, 8] e, float[5] f> {
            one = Conv<pads = [1, 1, 1, 1]>(images, a, b)
            two = Relu(one)
            three = Conv<pads = [1, 1, 1, 1], group = 8>(two, c, d)
            four = GlobalAveragePool(three)
            five = Flatten(four)
            embeddings = Gemm<transB = 1>(five, e, f)
        }""")
    for i, node in enumerate(graph.graph.node):
        node.name = f"n{i}"
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=f"['', 'network.{i}', '']")
    for name, shape in (("a", (8, 3, 3, 3)), ("b", 8), ("c", (8, 1, 3, 3)), ("d", 8), ("e", (5, 8)), ("f", 5)):
        graph.graph.initializer.append(onnx.numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name))
    pixels = rng.normal(size=(64, 3, 8, 8)).astype(np.float32)
    known = Quantiser(graph, pixels, pixels, np.ones((64, 5)), "g")
    assert list(known.layers) == ["n0", "n2", "n5"]
    for in_float in ((), ("n0",), ("n2",), ("n5",), ("n0", "n5"), ("n0", "n2", "n5")):
        again = Quantiser(graph, pixels, pixels, np.ones((64, 5)), "g", ranges=known.ranges)
        again.outline = again.inferred
        assert _plain(known.quantised("MinMax", 7, in_float)) == _plain(again.quantised("MinMax", 7, in_float)), in_float
    assert known.point("MinMax", 8) is known.point("MinMax", 8)


def _plain(graph):
    held = {t.name: (t.data_type, onnx.numpy_helper.to_array(t).tobytes()) for t in graph.graph.initializer}
    return held, [n.SerializeToString() for n in graph.graph.node]


def test_rounding_is_that_of_a_quantised_file():
    rounding = Rounding(7)
    x, layer = torch.tensor([[-1.0, 0.0, 2.0, 0.011]]), torch.nn.Linear(4, 2)
    with rounding, torch.no_grad():
        watched = layer(x)
    assert torch.equal(watched, layer(x)) and rounding.ranges == [(-1.0, 2.0)]
    rounding.watching = False
    scale = 3 / 255
    values = rounding.activation(x)[0]
    assert ((values - x[0]).abs() <= scale / 2 + 1e-6).all() and values[1] == 0
    rows = rounding.weight(layer.weight, 0)
    steps = layer.weight.detach().abs().amax(1, keepdim=True) / 64
    assert torch.allclose(rows / steps, (rows / steps).round(), atol=1e-4)
    assert ((rows - layer.weight).abs() <= steps / 2 + 1e-6).all()


def made():
    """Two layers whose weights of 7 bits show, and images of digits."""
    torch.manual_seed(0)
    body = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 4, stride=4), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(128, 8))
    student = build_own(body, 8, Preprocess(16), "two layers", torch.device("cpu"))
    student.module.eval()
    return student, load_split("digits", {}, "train", 320)


def test_tuned_weights_lose_less_to_rounding_on_images_that_they_were_not_tuned_on():
    with torch.random.fork_rng(devices=[]):
        student, source = made()
    before = [p.clone() for p in student.module.parameters()]
    held = pixels_of(source.take(range(256, 320)), student.preprocess)
    wanted = torch.from_numpy(network_rows(student, held))

    def lost(network):
        rounding = Rounding(7)
        with torch.no_grad():
            fine_tune._embedded(network, held, rounding)
            rounding.watching = False
            return float((fine_tune._embedded(network, held, rounding) - wanted).square().mean())

    tuning = Tuning(150, source.take(range(256)), None)
    tuned = fine_tuned(student, tuning, held[:32], 7)
    assert lost(tuned) < 0.9 * lost(PixelNetwork(student))
    assert all(torch.equal(a, b) for a, b in zip(before, student.module.parameters(), strict=True)), "the student stays"
    assert not any(p.requires_grad for p in tuned.parameters())


def test_the_teachers_embeddings_are_compared_with_where_the_cache_has_them(tmp_path, monkeypatch):
    student, source = made()
    (tmp_path / "student.json").write_text('{"teacher": "T"}')
    teacher = SimpleNamespace(dim=8, num_missing=lambda part: 0, mark="", rows=lambda part: np.ones((len(part), 8)))
    monkeypatch.setattr(fine_tune, "load_teacher", lambda *given: teacher)

    def found(**settings):
        (tmp_path / "distill.yaml").write_text(yaml.safe_dump({"settings": settings}))
        return fine_tune.tuning_of(tmp_path, student, source, [source.take(range(10))], source.take(range(10)), 5)

    asked = {"teacher": [{"name": "timm", "label": "T"}], "target": {"name": "none"}}
    assert found(**asked).teacher.shape == (10, 8) and len(found(**asked).images) <= 310
    assert "through a transform" in found(**{**asked, "target": {"name": "pca"}}).without_teacher
    teacher.num_missing = lambda part: 3
    assert "3 of 10" in found(**asked).without_teacher
    teacher.dim = 9
    assert "9-d" in found(**asked).without_teacher
    with refused(where="--qat", got="0", advice="--calibrate"):
        fine_tune.tuning_of(tmp_path, student, source, [source], source, 5)
    (tmp_path / "distill.yaml").unlink()
    with pytest.raises(UserError):
        fine_tune._cached_rows(tmp_path, student, source)
