"""Time and memory of `embed` and of one epoch of `distill` as images become more.

    python benchmarks/many_images.py --root DIR [--count 1000 10000 100000 1000000] [--out DIR]

JPEGs of 32 px in WebDataset shards of 10,000, each of CIFAR-10 (digits without DISTILLSCOPE_DATA) shifted, mirrored and
brightened so that no two are alike; a random teacher of two layers at 32 px, then a student of width 1 at 16 px for one epoch
by the recipe `paper`, in one process unless --workers says more. Each command of each count has a process of its own, in which
it ran once with 100 images before the clock starts. Sets and arrays are treated as too large for memory at every count.
Processor time is that of all processes, memory what they have to themselves (anonymous pages, of shared ones a part: Pss_Anon
of /proc/PID/smaps_rollup, sampled five times a second): mapped files are the system's to take back.

DIR/COUNT keeps everything: started again, the benchmark goes on (`--resume`), and the times of all attempts are added up.
A million images take 6 GiB there.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import publish, some_images

from distillscope.files.writing import write_json

SHARD, SIDE, SEEN = 10_000, 32, 16
COMMANDS = ("embed", "distil")


def write_images(count: int, folder: Path, shard: int = SHARD) -> None:
    """``count`` JPEGs, as WebDataset shards; those that are there stay."""
    from PIL import Image

    source = some_images(min(count, 20_000))
    base = [np.asarray(Image.fromarray(source.image(i)).resize((SIDE, SIDE))) for i in range(len(source))]
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, count, shard):
        path = folder / f"train-{start // shard:04d}.tar"
        if path.is_file():
            continue
        with tarfile.open(path.with_suffix(".part"), "w") as tar:
            for i in range(start, min(count, start + shard)):
                own, round_ = base[i % len(base)], i // len(base)
                moved = np.roll(own[:, ::-1] if round_ & 1 else own, (round_ // 2 % 5, round_ // 10 % 5), (0, 1))
                out = io.BytesIO()
                Image.fromarray((moved * 0.9 + i % 26).astype(np.uint8)).save(out, "JPEG", quality=90)
                member = tarfile.TarInfo(f"{i:08d}.jpg")
                member.size = out.tell()
                out.seek(0)
                tar.addfile(member, out)
        os.replace(path.with_suffix(".part"), path)


class Small(torch.nn.Module):
    """(b, 3, 32, 32) -> (b, 64)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Conv2d(3, 32, 8, 8), torch.nn.Linear(512, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(x).relu().flatten(1))


class Memory:
    """The most that this process, and each of its workers, had to itself, and all of them together, in MiB."""

    def __init__(self) -> None:
        self.main = self.worker = self.together = 0.0

    def look(self) -> None:
        main, own = private_mib(os.getpid()), [private_mib(child) for child in children()]
        self.main, self.worker = max(self.main, main), max([self.worker, *own])
        self.together = max(self.together, main + sum(own))

    @contextmanager
    def watched(self) -> Iterator[None]:
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.2):
                self.look()

        watcher = threading.Thread(target=watch)
        self.look()
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()


def private_mib(process: int) -> float:
    """0 where the process is gone."""
    try:
        said = dict(line.split(":", 1) for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:])
    except (OSError, ValueError):
        return 0.0
    return int(said["Pss_Anon"].split()[0]) / 1024


def children() -> list[int]:
    """Of this process, the children that any of its threads started."""
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        try:
            found += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return found


def processor_seconds() -> float:
    return sum(os.times()[:4])


def work(command: str, folder: Path, images: str, workers: int) -> Callable[[], Any]:
    """`embed` or `distill` of the images in ``folder``/``images``; begun before, it goes on."""
    from distillscope.config.recipe import one_student
    from distillscope.study.embedding import embed_dataset
    from distillscope.study.student import distill_one

    teacher, data, out = str(folder / "teacher.pt"), str(folder / images), folder / f"{images}-{command}"
    if command == "embed":
        return lambda: embed_dataset(data, "train", teacher=teacher, out=out, device="cpu", preprocess={"size": SIDE},
                                     workers=workers, resume=True)
    study = one_student("s", {"name": "torchscript", "path": teacher, "size": SIDE}, data, recipe="paper",
                        overrides=["training.epochs=1", "student.width=1", f"student.image_size={SEEN}"])
    return lambda: distill_one(study, out, device="cpu", workers=workers, resume=out.exists())


def one(command: str, count: int, folder: Path, workers: int) -> None:
    """One command of one count, in this process; what it took goes to ``folder``/COMMAND.json as it ends, or is ended."""
    from distillscope.data import looking
    from distillscope.files import folders

    torch.set_num_threads(1)
    looking.IN_MEMORY_BYTES, folders.IN_MEMORY_BYTES = 2**16, 2**20  # as of sets and arrays that are too large
    shutil.rmtree(folder / "warm", ignore_errors=True)
    shutil.rmtree(folder / f"warm-{command}", ignore_errors=True)
    write_images(100, folder / "warm")
    work(command, folder, "warm", workers)()
    record = folder / f"{command}.json"
    before = json.loads(record.read_text()) if record.is_file() else {"processor": 0.0, "wall": 0.0, "attempts": 0, "main": 0,
                                                                      "worker": 0, "together": 0}
    memory, began, clock, base = Memory(), processor_seconds(), time.perf_counter(), private_mib(os.getpid())
    done = False
    try:
        with memory.watched():
            work(command, folder, "images", workers)()
        done = True
    finally:
        peaks = {k: round(max(before[k], getattr(memory, k))) for k in ("main", "worker", "together")}
        write_json(record, {"count": count, "before": round(base), **peaks, "attempts": before["attempts"] + 1, "done": done,
                            "processor": round(before["processor"] + processor_seconds() - began, 2),
                            "wall": round(before["wall"] + time.perf_counter() - clock, 1)})


def measured(count: int, root: Path, workers: int = 0) -> dict[str, float]:
    """Both commands of one count, each in a process of its own; finished ones are not run again."""
    folder = root / str(count)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "teacher.pt").is_file():
        torch.manual_seed(0)
        torch.jit.script(Small().eval()).save(str(folder / "teacher.pt"))
    write_images(count, folder / "images")
    row: dict[str, float] = {"count": count, "bytes an image": round(
        sum(p.stat().st_size for p in (folder / "images").iterdir()) / count)}
    for command in COMMANDS:
        record = folder / f"{command}.json"
        if not record.is_file() or not json.loads(record.read_text())["done"]:
            environment = {**os.environ, "DISTILLSCOPE_CACHE": str(folder / f"cache-{command}")}
            call = [sys.executable, __file__, "--one", command, "--count", str(count), "--root", str(folder)]
            subprocess.run([*call, "--workers", str(workers)], env=environment, check=True)
        found = json.loads(record.read_text())
        row |= {f"{command}, ms an image": round(1000 * found["processor"] / count, 3), f"{command}, seconds": found["wall"],
                **{f"{command}, {name} MiB": found[name] for name in ("before", "main", "worker", "together")}}
        print(json.dumps(row), file=sys.stderr, flush=True)
    return row | {f"{name}, bytes an image": round(bytes_in(folder / place) / count) for name, place in PLACES.items()}


PLACES = {"embeddings": "images-embed", "cache of embed": "cache-embed", "cache of distil": "cache-distil"}


def bytes_in(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--count", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", choices=COMMANDS, help="(a process of its own)")
    asked = parser.parse_args()
    if asked.one:
        one(asked.one, asked.count[0], asked.root, asked.workers)
        return
    publish("many_images", asked.out, {"rows": [measured(count, asked.root, asked.workers) for count in asked.count]})


if __name__ == "__main__":
    main()
