"""Ratios in one run: two things timed in turn, A B A B, and the median of each."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from distillscope.data.source import Source
from distillscope.data.splits import load_split
from distillscope.files.writing import write_json
from distillscope.provenance import hardware


def rate(run: Callable[[], int], seconds: float) -> float:
    """Items a second of ``run``, called until ``seconds`` are over; it returns how many items it did."""
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        done += run()
    return done / (time.perf_counter() - began)


def in_turn(runs: dict[str, Callable[[], int]], seconds: float, rounds: int) -> dict[str, dict[str, float]]:
    """min, median and max rate of each of ``runs``, timed in turn ``rounds`` times after one warm-up call."""
    for run in runs.values():
        run()
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            found[name].append(rate(run, seconds))
    return {name: spread(values) for name, values in found.items()}


def spread(values: list[float]) -> dict[str, float]:
    return {"min": min(values), "median": statistics.median(values), "max": max(values), "n": len(values)}


def some_images(count: int) -> Source:
    """CIFAR-10 train images where DISTILLSCOPE_DATA names them, else digits."""
    return load_split("cifar10" if os.environ.get("DISTILLSCOPE_DATA") else "digits", {}, "train", limit=count)


def random_images(count: int, size: int = 32) -> Source:
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return Source("random", "train", np.array([f"r{i}" for i in range(count)]), pixels.__getitem__, None, None, pixels)


def publish(name: str, out: Path | None, record: dict[str, Any]) -> None:
    """Print the record, and write it where ``out`` says."""
    record = {"benchmark": name, "hardware": hardware(), "torch": metadata.version("torch"),
              "timm": metadata.version("timm"), **record}
    print(json.dumps(record, indent=2))
    if out:
        write_json(out / f"{name}.json", record)
