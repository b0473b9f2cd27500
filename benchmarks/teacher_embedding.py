"""Teacher embedding on the CPU against a plain timm loop: float32, NCHW, batch 128, glibc's allocator as it comes.

    python benchmarks/teacher_embedding.py [--out DIR]

Each side runs in a process of its own, in turn, since our allocator setting holds for a whole process. Also measured:
the cosine of our embeddings to the plain loop's, and the C 1 probe on each.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from timing import publish, some_images, spread


def plain(source, count: int) -> tuple[np.ndarray, float]:
    """What one would write first."""
    from distillscope.registry import teachers

    encoder = teachers.call("efficientnet_lite0", {})
    module, rows, seconds = encoder.module.eval(), [], 0.0
    with torch.inference_mode():
        module(encoder.preprocess(source.read(range(128))).contiguous())
        for i in range(0, count, 128):
            began = time.perf_counter()
            rows.append(module(encoder.preprocess(source.read(range(i, min(i + 128, count)))).contiguous()).numpy())
            seconds += time.perf_counter() - began
    return np.concatenate(rows), count / seconds


def ours(source, count: int, precision: str) -> tuple[np.ndarray, float]:
    """Through `Encoder.encode`, as the cache calls it."""
    from distillscope.devices import kept_memory
    from distillscope.registry import teachers

    encoder = teachers.call("efficientnet_lite0", {}).to(torch.device("cpu"), precision)
    size = encoder.batch_size
    encoder.encode(source.read(range(size)), source.ids[:size])
    began = time.perf_counter()
    with kept_memory():  # as the cache does around its loop
        rows = [encoder.encode(source.read(range(i, min(i + size, count))), source.ids[i : i + size])
                for i in range(0, count, size)]
    return np.concatenate(rows), count / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--images", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=["plain", "float32", "bfloat16"], help="(a process of its own)")
    parser.add_argument("--rows", type=Path)
    args = parser.parse_args()
    source = some_images(args.images)
    count = len(source) // 128 * 128
    if args.side:
        rows, speed = plain(source, count) if args.side == "plain" else ours(source, count, args.side)
        np.save(args.rows, rows)
        print(speed)
        return
    speeds: dict[str, list[float]] = {"plain": [], "float32": [], "bfloat16": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(args.rounds):
            for side, values in speeds.items():
                command = [sys.executable, __file__, "--side", side, "--images", str(args.images),
                           "--rows", f"{folder}/{side}.npy"]
                values.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]))
        rows = {side: np.load(f"{folder}/{side}.npy") for side in speeds}
    record: dict = {"images": count, "images_per_second": {k: spread(v) for k, v in speeds.items()}}
    unit = {k: v / np.linalg.norm(v, axis=1, keepdims=True) for k, v in rows.items()}
    for side in ("float32", "bfloat16"):
        record[side] = {
            "ratio_to_plain": spread([a / b for a, b in zip(speeds[side], speeds["plain"], strict=True)]),
            "cosine_min": float((unit[side] * unit["plain"]).sum(1).min()),
            "cosine_mean": float((unit[side] * unit["plain"]).sum(1).mean()),
        }
    if source.labels is not None:
        from distillscope.measure.probe import linear_probe

        half, labels = count // 2, source.labels[:count]
        record["probe_accuracy_second_half"] = {
            k: float((linear_probe(v[:half], labels[:half]).predict(v[half:]) == labels[half:]).mean())
            for k, v in rows.items()}
    publish("teacher_embedding", args.out, record)


if __name__ == "__main__":
    main()
