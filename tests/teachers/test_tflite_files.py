"""LiteRT files embed like the network in them: float and quantised, inputs and outputs."""

from __future__ import annotations

import builtins

import numpy as np
import pytest
import torch

from builders.lite_files import save_lite
from builders.refusals import refused
from distillscope.teachers.runtime_files import tflite

SIZE = 8
IMAGES = torch.randint(0, 256, (5, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
IDS = [f"i{i}" for i in range(5)]


def test_float_inputs_are_normalised_and_whole_numbers_are_pixels(tmp_path):
    pytest.importorskip("ai_edge_litert")
    weights = save_lite(tmp_path / "f.tflite")
    encoder = tflite(path=tmp_path / "f.tflite", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)).to(torch.device("cpu"))
    wanted = (IMAGES.float() / 127.5 - 1).mean((2, 3)).numpy() @ weights.T
    assert np.allclose(encoder.encode(IMAGES, IDS), wanted, atol=1e-5)
    assert "images at 8 px (the file's size), channels last, mean (0.5, 0.5, 0.5)" in encoder.reading
    save_lite(tmp_path / "q.tflite", "INT8", 1 / 128, 0, quantised=0.05)  # pixels less 128, over 128
    encoder = tflite(path=tmp_path / "q.tflite").to(torch.device("cpu"))
    wanted = ((IMAGES.float() - 128) / 128).mean((2, 3)).numpy() @ weights.T
    assert np.abs(encoder.encode(IMAGES, IDS) - wanted).max() < 0.051  # one step of the output
    assert "raw pixel values (int8, taken to span -1 to 0.992), no mean and std" in encoder.reading


def test_files_that_are_none(tmp_path):
    pytest.importorskip("ai_edge_litert")
    (tmp_path / "a.tflite").write_bytes(b"\x1c\0\0\0TFL3" + b"\0" * 200)
    (tmp_path / "b.tflite").write_bytes(b"no model at all")
    for name in "ab":
        with refused(expected="a LiteRT (TensorFlow Lite) file") as caught:
            tflite(path=tmp_path / f"{name}.tflite")
        assert "\n" not in str(caught.value)


def test_the_way_out_without_the_package(tmp_path, monkeypatch):
    (tmp_path / "a.tflite").write_bytes(b"\x1c\0\0\0TFL3")
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("ai_edge_litert"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with refused(advice="'distillscope[tflite]'"):
        tflite(path=tmp_path / "a.tflite")
