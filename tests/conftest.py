"""What all tests share: a cache of their own, and the real data where it is within reach."""

import os
from pathlib import Path

import pytest


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
