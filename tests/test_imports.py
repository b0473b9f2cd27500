"""What says what a study is and what it found needs no torch."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "distillscope"


@pytest.mark.parametrize("place", ["advice", "claims", "compare", "config", "measure", "report", "results"])
def test_arrays_in_numbers_out(place):
    for file in sorted((SOURCE / place).glob("**/*.py")):
        tree = ast.parse(file.read_text())
        names = [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
        names += [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
        assert not [n for n in names if n.split(".")[0] in ("torch", "timm", "datasets")], file
