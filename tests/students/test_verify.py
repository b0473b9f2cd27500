"""Files that cosines alone would pass: of another scale, and of a student whose embeddings all point one way."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

from builders import refused
from builders.tiny import small_student
from distillscope.students.export import runtimes
from distillscope.students.export.verify import KEPT, Agreement, spread_held
from distillscope.students.export.write import export_student


@pytest.fixture(scope="module")
def cone():
    """Embeddings (300, 16) of a collapsed student: one direction, and a twentieth of it that differs between images."""
    rng = np.random.default_rng(0)
    return (1.0 + 0.05 * rng.normal(size=(300, 16))).astype(np.float32)


def of(found, rows):
    return Agreement.of(found, rows, np.arange(len(rows)).astype(str))


def test_a_constant_file_of_a_collapsed_student_is_refused_though_its_cosine_is_high(cone):
    constant = of(np.repeat(cone.mean(0, keepdims=True), len(cone), 0), cone)
    assert constant.mean > 0.99 and constant.r2 == pytest.approx(0, abs=1e-4)
    with refused(expected="a constant", got="mean cosine of 0.99", advice="--min-cosine nearer to 1"):
        spread_held(constant, "int8", "export s.onnx")
    faithful = of(cone + 1e-3 * np.random.default_rng(1).normal(size=cone.shape), cone)
    assert faithful.r2 > 0.999
    for precision in KEPT:
        spread_held(faithful, precision, "export s.onnx")


def test_rounding_is_no_loss_where_embeddings_do_not_differ_at_all():
    rows = np.ones((64, 8), np.float32)
    assert of(rows * np.float32(1 + 1e-6), rows).r2 > KEPT["float32"]
    assert not of(np.full_like(rows, np.nan), rows).r2 >= 0


def test_r2_is_that_of_both_sets_of_images_together(cone):
    other = cone[:32] + 0.05
    both = of(cone, cone).joined(of(other, cone[:32]))
    assert len(both.ids) == 332 and both.r2 == pytest.approx(1 - 32 * 16 * 0.05**2 / both.spreads.sum(), rel=1e-4)


def test_a_file_of_another_scale_is_not_written(tmp_path, monkeypatch):
    traced = runtimes.traced

    def doubled(*given):
        graph = traced(*given)
        for node in graph.graph.node:
            node.output[:] = ["half" if name == "embeddings" else name for name in node.output]
        graph.graph.node.append(onnx.helper.make_node("Add", ["half", "half"], ["embeddings"]))
        return graph

    monkeypatch.setattr(runtimes, "traced", doubled)
    with refused(where="s.onnx", expected="R2 0.999", got="mean cosine of 1.0"):
        export_student(small_student(), tmp_path / "s.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_file_says_its_r2(tmp_path):
    found = export_student(small_student(), tmp_path / "s.onnx", precision="float16")
    assert json.loads(json.dumps(found[0].plain()))["r2"] == pytest.approx(1, abs=1e-3)
