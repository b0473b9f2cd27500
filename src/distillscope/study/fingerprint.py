"""Which images and weights a study is of: hashes that say whether runs to be resumed or judged together are of the same."""

from __future__ import annotations

import hashlib

import numpy as np

from distillscope.data.source import Source
from distillscope.data.splits import Splits
from distillscope.draws import keyed_rng
from distillscope.teachers.rows import TeacherRows


def fingerprint(encoder: TeacherRows, splits: Splits) -> dict[str, str]:
    """Hashes of the data and the teacher's weights, by which studies that are judged together are held to be of the same."""
    weights = encoder.describe().get("weights")
    images = {f"{name} images": mark for name, mark in split_hashes(splits).items()}
    return images | ({"teacher's weights": weights} if weights else {})


def split_hashes(splits: Splits) -> dict[str, str]:
    """What names the items of each split: their ids, and the pixels of a few."""
    return {s.split if s is not splits.validation else "validation": hashlib.blake2b(
                "\n".join(s.ids).encode() + _sample_hash(s), digest_size=8).hexdigest()
            for s in (splits.train, splits.validation, splits.test) if s is not None}


def _sample_hash(source: Source) -> bytes:
    """A few images' pixels: ids alone do not tell two copies of a data set with other pixels apart."""
    few = keyed_rng("sample hash", len(source)).integers(0, len(source), size=min(32, len(source)))
    return b"".join(np.ascontiguousarray(source.image(int(i))).tobytes() for i in few)
