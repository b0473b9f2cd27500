"""What images cost on their way to teacher and student, and how memory grows with their number.

    python benchmarks/data_path.py photos [--count 300]        # JPEG photos of mixed sizes: looking through, an epoch
    python benchmarks/data_path.py memory [--count 1000 10000] # tiny images: embed and distil, time and peak memory

`photos`: cut from scikit-learn's two photographs, enlarged; processor milliseconds an image, one thread, one run.
`memory`: 8 px PNGs in parquet, a random test_resnet, a width-1 student for one epoch, each count in a process of its own. Peak
memory is what belongs to the process alone (RssAnon, sampled 20 times a second): mapped files are the system's to take back.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from timing import publish


def processor_seconds() -> float:
    return sum(os.times()[:4])


def photos(count: int, folder: Path) -> dict[str, list[float]]:
    """Processor milliseconds an image at each stage, students at 96 px."""
    import torch
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
    """``count`` PNGs of 8 px with random pixels, as a parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    rng, encoded = np.random.default_rng(0), []
    for _ in range(count):
        out = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(out, "PNG")
        encoded.append({"bytes": out.getvalue(), "path": None})
    pq.write_table(pa.table({"image": encoded}), folder / "train.parquet")


def anonymous_mib() -> float:
    said = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(said["RssAnon"].split()[0]) / 1024


def one_count(count: int, folder: Path) -> dict[str, float]:
    """Seconds and peak memory of one count, in this process."""
    import timm
    import torch
    from safetensors.torch import save_file

    from distillscope.config.recipe import one_student
    from distillscope.data import looking
    from distillscope.files import room
    from distillscope.study.embedding import embed_dataset
    from distillscope.study.student import distill_one

    torch.set_num_threads(1)
    looking.IN_MEMORY_BYTES, room.IN_MEMORY_BYTES = 2**16, 2**20  # as of sets and arrays that are too large
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet", pretrained=False).state_dict(), folder / "teacher.safetensors")
    teacher = f"timm/test_resnet:{folder / 'teacher.safetensors'}"
    tiny_images(count, folder)
    over, peak, before = threading.Event(), [0.0], anonymous_mib()

    def watch() -> None:
        while not over.wait(0.05):
            peak[0] = max(peak[0], anonymous_mib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    took = {}
    for name, work in (
            ("embed", lambda: embed_dataset(str(folder), "train", teacher=teacher, out=folder / "out", device="cpu")),
            ("distil", lambda: distill_one(one_student("s", teacher, str(folder), recipe="paper", overrides=[
                "training.epochs=1", "student.width=1", "student.image_size=8"]), folder / "student", device="cpu"))):
        began = processor_seconds()
        work()
        took[f"{name}, ms an image"] = round(1000 * (processor_seconds() - began) / count, 3)
    over.set()
    watcher.join()
    return {"count": count, **took, "before, MiB": round(before), "peak, MiB": round(peak[0])}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["photos", "memory", "one"])
    parser.add_argument("--count", type=int, nargs="+")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DISTILLSCOPE_CACHE"] = f"{folder}/cache"
        (Path(folder) / "images").mkdir()
        if asked.what == "one":
            print(json.dumps(one_count(asked.count[0], Path(folder) / "images")))
        elif asked.what == "photos":
            publish("data_path_photos", asked.out, {"ms an image": photos((asked.count or [300])[0], Path(folder) / "images")})
        else:
            rows = [json.loads(subprocess.run([sys.executable, __file__, "one", "--count", str(n)], check=True,
                                              stdout=subprocess.PIPE).stdout.splitlines()[-1])
                    for n in asked.count or [1000, 10_000]]
            publish("data_path_memory", asked.out, {"rows": rows})


if __name__ == "__main__":
    main()
