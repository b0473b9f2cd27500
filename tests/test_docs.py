"""README and docs say what the program does: their commands parse, their Python compiles, their files exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from distillscope import cli
from distillscope.loading import load_preset, preset_names

ROOT = Path(__file__).parents[1]
PAGES = [p for p in [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))] if p.is_file()]


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
        exec("\n".join(imports), {})  # noqa: S102 (our own pages)
        for name in re.findall(r"distillscope\.([a-z_]+)\(", source):
            import distillscope

            assert hasattr(distillscope, name), f"{page.name}: distillscope.{name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_that_the_page_links_to_exist(page):
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if not re.match(r"[a-z]+:", link):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads_and_says_what_it_is(name):
    assert len(load_preset(name).description) > 40


def test_examples_of_the_help_parse():
    group = typer.main.get_command(cli.app)
    for name, command in group.commands.items():
        for example in re.findall(r"`distillscope ([^`]+)`", command.help or ""):
            words = shlex.split(example)
            target, rest = group, words
            while hasattr(target, "commands"):
                target, rest = target.commands[rest[0]], rest[1:]
            target.make_context(name, list(rest))
