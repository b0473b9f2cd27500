"""A student in the files of runtimes other than ONNX Runtime: one network of two layers, converted once for each."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch

import distillscope
from builders import refused
from builders.made import save_lite
from distillscope import load_artefact
from distillscope.data.preprocess import Preprocess
from distillscope.data.splits import load_split
from distillscope.students.export import runtimes
from distillscope.students.export.images import parts_of
from distillscope.students.export.load import name_of_weights
from distillscope.students.export.runtimes import RUNTIMES, Job
from distillscope.students.export.verify import cosines
from distillscope.students.export.write import _put, _verified, export_student
from distillscope.students.load import build_own
from distillscope.teachers.artefacts import Facts

DIM, SIZE = 8, 16


@pytest.fixture(scope="module")
def job():
    """A network of two layers, with images of digits to verify it on."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 4, stride=4), torch.nn.ReLU(), torch.nn.Flatten(),
                                   torch.nn.Linear(128, DIM))
    student = build_own(body, DIM, Preprocess(SIZE), "two layers", torch.device("cpu"))
    student.module.eval()
    parts = parts_of(load_split("digits", {}, "train", 600), quantised=True)
    facts = Facts(distillscope=distillscope.__version__, student=student.name, weights_hash=name_of_weights(student),
                  licence="CC0-1.0", dimension=DIM, precision="float32", input="sized", preprocessing=student.preprocess)
    return Job(student, facts, *parts, min_cosine=0.9)


@pytest.fixture(scope="module")
def graph(job):
    """Its ONNX graph, which OpenVINO's files are made from."""
    return runtimes.traced(runtimes.PixelNetwork(job.student), job.student.preprocess, job.student.name)


def exported(job, to, folder, precision="float32"):
    """What `export` does with the network once its options are read; the files lie in ``folder``."""
    job = runtimes.replace(job, facts=job.facts.but(precision=precision))
    (folder / "made").mkdir()
    found = [_verified(job, m) for m in RUNTIMES[to].convert(job, folder / "made" / f"s{RUNTIMES[to].suffixes[0]}")]
    _put([m.path.with_suffix(suffix) for m in found for suffix in RUNTIMES[to].suffixes], folder)
    return found


def photos(count=3):
    return np.random.default_rng(0).integers(0, 256, (count, 10, 12, 3), dtype=np.uint8).repeat(4, axis=1).repeat(4, axis=2)


@pytest.mark.parametrize(("precision", "bound"), [("float16", 0.999), ("int8", 0.98)])
def test_openvino(job, graph, tmp_path, monkeypatch, precision, bound):
    pytest.importorskip("openvino")
    monkeypatch.setattr(runtimes, "traced", lambda *given: graph)
    monkeypatch.setattr("distillscope.students.export.quantise.TIMES_SMALLER", 0.1)  # two layers are mostly graph
    found = exported(job, "openvino", tmp_path, precision)
    assert [p.name for p in sorted(tmp_path.glob("s*"))] == ["s.batch1.bin", "s.batch1.xml", "s.bin", "s.xml"]
    artefact = load_artefact(tmp_path / "s.xml", job.student)
    assert cosines(artefact.encode(photos()), job.student.encode(photos())).min() > bound
    assert artefact.facts.precision == precision
    assert found[0].size_bytes == artefact.size_bytes == sum(p.stat().st_size for p in (tmp_path / "s.xml", tmp_path / "s.bin"))
    assert not pytest.importorskip("openvino_telemetry").Telemetry().consent, "no telemetry, as README says"


@pytest.mark.slow
def test_executorch(job, tmp_path, monkeypatch):
    pytest.importorskip("executorch.exir")
    from executorch.backends.xnnpack.partition.graphs import bilinear_2d, sdpa

    # Patterns that this network does not hold; to draw them takes half of the time.
    monkeypatch.setattr(bilinear_2d, "get_graphs_dict", dict)
    monkeypatch.setattr(sdpa, "get_graphs", list)
    exported(job, "executorch", tmp_path)
    from executorch.extension.pybindings import portable_lib

    for count in (2, 1):  # what bench sets; by itself the runtime takes all cores
        monkeypatch.setattr(torch, "get_num_threads", lambda count=count: count)
        artefact = load_artefact(tmp_path / "s.pte", job.student)
        assert portable_lib._threadpool_get_thread_count() == count
    assert cosines(artefact.encode(photos()), job.student.encode(photos())).min() > 0.9999 and artefact.batch == 1
    with refused(got="a batch of 2"):
        artefact.call(np.zeros((2, SIZE, SIZE, 3), dtype=np.uint8))


@pytest.mark.slow
def test_litert(job, tmp_path):
    pytest.importorskip("litert_torch")
    exported(job, "litert", tmp_path)
    artefact = load_artefact(tmp_path / "s.tflite", job.student)
    assert cosines(artefact.encode(photos()), job.student.encode(photos())).min() > 0.9999 and artefact.batch == 1


def test_core_ml_is_converted_read_back_and_said_to_be_not_run(job, tmp_path):
    library = pytest.importorskip("coremltools")
    found = exported(job, "coreml", tmp_path)[0]
    described = library.models.MLModel(str(tmp_path / "s.mlpackage"), skip_model_load=True).get_spec().description
    assert described.input[0].type.imageType.width == SIZE and described.metadata.license == "CC0-1.0"
    told = described.metadata.userDefined
    assert json.loads(told["distillscope.preprocessing"])["size"] == SIZE and told["distillscope.layout"] == "RGB image"
    assert found.agreement.worst > 0.9999 and "not run" in found.decided["not_run"]
    with refused(where="s.mlpackage", expected="9 numbers", got="[1, 8]"):
        runtimes.save_package(runtimes.PixelNetwork(job.student), job.facts.but(dimension=9), tmp_path / "s.mlpackage")


def test_a_lite_file_carries_its_facts_and_is_read_by_them(job, tmp_path):
    facts = job.facts.but(dimension=4, batch="1")
    weights = save_lite(tmp_path / "plain.tflite", "UINT8", scale=1.0, size=SIZE)
    plain = (tmp_path / "plain.tflite").read_bytes()
    (tmp_path / "s.tflite").write_bytes(runtimes._with_metadata(plain, facts))
    artefact = load_artefact(tmp_path / "s.tflite")
    assert artefact.facts == facts and artefact.batch == 1
    small = photos()[:2, :SIZE, :SIZE]
    assert np.allclose(artefact.encode(small), small.mean(axis=(1, 2)) @ weights.T, rtol=1e-4, atol=1e-3)
    with refused(expected="metadata", got="none", advice="--teacher"):
        load_artefact(tmp_path / "plain.tflite")


@pytest.mark.parametrize(("to", "package"), [("openvino", "openvino"), ("litert", "litert_torch"),
                                             ("executorch", "executorch.exir"), ("coreml", "coremltools")])
def test_a_runtime_that_is_not_installed(job, tmp_path, monkeypatch, to, package):
    monkeypatch.setitem(sys.modules, package, None)
    with refused(expected=package.split(".")[0], advice=f"distillscope[{to}]"):
        exported(job, to, tmp_path)
    assert not list(tmp_path.glob("s*"))
    for settings in ({"precision": "int4" if to == "openvino" else "int8"}, {"input": "raw"}):
        with refused(where="--", got=next(iter(settings.values()))[:3]):
            export_student(tmp_path, tmp_path / "s", to=to, **settings)


def test_an_operator_that_a_runtime_lacks_is_one_line(job, graph, tmp_path, monkeypatch):
    openvino = pytest.importorskip("openvino")

    def convert(path):
        raise RuntimeError("Unsupported ONNX operators:\nResize (18)")

    monkeypatch.setattr(runtimes, "traced", lambda *given: graph)
    monkeypatch.setattr(openvino, "convert_model", convert)
    with refused(expected="operators that OpenVINO has", got="Resize (18)", advice="--to onnx"):
        exported(job, "openvino", tmp_path)
