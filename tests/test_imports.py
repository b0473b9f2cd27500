"""Who may import what: the flow goes one way."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "distillscope"

# A place may import what stands in its row, itself, and the ground that all stand on.
GROUND = {"devices", "draws", "errors", "files", "interrupts", "json_files", "locks", "names", "progress", "registry", "result_keys", "visible", "workers", "yaml_files"}
ALLOWED = {
    "data": set(),
    "stress": {"data"},
    "inputs": {"measure"},
    "inputs/models": {"config", "data", "distill", "inputs", "students"},
    "teachers": {"data", "inputs"},
    "students": {"data", "teachers", "objectives"},
    "measure": set(),
    "objectives": set(),
    "config": {"data"},
    "loading": {"config"},
    "audit": {"measure"},
    "distill": {"config", "data", "teachers", "students", "objectives", "measure", "stress"},
    "rundir": {"config"},
    "keepsakes": {"config", "data", "measure", "rundir"},
    "mapped": {"audit", "measure"},
    "trial": {"config", "data", "students", "distill", "measure", "audit", "mapped", "rundir", "stress"},
    "auditing": {"audit", "config", "data", "inputs", "measure", "report", "rundir", "teachers"},
    "reference": {"config", "data", "teachers", "objectives", "distill", "measure", "audit", "rundir", "trial",
                  "stress"},
    "claims": set(),
    "recommend": {"claims"},
    "next_study": {"claims", "recommend"},
    "report": {"claims", "measure", "next_study", "recommend"},
}


def imported(path):
    """The places in the package that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != "distillscope" else [f"distillscope.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        for name in names:
            if name.startswith("distillscope."):
                yield name.split(".")[1]


@pytest.mark.parametrize("place", ALLOWED)
def test_a_place_imports_only_what_stands_before_it(place):
    files = [SOURCE / f"{place}.py"] if (SOURCE / f"{place}.py").exists() else sorted((SOURCE / place).glob("**/*.py"))
    files = [f for f in files if str(f.relative_to(SOURCE).with_suffix("")) not in ALLOWED.keys() - {place}]
    assert files
    for file in files:
        foreign = set(imported(file)) - GROUND - ALLOWED[place] - {place}
        assert not foreign, f"{file.relative_to(SOURCE)} imports {sorted(foreign)}"


@pytest.mark.parametrize("place", ["claims", "measure", "next_study", "recommend", "report"])
def test_arrays_in_numbers_out(place):
    """Measures, claims and reports need no torch."""
    for file in sorted((SOURCE / place).glob("**/*.py")) or [SOURCE / f"{place}.py"]:
        tree = ast.parse(file.read_text())
        names = [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
        names += [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
        assert not [n for n in names if n.split(".")[0] in ("torch", "timm", "datasets")], file
