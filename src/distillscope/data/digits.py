"""scikit-learn's handwritten digits: real images that need no download."""

from __future__ import annotations

import numpy as np

from distillscope.data.source import Source, stratified
from distillscope.registry import datasets


@datasets.register("digits")
def digits(split: str, *, test_items: int = 360) -> Source:
    """1,797 real handwritten digits of 8x8, ten classes, from scikit-learn (no download)."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    pixels = np.repeat(grey[..., None], 3, axis=-1)
    ids = np.array([f"digits/{i:04d}" for i in range(len(pixels))])
    whole = Source("digits", split, ids, pixels.__getitem__, bunch.target.astype(np.int64), tuple("0123456789"), pixels)
    held_out = np.zeros(len(pixels), dtype=bool)
    held_out[stratified(Source("digits", "all", ids, whole.fetch, whole.labels), test_items, "test split")] = True
    return whole.take(np.flatnonzero(held_out if split == "test" else ~held_out))
