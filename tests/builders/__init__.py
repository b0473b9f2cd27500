"""What tests are built from: runs, studies, embeddings, files and pages, each made by one function; and how errors are held.

A refusal is held by the parts of the error and not by its words: its place, what came, what to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from distillscope.errors import UserError

SCRATCH = "DISTILLSCOPE_TESTS"
"""The variable with the folder that test processes share; conftest.py sets it and removes the folder at the end."""


@contextmanager
def refused(*, where: object = "", got: object = "", expected: object = "",
            advice: object = "") -> Iterator[pytest.ExceptionInfo]:
    """A UserError of one line comes of what is done inside, and each of its parts holds what is given for it.

    Pin names and values: the setting, the file, the number that came, the option or command to use. Words may change.
    """
    with pytest.raises(UserError) as caught:
        yield caught
    error = caught.value
    assert len(str(error).splitlines()) == 1
    for part, wanted in (("where", where), ("expected", expected), ("got", got), ("todo", advice)):
        said = " ".join(str(getattr(error, part)).split())
        for one in wanted if isinstance(wanted, (list, tuple)) else (wanted,):
            assert str(one) in said, f"{one!r} is not in the error's {part}: {said!r}"
