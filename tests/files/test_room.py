"""Arrays with a row an image: no second one is made, and what is large lies on disk."""

import resource
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch

from distillscope.config.parts import Part
from distillscope.config.study import Arm, Study
from distillscope.data.preprocess import Preprocess
from distillscope.data.source import Source
from distillscope.data.splits import Splits
from distillscope.files import room as rooms
from distillscope.files.room import room
from distillscope.students.load import StudentEncoder
from distillscope.study.measuring import save_embeddings
from distillscope.study.prepared import prepare_targets
from distillscope.teachers import cache
from distillscope.teachers.encoder import Encoder

DIM, COUNT = 512, 6000
WHOLE = DIM * COUNT * 4
"""Bytes of all embeddings, 12 MiB."""


def test_a_large_array_lies_on_disk_and_leaves_nothing_behind(cache_dir, monkeypatch):
    small = room((10, 3))
    monkeypatch.setattr(rooms, "IN_MEMORY_BYTES", 1000)
    large = room((1000, 3))
    assert small.base is None and isinstance(large.base, np.memmap) and not list(cache_dir.iterdir())
    large[:] = np.arange(3000).reshape(1000, 3)
    assert type(large) is np.ndarray and large[999, 2] == 2999


def test_without_room_on_the_disk_it_is_in_memory(monkeypatch):
    monkeypatch.setattr(rooms, "IN_MEMORY_BYTES", 1000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        assert room((1000, 3)).base is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Spread(torch.nn.Module):
    """(b, 3, 2, 2) -> (b, DIM), another row for another image."""

    def forward(self, x):
        return torch.cos(x.flatten(1).sum(1, keepdim=True) * torch.arange(1, DIM + 1) / 7)


@pytest.fixture
def source():
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 2, 2, 3), dtype=np.uint8)
    return Source("s", "train", np.array([str(i) for i in range(COUNT)]), pixels.__getitem__, pixels=pixels)


def test_memory_stays_flat_from_the_teacher_to_the_targets_and_the_written_embeddings(source, tmp_path, monkeypatch):
    for place, name, value in ((rooms, "IN_MEMORY_BYTES", 2**16), (cache, "ROWS", 256)):
        monkeypatch.setattr(place, name, value)
    monkeypatch.setattr("distillscope.targets.transforms.BLOCK", 256)
    defaults = cache.Entry.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "most_rows", 512)
    sees = Preprocess(2, mean=(0.5,) * 3, std=(0.5,) * 3)
    encoder = Encoder("spread", Spread(), DIM, sees, "0" * 16, batch_size=64)
    student = StudentEncoder("spread", Spread(), DIM, sees, "0" * 16)
    study = Study(name="x", data="digits", teacher="efficientnet_lite0", students="paper_cnn", arms=[Arm(name="a")])
    splits = Splits("x", source, None, replace(source.take(np.arange(20)), split="test"), source)
    splits.marks  # noqa: B018  images in memory are no part of this
    prepare_targets(study, encoder, Splits("y", splits.test, None, splits.test, splits.test), Part(name="none"), [])  # imports
    tracemalloc.start()
    try:
        prepared = prepare_targets(study, encoder, splits, Part(name="none"), list(study.arms))
        rows = encoder.rows(source)
        save_embeddings(tmp_path / "out", rows, source, np.float32)
        own = student.embed_source(source)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < WHOLE / 2
    for found in (prepared.rows("train"), np.load(tmp_path / "out" / "img_emb" / "img_emb_0.npy"), own):
        assert found.shape == (COUNT, DIM) and np.allclose(found, rows, atol=1e-4)
    assert np.allclose(rows[17], encoder.encode(source.read([17]))[0], atol=1e-5)
