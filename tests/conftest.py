"""What all tests share: a cache of their own, figures drawn where asked, and the real data where it is within reach.

The process that only deals tests out to others loads this file too: what takes long to import is imported where it is used.
"""

import gc
import itertools
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

from builders import SCRATCH

_numbers = itertools.count()


def pytest_configure(config):
    """One folder for what is built once and only read: the first process makes it, those that it starts share it."""
    if SCRATCH not in os.environ:
        os.environ[SCRATCH] = config.distillscope_scratch = tempfile.mkdtemp(prefix="distillscope-tests-")


@pytest.hookimpl(wrapper=True)
def pytest_collection(session):
    """What collecting imports (half a million objects) stays to the end: garbage is looked for among what comes after, and less
    often."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
        gc.set_threshold(20_000, 20, 20)


FORKS = "processes/test_workers.py", "torture/test_smoke.py"
"""Their forked processes train, which torch refuses where the process that forks has begun autograd's threads before."""


def pytest_collection_modifyitems(items):
    """What forks comes first (`make test` keeps this order)."""
    items.sort(key=lambda item: not item.path.as_posix().endswith(FORKS))


def pytest_unconfigure(config):
    if folder := getattr(config, "distillscope_scratch", None):
        shutil.rmtree(folder, ignore_errors=True)
        del os.environ[SCRATCH]


@pytest.fixture(scope="session")
def caches(tmp_path_factory):
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(autouse=True)
def late_progress(monkeypatch):
    """A test that expects one line gets no line of progress where the machine is slow."""
    from distillscope import progress

    monkeypatch.setattr(progress, "_FIRST_SECONDS", progress._LINE_SECONDS)


@pytest.fixture(autouse=True)
def cache_dir(caches, monkeypatch):
    """No test touches the user's cache."""
    folder = caches / str(next(_numbers))
    folder.mkdir()
    monkeypatch.setenv("DISTILLSCOPE_CACHE", str(folder))
    return folder


@pytest.fixture
def drawn():
    """For a test that looks at drawings: matplotlib draws them."""


@pytest.fixture
def laid():
    """For a test of what may be drawn at all: every figure is laid on a canvas, and not saved."""


@pytest.fixture(autouse=True)
def undrawn(request, monkeypatch):
    """Reports are written without drawings, most of their time, but for tests that ask for ``drawn`` or ``laid``."""
    from builders.browser import leave_undrawn

    if "drawn" not in request.fixturenames:
        leave_undrawn(monkeypatch, laid="laid" in request.fixturenames)


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Chromium, started once for the pages of all tests; skipped where there is none."""
    from builders.browser import CHROMIUM, Browser

    if CHROMIUM is None:
        pytest.skip("needs Chromium to open the page (Debian: apt-get install chromium)")
    started = Browser(tmp_path_factory.mktemp("chromium"))
    yield started
    started.close()


@pytest.fixture
def untimed(monkeypatch):
    """Plans do not time networks on batches of images, for tests of what else a plan says."""
    monkeypatch.setattr("distillscope.study.plan._student_cost", lambda *given: (0.001, 0.001, 10.0))
    monkeypatch.setattr("distillscope.study.plan._teacher_seconds", lambda *given: 0.001)


@pytest.fixture
def cifar10_dir():
    """The folder with CIFAR-10's parquet files; skipped where DISTILLSCOPE_DATA does not say where it is."""
    root = os.environ.get("DISTILLSCOPE_DATA")
    if not root or not (Path(root) / "cifar10" / "test.parquet").is_file():
        pytest.skip("DISTILLSCOPE_DATA does not name a folder with cifar10/test.parquet")
    return Path(root) / "cifar10"


@pytest.fixture(scope="session")
def reported() -> Path:
    """A complete study with an augmented arm and a reduced target, with its report written; all test processes read one."""
    from builders.tiny import once, scratch

    return once(scratch() / "reported", _report)


def _report(folder: Path) -> None:
    from builders.synthetic_run import make_run
    from distillscope.report.study_page import write_report

    published = [{"student": "S", "condition": "clean", "measure": "student.effective_rank", "value": 15.91},
                 {"student": "L", "condition": "noise=0.1", "measure": "paper.probe.student.accuracy", "value": 0.4376,
                  "std": 0.061}]
    write_report(make_run(folder, arms=("cosine", "augmented"), target="pca512", published=published))


@pytest.fixture
def make():
    """The builder, for tests that need a run of their own."""
    from builders.synthetic_run import make_run

    return make_run


@pytest.fixture(scope="session")
def subject():
    from builders.training import make_subject

    return make_subject()


@pytest.fixture(scope="session")
def test_items():
    from builders.training import make_source

    return make_source()


@pytest.fixture
def teacher() -> np.ndarray:
    """Embeddings (200, 12) for the tests that need no special data."""
    from builders.planted import cloud

    return cloud(0)


@pytest.fixture
def student(teacher) -> np.ndarray:
    """Those of a student of ``teacher``, with noise."""
    from builders.planted import student_of

    return student_of(teacher, 1)
