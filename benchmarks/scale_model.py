"""A small simulator of `embed` and `distill`: what so many images cost on a machine, and which stage is the first to be full.

    python benchmarks/scale_model.py fit --out DIR                    # measures small runs: scale_costs.json
    python benchmarks/scale_model.py check COSTS MEASURED [--out DIR] # predictions beside what many_images.py measured
    python benchmarks/scale_model.py plan --images 1e6 1e8 1e9        # the table of docs/scale.md

A machine has cores, a disk or network that gives so many MB a second, and perhaps GPUs. Images go in blocks through stages
one after another: read, decode and hash and resize (cores), the teacher (cores, or GPUs), write. Each stage has a number of
servers and a time an image; a block waits until the next stage has a free server, and at most two blocks a server wait before
it. That is all: no cache, no noise, no failures.
"""

from __future__ import annotations

import argparse
import heapq
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from many_images import COMMANDS, SEEN, measured
from timing import publish

BLOCK = 256
"""Images that go through the stages together."""
WAITING = 2
"""Blocks that may wait before a stage, for each of its servers."""


@dataclass(frozen=True)
class Stage:
    """``servers`` of them, each with ``ms`` an image."""

    name: str
    ms: float
    servers: int = 1


@dataclass(frozen=True)
class Found:
    """Seconds from the first image to the last, and how busy each stage was, from 0 to 1."""

    seconds: float
    busy: dict[str, float]

    @property
    def first_full(self) -> str:
        """The stage that bounds the whole."""
        return max(self.busy, key=lambda name: self.busy[name])


def simulate(images: float, stages: Sequence[Stage], most_blocks: int = 4000) -> Found:
    """Images in blocks through the stages.

    Of more than ``most_blocks`` blocks so many are simulated, and the rest takes its time in proportion: the start is over long
    before.

    >>> simulate(10_000, [Stage("read", 1), Stage("decode", 8, 2), Stage("teacher", 3)]).first_full
    'decode'
    >>> round(simulate(1e6, [Stage("read", 1), Stage("teacher", 4)]).seconds)
    4000
    """
    blocks = max(1, round(images / BLOCK))
    counted = min(blocks, most_blocks)
    free = [[0.0] * stage.servers for stage in stages]
    left: list[list[float]] = [[] for _ in stages]  # when each block left each stage, in order
    spent = [0.0] * len(stages)
    for block in range(counted):
        ready = 0.0
        for number, stage in enumerate(stages):
            server = heapq.heappop(free[number])
            takes = stage.ms * images / blocks / 1000
            began = max(ready, server)
            done = began + takes
            room = block - (WAITING * stages[number + 1].servers) if number + 1 < len(stages) else -1
            if room >= 0:  # it cannot leave before there is room to wait
                done = max(done, left[number + 1][room] - stages[number + 1].ms * images / blocks / 1000)
            heapq.heappush(free[number], done)
            left[number].append(done)
            spent[number] += takes
            ready = done
    seconds = left[-1][-1]
    busy = {stage.name: round(spent[i] / stage.servers / seconds, 3) for i, stage in enumerate(stages)}
    return Found(seconds * blocks / counted, busy)


COUNTS = (2048, 8192)
"""Images of the runs that predictions are made from."""


def fit(rounds: int = 3) -> dict[str, dict[str, float]]:
    """Of `embed` and `distill` as many_images.py runs them: processor seconds however few images there are, and milliseconds an
    image, from runs of two sizes in turn: the medians of ``rounds``."""
    spent: dict[str, dict[int, list[float]]] = {command: {count: [] for count in COUNTS} for command in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            for count in COUNTS:
                root = Path(folder) / f"{number}-{count}"
                measured(count, root, 0)
                for command in COMMANDS:
                    spent[command][count].append(json.loads((root / str(count) / f"{command}.json").read_text())["processor"])
    found = {}
    for command, of_count in spent.items():
        few, many = (float(np.median(of_count[count])) for count in COUNTS)
        slope = (many - few) / (COUNTS[1] - COUNTS[0])
        found[command] = {"fixed, s": round(few - slope * COUNTS[0], 3), "ms an image": round(1000 * slope, 4)}
    return found


def predicted(costs: dict[str, dict[str, float]], command: str, count: float) -> float:
    """Processor seconds of one command."""
    return costs[command]["fixed, s"] + costs[command]["ms an image"] * count / 1000


def bytes_an_image(dim: int, side: int, name: int) -> dict[str, float]:
    """On disk: ``dim`` numbers of an embedding, ``side`` px that a student sees, ids of ``name`` characters.

    Rows are float32; an index holds an id, a name of 32 letters and one of 16 bytes; a known file has 41 bytes.
    """
    row, index = 4 * dim, name + 32 + 16
    return {"embeddings": row + name, "cache of embed": row + index + 41,
            "cache of distil": 2 * row + 2 * index + 41 + 3 * side**2}


def check(costs: dict[str, dict[str, float]], rows: Sequence[dict[str, float]]) -> list[dict[str, Any]]:
    """Each prediction beside what was measured, and how far off it is, in per cent of that."""
    found = []
    for row in rows:
        for command in (c for c in COMMANDS if f"{c}, ms an image" in row):
            said, seconds = predicted(costs, command, row["count"]), row[f"{command}, ms an image"] * row["count"] / 1000
            found.append({"count": row["count"], "what": f"{command}, processor seconds", "predicted": round(said, 1),
                          "measured": round(seconds, 1), "error, %": round(100 * (said / seconds - 1), 1)})
        sizes = bytes_an_image(64, SEEN, 14)
        for place, size in ((p, s) for p, s in sizes.items() if f"{p}, bytes an image" in row):
            held = row[f"{place}, bytes an image"]
            found.append({"count": row["count"], "what": f"{place}, bytes an image", "predicted": size, "measured": held,
                          "error, %": round(100 * (size / held - 1), 1)})
    return found


@dataclass(frozen=True)
class Images:
    """Megabytes of an image as it is stored, and milliseconds of a core to decode, hash and resize it."""

    name: str
    megabytes: float
    decode_ms: float


KINDS = (Images("256 px in shards", 0.03, 2.0), Images("photos of 2 to 12 MP", 2.7, 40.0))
TEACHERS = {"ViT-B/16": (2783.6, 768), "ViT-L/14": (658.4, 1024)}
"""CLIP's at 224 px on one RTX 4090: images a second (timm, results/benchmark-infer-amp-nchw-pt240-cu124-rtx4090.csv), dim."""
STUDENT_RATE = 2732.4
"""MobileNetV3-large trained at 224 px on one RTX 3090: images a second (the same, benchmark-train-amp-nhwc-pt112-cu113-...)."""
EPOCHS, CORES, MB_A_SECOND = 5, 16, 1000.0


def plan(counts: Sequence[float]) -> list[dict[str, Any]]:
    """What so many images cost with one GPU, 16 cores and 1 GB a second beside it."""
    found = []
    for count in counts:
        for kind in KINDS:
            for name, (rate, dim) in TEACHERS.items():
                stages = [Stage("reading", 1000 * kind.megabytes / MB_A_SECOND), Stage("decoding", kind.decode_ms, CORES),
                          Stage("teacher", 1000 / rate)]
                one = simulate(count, stages)
                found.append({"images": count, "of": kind.name, "teacher": name, "first full": one.first_full,
                              "hours with one GPU": round(one.seconds / 3600, 2),
                              "GPU hours of the teacher": round(count / rate / 3600, 2),
                              "core hours": round(count * kind.decode_ms / 3.6e6, 1),
                              "GPU hours of a student": round(EPOCHS * count / STUDENT_RATE / 3600, 1),
                              "images, TB": round(count * kind.megabytes / 1e6, 3),
                              "embeddings, TB": round(count * 4 * dim / 1e12, 4),
                              "student's images, TB": round(count * 3 * 224**2 / 1e12, 3)})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["fit", "check", "plan"])
    parser.add_argument("files", type=Path, nargs="*", help="of `check`: what `fit` and many_images.py wrote")
    parser.add_argument("--images", type=float, nargs="+", default=[1e6, 1e8, 1e9])
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    if asked.what == "fit":
        publish("scale_costs", asked.out, {"costs": fit()})
    elif asked.what == "check":
        costs, rows = (json.loads(path.read_text()) for path in asked.files)
        publish("scale_model", asked.out, {"rows": check(costs["costs"], rows["rows"])})
    else:
        publish("scale_plan", asked.out, {"rows": plan(asked.images)})


if __name__ == "__main__":
    main()
