"""A student as a file: what it gives, what it says of itself, and what is refused before anything is written."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from typer.testing import CliRunner

from builders import refused
from builders.tiny import SMALL_DIM, SMALL_SIZE, once, save_small_student, scratch, small_files, small_student
from distillscope import cli, load_artefact, load_student
from distillscope.data.preprocess import Preprocess
from distillscope.students.export import images, quantise, runtimes, write
from distillscope.students.export.bench import bench, peak_memory
from distillscope.students.export.onnx_graph import resizing, traced
from distillscope.students.export.quantise import METHODS
from distillscope.students.export.runtimes import RUNTIMES
from distillscope.students.export.write import check_out, export_student
from distillscope.students.load import build_student

DIM, SIZE = SMALL_DIM, SMALL_SIZE


@pytest.fixture(scope="module")
def student():
    """A student of digits with random weights."""
    return small_student()


@pytest.fixture(scope="module")
def files(student):
    """s.onnx, s.batch1.onnx; raw.onnx in float16."""
    return small_files()


TRACED = {}
"""(shapes, dtype, size) -> the graph of a network: to trace one takes seconds."""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    def known(network, preprocess, name):
        """A graph that was traced before, with this network's weights in it."""
        state = network.state_dict()
        key = str([(n, tuple(t.shape)) for n, t in state.items()]), network.dtype, preprocess.size
        if key not in TRACED:
            TRACED[key] = traced(network, preprocess, name).SerializeToString()
        graph = onnx.load_from_string(TRACED[key])
        for tensor in graph.graph.initializer:
            if tensor.name in state:
                tensor.CopyFrom(onnx.numpy_helper.from_array(state[tensor.name].detach().numpy().copy(), tensor.name))
        return graph

    monkeypatch.setattr(runtimes, "traced", known)


def photos(height=40, width=50, count=3):
    x = np.random.default_rng(0).integers(0, 256, (count, height // 4, width // 4, 3), dtype=np.uint8)
    return x.repeat(4, axis=1).repeat(4, axis=2)


def cosines(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize("name", ["s.onnx", "s.batch1.onnx", "raw.onnx"])
def test_a_file_gives_what_the_student_gives(student, files, name):
    artefact, own = load_artefact(files / name, student), load_student(student, "cpu")
    assert cosines(artefact.encode(photos()), own.encode(photos())).min() > 0.9999
    mixed = [photos(40, 24)[0], photos(17, 33)[0]]
    assert cosines(artefact.encode(mixed), own.encode(mixed)).min() > 0.9999
    assert artefact.dim == DIM and artefact.batch == (1 if "batch1" in name else None)


def test_a_file_says_what_it_is(student, files):
    told = {p.key: p.value for p in onnx.load(files / "raw.onnx").metadata_props}
    described = json.loads((student / "student.json").read_text())
    assert told["weights_hash"] == described["weights_hash"] and told["dimension"] == str(DIM)
    assert json.loads(told["preprocessing"])["size"] == SIZE and told["layout"] == "NHWC"
    assert (told["teacher"], told["licence"], told["precision"], told["input"]) == (
        "efficientnet_lite0", "CC0-1.0", "float16", "raw")
    graph = onnx.load(files / "s.onnx").graph
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert not any(t.data_location == onnx.TensorProto.EXTERNAL for t in graph.initializer)


def test_a_file_is_a_model_of_an_audit_with_its_own_preprocessing(student, files):
    from distillscope.audits.models import embed_model

    found = embed_model(str(files / "raw.onnx"), "digits", limit=20)
    assert cosines(found.rows, embed_model(str(student), "digits", limit=20).rows).min() > 0.9999
    with refused(got="some", expected="16 px"):
        embed_model(str(files / "raw.onnx"), "digits", limit=20, preprocess={"mean": (0.5, 0.5, 0.5)})


def test_images_that_a_file_does_not_take(files):
    fixed, free = load_artefact(files / "s.batch1.onnx"), load_artefact(files / "s.onnx")
    small = photos(SIZE, SIZE, count=2)
    with refused(expected="uint8", got="floats"):
        free.encode(small / 255)
    with refused(expected="uint8", got="float32"):
        free.call(small.astype(np.float32))
    with refused(expected="(1, 16, 16, 3)", got="a batch of 2", advice="batch 1"):
        fixed.call(small)
    with refused(expected="(b, 16, 16, 3)", got="40, 52"):
        free.call(photos(40, 52))
    assert free.call(small).shape == (2, DIM)


def test_a_file_of_another_student(student, files, tmp_path):
    save_small_student(tmp_path / "cropped", crop_fraction=0.9)
    with refused(where="crop_fraction", expected="0.9", got="1.0"):
        load_artefact(files / "s.onnx", tmp_path / "cropped")
    other = build_student("paper_cnn", {"width": 1}, DIM, Preprocess(SIZE), "other", torch.device("cpu"))
    with refused(where="s.onnx", expected="other", got="S ("):
        load_artefact(files / "s.onnx", other)
    damaged = onnx.load(files / "s.onnx")
    next(p for p in damaged.metadata_props if p.key == "dimension").value = "many"
    onnx.save(damaged, tmp_path / "damaged.onnx")
    with refused(got="dimension", advice="again"):
        load_artefact(tmp_path / "damaged.onnx")


@pytest.mark.parametrize(("interpolation", "crop"), [("bilinear", 1.0), ("bicubic", 0.9)])
def test_raw_images_are_resized_as_in_training(interpolation, crop):
    import onnxruntime

    seen = Preprocess(24, interpolation=interpolation, crop_fraction=crop)
    graph = resizing(onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 18]>
        g (uint8[batch, 24, 24, 3] images) => (uint8[batch, 24, 24, 3] same) { same = Identity(images) }"""), seen)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    for height, width in ((8, 8), (24, 24), (200, 77), (31, 56), (26, 27), (5, 90)):
        x = photos(4 * height, 4 * width)[:, :height, :width]
        ours = session.run(None, {"images": x})[0].astype(int)
        theirs = seen.resize(torch.from_numpy(x).permute(0, 3, 1, 2)).mul(255).round().permute(0, 2, 3, 1).numpy()
        assert np.abs(ours - theirs).max() <= 1 and (ours != theirs).mean() < 0.03


def test_a_file_that_misses_its_bound_is_not_written_and_says_where(student, tmp_path, monkeypatch):
    known = runtimes.traced

    def broken(*given):
        graph = known(*given)
        weights = next(t for t in graph.graph.initializer if t.name == "network.4.weight")
        values = onnx.numpy_helper.to_array(weights).copy()
        values[:] = -values
        weights.CopyFrom(onnx.numpy_helper.from_array(values, weights.name))
        return graph

    monkeypatch.setattr(runtimes, "traced", broken)
    with refused(where="s.onnx", got=["digits/", "layer 4 "], expected="0.9999"):
        export_student(student, tmp_path / "s.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_resizing_that_is_none_of_trainings_is_found_though_the_images_are_small(tmp_path, monkeypatch):
    def plain(graph, preprocess):
        made = resizing(graph, preprocess)
        node = next(n for n in made.graph.node if n.op_type == "Resize")
        for attribute in node.attribute:
            if attribute.name in ("antialias", "exclude_outside"):
                attribute.i = 0
        return made

    monkeypatch.setattr(runtimes, "resizing", plain)
    save_small_student(tmp_path / "bilinear", interpolation="bilinear")
    with refused(got=["enlarged", "the resizing"]):
        export_student(tmp_path / "bilinear", tmp_path / "s.onnx", input="raw")


REFUSED = {
    "unknown runtime": (["--to", "onx"], "Did you mean 'onnx'"),
    "unknown precision": (["--precision", "int4"], "known precision"),
    "unknown input": (["--input", "large"], "known kind of input"),
    "another suffix": (["--out", "s.tflite"], "s.onnx"),
    "a suffix in capitals": (["--out", "s.ONNX"], "s.onnx"),
    "a split of no data": (["--split", "test"], "--calibrate DATA with it"),
    "broken images of no data": (["--corrupt", "skip"], "--calibrate DATA with it"),
    "a bound of int8 in float32": (["--min-cosine", "0.9"], "--precision int8 with it"),
    "steps of no tuning": (["--precision", "int8", "--qat-steps", "9"], "--qat with it"),
    "no folder": (["--out", "none/s.onnx"], "Make it first"),
    "a file that is there": (["--out", "there.onnx"], "there.onnx, which is there"),
    "too few images": (["--calibrate", "few"], "at least 64 images"),
    "images that are alike": (["--calibrate", "alike"], "1 different"),
    "no images": (["--calibrate", "embeddings.npy"], "--calibrate: expected images"),
    "a file of another kind": (["--calibrate", "facts.json"], "facts.json"),
}


def test_a_file_of_batch_1_is_in_the_way_only_where_one_is_made(tmp_path):
    out = tmp_path / "s.onnx"
    (tmp_path / "s.batch1.onnx").touch()
    check_out(out, RUNTIMES["onnx"], "raw")
    with refused(got="s.batch1.onnx, which is there"):
        check_out(out, RUNTIMES["onnx"], "sized")
    assert RUNTIMES["openvino"].places(tmp_path / "s.xml", "sized") == [
        tmp_path / name for name in ("s.xml", "s.bin", "s.batch1.xml", "s.batch1.bin")]
    assert RUNTIMES["executorch"].places(tmp_path / "s.pte", "sized") == [tmp_path / "s.pte"]


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_line(student, tmp_path, monkeypatch, case):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.onnx").write_bytes(b"kept")
    (tmp_path / "facts.json").write_text("{}")
    np.save("embeddings.npy", np.zeros((300, 8)))
    for name, count in (("few", 3), ("alike", 256)):
        (tmp_path / name).mkdir()
        for i in range(count if name in case or name == "few" else 0):
            Image.new("RGB", (8, 8), (7, 7, 7)).save(tmp_path / name / f"{i}.png")
    before = sorted(tmp_path.iterdir())
    options, said = REFUSED[case]
    with refused() as caught:
        CliRunner().invoke(cli.app, ["export", str(student), "--out", "s.onnx", *options], catch_exceptions=False)
    assert said in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before and (tmp_path / "there.onnx").read_bytes() == b"kept"


def test_images_out_of_reach_and_a_missing_extra(student, tmp_path, monkeypatch):
    folder = shutil.copytree(student, tmp_path / "student")
    described = json.loads((folder / "student.json").read_text())
    (folder / "student.json").write_text(json.dumps({**described, "dataset": "gone/away.parquet"}))
    with refused(where=str(folder), advice="--calibrate DATA"):
        export_student(folder, tmp_path / "s.onnx")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with refused(expected="onnxscript", advice="distillscope[onnx]"):
        export_student(student, tmp_path / "s.onnx")
    assert not list(tmp_path.glob("*.onnx"))


@pytest.fixture(scope="module")
def eight_bits(student):
    """s.onnx in int8 and what was decided, from the command line."""

    def make(folder):
        folder.mkdir()
        found = CliRunner().invoke(cli.app, ["export", str(student), "--precision", "int8", "--out", str(folder / "s.onnx"),
                                             f"--json={folder / 'said.json'}"], catch_exceptions=False)
        assert found.exit_code == 0 and "chosen" in found.output

    return once(scratch() / "exported-int8", make)


def test_int8_compares_ways_on_images_that_it_was_not_calibrated_on(student, files, eight_bits):
    said = json.loads((eight_bits / "said.json").read_text())[0]
    ways = {(w["method"], w["weight_bits"]): w["mean_cosine"] for w in said["tried"]}
    assert set(ways) == {(m, b) for m in METHODS for b in (8, 7)}
    assert said["chosen"]["mean_cosine"] == max(ways.values()) > 0.99 and said["chosen"]["in_float"] == []
    assert said["num_images"] == {"calibration": 512, "choosing": 128, "verification": 256}
    size = (eight_bits / "s.onnx").stat().st_size
    assert 3 < (files / "s.onnx").stat().st_size / size < 4 and 0 < size - said["chosen"]["bytes"] < 1000, "metadata alone"
    graph = onnx.load(eight_bits / "s.onnx").graph
    weights = [n for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0].endswith("weight_quantized")]
    scales = {t.name: t.dims for t in graph.initializer}
    assert len(weights) == 5 and all(scales[n.input[1]] for n in weights), "a scale for each channel"
    assert {n.op_type for n in graph.node if "embeddings" in n.output} == {"Gemm"}, "embeddings are not rounded"
    artefact, own = load_artefact(eight_bits / "s.batch1.onnx", student), load_student(student, "cpu")
    assert cosines(artefact.encode(photos()), own.encode(photos())).min() > 0.98 and artefact.facts.precision == "int8"


def test_fine_tuned_weights_are_said_in_the_file_which_is_still_of_its_student(student, tmp_path, monkeypatch):
    monkeypatch.setattr(quantise, "METHODS", ("MinMax",))
    monkeypatch.setattr(images, "CALIBRATED", 64)
    words = ["export", str(student), "--precision", "int8", "--qat", "--qat-steps", "12", "--out", str(tmp_path / "s.onnx")]
    found = CliRunner().invoke(cli.app, words, env={"COLUMNS": "200"}, catch_exceptions=False)
    assert "no cosine to the teacher" in found.output and "fine-tuned" in found.output
    (tmp_path / "s.onnx").unlink(), (tmp_path / "s.batch1.onnx").unlink()
    said = json.loads(CliRunner().invoke(cli.app, [*words, "--json"], catch_exceptions=False).stdout)[0]
    float32, static, tuned = said["fine_tuning"]["figures"]
    assert float32["mean_cosine"] == pytest.approx(1) and 0.99 < static["mean_cosine"] <= 1 and 0.99 < tuned["mean_cosine"] <= 1
    kept = said["fine_tuning"]["kept"]
    assert said["mean_cosine"] == pytest.approx((tuned if kept else static)["mean_cosine"], abs=1e-6)
    facts = load_artefact(tmp_path / "s.onnx", student).facts
    assert facts.fine_tuning.startswith("12 steps") if kept else facts.fine_tuning == "none"
    with refused(where="--qat", expected="int8", got="float16"):
        export_student(student, tmp_path / "t.onnx", precision="float16", qat=True)
    with refused(where="--qat-steps", got="0"):
        export_student(student, tmp_path / "t.onnx", precision="int8", qat=True, qat_steps=0)


def test_calibration_on_images_of_another_kind(student, tmp_path):
    from PIL import Image

    (tmp_path / "dark").mkdir()
    for i in range(450):
        Image.fromarray(np.random.default_rng(i).integers(100, 103, (SIZE, SIZE, 3), dtype=np.uint8)).save(
            tmp_path / "dark" / f"{i}.png")
    with refused(got=["digits", "mean cosine"], advice="--calibrate"):
        export_student(student, tmp_path / "s.onnx", precision="int8", calibrate=str(tmp_path / "dark"))
    with refused(expected="at least 448", got="300"):
        export_student(student, tmp_path / "s.onnx", precision="int8", calibrate=str(few(tmp_path / "dark", tmp_path / "few")))
    assert not list(tmp_path.glob("*.onnx"))


def test_images_that_were_skipped_in_training_are_skipped_again(student, tmp_path):
    from PIL import Image

    for i in range(6):
        Image.new("RGB", (SIZE, SIZE), (40 * i, 0, 0)).save(tmp_path / f"{i}.png")
    (tmp_path / "broken.png").write_bytes(b"none")
    folder = shutil.copytree(student, tmp_path / "student")
    for corrupt in ("error", "skip"):
        (folder / "distill.yaml").write_text(json.dumps({"settings": {"data": [str(tmp_path)], "corrupt": corrupt}}))
        with contextlib.nullcontext() if corrupt == "skip" else refused(advice="--calibrate DATA"):
            assert len(images.own_images(folder, 9)) == 6
    with refused(advice="--corrupt skip"):
        images.named_images(str(tmp_path), "train", "error", 9)
    assert len(images.named_images(str(tmp_path), "train", "skip", 9)) == 6


def few(source, folder, count=300):
    folder.mkdir()
    for path in sorted(source.iterdir())[:count]:
        shutil.copy(path, folder)
    return folder


def test_students_and_files_are_timed_in_turn(student, files):
    found = bench([student, files / "s.onnx", files / "s.batch1.onnx"], batches=(1, 4), seconds=0.01, memory=False)
    assert [(t.batch, t.runtime) for t in found] == [(1, "torch"), (1, "onnxruntime"), (1, "onnxruntime"),
                                                     (4, "torch"), (4, "onnxruntime")]
    assert all(t.ratio == 1 for t in found[::3]) and all(0 < t.median_ms <= t.p90_ms and t.calls >= 45 for t in found)
    assert found[1].size_bytes == (files / "s.onnx").stat().st_size
    assert [t.batch for t in bench([files / "s.batch1.onnx"], batches=(1, 4), seconds=0.01, memory=False)] == [1]
    with refused(where="--batch 4", got="fixed to another"):
        bench([files / "s.batch1.onnx"], batches=(4,), seconds=0.01, memory=False)
    with refused(expected="export", got=".npy"):
        bench([files / "s.npy"])
    for wrong in ({"threads": (0,)}, {"threads": (100_000,)}, {"batches": (10**9,)}, {"seconds": float("inf")}):
        with refused(where="--", expected="1" if "seconds" not in wrong else "above 0"):
            bench([student], **wrong)


def test_bench_says_the_processor_in_a_table_of_80_columns(student, files, monkeypatch):
    monkeypatch.setattr("distillscope.students.export.bench.peak_memory", lambda *given: 12.3)
    words = ["bench", str(student), str(files / "s.onnx"), "--batch", "1", "--seconds", "0.01"]
    found = CliRunner().invoke(cli.app, words, env={"COLUMNS": "80"}, catch_exceptions=False).output
    assert re.search(r"VNNI|AMX|int8 instructions", found) and max(map(len, found.splitlines()[1:])) <= 80
    assert re.search(r"s\.onnx +│ float32 │", found)
    said = json.loads(CliRunner().invoke(cli.app, [*words, "--json"], catch_exceptions=False).stdout)
    assert said["timings"][1]["peak_mib"] == 12.3 and said["machine"]
    with refused(where="--batch", got="'x'"):
        CliRunner().invoke(cli.app, [*words, "--batch", "x"], catch_exceptions=False)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux says what a process takes at its peak")
def test_memory_is_what_a_process_says_of_itself(files, monkeypatch):
    """The script runs here: a process of its own would import torch once more."""
    def here(command, **how):
        monkeypatch.setattr(sys, "argv", command[2:])
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile(command[2], "probe", "exec"), {})
        return subprocess.CompletedProcess(command, 0, said.getvalue(), "")

    monkeypatch.setattr(subprocess, "run", here)
    assert 0 <= peak_memory(str(files / "s.onnx"), torch.get_num_threads(), 1) < 200
    monkeypatch.setattr(subprocess, "run", lambda command, **how: subprocess.CompletedProcess(command, 1, "", "killed"))
    assert peak_memory(str(files / "s.onnx"), 1, 1) is None


@pytest.mark.parametrize("ending", [KeyboardInterrupt, OSError])
def test_an_export_that_ends_between_two_files_leaves_none(tmp_path, monkeypatch, ending):
    whole = write.write_atomic

    def ends(path, make):
        if "batch1" in path.name:
            raise ending("no space left")
        return whole(path, make)

    monkeypatch.setattr(write, "write_atomic", ends)
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "package").mkdir()
    (tmp_path / "made" / "package" / "inner").write_bytes(b"x")
    for name in ("s.onnx", "s.batch1.onnx"):
        (tmp_path / "made" / name).write_bytes(b"x")
    (tmp_path / "out").mkdir()
    with pytest.raises(ending):
        write._put([tmp_path / "made" / n for n in ("package", "s.onnx", "s.batch1.onnx")], tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_the_documents_snippet_needs_neither_torch_nor_this_package(files, student, tmp_path):
    from PIL import Image

    page = (Path(__file__).parents[2] / "docs" / "ship.md").read_text()
    snippet = next(b for b in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "onnxruntime" in b)
    shutil.copy(files / "s.onnx", tmp_path / "student.onnx")
    Image.fromarray(photos()[0]).resize((70, 48)).save(tmp_path / "photo.png")
    (tmp_path / "photo.png").rename(tmp_path / "photo.jpg")
    code = f"import sys; sys.modules['torch'] = sys.modules['distillscope'] = None\n{snippet}\nnp.save('rows.npy', embeddings)"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60)
    own = load_student(student, "cpu").encode([tmp_path / "photo.jpg"])
    assert cosines(np.load(tmp_path / "rows.npy"), own).min() > 0.9999
