"""What images cost on their way to teacher and student, and how memory grows with their number.

    python benchmarks/data_path.py photos [--count 300]        # JPEG photos of mixed sizes: looking through, an epoch
    python benchmarks/data_path.py memory [--count 1000 10000] # tiny images: embed and distil, time and peak memory

`photos`: cut from scikit-learn's two photographs, enlarged; processor milliseconds an image, one thread, one run.
`memory`: 8 px PNGs in WebDataset shards, a random teacher of two layers, a width-1 student for one epoch, each count in a
process of its own. Peak memory is what belongs to the process alone (RssAnon, sampled 20 times a second): mapped files are
the system's to take back.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import publish


def processor_seconds() -> float:
    return sum(os.times()[:4])


def photos(count: int, folder: Path) -> dict[str, list[float]]:
    """Processor milliseconds an image at each stage, students at 96 px."""
    from PIL import Image
    from sklearn.datasets import load_sample_image

    from distillscope.data import looking
    from distillscope.data.preprocess import Preprocess
    from distillscope.data.source import Source, read_batches
    from distillscope.data.splits import load_split
    from distillscope.training.stored_images import stored

    torch.set_num_threads(1)
    looking.IN_MEMORY_BYTES = 10_000_000  # as of a set that is too large
    rng, whole = np.random.default_rng(0), [Image.fromarray(load_sample_image(n)) for n in ("china.jpg", "flower.jpg")]
    (folder / "train").mkdir()
    for i in range(count):
        x, y = (int(v) for v in rng.integers(0, 100, 2))
        part = whole[i % 2].crop((x, y, x + 480 + i % 37, y + 300 + i % 23))
        part.resize((2 * part.width, 2 * part.height)).save(folder / "train" / f"{i}.jpg", quality=88)

    took: dict[str, list[float]] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        began = processor_seconds()
        found = work()
        took.setdefault(name, []).append(round(1000 * (processor_seconds() - began) / count, 3))
        return found

    def look(**settings: int) -> Source:
        return load_split("image_folder", {"path": folder, **settings}, "train")

    def epoch(source: Source) -> None:
        order = np.random.default_rng(1).permutation(count)
        for _, images in read_batches(source, [order[i : i + 32] for i in range(0, count, 32)]):
            sees(images)

    sees = Preprocess(96)
    source = timed("looked through", look)
    timed("looked through again", look)
    timed("looked through, min_side: 288", lambda: look(min_side=288))
    timed("epoch, decoded anew", lambda: epoch(source))
    kept = timed("kept on disk at 96 px", lambda: stored(source, sees, "photos"))
    held = replace(kept, pixels=np.stack([kept.image(i) for i in range(count)]))
    for _ in range(3):
        timed("epoch, from disk", lambda: epoch(kept))
        timed("epoch, from memory at 96 px", lambda: epoch(held))
    return took


def tiny_images(count: int, folder: Path) -> None:
    """``count`` PNGs of 8 px with random pixels, as WebDataset shards of 10,000."""
    from PIL import Image

    folder.mkdir()
    rng = np.random.default_rng(count)
    for start in range(0, count, 10_000):
        with tarfile.open(folder / f"train-{start // 10_000:04d}.tar", "w") as tar:
            for i in range(start, min(count, start + 10_000)):
                out = io.BytesIO()
                Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(out, "PNG")
                member = tarfile.TarInfo(f"{i:07d}.png")
                member.size = out.tell()
                out.seek(0)
                tar.addfile(member, out)


class Small(torch.nn.Module):
    """(b, 3, 8, 8) -> (b, 64)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Conv2d(3, 32, 4, 4), torch.nn.Linear(128, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(x).relu().flatten(1))


def anonymous_mib() -> float:
    said = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(said["RssAnon"].split()[0]) / 1024


def one_count(count: int, folder: Path) -> dict[str, float]:
    """Seconds and peak memory of one count, in this process, after both commands were run once with 100 images."""
    from distillscope.data import looking
    from distillscope.files import folders

    torch.set_num_threads(1)
    looking.IN_MEMORY_BYTES, folders.IN_MEMORY_BYTES = 2**16, 2**20  # as of sets and arrays that are too large
    torch.manual_seed(0)
    torch.jit.script(Small().eval()).save(str(folder / "teacher.pt"))
    for name, number in (("warm", 100), ("images", count)):
        tiny_images(number, folder / name)
    for work in commands(folder, "warm").values():
        work()
    over, peak = threading.Event(), [0.0]

    def watch() -> None:
        while not over.wait(0.05):
            peak[0] = max(peak[0], anonymous_mib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    took: dict[str, float] = {"count": count, "before, MiB": round(anonymous_mib())}
    for name, work in commands(folder, "images").items():
        began, clock, peak[0] = processor_seconds(), time.perf_counter(), 0.0
        work()
        took[f"{name}, ms an image"] = round(1000 * (processor_seconds() - began) / count, 3)
        took[f"{name}, seconds"] = round(time.perf_counter() - clock, 1)
        took[f"{name}, peak MiB"] = round(peak[0])
    over.set()
    watcher.join()
    return took


def commands(folder: Path, data: str) -> dict[str, Callable[[], Any]]:
    """`embed` and `distill` of the images in ``folder``/``data``."""
    from distillscope.config.recipe import one_student
    from distillscope.study.embedding import embed_dataset
    from distillscope.study.student import distill_one

    file, images = str(folder / "teacher.pt"), str(folder / data)
    study = one_student("s", {"name": "torchscript", "path": file, "size": 8}, images, recipe="paper",
                        overrides=["training.epochs=1", "student.width=1", "student.image_size=8"])
    return {"embed": lambda: embed_dataset(images, "train", teacher=file, out=folder / f"{data}-embedded", device="cpu",
                                           preprocess={"size": 8}),
            "distil": lambda: distill_one(study, folder / f"{data}-student", device="cpu")}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["photos", "memory", "one"])
    parser.add_argument("--count", type=int, nargs="+")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DISTILLSCOPE_CACHE"] = f"{folder}/cache"
        if asked.what == "one":
            print(json.dumps(one_count(asked.count[0], Path(folder))))
        elif asked.what == "photos":
            publish("data_path_photos", asked.out, {"ms an image": photos((asked.count or [300])[0], Path(folder))})
        else:
            rows = [json.loads(subprocess.run([sys.executable, __file__, "one", "--count", str(n)], check=True,
                                              stdout=subprocess.PIPE).stdout.splitlines()[-1])
                    for n in asked.count or [1000, 10_000]]
            publish("data_path_memory", asked.out, {"rows": rows})


if __name__ == "__main__":
    main()
