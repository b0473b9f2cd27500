"""No advice names an option that the command which prints it lacks."""

import ast
import re
from pathlib import Path

import typer

import distillscope
from distillscope.cli import app

ROOT = Path(distillscope.__file__).parent
READS_IMAGES = ("run", "distill", "embed", "audit")
COMMANDS_OF = {"data/": READS_IMAGES, "teachers/": READS_IMAGES, "inputs/": ("audit",), "embedding.py": ("embed",),
               "auditing.py": ("audit",),
               "audit.py": ("audit",), "requirements.py": ("audit",), "measure/": ("audit",), "report/audit": ("audit",)}
"""Where an error is raised -> the commands that may print it; everything else must exist on some command."""
EITHER = {"--teacher", "--student", "--train-teacher", "--train-student", "--require", "--json", "--labels", "--train-labels",
          "--text"}
"""Of an audit alone: inputs/ and teachers/ are read for other commands too, which name no such file."""
OF_STUDIES = {"load_splits": ("run", "distill"), "_check_apart": ("run",), "name_split": READS_IMAGES}
OF_OTHER_PROGRAMS = {"--nproc-per-node", "--num_processes"}


def options_of_commands():
    group = typer.main.get_command(app)
    found = {}

    def walk(name, command):
        for inner, sub in getattr(command, "commands", {}).items():
            walk(f"{name} {inner}".strip(), sub)
        found[name] = {o for p in command.params for o in (*p.opts, *p.secondary_opts) if o.startswith("--")} | {"--help"}

    walk("", group)
    return found


def errors(path):
    """(line, function, text) of every error that is built in a file, with "{}" for what is filled in."""
    tree = ast.parse(path.read_text(encoding="utf-8"))

    def visit(node, function):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            function = node.name
        if isinstance(node, ast.Call) and getattr(node.func, "id",
                                                  getattr(node.func, "attr", "")) in ("UserError", "MissingSplit", "say"):
            words = [str(n.value) for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
            yield node.lineno, function, " ".join(words)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, function)

    return list(visit(tree, ""))


def test_every_option_that_a_message_names_exists_on_the_command_that_prints_it():
    options = options_of_commands()
    everywhere = set().union(*options.values())
    wrong, seen = [], 0
    for path in sorted(ROOT.rglob("*.py")):
        inside = path.relative_to(ROOT).as_posix()
        commands = next((c for start, c in COMMANDS_OF.items() if inside.startswith(start)), None)
        for line, function, text in errors(path):
            for option in re.findall(r"(?<![\w-])--[a-z][a-z_-]+", text):
                seen += 1
                here = OF_STUDIES.get(function, commands) if inside.startswith("data/") else commands
                lacking = [c for c in here or () if option not in options[c] and option not in EITHER]
                if option not in everywhere | OF_OTHER_PROGRAMS or lacking:
                    wrong.append(f"{inside}:{line} names {option}{f', which {lacking} lack' if lacking else ''}")
    assert not wrong, "\n".join(wrong)
    assert seen > 50  # the search finds what it looks for


def test_corrupt_images_are_handled_by_every_command_that_reads_images():
    options = options_of_commands()
    assert all({"--corrupt", "--data"} <= options[c] for c in READS_IMAGES)
