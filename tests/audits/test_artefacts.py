"""The chain from teacher to file from the command line: whose a file is, what it is shown, what it costs, what a gate says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import typer
import yaml
from typer.testing import CliRunner

from builders import refused
from builders.tiny import once, scratch
from distillscope import cli
from distillscope.audits.artefacts import Files, add_costs, doubts, open_files
from distillscope.audits.shown import sided_preprocess
from distillscope.data.preprocess import Preprocess
from distillscope.measure.results import Audit, Stage, Value
from distillscope.registry import teachers
from distillscope.students.export import bench
from distillscope.students.export.write import export_student
from distillscope.students.load import build_student, load_student, save_student

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit")  # no longer developed, still in use
ROOT = Path(__file__).parents[2]
DIM, SIZE, MEAN, STD = 8, 16, (0.3, 0.4, 0.5), (0.2, 0.3, 0.2)


def _student(folder, seed):
    folder.mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = build_student("paper_cnn", {"width": 1}, DIM, Preprocess(SIZE, MEAN, STD), "S", torch.device("cpu"))
    save_student(student, folder, {"teacher": "efficientnet_lite0", "dataset": "digits"})


def _made(folder):
    """A student, a file of it, one of another student, one from elsewhere that wants normalised floats."""
    _student(folder / "student", 0)
    _student(folder / "other", 1)
    export_student(folder / "student", folder / "s.onnx")
    told = onnx.load(folder / "s.onnx")
    next(p for p in told.metadata_props if p.key == "weights_hash").value = "0" * 32
    onnx.save(told, folder / "o.onnx")
    module = load_student(folder / "student", "cpu").module
    torch.jit.trace(module, torch.zeros(2, 3, SIZE, SIZE)).save(str(folder / "foreign.ts"))


@pytest.fixture(scope="module")
def made():
    return once(scratch() / "artefacts", _made)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(bench, "ROUNDS", 1)
    monkeypatch.setattr(bench, "peak_memory", lambda *_: 1.5)
    monkeypatch.setattr("distillscope.audits.artefacts.SECONDS", 0.01)


def run(made, *words, files=("s.onnx", "foreign.ts"), exit_code=0):
    paths = [str(made / name) for name in files]
    done = CliRunner().invoke(cli.app, ["audit", "--teacher", str(made / "other"), "--student", str(made / "student"),
                                        "--data", "digits",
                                        "--limit", "60", "--no-intervals", "--only", "alignment", "--only", "retrieval",
                                        "--artefact", *paths, *words])
    assert done.exit_code == exit_code, done.output
    return done


def test_every_stage_is_in_the_json_and_on_the_page(made, tmp_path):
    run(made, "--json", str(tmp_path / "a.json"), "--out", str(tmp_path / "page"))
    stages = json.loads((tmp_path / "a.json").read_text())["stages"]
    assert [stage["name"] for stage in stages[2:]] == ["s.onnx", "foreign.ts"]
    for stage in stages[2:]:  # the file from elsewhere is shown what the student is shown
        assert stage["values"]["mean_cosine"]["value"] > 0.9999
        assert stage["values"]["latency_ms"]["value"] > 0
    assert stages[2]["values"]["size_bytes"]["value"] == (made / "s.onnx").stat().st_size
    assert stages[1]["values"]["peak_mib"]["value"] == 1.5 and "peak_mib" not in stages[3]["values"]
    assert stages[1]["worst"][0]["id"].isdecimal() or "/" in stages[1]["worst"][0]["id"]
    page = (tmp_path / "page" / "report.html").read_text()
    assert "Step by step" in page and page.count("data:image/webp") >= 12
    assert "stages.2.artefact.mean_cosine" in (tmp_path / "page" / "measures.csv").read_text()


def test_a_teacher_is_timed_as_it_embeds_with_its_batch_norms_folded(monkeypatch):
    """Unfolded it takes 1.4 times as long. Its size is that of its weights as they are stored."""
    opened = {}

    def timings(paths, *, seconds, others):
        opened.update({name: make() for name, make in others.items()})
        return [bench.Timing(name, "torch", "float32", 1, 1, 1.0, 1.0, 1.0, 1.0, 9, bench.bytes_of(model), None)
                for name, model in opened.items()]

    monkeypatch.setattr("distillscope.audits.artefacts.bench", timings)
    stages = [Stage("teacher", "T"), Stage("student", "S")]
    add_costs(stages, "efficientnet_lite0", "none", Files({}, {}, {}, None), {}, True)
    stored = teachers.call("efficientnet_lite0", {}).module
    assert any("BatchNorm" in type(m).__name__ for m in stored.modules())
    assert not any("BatchNorm" in type(m).__name__ for m in opened["efficientnet_lite0"].module.modules())
    assert stages[0].values["size_bytes"].value == sum(t.numel() * t.element_size() for t in stored.state_dict().values())


def test_bounds_hold_for_every_file_or_for_one(made):
    done = run(made, "--no-timing", "--require", "artefact.mean_cosine>=0.999", "--require", "artefact.size_bytes>=1",
               "--require", "teacher.size_bytes>=1")
    assert "misses" not in done.output and "size, MB" in done.output and "latency" not in done.output
    done = run(made, "--require", "artefact.2.latency_ms<=0", "--require", "artefact.size_bytes<=1", exit_code=1)
    missed = [line for line in done.output.splitlines() if line.startswith("distillscope: ")]
    assert len(missed) == 3 and "foreign.ts: latency_ms" in missed[0] and "s.onnx: size_bytes" in missed[1]


@pytest.mark.parametrize(("bound", "said"), [
    ("artefact.mean_cosin>=1", "mean_cosine"), ("artefact.3.mean_cosine>=1", "artefact.2"),
    ("artefact.latency_ms<=5", "Known"), ("artefact.accuracy>=0.5", "Known")])
def test_a_bound_on_what_is_not_there_is_refused(made, bound, said):
    done = run(made, "--no-timing", "--require", bound, exit_code=1)
    assert said in str(done.exception)


def test_a_file_of_another_student_is_known_by_its_metadata_and_by_its_cosine(made):
    with refused(where="o.onnx", expected="student S"):
        open_files([str(made / "o.onnx")], str(made / "student"), {}, {})
    module = load_student(made / "other", "cpu").module
    torch.jit.trace(module, torch.zeros(2, 3, SIZE, SIZE)).save(str(made / "another.ts"))
    assert "another.ts: its mean cosine with the student is" in run(made, "--no-timing", files=["another.ts"]).output


@pytest.mark.parametrize(("cosine", "r2", "said"), [
    (0.999, 0.02, "R2 of the student's embeddings"), (1.0, -80.0, "another scale"), (0.999, 0.9, ""),
    (0.5, -2.0, "was it calibrated"),
    (float("nan"), float("nan"), "mean cosine with the student is nan")])
def test_a_high_cosine_that_hides_a_loss_is_said(cosine, r2, said):
    stage = Stage("artefact", "s.onnx", {"mean_cosine": Value(cosine, None, None, 9, "", "cosine"),
                                         "student_r2": Value(r2, None, None, 9, "", "R2")})
    found = doubts(Audit({}, stages=[Stage("teacher", "t"), Stage("student", "s"), stage]))
    assert len(found) == bool(said) and said in "".join(found)


@pytest.mark.parametrize(("files", "where", "got"), [
    (["student"], "--artefact", "a folder"), (["none.onnx"], "--artefact", "none there"),
    (["s.onnx", "s.onnx"], "--artefact", "the same twice")])
def test_what_is_no_file_of_a_student_is_refused(made, files, where, got):
    with refused(where=where, got=got):
        open_files([str(made / name) for name in files], str(made / "student"), {}, {})


def test_artefacts_need_a_student_that_is_a_model(made, tmp_path):
    np.save(tmp_path / "s.npy", np.zeros((60, DIM), np.float32))
    done = CliRunner().invoke(cli.app, ["audit", "--teacher", str(made / "other"), "--student", str(tmp_path / "s.npy"),
                                        "--data", "digits",
                                        "--artefact", str(made / "s.onnx")])
    assert "--artefact" in str(done.exception) and "embeddings" in str(done.exception)


def test_the_action_audits_writes_the_summary_and_fails_on_a_missed_bound(tmp_path):
    """The steps of action.yml by bash, as a runner runs them; a word with blanks stays one."""
    steps = {step.get("name"): step for step in yaml.safe_load((ROOT / "action.yml").read_text())["runs"]["steps"]}
    rng = np.random.default_rng(0)
    teacher = rng.normal(size=(60, 4))
    np.save(tmp_path / "t.npy", teacher)
    np.save(tmp_path / "s.npy", teacher + rng.normal(size=(60, 4)))
    inputs = {"TEACHER": "t.npy", "STUDENT": "s.npy", "PAGE": "page", "ARTEFACTS": "", "DATA": "",
              "REQUIRE": "alignment.mean_cosine>=0.1\nalignment.mean_cosine>=0.99\n",
              "ARGUMENTS": "--no-intervals --only alignment --json 'a b.json'"}
    assert set(steps["Audit"]["env"]) == set(inputs)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, **inputs, "PATH": path, "GITHUB_STEP_SUMMARY": str(tmp_path / "summary")}
    codes = [subprocess.run(["bash", "-e", "-o", "pipefail", "-c", steps[name]["run"]], cwd=tmp_path, env=env,
                            capture_output=True).returncode for name in ("Audit", "Summary")]
    assert codes == [1, 0] and (tmp_path / "a b.json").is_file()
    summary = (tmp_path / "summary").read_text()
    assert "misses \\>= 0.99" in summary and summary.count("misses") == 1 and (tmp_path / "page" / "report.html").is_file()
    env |= {"REQUIRE": "", "ARGUMENTS": "--require 'alignment.mean_cosine>=0.99", "PAGE": "other"}
    open_quote = subprocess.run(["bash", "-e", "-o", "pipefail", "-c", steps["Audit"]["run"]], cwd=tmp_path, env=env,
                                capture_output=True)
    assert open_quote.returncode != 0 and not (tmp_path / "other").exists(), "arguments that cannot be read, bounds with them"


def test_the_container_is_made_of_what_is_there():
    text, project = (ROOT / "Dockerfile").read_text(), (ROOT / "pyproject.toml").read_text()
    copied = [name for line in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE) for name in line.split()]
    assert copied and all((ROOT / name).exists() for name in copied)
    extras = re.findall(r'\.\[([^]]*)\]"', text)[0].split(",")
    assert all(re.search(rf"^{extra} = ", project, re.MULTILINE) for extra in extras)
    words = json.loads(re.findall(r"^CMD (.*)$", text, re.MULTILINE)[0])
    typer.main.get_command(cli.app).commands[words[0]].make_context(words[0], words[1:])


def test_what_is_said_of_a_preprocessing_goes_to_the_side_that_it_names():
    assert sided_preprocess(size=["224", "student:32"], crop_fraction=["artefact:0.875"]) == {
        "teacher": {"size": 224}, "student": {"size": 32}, "artefact": {"crop_fraction": 0.875}}
    for key, text, got in [("crop_fraction", "1.5", "1.5"), ("interpolation", "bicubik", "bicubik"), ("size", "0", "0"),
                           ("mean", "student:1,2", "1,2")]:
        with refused(got=got):
            sided_preprocess(**{key: [text]})
    with refused(where="--image-size", got="224"):
        sided_preprocess(size=["224", "32"])


def test_a_preprocessing_that_nobody_takes_is_refused(made):
    done = run(made, "--image-size", "32", exit_code=1)
    assert "--image-size" in str(done.exception) and "bring their own" in str(done.exception)
