"""Reports without their drawings, which take most of a report's time: a stand-in for each static figure."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import pytest
from PIL import Image

from distillscope.files.writing import write_atomic
from distillscope.report.draw import with_matplotlib


@cache
def stand_in(suffix: str) -> bytes:
    """The smallest drawing of that format."""
    if suffix == ".svg":
        return b'<svg xmlns="http://www.w3.org/2000/svg" width="4" height="3"/>\n'
    kept = io.BytesIO()
    Image.new("RGB", (4, 3), "white").save(kept, "PNG")
    return kept.getvalue()


def leave_undrawn(patch: pytest.MonkeyPatch) -> None:
    """Figures are laid on a canvas, so that one which cannot be drawn still fails; only pixels and paths are left out."""
    patch.setattr(with_matplotlib, "save",
                  lambda canvas, path: write_atomic(path, lambda p: p.write_bytes(stand_in(path.suffix))))


@contextmanager
def undrawn() -> Iterator[None]:
    """For what is built once and read by many tests."""
    with pytest.MonkeyPatch.context() as patch:
        leave_undrawn(patch)
        yield
