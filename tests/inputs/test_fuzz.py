"""Whatever lies in a file: an Embeddings or one clear line, and nothing in it is executed."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builders.made import FORMATS, written
from distillscope.errors import UserError
from distillscope.inputs.embeddings import Embeddings, read_embeddings, read_labels
from distillscope.inputs.formats import READERS

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def try_to_read(path: Path) -> None:
    """An Embeddings whose rows can all be read, or a UserError of one line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = read_embeddings(path)
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 2000
        else:
            assert isinstance(found, Embeddings)
            rows = np.asarray(found.rows)
            assert rows.ndim == 2 and rows.dtype.kind == "f" and rows.nbytes < 2**24
        try:
            read_labels(path, 3)
        except UserError as error:
            assert "\n" not in str(error)


@functools.cache
def valid(name: str, folder: str) -> bytes:
    return written(Path(folder), name).read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.parametrize("suffix", READERS)
@given(data=st.binary(max_size=300))
@QUICK
def test_random_bytes(folder, suffix, data):
    path = folder / f"random{suffix}"
    path.write_bytes(data)
    try_to_read(path)


@pytest.mark.parametrize("name", FORMATS)
@given(draw=st.data())
@QUICK
def test_damaged_files(folder, name, draw):
    good = bytearray(valid(name, str(folder)))
    for at in draw.draw(st.lists(st.integers(0, len(good) - 1), max_size=4), "places"):
        good[at] ^= draw.draw(st.integers(1, 255), "change")
    path = folder / f"damaged-{name}"
    path.write_bytes(good[: draw.draw(st.integers(0, len(good)) | st.just(len(good)), "kept")])
    try_to_read(path)
