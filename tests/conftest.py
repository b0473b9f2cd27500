"""What all tests share: a cache of their own, and the real data where it is within reach."""

import os
from pathlib import Path

import pytest

from builders.blobs import make_source, make_subject
from builders.synthetic_run import make_run
from distillscope.report.write import write_report


@pytest.fixture(autouse=True)
def cache_dir(tmp_path_factory, monkeypatch):
    """No test touches the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(folder))
    return folder


@pytest.fixture
def cifar10_dir():
    """The folder with CIFAR-10's parquet files; skipped where DISTILLSCOPE_DATA does not say where it is."""
    root = os.environ.get("DISTILLSCOPE_DATA")
    if not root or not (Path(root) / "cifar10" / "test.parquet").is_file():
        pytest.skip("DISTILLSCOPE_DATA does not name a folder with cifar10/test.parquet")
    return Path(root) / "cifar10"


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


@pytest.fixture(scope="session")
def subject():
    return make_subject()


@pytest.fixture(scope="session")
def test_items():
    return make_source()
