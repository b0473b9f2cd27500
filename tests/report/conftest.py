"""One synthetic run, reported once, for the tests that only read it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from synthetic_run import make_run

from distillscope.report.write import write_report


@pytest.fixture(scope="session")
def reported(tmp_path_factory) -> Path:
    """A complete study with an augmented arm and a reduced target, with its report written."""
    run = make_run(tmp_path_factory.mktemp("run"), arms=("cosine", "augmented"), target="pca512",
                   published=[{"student": "S", "condition": "clean", "measure": "student.effective_rank", "value": 15.91},
                              {"student": "L", "condition": "noise=0.1", "measure": "paper.probe.student.accuracy",
                               "value": 0.4376, "std": 0.061}])
    write_report(run)
    return run


@pytest.fixture
def make():
    """The builder, for tests that need a run of their own."""
    return make_run
