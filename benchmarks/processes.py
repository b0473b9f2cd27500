"""Embedding by two processes of one thread each, as a launcher starts them, against one such process.

    python benchmarks/processes.py [--out DIR]

Each side fills a cache of its own, in turn; loading is left out. Processor seconds an image say what the second process costs
beside the wall clock, which what else runs on the machine lengthens (its load is published with the ratio).
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from timing import publish, some_images, spread


def embed(count: int, root: Path) -> tuple[float, float]:
    """Wall and processor seconds of this process, one of a group or alone, for all images."""
    import torch

    from distillscope import group
    from distillscope.registry import teachers
    from distillscope.teachers import cache

    group.join("cpu")
    source = some_images(count)
    encoder = teachers.call("efficientnet_lite0", {}).to(torch.device("cpu"))
    encoder.encode(source.read(range(encoder.batch_size)))
    group.wait()
    began, used = time.perf_counter(), time.process_time()
    cache.embed(encoder, source, root=root)
    group.wait()
    return time.perf_counter() - began, sum(group.every(time.process_time() - used))


def side(world: int, count: int) -> tuple[float, float]:
    """The same of ``world`` processes."""
    with socket.socket() as probe, tempfile.TemporaryDirectory() as root:
        probe.bind(("127.0.0.1", 0))
        shared = {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
                  "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
        probe.close()
        command = [sys.executable, __file__, "--images", str(count), "--root", root]
        ranks = [{"RANK": str(r), "LOCAL_RANK": str(r), "WORLD_SIZE": str(world)} if world > 1 else {} for r in range(world)]
        started = [subprocess.Popen(command, env={**shared, **rank}, stdout=subprocess.PIPE, text=True) for rank in ranks]
        said = [p.communicate()[0] for p in started]
    if any(p.returncode for p in started):
        raise SystemExit("a process failed")
    wall, used = json.loads(said[0].splitlines()[-1])
    return wall, used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--root", type=Path, help="(one of the processes)")
    args = parser.parse_args()
    if args.root:
        print(json.dumps(embed(args.images, args.root)))
        return
    walls: dict[int, list[float]] = {1: [], 2: []}
    used: dict[int, list[float]] = {1: [], 2: []}
    loads = [os.getloadavg()[0]]
    for _ in range(args.rounds):
        for world in walls:
            wall, processor = side(world, args.images)
            walls[world].append(wall)
            used[world].append(processor)
            loads.append(os.getloadavg()[0])
    publish("processes", args.out, {
        "images": args.images, "images_per_second": {w: spread([args.images / s for s in walls[w]]) for w in walls},
        "ratio": spread([a / b for a, b in zip(walls[1], walls[2], strict=True)]),
        "processor_ms_an_image": {w: spread([1000 * s / args.images for s in used[w]]) for w in used},
        "load_average": spread(loads)})


if __name__ == "__main__":
    main()
